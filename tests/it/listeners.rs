//! Where clients connect: TLS whose files change, clients' certificates, PROXY headers, sockets.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hub::{Hub, ImageSpec};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::client::{Connection, raw};
use crate::pull::manifest_path;
use crate::roadstead::{Roadstead, Setup, eventually, free_address};
use crate::secure::{self, Pair, Signer, Speaker, replace};

const NAME: &str = "library/alpine";
const HOST: &str = "mirror.test";
const SOON: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with one more listener.
struct Stage {
    _hub: Hub,
    roadstead: Roadstead,
    at: SocketAddr,
}

impl Stage {
    /// Waits until the log says this; an answer may come before its line.
    async fn logs(&self, text: &str) {
        let says = || self.roadstead.log().contains(text);
        eventually(&format!("the log says `{text}`"), SOON, says).await;
    }

    /// Waits until the certificate as it is now has been read, and found to be no good.
    async fn tries_in_vain(&self) {
        let failed = r#"roadstead_certificate_reads_total{outcome="failed",what="certificate"}"#;
        let count = async || self.roadstead.metrics().await.get(failed).copied().unwrap_or(0.0);
        // The next one may have begun before.
        let (enough, deadline) = (count().await + 2.0, Instant::now() + PATIENCE);
        while count().await < enough {
            assert!(Instant::now() < deadline, "the files are not read");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn stage(change: impl FnOnce(Setup) -> Setup, mut listen: Value) -> Stage {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let at = free_address();
    if listen["address"].is_null() {
        listen["address"] = json!(at.to_string());
    }
    let setup = change(Setup::of(&hub)).key("listen", json!([listen]));
    let roadstead = setup.start().await;
    Stage { _hub: hub, roadstead, at }
}

fn files(folder: &Path, name: &str) -> Value {
    let (certificate, key) = secure::paths(folder, name);
    json!({ "certificate": certificate, "key": key })
}

/// An authority, a folder, and in it the certificate of the listener.
fn signed() -> (Signer, TempDir, Pair) {
    let (signer, folder) = (Signer::new("first"), tempfile::tempdir().unwrap());
    let pair = signer.issue(HOST);
    pair.write(folder.path(), "tls");
    (signer, folder, pair)
}

// === TLS ===

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_http_1_and_2() {
    let (signer, folder, _) = signed();
    let stage = stage(|setup| setup, json!({ "tls": files(folder.path(), "tls") })).await;
    for version in [&TLS12, &TLS13] {
        let speaker = Speaker::trusting(&[&signer.pem()]).version(version);
        let said = speaker.get(stage.at, HOST, &manifest_path(NAME, "latest")).await.unwrap();
        assert_eq!(said.status, 200, "{}", said.head);
        let stream = speaker.protocol(b"h2").dial(stage.at, HOST).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://{HOST}{}", manifest_path(NAME, "latest"));
        let request = http::Request::get(uri).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn what_is_not_tls_is_turned_away_and_harms_nobody() {
    let (signer, folder, _) = signed();
    let listen = json!({ "tls": files(folder.path(), "tls") });
    let stage = stage(|setup| setup.key("downstream.head", "1s"), listen).await;
    for garbage in
        [b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), &[0xff; 64], &[0x16, 3, 1, 0, 1, 9]]
    {
        let begun = Instant::now();
        let answer = raw(stage.at, garbage, SOON).await;
        assert!(begun.elapsed() < SOON, "{garbage:?}");
        // An alert at most.
        assert!(answer.len() <= 7 && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    // A handshake that does not go on ends with the time for a head.
    let mut silent = Connection::open(stage.at).await.unwrap();
    silent.write(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    assert!(silent.is_closed(SOON).await);
    stage.logs("took longer than downstream.head").await;
    let said = Speaker::trusting(&[&signer.pem()]).get(stage.at, HOST, "/v2/").await.unwrap();
    assert_eq!(said.status, 200);
}

#[tokio::test]
async fn who_says_http_2_must_begin_with_it_in_time() {
    let (signer, folder, _) = signed();
    let listen = json!({ "tls": files(folder.path(), "tls") });
    let stage = stage(|setup| setup.key("downstream.head", "1s"), listen).await;
    let speaker = Speaker::trusting(&[&signer.pem()]).protocol(b"h2");
    for start in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut stream = speaker.dial(stage.at, HOST).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "`{start}` may go on for ever");
    }
    // Who has begun may idle for as long as `downstream.keepalive` says.
    let stream = speaker.dial(stage.at, HOST).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let early = tokio::time::timeout(Duration::from_millis(1500), &mut connection).await;
    assert!(early.is_err(), "{early:?}");
    let request = http::Request::get(format!("https://{HOST}/v2/")).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// Asks again and again on new connections until told to stop.
async fn ask(speaker: Speaker, at: SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Acquire) {
        let said = speaker.get(at, HOST, &manifest_path(NAME, "latest")).await;
        assert_eq!(said.unwrap().status, 200);
        asked.fetch_add(1, Ordering::AcqRel);
    }
}

async fn shows(speaker: &Speaker, at: SocketAddr, pair: &Pair) {
    let deadline = Instant::now() + PATIENCE;
    while secure::shown(&speaker.dial(at, HOST).await.unwrap()) != pair.leaf() {
        assert!(Instant::now() < deadline, "the other certificate is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_shown_within_seconds_and_no_request_fails() {
    let (first, folder, old) = signed();
    let second = Signer::new("second");
    let stage = stage(|setup| setup, json!({ "tls": files(folder.path(), "tls") })).await;
    let speaker = Speaker::trusting(&[&first.pem(), &second.pem()]);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(ask(speaker.clone(), stage.at, Arc::clone(&stop), Arc::clone(&asked)));
    }
    let mut under_way = speaker.dial(stage.at, HOST).await.unwrap();
    shows(&speaker, stage.at, &old).await;
    for signer in [&second, &first, &second] {
        let pair = signer.issue(HOST);
        pair.write(folder.path(), "tls");
        shows(&speaker, stage.at, &pair).await;
    }
    let before = asked.load(Ordering::Acquire);
    eventually("more is asked", PATIENCE, || asked.load(Ordering::Acquire) > before + 20).await;
    stop.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    // What was connected before goes on as it began.
    assert_eq!(secure::get(&mut under_way, HOST, "/v2/").await.unwrap().status, 200);
    assert_eq!(secure::shown(&under_way), old.leaf());
}

#[tokio::test]
async fn a_pair_that_does_not_fit_is_told_once_and_the_old_one_goes_on() {
    const TOLD: &str = "can't be used; the one before stays";
    let (signer, folder, old) = signed();
    let stage = stage(|setup| setup, json!({ "tls": files(folder.path(), "tls") })).await;
    let speaker = Speaker::trusting(&[&signer.pem()]);
    let (certificate, _) = secure::paths(folder.path(), "tls");
    let told = || stage.roadstead.log().matches(TOLD).count();
    replace(&certificate, &signer.issue(HOST).certificate);
    stage.tries_in_vain().await;
    eventually("it is told", PATIENCE, || told() == 1).await;
    assert!(stage.roadstead.log().contains("tls.key can't be used with "));
    shows(&speaker, stage.at, &old).await;
    replace(&certificate, &old.certificate[..old.certificate.len() / 2]);
    stage.tries_in_vain().await;
    shows(&speaker, stage.at, &old).await;
    fs::remove_file(&certificate).unwrap();
    stage.tries_in_vain().await;
    shows(&speaker, stage.at, &old).await;
    let new = signer.issue(HOST);
    new.write(folder.path(), "tls");
    shows(&speaker, stage.at, &new).await;
    assert_eq!(told(), 1, "{}", stage.roadstead.log());
}

#[tokio::test]
async fn files_that_do_not_fit_end_the_start_with_their_key() {
    let (signer, folder, _) = signed();
    replace(&secure::paths(folder.path(), "tls").1, &signer.issue(HOST).key);
    let hub = Hub::start().await;
    let listen =
        json!([{ "address": free_address().to_string(), "tls": files(folder.path(), "tls") }]);
    let failed = Setup::of(&hub).key("listen", listen).try_start().await.unwrap_err();
    assert_eq!(failed.ended.unwrap().code(), Some(2));
    assert!(failed.log.contains("listen[1].tls: "), "{failed}");
    assert!(failed.log.contains("name the key that the certificate was made for"), "{failed}");
}

#[tokio::test]
async fn a_client_must_show_a_certificate_where_its_authority_is_named() {
    let (signer, folder, _) = signed();
    let (staff, strangers) = (Signer::new("staff"), Signer::new("strangers"));
    let authorities = folder.path().join("staff.pem");
    replace(&authorities, &staff.pem());
    let mut tls = files(folder.path(), "tls");
    tls["client_ca"] = json!(authorities);
    let stage = stage(|setup| setup, json!({ "tls": tls })).await;
    let nobody = Speaker::trusting(&[&signer.pem()]);
    let one = nobody.clone().showing(&staff.issue("one"));
    let other = nobody.clone().showing(&strangers.issue("other"));
    for version in [&TLS12, &TLS13] {
        let get = |speaker: &Speaker| {
            let speaker = speaker.clone().version(version);
            async move { speaker.get(stage.at, HOST, "/v2/").await }
        };
        assert_eq!(get(&one).await.unwrap().status, 200);
        for speaker in [&nobody, &other] {
            let error = get(speaker).await.unwrap_err().to_string();
            assert!(!error.contains("no answer"), "{error}");
        }
    }
    stage.logs("peer sent no certificates").await;
    // Its file is followed too.
    replace(&authorities, &strangers.pem());
    let deadline = Instant::now() + PATIENCE;
    while other.get(stage.at, HOST, "/v2/").await.is_err() {
        assert!(Instant::now() < deadline, "the other authority is not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(one.get(stage.at, HOST, "/v2/").await.is_err());
}

// === PROXY ===

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 40000 443\r\n").into_bytes()
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// Of 192.0.2.7.
fn v2_of(client: [u8; 4]) -> Vec<u8> {
    v2(1, 0x11, &[&client[..], &[192, 0, 2, 1, 0x9c, 0x40, 0x01, 0xbb]].concat())
}

const REQUEST: &str = "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";

async fn with_header(at: SocketAddr, header: &[u8], more: &str) -> u16 {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = [header, format!("{REQUEST}{more}\r\n").as_bytes()].concat();
    secure::say(&mut stream, &request).await.unwrap().status
}

#[tokio::test]
async fn a_trusted_balancer_says_who_the_client_is() {
    let trust = |setup: Setup| {
        setup
            .key("trusted_proxies", json!(["127.0.0.1", "10.0.0.0/8"]))
            .key("access", json!({ "allow": ["192.0.2.0/24", "2001:db8::/32"] }))
    };
    let stage = stage(trust, json!({ "proxy_protocol": true })).await;
    let mut ipv6 = [0; 36];
    ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    ipv6[15] = 9;
    for (header, status) in [
        (v1("192.0.2.7"), 200),
        (v1("198.51.100.7"), 403),
        (v2_of([192, 0, 2, 8]), 200),
        (v2_of([198, 51, 100, 8]), 403),
        (v2(1, 0x21, &ipv6), 200),
        // They keep the balancer's own address, which may not pull.
        (b"PROXY UNKNOWN\r\n".to_vec(), 403),
        (v2(0, 0x11, &[192, 0, 2, 9, 192, 0, 2, 1, 1, 1, 1, 1]), 403),
        (v2(0, 0, &[]), 403),
    ] {
        assert_eq!(with_header(stage.at, &header, "").await, status, "{header:?}");
    }
    // Whom the header names may be a proxy itself; anybody else's word is nothing.
    let forwarded = "X-Forwarded-For: 192.0.2.66\r\n";
    assert_eq!(with_header(stage.at, &v1("10.0.0.5"), forwarded).await, 200);
    assert_eq!(with_header(stage.at, &v1("198.51.100.9"), forwarded).await, 403);
    for client in
        ["192.0.2.7", "192.0.2.8", "2001:db8::9", "192.0.2.66", "198.51.100.9", "127.0.0.1"]
    {
        stage.logs(&format!("client=\"{client}\"")).await;
    }
    let log = stage.roadstead.whole_log().await;
    assert!(!log.contains("client=\"192.0.2.9\""), "{log}");
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_requests_follow_each_other() {
    let trust = |setup: Setup| setup.key("trusted_proxies", json!(["127.0.0.1"]));
    let stage = stage(trust, json!({ "proxy_protocol": true })).await;
    let mut stream = TcpStream::connect(stage.at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let first = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in [&v1("192.0.2.7"), first.as_bytes()].concat().chunks(7) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"{}") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert_eq!(
        secure::say(&mut stream, format!("{REQUEST}\r\n").as_bytes()).await.unwrap().status,
        200
    );
    let lines = || stage.roadstead.log().matches("client=\"192.0.2.7\"").count();
    eventually("both are logged", SOON, || lines() == 2).await;
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let (signer, folder, _) = signed();
    let trust = |setup: Setup| setup.key("trusted_proxies", json!(["127.0.0.1"]));
    let listen = json!({ "proxy_protocol": true, "tls": files(folder.path(), "tls") });
    let stage = stage(trust, listen).await;
    let speaker = Speaker::trusting(&[&signer.pem()]);
    for header in [v1("192.0.2.7"), v2_of([192, 0, 2, 8])] {
        let mut tcp = TcpStream::connect(stage.at).await.unwrap();
        tcp.write_all(&header).await.unwrap();
        let mut stream = speaker.over(tcp, HOST).await.unwrap();
        assert_eq!(secure::get(&mut stream, HOST, "/v2/").await.unwrap().status, 200);
    }
    assert!(speaker.get(stage.at, HOST, "/v2/").await.is_err());
    for text in ["client=\"192.0.2.7\"", "client=\"192.0.2.8\"", "malformed: it is none"] {
        stage.logs(text).await;
    }
}

#[tokio::test]
async fn a_header_from_a_stranger_is_not_taken() {
    let trust = |setup: Setup| setup.key("trusted_proxies", json!(["192.0.2.1"]));
    let stage = stage(trust, json!({ "proxy_protocol": true })).await;
    for header in [v1("192.0.2.7"), v2_of([192, 0, 2, 7]), Vec::new()] {
        let bytes = [&header, REQUEST.as_bytes(), b"\r\n"].concat();
        assert!(raw(stage.at, &bytes, SOON).await.is_empty(), "{header:?}");
    }
    stage.logs("a PROXY header is taken from trusted_proxies alone").await;
    assert!(!stage.roadstead.log().contains("192.0.2.7"));
    // Where none is expected, it is no request.
    let bytes = [&v1("192.0.2.7"), REQUEST.as_bytes(), b"\r\n"].concat();
    let answer = raw(stage.roadstead.at(), &bytes, SOON).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert!(!stage.roadstead.whole_log().await.contains("client=\"192.0.2.7\""));
}

#[tokio::test]
async fn a_header_that_is_none_or_late_or_endless_ends_the_connection() {
    let trust = |setup: Setup| {
        setup.key("trusted_proxies", json!(["127.0.0.1"])).key("downstream.head", "1s")
    };
    let stage = stage(trust, json!({ "proxy_protocol": true })).await;
    let mut long = v2(1, 0x11, &[0; 12]);
    long[14..16].copy_from_slice(&[0xff, 0xff]);
    long.resize(70_000, 0);
    let line = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 4096]].concat();
    for bytes in [REQUEST.as_bytes(), b"\x16\x03\x01\x02\x00\x01", &long, &line] {
        let begun = Instant::now();
        assert!(raw(stage.at, bytes, SOON).await.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    for start in [b"".as_slice(), b"PROXY TCP4 192.0.2.7", &v2_of([192, 0, 2, 7])[..20]] {
        let mut connection = Connection::open(stage.at).await.unwrap();
        connection.write(start).await.unwrap();
        assert!(connection.is_closed(SOON).await, "{start:?}");
    }
    assert_eq!(with_header(stage.at, &v1("192.0.2.7"), "").await, 200);
}

#[tokio::test]
async fn a_unix_socket_takes_a_header_from_whoever_may_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roadstead.sock");
    let listen = json!({ "address": format!("unix:{}", path.display()), "proxy_protocol": true });
    let allow = |setup: Setup| setup.key("access", json!({ "allow": ["192.0.2.7"] }));
    let stage = stage(allow, listen).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    for (header, status) in
        [(v1("192.0.2.7"), 200), (v1("192.0.2.8"), 403), (b"PROXY UNKNOWN\r\n".to_vec(), 200)]
    {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = [&header, REQUEST.as_bytes(), b"\r\n"].concat();
        assert_eq!(secure::say(&mut stream, &request).await.unwrap().status, status, "{header:?}");
    }
    drop(stage);
}

// === Addresses ===

fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

#[tokio::test]
async fn an_ipv6_wildcard_takes_ipv4_clients_as_ipv4_clients() {
    if !has_ipv6() {
        return;
    }
    let port = free_address().port();
    let allow = |setup: Setup| setup.key("access", json!({ "allow": ["127.0.0.0/8", "::1"] }));
    let stage = stage(allow, json!({ "address": format!("[::]:{port}") })).await;
    for (host, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let at: SocketAddr = format!("{host}:{port}").parse().unwrap();
        assert_eq!(with_header(at, b"", "").await, 200);
        stage.logs(&format!("client=\"{client}\"")).await;
    }
}

#[tokio::test]
async fn both_wildcards_may_have_one_port() {
    if !has_ipv6() {
        return;
    }
    let hub = Hub::start().await;
    let port = free_address().port();
    let both =
        json!([{ "address": format!("[::]:{port}") }, { "address": format!("0.0.0.0:{port}") }]);
    let _roadstead = Setup::of(&hub).key("listen", both).start().await;
    for host in ["127.0.0.1", "[::1]"] {
        let at: SocketAddr = format!("{host}:{port}").parse().unwrap();
        assert_eq!(with_header(at, b"", "").await, 200);
    }
}

// === HTTP/1.0 and keep-alive ===

#[tokio::test]
async fn http_1_0_is_kept_alive_only_when_asked_for_and_never_chunked() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = Roadstead::start(&hub).await;
    let blob = format!("/v2/{NAME}/blobs/{}", image.layers[0].digest);
    let paths = [
        "/v2/".to_owned(),
        manifest_path(NAME, "latest"),
        format!("/v2/{NAME}/tags/list"),
        blob,
        "/v2/nope".to_owned(),
    ];
    for path in &paths {
        let mut stream = TcpStream::connect(roadstead.at()).await.unwrap();
        let said =
            secure::say(&mut stream, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
        let said = said.unwrap();
        let head = said.head.to_lowercase();
        assert!(head.contains("connection: close"), "{path}: {head}");
        assert!(!head.contains("transfer-encoding"), "{path}: {head}");
        match head.split_once("content-length: ") {
            Some((_, rest)) => {
                let length: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
                assert_eq!(said.body.len(), length, "{path}");
            }
            None => assert!(
                said.body.starts_with(b"{") && said.body.trim_ascii().ends_with(b"}"),
                "{path}: {:?}",
                String::from_utf8_lossy(&said.body)
            ),
        }
    }
    let mut connection = Connection::open(roadstead.at()).await.unwrap();
    for path in [&paths[0], &paths[1], &paths[3]] {
        let text = format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        connection.write(text.as_bytes()).await.unwrap();
        let (reply, kept) = connection.answer(false).await.unwrap().finish_and_keep().await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")), "{path}");
        assert!(reply.length().is_some() && reply.complete, "{path}");
        connection = kept;
    }
}

/// A registry that answers everything in chunks.
async fn chunking_registry() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                        Transfer-Encoding: chunked\r\n\r\n\
                        20\r\n{\"name\":\"library/alpine\",\"tags\":\r\n8\r\n[\"one\"]}\r\n0\r\n\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn what_a_registry_sends_in_chunks_reaches_http_1_0_without_them() {
    let url = format!("http://{}", chunking_registry().await);
    let roadstead = Setup::upstream(&url, &format!("{url}/token")).start().await;
    for keep in ["", "Connection: keep-alive\r\n"] {
        let mut stream = TcpStream::connect(roadstead.at()).await.unwrap();
        let request = format!("GET /v2/_catalog HTTP/1.0\r\n{keep}\r\n");
        let said = secure::say(&mut stream, request.as_bytes()).await.unwrap();
        assert_eq!(said.status, 200, "{}", said.head);
        assert!(!said.head.to_lowercase().contains("transfer-encoding"), "{}", said.head);
        let json: Value = serde_json::from_slice(&said.body).unwrap();
        assert_eq!(json["tags"], json!(["one"]));
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let hub = Hub::start().await;
    let roadstead = Setup::of(&hub).key("downstream.keepalive", "2s").start().await;
    let request = crate::client::get(roadstead.at(), "/v2/");
    let mut connection = Connection::open(roadstead.at()).await.unwrap();
    for _ in 0..2 {
        let answer = connection.exchange(&request).await.unwrap();
        (_, connection) = answer.finish_and_keep().await;
        assert!(!connection.is_closed(Duration::from_millis(700)).await);
    }
    assert!(connection.is_closed(SOON).await);
}
