//! Requests that come again, byte for byte: answered at once, and just as the long way answers them.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Options, Target};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Connection, Reply, Request, get, head};
use crate::conformance::{MANIFEST, Registry, config, digest_of, image, writable};
use crate::pull::{accepting, blob_path, get_manifest, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, free_address};
use crate::secure::{self, Signer, Speaker};

const NAME: &str = "library/alpine";
const SOON: Duration = Duration::from_secs(20);

/// Before `hub`, with tags that stay fresh.
fn fresh(hub: &Hub) -> Setup {
    Setup::of(hub).with("tags.fresh_for", "1h")
}

/// How many answers were repetitions.
async fn repeated(roadstead: &Roadstead) -> f64 {
    roadstead.metric(&["roadstead_repeated_answers_total"]).await
}

/// The headers that may not differ between two answers within a minute.
fn lasting(reply: &Reply) -> Vec<(String, String)> {
    let varies = ["age", "date", "cache-status"];
    let mut lasting = reply.headers.clone();
    lasting.retain(|(name, _)| !varies.contains(&name.as_str()));
    lasting.sort();
    lasting
}

/// Sends it until it has been answered along the long way as a hit; then it is known.
async fn known(request: &Request) -> Reply {
    let mut last = None;
    for _ in 0..3 {
        let reply = request.clone().send().await;
        if reply.cache_status().starts_with("roadstead; hit") {
            return reply;
        }
        last = Some((
            reply.status,
            reply.headers.clone(),
            reply.text().chars().take(300).collect::<String>(),
        ));
    }
    panic!("it never was a hit: {request:?}: {last:?}");
}

struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    /// A tag, a manifest by digest, a small blob.
    paths: [String; 3],
}

// === impl Stage ===

impl Stage {
    async fn set(setup: impl FnOnce(Setup) -> Setup) -> Self {
        let hub = Hub::start().await;
        let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
        let small = hub.put_blob(NAME, Bytes::from(vec![7; 40_000]));
        let roadstead = setup(fresh(&hub)).start().await;
        let paths = [
            manifest_path(NAME, "latest"),
            manifest_path(NAME, &image.digest),
            blob_path(NAME, &small),
        ];
        for path in &paths {
            assert_eq!(accepting(get(roadstead.at(), path)).send().await.status, 200, "{path}");
        }
        roadstead.settled().await;
        Self { hub, roadstead, paths }
    }

    /// How many more answers are repetitions after `request`, and its answer.
    async fn once_more(&self, request: Request) -> (f64, Reply) {
        let before = repeated(&self.roadstead).await;
        let reply = request.send().await;
        (repeated(&self.roadstead).await - before, reply)
    }
}

// === alike ===

#[tokio::test]
async fn a_repeated_request_is_answered_as_the_long_way_answers_it() {
    let stage = Stage::set(|setup| setup).await;
    let at = stage.roadstead.at();
    for path in &stage.paths {
        for request in [get(at, path), head(at, path), get(at, format!("{path}?ns=docker.io"))] {
            let request = accepting(request);
            let first = known(&request).await;
            let (repeats, again) = stage.once_more(request.clone()).await;
            assert_eq!(repeats, 1.0, "{request:?}");
            assert_eq!((again.status, again.complete), (200, true), "{request:?}");
            assert_eq!(lasting(&again), lasting(&first), "{request:?}");
            assert_eq!(again.body, first.body, "{request:?}");
            assert!(again.cache_status().starts_with("roadstead; hit"), "{again:?}");
            assert_eq!(again.header("age").is_some(), first.header("age").is_some());
            assert!(again.header("date").is_some_and(|date| date.ends_with(" GMT")), "{again:?}");
        }
    }
}

#[tokio::test]
async fn a_repeated_request_is_in_all_books() {
    let stage = Stage::set(|setup| setup).await;
    let request = accepting(get(stage.roadstead.at(), &stage.paths[0]));
    known(&request).await;
    let counts = async || {
        let metric = async |parts: &[&str]| stage.roadstead.metric(parts).await;
        [
            metric(&["roadstead_requests_total", "\"manifest\"", "\"GET\"", "\"200\"", "\"hit\""])
                .await,
            metric(&["roadstead_response_bytes_total", "\"manifest\""]).await,
            metric(&["roadstead_pulls_saved_total"]).await,
            metric(&["roadstead_request_seconds_count"]).await,
        ]
    };
    stage.roadstead.whole_log().await;
    let before = counts().await;
    let size = request.clone().send().await.body.len() as f64;
    // The mark is a request of another kind, so it is in the last count alone.
    let log = stage.roadstead.whole_log().await;
    let after = counts().await;
    let grown: Vec<_> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(grown, [1.0, size, 1.0, 2.0]);
    let line = |line: &&str| line.contains("cache=\"hit\"") && line.contains(&stage.paths[0]);
    let lines: Vec<_> = log.lines().filter(line).collect();
    let rest =
        |line: &str| line.split_once(" ms=").unwrap().0.split_once("  INFO").unwrap().1.to_owned();
    assert_eq!(lines.len(), 2, "{log}");
    assert_eq!(rest(lines[1]), rest(lines[0]));
    assert!(lines[1].contains(&format!("bytes={size} ")), "{}", lines[1]);
    let budget = get(stage.roadstead.admin(), "/api/v1/budget").send().await.json();
    assert!(budget.to_string().contains("127.0.0.1"), "{budget}");
}

#[tokio::test]
async fn what_is_left_of_the_budget_is_told_as_of_now() {
    let stage = Stage::set(|setup| setup).await;
    let request = accepting(get(stage.roadstead.at(), &stage.paths[0]));
    known(&request).await;
    let left = async || {
        let (repeats, reply) = stage.once_more(request.clone()).await;
        assert_eq!(repeats, 1.0);
        reply.header("ratelimit-remaining").unwrap().to_owned()
    };
    assert_eq!(left().await, "99;w=21600");
    stage.hub.push(&ImageSpec::new("library/other").tag("1").single());
    let other = manifest_path("library/other", "1");
    assert_eq!(accepting(get(stage.roadstead.at(), other)).send().await.status, 200);
    assert_eq!(left().await, "98;w=21600");
    let log = stage.roadstead.whole_log().await;
    assert!(log.contains("cache=\"hit\" left=98"), "{log}");
}

/// It gets the manifest of its platform, which is not what the tag names.
#[tokio::test]
async fn a_client_that_reads_no_index_goes_the_long_way() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = fresh(&hub).start().await;
    let accept = "application/vnd.oci.image.manifest.v1+json";
    for _ in 0..4 {
        let request = get(roadstead.at(), manifest_path(NAME, "latest"));
        let reply = request.header("Accept", accept).send().await;
        assert_eq!(reply.header("content-type"), Some(accept));
    }
    assert_eq!(repeated(&roadstead).await, 0.0);
}

#[tokio::test]
async fn many_requests_on_one_connection_are_all_answered() {
    let stage = Stage::set(|setup| setup).await;
    let at = stage.roadstead.at();
    let requests = stage.paths.clone().map(|path| accepting(get(at, path)));
    let mut expected = Vec::new();
    for request in &requests {
        expected.push(known(request).await.body);
    }
    let mut connection = Connection::open(at).await.unwrap();
    for round in 0..20 {
        // One that nobody has asked before goes the long way in between.
        let strange = accepting(get(at, manifest_path(NAME, &format!("none-{round}"))));
        let (reply, back) = connection.exchange(&strange).await.unwrap().finish_and_keep().await;
        assert_eq!(reply.status, 404);
        connection = back;
        for (request, body) in requests.iter().zip(&expected) {
            let answer = connection.exchange(request).await.unwrap();
            let (reply, back) = answer.finish_and_keep().await;
            assert_eq!((reply.status, &reply.body), (200, body), "{round}");
            connection = back;
        }
    }
    assert!(repeated(&stage.roadstead).await >= 60.0);
}

/// An answer on a connection that stays open: its head and its body.
pub(crate) async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    loop {
        let mut piece = vec![0; 64 << 10];
        let count = timeout(SOON, stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "it is closed");
        all.extend_from_slice(&piece[..count]);
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(all[..end].to_vec()).unwrap().to_lowercase();
        let length = head.split_once("content-length: ").unwrap().1;
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        if all.len() == end + 4 + length {
            return (head, all.split_off(end + 4));
        }
    }
}

#[tokio::test]
async fn a_request_is_repeated_over_tls_as_well() {
    let (signer, folder) = (Signer::new("first"), tempfile::tempdir().unwrap());
    signer.issue("mirror.test").write(folder.path(), "tls");
    let (certificate, key) = secure::paths(folder.path(), "tls");
    let at = free_address();
    let tls = json!({ "certificate": certificate, "key": key });
    let listen = json!([{ "address": at.to_string(), "tls": tls }]);
    let stage = Stage::set(|setup| setup.key("listen", listen)).await;
    let speaker = Speaker::trusting(&[&signer.pem()]);
    for path in &stage.paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: mirror.test\r\nAccept: */*\r\n\r\n");
        let mut stream = speaker.dial(at, "mirror.test").await.unwrap();
        let mut bodies = Vec::new();
        let before = repeated(&stage.roadstead).await;
        for _ in 0..3 {
            stream.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = answer(&mut stream).await;
            assert!(head.starts_with("http/1.1 200 ok"), "{head}");
            bodies.push(body);
        }
        assert_eq!(repeated(&stage.roadstead).await - before, 2.0, "{path}");
        assert!(bodies.iter().all(|body| *body == bodies[0] && !body.is_empty()));
    }
}

// === not taken ===

#[tokio::test]
async fn what_asks_for_more_than_the_object_goes_the_long_way() {
    let stage = Stage::set(|setup| setup).await;
    let at = stage.roadstead.at();
    for path in &stage.paths {
        let plain = accepting(get(at, path));
        let etag = known(&plain).await.header("etag").unwrap().to_owned();
        let cases = [
            (plain.clone().header("Range", "bytes=0-9"), None),
            (plain.clone().header("If-None-Match", etag), Some(304)),
            (plain.clone().header("Authorization", "Basic eDp5"), Some(200)),
            (plain.clone().header("Connection", "close"), Some(200)),
            (plain.clone().header("Content-Length", "0"), Some(200)),
        ];
        for (request, status) in cases {
            let first = request.clone().send().await;
            let status = status.unwrap_or(first.status);
            for _ in 0..2 {
                let (repeats, reply) = stage.once_more(request.clone()).await;
                assert_eq!((repeats, reply.status), (0.0, status), "{request:?}");
            }
        }
        let (repeats, _) = stage.once_more(plain).await;
        assert_eq!(repeats, 1.0, "{path}");
    }
}

#[tokio::test]
async fn a_head_that_comes_otherwise_goes_the_long_way() {
    let stage = Stage::set(|setup| setup).await;
    let (at, path) = (stage.roadstead.at(), &stage.paths[0]);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nAccept: */*\r\n\r\n");
    let send = async |pieces: &[&str]| {
        let before = repeated(&stage.roadstead).await;
        let mut connection = Connection::open(at).await.unwrap();
        for piece in pieces {
            connection.write(piece.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
        let reply = connection.answer(false).await.unwrap().finish().await;
        assert_eq!((reply.status, reply.complete), (200, true), "{pieces:?}");
        repeated(&stage.roadstead).await - before
    };
    send(&[&head]).await;
    assert_eq!(send(&[&head]).await, 1.0);
    let (first, second) = head.split_at(30);
    assert_eq!(send(&[first, second]).await, 0.0, "in two pieces");
    let two = format!("{head}{head}");
    assert_eq!(send(&[&two]).await, 0.0, "two at once");
    let old = format!("GET {path} HTTP/1.0\r\nAccept: */*\r\n\r\n");
    for _ in 0..2 {
        assert_eq!(send(&[&old]).await, 0.0, "HTTP/1.0");
    }
}

#[tokio::test]
async fn a_tag_that_is_not_fresh_is_checked() {
    let stage = Stage::set(|setup| setup.with("tags.fresh_for", "0s")).await;
    stage.hub.reset_stats();
    let request = accepting(get(stage.roadstead.at(), &stage.paths[0]));
    for _ in 0..3 {
        let (repeats, reply) = stage.once_more(request.clone()).await;
        assert_eq!((repeats, reply.status), (0.0, 200));
    }
    assert_eq!(stage.hub.stats().manifest_head, 3);
}

#[tokio::test]
async fn what_is_pushed_or_deleted_through_us_is_seen_by_the_next_request() {
    let hub = writable().await;
    let roadstead = fresh(&hub).with("writes", "forward").start().await;
    let mut registry = Registry::at(roadstead.at());
    let request = get_manifest(roadstead.at(), NAME, "latest");
    for name in ["one", "two"] {
        let manifest = image(name);
        for blob in [&config(name)[..], b"a layer"] {
            registry.push_blob(NAME, blob).await;
        }
        registry.push_manifest(NAME, "latest", MANIFEST, &manifest).await;
        for _ in 0..3 {
            let reply = request.clone().send().await;
            assert_eq!(reply.header("docker-content-digest"), Some(&*digest_of(&manifest)));
        }
    }
    assert!(repeated(&roadstead).await >= 2.0);
    assert_eq!(registry.delete(&manifest_path(NAME, "latest")).await.status, 202);
    assert_eq!(request.send().await.status, 404);
}

/// The cache answers for an upstream in trouble, and no longer.
#[tokio::test]
async fn a_head_before_a_push_is_upstream_s_again_when_it_is_well() {
    let hub = writable().await;
    let roadstead = fresh(&hub).with("writes", "forward").impatient().start().await;
    let mut registry = Registry::at(roadstead.at());
    registry.push_image(NAME, "latest").await;
    let path = blob_path(NAME, &hub::sha256(b"a layer"));
    assert_eq!(registry.get(&path).await.status, 200);
    let outage = hub.fault(Fault::new(Target::any(), Action::Drop));
    for _ in 0..3 {
        assert_eq!(registry.head(&path).await.status, 200);
    }
    hub.remove_fault(outage);
    hub.reset_stats();
    let asked = async || {
        head(roadstead.at(), &path).send().await;
        hub.stats().blob_head > 0
    };
    let deadline = Instant::now() + SOON;
    while !asked().await {
        assert!(Instant::now() < deadline, "upstream is not asked");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(repeated(&roadstead).await, 0.0);
}

#[tokio::test]
async fn what_was_purged_is_fetched_anew() {
    let stage = Stage::set(|setup| setup).await;
    let request = accepting(get(stage.roadstead.at(), &stage.paths[0]));
    known(&request).await;
    assert_eq!(stage.once_more(request.clone()).await.0, 1.0);
    let purge = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["cache", "purge", "alpine:latest", "--config"])
        .arg(stage.roadstead.config())
        .output()
        .unwrap();
    assert!(purge.status.success(), "{}", String::from_utf8_lossy(&purge.stderr));
    stage.hub.reset_stats();
    let (repeats, reply) = stage.once_more(request).await;
    assert_eq!((repeats, reply.status), (0.0, 200));
    assert_eq!(stage.hub.stats().manifest_get, 1);
}

// === who asks ===

#[tokio::test]
async fn whom_a_trusted_proxy_asks_for_is_told_and_let_in_as_on_the_long_way() {
    let allow = json!({ "allow": ["192.0.2.0/24", "127.0.0.1"] });
    let trust =
        |setup: Setup| setup.key("trusted_proxies", json!(["127.0.0.1"])).key("access", allow);
    let stage = Stage::set(trust).await;
    let asks = |client: &str| {
        accepting(get(stage.roadstead.at(), &stage.paths[0])).header("X-Forwarded-For", client)
    };
    for _ in 0..3 {
        assert_eq!(asks("192.0.2.7").send().await.status, 200);
        assert_eq!(asks("198.51.100.7").send().await.status, 403);
    }
    assert_eq!(repeated(&stage.roadstead).await, 2.0);
    let log = stage.roadstead.whole_log().await;
    assert_eq!(log.matches("client=\"192.0.2.7\"").count(), 3, "{log}");
    assert_eq!(log.matches("client=\"198.51.100.7\"").count(), 3, "{log}");
}

/// The head says nothing of the connection that it comes on.
#[tokio::test]
async fn who_sends_a_known_head_is_held_to_his_own_address() {
    let at = free_address();
    let listen = json!([{ "address": at.to_string(), "proxy_protocol": true }]);
    let stage = Stage::set(|setup| {
        setup
            .key("trusted_proxies", json!(["127.0.0.1", "10.0.0.0/8"]))
            .key("access", json!({ "allow": ["127.0.0.1", "192.0.2.0/24"] }))
            .key("listen", listen)
    })
    .await;
    let path = &stage.paths[0];
    let send = async |from: &str, more: &str| {
        let before = repeated(&stage.roadstead).await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        let header = format!("PROXY TCP4 {from} 192.0.2.1 40000 443\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let status = answer(&mut stream).await.0["http/1.1 ".len()..][..3].to_owned();
        (status, repeated(&stage.roadstead).await - before)
    };
    let told = |status: &str, repeats: f64| (status.to_owned(), repeats);
    send("192.0.2.7", "").await;
    assert_eq!(send("192.0.2.8", "").await, told("200", 1.0));
    assert_eq!(send("198.51.100.9", "").await, told("403", 0.0));
    // A trusted proxy's word counts, and nobody else's.
    let hop = "X-Forwarded-For: 192.0.2.66\r\n";
    send("10.0.0.5", hop).await;
    assert_eq!(send("10.0.0.6", hop).await, told("200", 1.0));
    assert_eq!(send("192.0.2.9", hop).await, told("200", 0.0));
    assert_eq!(send("198.51.100.9", hop).await, told("403", 0.0));
    // One that is told to be the proxy itself is not another proxy.
    let itself = "X-Forwarded-For: 127.0.0.1\r\n";
    for _ in 0..3 {
        assert_eq!(send("127.0.0.1", itself).await, told("200", 0.0));
    }
    let log = stage.roadstead.whole_log().await;
    let lines = |client: &str| log.matches(&format!("client=\"{client}\"")).count();
    assert_eq!(["192.0.2.8", "192.0.2.66", "192.0.2.9"].map(lines), [1, 2, 1], "{log}");
}

/// P6: what a client may see by its own credentials, none included, is asked of upstream.
#[tokio::test]
async fn where_clients_use_their_own_credentials_nothing_is_repeated() {
    let options = Options { require_token: false, ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = fresh(&hub).with("credentials.mode", "client").start().await;
    for reference in ["latest", &image.digest] {
        for _ in 0..3 {
            let request = get_manifest(roadstead.at(), NAME, reference);
            assert_eq!(request.send().await.status, 200);
        }
    }
    assert_eq!(repeated(&roadstead).await, 0.0);
}

#[tokio::test]
async fn where_a_password_is_wanted_nothing_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, format!("x:{}\n", bcrypt::hash("y", 4).unwrap())).unwrap();
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let setup = fresh(&hub).key("access", json!({ "htpasswd": users }));
    let roadstead = setup.start().await;
    let request = get_manifest(roadstead.at(), NAME, "latest");
    for _ in 0..3 {
        let known = request.clone().header("Authorization", "Basic eDp5").send().await;
        assert_eq!(known.status, 200);
        assert_eq!(request.clone().send().await.status, 401);
    }
    assert_eq!(repeated(&roadstead).await, 0.0);
}

// === slow clients, the end ===

/// A manifest of above two MiB, in memory as all manifests are; its digest.
async fn large(hub: &Hub) -> String {
    let mut registry = Registry::at(hub.registry());
    registry.push_image(NAME, "latest").await;
    let mut manifest = image("one");
    manifest["annotations"] = json!({ "padding": "x".repeat(2 << 20) });
    let reply = registry.push_manifest(NAME, "latest", MANIFEST, &manifest).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    digest_of(&manifest)
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_and_holds_up_nobody() {
    let hub = writable().await;
    large(&hub).await;
    let roadstead = fresh(&hub).key("downstream", json!({ "write": "1s" })).start().await;
    let request = get_manifest(roadstead.at(), NAME, "latest");
    known(&request).await;
    // Answers are asked for until no buffer on the way takes another.
    let mut stuck = Connection::open(roadstead.at()).await.unwrap();
    let bytes = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        manifest_path(NAME, "latest"),
        roadstead.at()
    );
    let deadline = Instant::now() + SOON;
    while !roadstead.log().contains("error=\"") {
        assert!(Instant::now() < deadline, "the stuck client is not cut");
        let _ = stuck.write(bytes.as_bytes()).await;
        sleep(Duration::from_millis(100)).await;
    }
    let quick = request.clone().send().await;
    assert!(quick.complete && quick.body.len() > 2 << 20);
    assert!(repeated(&roadstead).await >= 2.0);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    let hub = writable().await;
    let digest = large(&hub).await;
    let roadstead = fresh(&hub).start().await;
    let request = get_manifest(roadstead.at(), NAME, "latest");
    known(&request).await;
    let mut answer = request.open_narrow().await;
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.next(64 << 10).await {
        body.extend(piece);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(hub::sha256(&body), digest);
    assert_eq!(repeated(&roadstead).await, 1.0);
}

#[tokio::test]
async fn a_connection_that_idles_ends_in_time_and_at_a_stop() {
    let keepalive = |setup: Setup| setup.key("downstream", json!({ "keepalive": "1s" }));
    let mut stage = Stage::set(keepalive).await;
    let request = accepting(get(stage.roadstead.at(), &stage.paths[0]));
    known(&request).await;
    let open = async || {
        let connection = Connection::open(stage.roadstead.at()).await.unwrap();
        connection.exchange(&request).await.unwrap().finish_and_keep().await.1
    };
    assert!(open().await.is_closed(SOON).await, "it idled for a second");
    // One that is used does not idle.
    let mut used = open().await;
    for _ in 0..4 {
        sleep(Duration::from_millis(400)).await;
        used = used.exchange(&request).await.unwrap().finish_and_keep().await.1;
    }
    stage.roadstead.signal_term();
    assert!(used.is_closed(SOON).await, "the server ends");
    assert!(stage.roadstead.ended().await.success());
}

#[tokio::test]
async fn a_request_during_a_stop_is_told_that_the_connection_ends() {
    let mut stage = Stage::set(|setup| setup).await;
    let at = stage.roadstead.at();
    let request = accepting(get(at, &stage.paths[0]));
    known(&request).await;
    let mut connection = Connection::open(at).await.unwrap();
    let pid = stage.roadstead.pid();
    crate::roadstead::signal(pid, "TERM");
    let mut told = false;
    while !told {
        let Ok(answer) = connection.exchange(&request).await else { break };
        told = answer.header("connection") == Some("close");
        (_, connection) = answer.finish_and_keep().await;
    }
    assert!(told, "the connection ended without a word");
    assert!(stage.roadstead.ended().await.success());
}

/// Lines that wait are written at the end, also where nothing else is logged.
#[tokio::test]
async fn the_last_requests_are_in_the_log() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let mut roadstead = fresh(&hub).log("warn,access=info").start().await;
    for signal in ["INT", "TERM"] {
        let path = format!("/v2/{NAME}/manifests/{}", signal.to_lowercase());
        assert_eq!(get(roadstead.at(), &path).send().await.status, 404);
        crate::roadstead::signal(roadstead.pid(), signal);
        assert!(roadstead.ended().await.success());
        assert!(roadstead.log().contains(&path), "{signal}: {}", roadstead.log());
        roadstead.restart().await;
    }
}

/// A half of a head that never goes on is cut like any other.
#[tokio::test]
async fn half_a_known_head_has_no_longer_than_any_other() {
    let stage = Stage::set(|setup| setup.key("downstream", json!({ "head": "1s" }))).await;
    let at = stage.roadstead.at();
    let head = format!("GET {} HTTP/1.1\r\nHost: {at}\r\n\r\n", stage.paths[0]);
    let socket = TcpSocket::new_v4().unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    for _ in 0..2 {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 << 10];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
    }
    stream.write_all(&head.as_bytes()[..20]).await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "it is still open");
    pull(at, NAME, "latest").await;
}
