//! Clients that go to the registries themselves: through `CONNECT`, or led here by a name.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hub::{Hub, Image, ImageSpec};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Connection, get, raw};
use crate::pull::{blob_path, manifest_path};
use crate::repeats::answer;
use crate::roadstead::{BINARY, Roadstead, Setup, eventually, free_address};
use crate::secure::{self, Pair, Said, Signer, Speaker};

const SOON: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// Two registries behind one server with two transparent listeners.
struct Stage {
    hubs: [Hub; 2],
    images: [Image; 2],
    roadstead: Roadstead,
    connect: SocketAddr,
    sni: SocketAddr,
    folder: TempDir,
}

fn client_ca(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["client", "ca", "--directory"]).arg(directory).args(arguments);
    command.output().unwrap()
}

fn ca_files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("roadstead-ca.crt"), folder.join("roadstead-ca.key"))
}

async fn stage(keys: Value, change: impl FnOnce(Setup) -> Setup) -> Stage {
    let hubs = [Hub::start().await, Hub::start().await];
    let first = hubs[0].push(&ImageSpec::new("library/alpine").tag("latest"));
    let second = hubs[1].push(&ImageSpec::new("org/app").tag("latest"));
    let folder = tempfile::tempdir().unwrap();
    let made = client_ca(folder.path(), &["--host", "ghcr.io"]);
    assert!(made.status.success(), "{made:?}");
    let (certificate, key) = ca_files(folder.path());
    let (connect, sni) = (free_address(), free_address());
    let listener = |address: SocketAddr, mode: &str| {
        let mut transparent =
            json!({ "mode": mode, "ca": { "certificate": certificate, "key": key } });
        for (key, value) in keys.as_object().unwrap() {
            transparent[key] = value.clone();
        }
        json!({ "address": address.to_string(), "transparent": transparent })
    };
    let setup = Setup::of(&hubs[0]).also("ghcr.io", &hubs[1], json!({}));
    let listen = json!([listener(connect, "connect"), listener(sni, "sni")]);
    let roadstead = change(setup.key("listen", listen)).start().await;
    Stage { hubs, images: [first, second], roadstead, connect, sni, folder }
}

async fn plain_stage() -> Stage {
    stage(json!({}), |setup| setup).await
}

// === impl Stage ===

impl Stage {
    /// A client that trusts the authority as it is now.
    fn speaker(&self) -> Speaker {
        Speaker::trusting(&[&fs::read_to_string(ca_files(self.folder.path()).0).unwrap()])
    }

    async fn by_sni(&self, host: &str, path: &str) -> Said {
        self.speaker().get(self.sni, host, path).await.unwrap()
    }

    async fn by_connect(&self, host: &str, path: &str) -> Said {
        let mut stream =
            self.speaker().over(connected(self.connect, host, 443).await, host).await.unwrap();
        secure::get(&mut stream, host, path).await.unwrap()
    }
}

/// What the proxy answers to a `CONNECT` that it refuses.
async fn refused(at: SocketAddr, target: &str) -> Said {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: test\r\n\r\n");
    secure::say(&mut stream, head.as_bytes()).await.unwrap()
}

/// A tunnel, as a client asks its proxy for one.
async fn connected(at: SocketAddr, host: &str, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream
}

// === Serving ===

#[tokio::test]
async fn one_proxy_serves_two_registries_by_connect_and_by_sni() {
    let stage = plain_stage().await;
    let [first, second] = &stage.images;
    for (host, name, image) in [
        ("registry-1.docker.io", "library/alpine", first),
        ("index.docker.io", "library/alpine", first),
        ("docker.io", "library/alpine", first),
        ("ghcr.io", "org/app", second),
    ] {
        for path in [manifest_path(name, "latest"), blob_path(name, &image.layers[0].digest)] {
            let said = stage.by_connect(host, &path).await;
            assert_eq!(said.status, 200, "{host}{path}: {}", said.head);
            let other = stage.by_sni(host, &path).await;
            assert_eq!((other.status, &other.body), (200, &said.body), "{host}{path}");
        }
        let ping = stage.by_sni(host, "/v2/").await;
        assert_eq!(ping.status, 200);
        assert!(!ping.head.to_lowercase().contains("www-authenticate"), "{}", ping.head);
    }
    // Each registry was asked for its own, once.
    for (hub, image) in stage.hubs.iter().zip(&stage.images) {
        assert_eq!(hub.blob_gets(&image.layers[0].digest), 1);
    }
    let other = stage.by_connect("ghcr.io", &manifest_path("library/alpine", "latest")).await;
    // As the registry of that name says it: there is none.
    assert_eq!(other.status, 401);
    let metrics = get(stage.roadstead.admin(), "/metrics").send().await.text();
    for mode in ["connect", "sni"] {
        let count = format!(
            "roadstead_transparent_connections_total{{mode=\"{mode}\",outcome=\"served\"}}"
        );
        assert!(metrics.contains(&count), "{metrics}");
    }
}

#[tokio::test]
async fn http_2_is_spoken_inside() {
    let stage = plain_stage().await;
    let speaker = stage.speaker().protocol(b"h2");
    let host = "ghcr.io";
    let stream = speaker.over(connected(stage.connect, host, 443).await, host).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (asked, status) in [(host, 200), ("docker.io", 421)] {
        let uri = format!("https://{asked}{}", manifest_path("org/app", "latest"));
        let request = http::Request::get(uri).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{asked}");
    }
}

#[tokio::test]
async fn a_connection_is_for_the_registry_that_it_was_made_for() {
    let stage = plain_stage().await;
    let mut stream = stage.speaker().dial(stage.sni, "ghcr.io").await.unwrap();
    let path = manifest_path("library/alpine", "latest");
    let said = secure::get(&mut stream, "registry-1.docker.io", &path).await.unwrap();
    assert_eq!(said.status, 421);
    assert!(String::from_utf8_lossy(&said.body).contains("this connection is for ghcr.io"));
    assert_eq!(stage.hubs[0].stats().requests() + stage.hubs[1].stats().requests(), 0);
}

#[tokio::test]
async fn a_certificate_is_for_one_host_and_a_few_days() {
    let stage = plain_stage().await;
    let speaker = stage.speaker();
    let stream = speaker.dial(stage.sni, "ghcr.io").await.unwrap();
    let shown = secure::shown(&stream);
    let (_, certificate) = x509_parser::parse_x509_certificate(&shown).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(format!("{:?}", names.value.general_names), "[DNSName(\"ghcr.io\")]");
    let validity = certificate.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
    assert!((1..=7).contains(&days), "{days}");
    // The next client is shown the same one.
    assert_eq!(secure::shown(&speaker.dial(stage.sni, "ghcr.io").await.unwrap()), shown);
}

/// What is known of a head on one listener is not what it means on another.
#[tokio::test]
async fn a_known_head_goes_where_its_connection_goes() {
    let stage = stage(json!({}), |setup| setup.with("tags.fresh_for", "1h")).await;
    let path = manifest_path("library/alpine", "latest");
    let head = format!("GET {path} HTTP/1.1\r\nHost: mirror.test\r\nAccept: */*\r\n\r\n");
    let repeated = async || stage.roadstead.metric(&["roadstead_repeated_answers_total"]).await;
    let mut plain = TcpStream::connect(stage.roadstead.at()).await.unwrap();
    for _ in 0..3 {
        plain.write_all(head.as_bytes()).await.unwrap();
        assert!(answer(&mut plain).await.0.starts_with("http/1.1 200 ok"));
    }
    let before = repeated().await;
    assert!(before > 0.0);
    let mut stream = stage.speaker().dial(stage.sni, "ghcr.io").await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (said, _) = answer(&mut stream).await;
    assert!(said.starts_with("http/1.1 4"), "{said}");
    // Nor is anything remembered there.
    let mut stream = stage.speaker().dial(stage.sni, "ghcr.io").await.unwrap();
    let head = head.replace("library/alpine", "org/app").replace("mirror.test", "ghcr.io");
    for _ in 0..3 {
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.0.starts_with("http/1.1 200 ok"));
    }
    assert_eq!(repeated().await, before);
}

// === Others ===

#[tokio::test]
async fn what_is_no_upstream_s_is_refused_and_never_decrypted() {
    let stage = plain_stage().await;
    for target in
        ["example.com:443", "auth.docker.io:443", "ghcr.io:22", "127.0.0.1:443", "[::1]:443"]
    {
        let said = refused(stage.connect, target).await;
        assert_eq!(said.status, 403, "{target}");
        let why = String::from_utf8_lossy(&said.body).into_owned();
        assert!(why.contains("is no registry that is cached here"), "{why}");
    }
    let error = stage.speaker().dial(stage.sni, "example.com").await.unwrap_err().to_string();
    assert!(error.contains("UnrecognizedName") || error.contains("UnrecognisedName"), "{error}");
    let error = stage.speaker().nameless().dial(stage.sni, "ghcr.io").await.unwrap_err();
    assert!(error.to_string().contains("Unrecogni"), "{error}");
    for text in ["example.com:443 is no registry that is", "its ClientHello names no host (SNI)"] {
        let says = || stage.roadstead.log().contains(text);
        eventually(&format!("the log says `{text}`"), SOON, says).await;
    }
}

/// A server of somebody else's, which answers with what it was sent.
async fn stranger(name: &str) -> (SocketAddr, Pair, Signer) {
    let signer = Signer::new("somebody else");
    let pair = signer.issue(name);
    let (acceptor, listener) = (pair.acceptor(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(tcp).await.unwrap();
                let mut bytes = vec![0; 64 << 10];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    stream.write_all(&bytes[..read]).await.unwrap();
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    (at, pair, signer)
}

#[tokio::test]
async fn a_tunnel_passes_bytes_on_and_shows_the_far_end_s_own_certificate() {
    let (far, pair, signer) = stranger("localhost").await;
    let listed = json!({ "tunnel_hosts": [format!("localhost:{}", far.port())] });
    let stage = stage(listed, |setup| setup).await;
    let speaker = Speaker::trusting(&[&signer.pem()]);
    let tunnel = connected(stage.connect, "localhost", far.port()).await;
    for stream in [tunnel, TcpStream::connect(stage.sni).await.unwrap()] {
        let mut stream = speaker.over(stream, "localhost").await.unwrap();
        assert_eq!(secure::shown(&stream), pair.leaf());
        let sent: Vec<u8> = (0..3_u32 << 20).map(|n| (n * 31 + n / 251) as u8).collect();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.flush().await.unwrap();
        };
        let mut received = vec![0; sent.len()];
        let read = async { reader.read_exact(&mut received).await.unwrap() };
        tokio::join!(write, read);
        assert!(received == sent);
        let _ = stream.shutdown().await;
    }
    let logged = || stage.roadstead.log().matches("method=\"TUNNEL\" host=\"localhost\"").count();
    eventually("both are logged", PATIENCE, || logged() == 2).await;
    // What is an upstream's is served as before.
    assert_eq!(stage.by_connect("ghcr.io", "/v2/").await.status, 200);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_tunnel_that_idles() {
    let (far, _, signer) = stranger("localhost").await;
    let listed = json!({ "tunnel_hosts": [format!("localhost:{}", far.port())] });
    let mut stage = stage(listed, |setup| setup.key("shutdown.drain", "15s")).await;
    let tunnel = connected(stage.connect, "localhost", far.port()).await;
    let mut stream = Speaker::trusting(&[&signer.pem()]).over(tunnel, "localhost").await.unwrap();
    stream.write_all(b"before").await.unwrap();
    let mut echo = [0; 6];
    stream.read_exact(&mut echo).await.unwrap();
    let begun = Instant::now();
    assert!(stage.roadstead.terminate().await.success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn clients_with_credentials_of_their_own_reach_the_token_service() {
    let mode = |setup: Setup| setup.with("credentials", json!({ "mode": "client" }));
    let stage = stage(json!({}), mode).await;
    let realm = stage.hubs[0].token_realm();
    let service: SocketAddr = realm["http://".len()..].split('/').next().unwrap().parse().unwrap();
    let path = "/token?service=registry.docker.io&scope=repository:library/alpine:pull";
    let mut tunnel = connected(stage.connect, "127.0.0.1", service.port()).await;
    let said = secure::get(&mut tunnel, &service.to_string(), path).await.unwrap();
    assert_eq!(said.status, 200, "{}", said.head);
    assert!(String::from_utf8_lossy(&said.body).contains("token"));
    // The other registry's are ours to use, so its clients need no tokens.
    let realm = stage.hubs[1].token_realm();
    let target = realm["http://".len()..].split('/').next().unwrap();
    assert_eq!(refused(stage.connect, target).await.status, 403);
}

#[tokio::test]
async fn tunnels_do_not_lead_into_the_own_network() {
    let stage = stage(json!({ "others": "tunnel" }), |setup| setup).await;
    for (target, why) in [
        ("localhost:443", "has no public address; list it under tunnel_hosts"),
        ("10.0.0.1:443", "is no registry that is cached here"),
        ("example.com:22", "is no registry that is cached here"),
        ("example.com:80", "is no registry that is cached here"),
    ] {
        let said = refused(stage.connect, target).await;
        assert_eq!(said.status, 403, "{target}");
        assert!(String::from_utf8_lossy(&said.body).contains(why), "{target}: {said:?}");
    }
    assert!(stage.speaker().dial(stage.sni, "localhost").await.is_err());
}

#[tokio::test]
async fn a_listed_host_that_is_ourselves_is_refused() {
    let own = free_address();
    let keys = json!({ "tunnel_hosts": [format!("localhost:{}", own.port())] });
    let stage = stage(keys, |setup| {
        let mut listen = setup.value("listen");
        listen.as_array_mut().unwrap().push(json!({ "address": own.to_string() }));
        setup.key("listen", listen)
    })
    .await;
    let said = refused(stage.connect, &format!("localhost:{}", own.port())).await;
    assert_eq!(said.status, 403);
    assert!(String::from_utf8_lossy(&said.body).contains("leads back to this proxy"), "{said:?}");
}

/// A router in front of `to`, whose own address nobody would take for that.
async fn port_forward(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::AcqRel);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (at, came)
}

#[tokio::test]
async fn a_way_back_through_a_port_forward_is_gone_once() {
    let sni = free_address();
    let (outer, came) = port_forward(sni).await;
    let keys = json!({ "tunnel_hosts": [format!("localhost:{}", outer.port())] });
    let stage = stage(keys, |setup| {
        let mut listen = setup.value("listen");
        listen[1]["address"] = json!(sni.to_string());
        setup.key("listen", listen).key("downstream.max_connections", 50)
    })
    .await;
    let error = stage.speaker().dial(sni, "localhost").await.unwrap_err().to_string();
    assert!(error.contains("Unrecogni"), "{error}");
    assert_eq!(came.load(Ordering::Acquire), 1);
    let says = || stage.roadstead.log().contains("localhost leads back to this proxy");
    eventually("the log says so", SOON, says).await;
    assert!(stage.speaker().get(sni, "ghcr.io", "/v2/").await.is_ok());
}

#[tokio::test]
async fn tunnels_leave_room_for_clients_that_pull() {
    let (far, _, _) = stranger("localhost").await;
    let target = format!("localhost:{}", far.port());
    let listed = json!({ "tunnel_hosts": [target] });
    let stage = stage(listed, |setup| setup.key("downstream.max_connections", 4)).await;
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        tunnels.push(connected(stage.connect, "localhost", far.port()).await);
    }
    let said = refused(stage.connect, &target).await;
    assert_eq!(said.status, 503);
    assert!(String::from_utf8_lossy(&said.body).contains("too many tunnels are open"), "{said:?}");
    assert_eq!(stage.by_connect("ghcr.io", "/v2/").await.status, 200);
    tunnels.pop();
    let deadline = Instant::now() + PATIENCE;
    while connect_status(stage.connect, &target).await != 200 {
        assert!(Instant::now() < deadline, "a tunnel's place is not free again");
    }
}

/// The status of the answer to a `CONNECT`.
async fn connect_status(at: SocketAddr, target: &str) -> u16 {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8_lossy(&line)["HTTP/1.1 ".len()..].parse().unwrap()
}

#[tokio::test]
async fn a_far_end_that_is_not_there_is_a_bad_gateway() {
    let nobody = free_address().port();
    let keys = json!({ "tunnel_hosts": [format!("localhost:{nobody}"), "nowhere.invalid"] });
    let stage = stage(keys, |setup| setup).await;
    for target in [format!("localhost:{nobody}"), "nowhere.invalid:443".to_owned()] {
        let said = refused(stage.connect, &target).await;
        assert_eq!(said.status, 502, "{target}");
        assert!(String::from_utf8_lossy(&said.body).contains("can't be reached"), "{said:?}");
    }
}

#[tokio::test]
async fn who_may_not_pull_gets_no_connection() {
    let stage =
        stage(json!({}), |setup| setup.key("access", json!({ "allow": ["192.0.2.0/24"] }))).await;
    let said = refused(stage.connect, "ghcr.io:443").await;
    assert_eq!(said.status, 403);
    assert!(String::from_utf8_lossy(&said.body).contains("access.allow"), "{said:?}");
    assert!(stage.speaker().dial(stage.sni, "ghcr.io").await.is_err());
}

// === Absurd and slow ===

#[tokio::test]
async fn absurd_heads_get_a_sentence() {
    let stage = plain_stage().await;
    let long = format!("CONNECT ghcr.io:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9_000));
    let many = format!("CONNECT ghcr.io:443 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (head, status) in [
        ("GET http://ghcr.io/v2/ HTTP/1.1\r\nHost: ghcr.io\r\n\r\n", 405),
        ("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("CONNECT / HTTP/1.1\r\n\r\n", 400),
        ("CONNECT ghcr.io HTTP/1.1\r\n\r\n", 400),
        ("CONNECT ghcr.io:99999 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT me@ghcr.io:443 HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01", 400),
        ("hello\r\n\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let answer = raw(stage.connect, head.as_bytes(), SOON).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
    }
    assert_eq!(stage.by_connect("ghcr.io", "/v2/").await.status, 200);
}

#[tokio::test]
async fn what_comes_slowly_is_cut_in_time() {
    let stage = stage(json!({}), |setup| setup.key("downstream.head", "1s")).await;
    let dribble = async |at: SocketAddr, bytes: &[u8]| {
        let begun = Instant::now();
        let mut connection = Connection::open(at).await.unwrap();
        for byte in bytes {
            if connection.write(&[*byte]).await.is_err()
                || connection.is_closed(Duration::from_millis(100)).await
            {
                break;
            }
        }
        assert!((900..4_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    };
    dribble(
        stage.connect,
        "CONNECT ghcr.io:443 HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaa".as_bytes(),
    )
    .await;
    dribble(stage.sni, &[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 60]].concat()).await;
    // A tunnel in which nobody shakes hands.
    let mut tunnel = connected(stage.connect, "ghcr.io", 443).await;
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, tunnel.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(stage.by_sni("ghcr.io", "/v2/").await.status, 200);
}

#[tokio::test]
async fn a_hello_in_pieces_is_put_together_again() {
    let stage = plain_stage().await;
    // One byte at a time each way between the client and the server.
    let (near, far) = tokio::io::duplex(1);
    let tcp = TcpStream::connect(stage.sni).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tokio::spawn(async move {
        let (mut far, mut tcp) = (far, tcp);
        let _ = tokio::io::copy_bidirectional(&mut far, &mut tcp).await;
    });
    let mut stream = stage.speaker().over(near, "ghcr.io").await.unwrap();
    assert_eq!(secure::get(&mut stream, "ghcr.io", "/v2/").await.unwrap().status, 200);
    let garbage = raw(stage.sni, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", SOON).await;
    assert!(garbage.len() <= 7, "{garbage:?}");
}

// === The authority ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_authority_is_used_within_seconds_and_no_request_fails() {
    let stage = plain_stage().await;
    let other = tempfile::tempdir().unwrap();
    assert!(client_ca(other.path(), &["--host", "ghcr.io"]).status.success());
    let pem = |folder: &Path| fs::read_to_string(ca_files(folder).0).unwrap();
    let speaker = Speaker::trusting(&[&pem(stage.folder.path()), &pem(other.path())]);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for (by_sni, host) in [(true, "ghcr.io"), (false, "registry-1.docker.io")] {
        let (speaker, stop, asked) = (speaker.clone(), Arc::clone(&stop), Arc::clone(&asked));
        let (sni, connect) = (stage.sni, stage.connect);
        clients.spawn(async move {
            while !stop.load(Ordering::Acquire) {
                let said = match by_sni {
                    true => speaker.get(sni, host, "/v2/").await.unwrap(),
                    false => {
                        let tunnel = connected(connect, host, 443).await;
                        let mut stream = speaker.over(tunnel, host).await.unwrap();
                        secure::get(&mut stream, host, "/v2/").await.unwrap()
                    }
                };
                assert_eq!(said.status, 200);
                asked.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    let only_new = Speaker::trusting(&[&pem(other.path())]);
    assert!(only_new.dial(stage.sni, "ghcr.io").await.is_err());
    let ((certificate, key), (new_certificate, new_key)) =
        (ca_files(stage.folder.path()), ca_files(other.path()));
    fs::rename(new_certificate, certificate).unwrap();
    fs::rename(new_key, key).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while only_new.dial(stage.sni, "ghcr.io").await.is_err() {
        assert!(Instant::now() < deadline, "the other authority is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = asked.load(Ordering::Acquire);
    eventually("more is asked", PATIENCE, || asked.load(Ordering::Acquire) > before + 10).await;
    stop.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

#[tokio::test]
async fn an_authority_that_can_not_be_used_ends_the_start() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = ca_files(folder.path());
    assert!(client_ca(folder.path(), &[]).status.success());
    let listen = json!([{ "address": free_address().to_string(), "transparent": {
        "mode": "connect", "ca": { "certificate": certificate, "key": key } } }]);
    let setup = Setup::of(&hub).also("ghcr.io", &hub, json!({})).key("listen", listen);
    // It was made for Docker Hub alone.
    let failed = setup.clone().try_start().await.unwrap_err();
    assert_eq!(failed.ended.unwrap().code(), Some(2));
    let what = "may not vouch for ghcr.io; make one with `roadstead client ca`";
    assert!(
        failed.log.contains("listen[1].transparent.ca: ") && failed.log.contains(what),
        "{failed}"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let failed = setup.try_start().await.unwrap_err();
    assert!(
        failed.log.contains("can be read by everybody on this machine; chmod o= it"),
        "{failed}"
    );
}

#[test]
fn the_command_makes_an_authority_once_and_says_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("ca");
    let config = folder.path().join("roadstead.yaml");
    // What it names is not there yet.
    fs::write(
        &config,
        format!(
            "{{ listen: [{{ address: 127.0.0.1:3128, transparent: {{ mode: connect, \
        ca: {{ certificate: {0}/roadstead-ca.crt, key: {0}/roadstead-ca.key }} }} }}], \
        upstreams: [{{ name: quay.io }}] }}",
            directory.display()
        ),
    )
    .unwrap();
    let made = client_ca(&directory, &["--config", config.to_str().unwrap(), "--host", "Ghcr.io"]);
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{made:?}");
    for what in [
        "ghcr.io, quay.io",
        "update-ca-certificates",
        "update-ca-trust",
        "/etc/docker/certs.d",
        "/etc/containerd/certs.d",
        "mode: connect",
        "roadstead-ca.key",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    let (certificate, key) = ca_files(&directory);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = (fs::read(&certificate).unwrap(), fs::read(&key).unwrap());
    let again = client_ca(&directory, &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"), "{again:?}");
    assert_eq!((fs::read(&certificate).unwrap(), fs::read(&key).unwrap()), before);
    let bad = client_ca(&folder.path().join("other"), &["--host", "https://ghcr.io"]);
    assert_eq!(bad.status.code(), Some(2));
    // With the files there, the configuration that names them is good.
    let check = || Command::new(BINARY).args(["check", "--config"]).arg(&config).output().unwrap();
    assert!(check().status.success(), "{:?}", check());
    fs::write(&certificate, "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert_eq!(check().status.code(), Some(2));
    let said = String::from_utf8_lossy(&check().stderr).into_owned();
    assert!(
        said.contains("listen[0].transparent.ca: ") && said.contains("is not valid PEM"),
        "{said}"
    );
}

#[test]
fn an_authority_for_no_host_is_not_one_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let addresses_alone = ["--upstream", "lan=http://10.0.0.1:5000"];
    let refused = client_ca(folder.path(), &addresses_alone);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no upstream has a host name; give --host"), "{said}");
    assert!(!ca_files(folder.path()).0.exists());
    let any = client_ca(folder.path(), &[&addresses_alone[..], &["--any-host"]].concat());
    assert!(any.status.success(), "{any:?}");
}
