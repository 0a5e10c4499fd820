//! What reaches the client port and is no registry client's request.

use std::time::Duration;

use hub::{Hub, ImageSpec};
use tokio::time::{Instant, sleep};

use crate::client::{Connection, get, raw, request};
use crate::pull::{blob_path, manifest_path};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";
const SOON: Duration = Duration::from_secs(2);

async fn stage() -> (Hub, Roadstead) {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = Roadstead::start(&hub).await;
    (hub, roadstead)
}

/// The status line's code, of the only answer there is.
fn only_status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    assert_eq!(text.matches("HTTP/1.").count(), 1, "{text}");
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_has_two_readings_is_refused_and_the_connection_closed() {
    let (hub, roadstead) = stage().await;
    let target = manifest_path(NAME, "latest");
    let smuggled = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = smuggled.len();
    let cases = [
        format!("GET {target} HTTP/1.1\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
             Content-Length: {length}\r\n\r\n{smuggled}"
        ),
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n"),
        format!("GET {target} HTTP/1.1\nHost: x\n\n"),
        format!("GET {target} HTTP/1.1\r\nHost: x\nAccept: y\r\n\r\n"),
        format!("GET {target}\0 HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {target}%00 HTTP/1.1\r\nHost: x\r\n\r\n"),
        "GET /v2/../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /v2/library/%2e%2e/alpine/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /v2/library/alpine/manifests/.. HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n"
        ),
        format!("TRACE {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n".to_owned(),
        format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\r\n\r\nhello\r\n\r\n".to_owned(),
    ];
    for case in cases {
        let answer = raw(roadstead.at(), case.as_bytes(), SOON).await;
        if answer.is_empty() {
            continue;
        }
        let status = only_status(&answer);
        assert!((400..500).contains(&status), "{case:?}: {status}");
    }
    assert_eq!(hub.stats().requests(), 0, "{:?}", hub.requests());
    // It still serves.
    assert_eq!(get(roadstead.at(), target).send().await.status, 200);
}

/// The parser makes %20 of a space, so that the front never sees it.
#[tokio::test]
async fn a_space_in_the_target_is_refused_as_malformed() {
    let (hub, roadstead) = stage().await;
    for target in [format!("/v2/{NAME}/tags/list?n=1 x"), format!("/v2/{NAME}/tags/list?n=1\tx")] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(roadstead.at(), text.as_bytes(), SOON).await;
        assert_eq!(only_status(&answer), 400, "{target:?}");
    }
    assert_eq!(hub.stats().requests(), 0, "{:?}", hub.requests());
}

#[tokio::test]
async fn what_our_own_front_refuses_says_so_in_the_spec_s_json() {
    let (_hub, roadstead) = stage().await;
    let body = get(roadstead.at(), "/v2/").header("Content-Length", "5");
    let upgrade = get(roadstead.at(), "/v2/").header("Upgrade", "websocket");
    let dots = get(roadstead.at(), "/v2/../etc");
    for request in [body, upgrade, dots] {
        let what = format!("{request:?}");
        let reply = request.send().await;
        assert_eq!(reply.status, 400, "{what}");
        assert_eq!(reply.error_code(), "UNSUPPORTED", "{what}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_without_a_word_to_upstream() {
    let (hub, roadstead) = stage().await;
    let digest = hub::sha256(b"x");
    let paths = [
        manifest_path(NAME, "latest"),
        blob_path(NAME, &digest),
        format!("/v2/{NAME}/blobs/uploads/"),
        format!("/v2/{NAME}/blobs/uploads/5f3a1c?digest={digest}"),
        "/v2/".to_owned(),
    ];
    for path in paths {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request = request(roadstead.at(), method, &path);
            let reply = request.header("Content-Length", "0").send().await;
            assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
            assert_eq!(reply.error_code(), "UNSUPPORTED");
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
    assert_eq!(hub.stats().requests(), 0, "{:?}", hub.requests());
}

#[tokio::test]
async fn a_push_with_a_body_is_refused_and_its_body_is_no_request() {
    let (hub, roadstead) = stage().await;
    let body = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        manifest_path(NAME, "latest"),
        body.len()
    );
    let answer = raw(roadstead.at(), text.as_bytes(), SOON).await;
    assert_eq!(only_status(&answer), 405);
    assert_eq!(hub.stats().requests(), 0);
}

#[tokio::test]
async fn what_is_no_registry_s_path_is_an_oci_error() {
    let (hub, roadstead) = stage().await;
    for path in [
        "/",
        "/v1/_ping",
        "/v2/library/alpine",
        "/v2/Library/Alpine/manifests/latest",
        "/v2/library/alpine/manifests/-bad",
        "/v2/library/alpine/manifests/sha256:abc",
        "/v2/library/alpine/blobs/latest",
        "/v2/library/alpine/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
        "/v2//alpine/manifests/latest",
        "/v2/evil.example.com/alpine/manifests/latest",
    ] {
        let reply = get(roadstead.at(), path).send().await;
        assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
        reply.error_code();
    }
    assert_eq!(hub.stats().requests(), 0, "{:?}", hub.requests());
}

#[tokio::test]
async fn a_tls_hello_on_the_plain_port_is_answered_at_once() {
    let (_hub, roadstead) = stage().await;
    // A record of 512 bytes: handshake, TLS 1.0 outside, ClientHello, TLS 1.2 inside.
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.resize(5 + 512, 0xab);
    let begun = Instant::now();
    let answer = raw(roadstead.at(), &hello, Duration::from_secs(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(answer.is_empty() || only_status(&answer) == 400);
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let (_hub, roadstead) = stage().await;
    let mut head = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n".to_vec();
    for number in 0..40_000 {
        head.extend(format!("X-{number}: {}\r\n", "x".repeat(90)).as_bytes());
    }
    let answer = raw(roadstead.at(), &head, Duration::from_secs(5)).await;
    assert!(answer.is_empty() || (400..500).contains(&only_status(&answer)));
    assert_eq!(get(roadstead.at(), "/v2/").send().await.status, 200);
}

/// Sends `bytes` one at a time until the server closes; answers how long that took.
async fn dribble(mut connection: Connection, bytes: &[u8], every: Duration) -> Duration {
    let begun = Instant::now();
    for byte in bytes {
        if connection.write(&[*byte]).await.is_err() || connection.is_closed(every).await {
            return begun.elapsed();
        }
    }
    panic!("{} bytes were taken in {:?}", bytes.len(), begun.elapsed());
}

const ENDLESS: [u8; 200] = [b'x'; 200];

#[tokio::test]
async fn a_dribbled_head_is_cut_in_time() {
    let hub = Hub::start().await;
    let setup = Setup::of(&hub).key("downstream.head", "2s");
    let roadstead = setup.start().await;
    let mut connection = Connection::open(roadstead.at()).await.unwrap();
    connection.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let took = dribble(connection, &ENDLESS, Duration::from_millis(100)).await;
    assert!((1..4).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_dribbled_second_head_is_cut_in_time() {
    let hub = Hub::start().await;
    let setup = Setup::of(&hub).key("downstream.head", "2s");
    let roadstead = setup.start().await;
    let connection = Connection::open(roadstead.at()).await.unwrap();
    let answer = connection.exchange(&get(roadstead.at(), "/v2/")).await.unwrap();
    let (reply, mut connection) = answer.finish_and_keep().await;
    assert_eq!(reply.status, 200);
    connection.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let took = dribble(connection, &ENDLESS, Duration::from_millis(100)).await;
    assert!((1..4).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_head_that_stops_midway_is_cut_in_time() {
    let hub = Hub::start().await;
    let setup = Setup::of(&hub).key("downstream.head", "2s");
    let roadstead = setup.start().await;
    let begun = Instant::now();
    raw(roadstead.at(), b"GET /v2/ HTT", Duration::from_secs(4)).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let (_hub, roadstead) = stage().await;
    let mut connection = Connection::open(roadstead.at()).await.unwrap();
    let layer = hub::sha256(b"absent");
    for _ in 0..3 {
        for (path, status) in [
            ("/v2/".to_owned(), 200),
            (manifest_path(NAME, "latest"), 200),
            (blob_path(NAME, &layer), 404),
        ] {
            let answer = connection.exchange(&get(roadstead.at(), path)).await.unwrap();
            let (reply, kept) = answer.finish_and_keep().await;
            assert_eq!((reply.status, reply.complete), (status, true));
            connection = kept;
        }
        // Longer than it takes to serve: an idle connection stays.
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_or_not_at_all() {
    let (_hub, roadstead) = stage().await;
    let one = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let two = "GET /v2/nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = raw(roadstead.at(), format!("{one}{two}").as_bytes(), SOON).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    if let Some((_, second)) = text.split_once("{}") {
        assert!(second.is_empty() || second.starts_with("HTTP/1.1 404"), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_says_close_gets_it_closed() {
    let (_hub, roadstead) = stage().await;
    let layer = hub::sha256(b"absent");
    for path in ["/v2/".to_owned(), manifest_path(NAME, "latest"), blob_path(NAME, &layer)] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(roadstead.at(), text.as_bytes(), SOON).await;
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.contains("connection: close\r\n"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let (_hub, roadstead) = stage().await;
    for path in ["/v2/".to_owned(), manifest_path(NAME, "latest")] {
        let text = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = raw(roadstead.at(), text.as_bytes(), SOON).await;
        assert_eq!(only_status(&answer), 200, "{path}");
    }
}
