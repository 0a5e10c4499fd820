//! Uploads on their way: streamed, sent once, and going on through us wherever the registry says.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hub::Hub;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::client::{Connection, get, raw, request};
use crate::conformance::{Registry, blob_path, with_digest, writable};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "acme/app";
const UPLOADS: &str = "/v2/acme/app/blobs/uploads/";
pub(crate) const SOON: Duration = Duration::from_secs(10);

fn forwarding(hub: &Hub) -> Setup {
    Setup::of(hub).with("writes", "forward")
}

async fn before(at: SocketAddr) -> Roadstead {
    let setup = Setup::upstream(&format!("http://{at}"), "http://127.0.0.1:1/token");
    setup.with("writes", "forward").start().await
}

/// The head of a request.
pub(crate) async fn head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

pub(crate) fn length(head: &str) -> u64 {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.map_or(0, |(_, length)| length.parse().unwrap())
}

/// A client that has been told to go on with six bytes of an upload.
async fn told_to_go_on(roadstead: &Roadstead, location: &str) -> TcpStream {
    let mut client = TcpStream::connect(roadstead.at()).await.unwrap();
    let text = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n"
    );
    client.write_all(text.as_bytes()).await.unwrap();
    let interim = timeout(SOON, head(&mut client)).await.unwrap().unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    client
}

/// It is answered that they have come.
async fn has_six_bytes(client: &mut TcpStream) {
    let last = timeout(SOON, head(client)).await.unwrap().unwrap();
    assert!(last.starts_with("HTTP/1.1 202 "), "{last}");
    assert!(last.to_lowercase().contains("range: 0-5"), "{last}");
}

/// A registry that gives these answers, one after the other, and then hangs up on every request.
pub(crate) async fn scripted(answers: Vec<String>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (heads, answers) =
        (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(VecDeque::from(answers))));
    let kept = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
            tokio::spawn(async move {
                while let Some(head) = head(&mut socket).await {
                    let mut body = vec![0; length(&head) as usize];
                    socket.read_exact(&mut body).await.unwrap();
                    kept.lock().unwrap().push(head);
                    let answer = answers.lock().unwrap().pop_front();
                    let Some(answer) = answer else { return };
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (at, heads)
}

fn accepted(location: &str) -> String {
    format!("HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

fn resident(roadstead: &Roadstead) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", roadstead.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_large_push_waits_for_a_slow_registry_and_is_never_held_whole() {
    const SIZE: u64 = 256 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let go_on = Arc::new(Notify::new());
    let waits = Arc::clone(&go_on);
    let registry = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = head(&mut socket).await.unwrap();
        waits.notified().await;
        let mut left = length(&head);
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            let read = socket.read(&mut buffer).await.unwrap() as u64;
            assert!(read > 0, "{left} bytes are missing");
            left -= read;
        }
        socket.write_all(accepted(&format!("{UPLOADS}2")).as_bytes()).await.unwrap();
        head
    });
    let roadstead = before(at).await;
    let before = resident(&roadstead);
    let mut client = TcpStream::connect(roadstead.at()).await.unwrap();
    let text = format!(
        "PATCH {UPLOADS}1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    client.write_all(text.as_bytes()).await.unwrap();
    let piece = vec![7; 1 << 20];
    let mut sent = 0;
    // Until nobody takes any more.
    while let Ok(taken) = timeout(Duration::from_secs(1), client.write(&piece)).await {
        sent += taken.unwrap() as u64;
        assert!(sent < 64 << 20, "the registry has read nothing, and {sent} bytes were taken");
    }
    let grown = resident(&roadstead).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more while the registry waits");
    go_on.notify_one();
    while sent < SIZE {
        let rest = piece.len().min((SIZE - sent) as usize);
        sent += client.write(&piece[..rest]).await.unwrap() as u64;
    }
    let grown = resident(&roadstead).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more for a push of {SIZE}");
    let mut answer = Vec::new();
    timeout(SOON, client.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 202 "), "{}", String::from_utf8_lossy(&answer));
    let head = registry.await.unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).start().await;
    let mut registry = Registry::at(roadstead.at());
    let location = registry.begin(NAME).await;
    let mut client = told_to_go_on(&roadstead, &location).await;
    client.write_all(b"a blob").await.unwrap();
    has_six_bytes(&mut client).await;
}

#[tokio::test]
async fn a_body_in_chunks_of_http_passes() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).start().await;
    let mut registry = Registry::at(roadstead.at());
    let location = registry.begin(NAME).await;
    let text = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na b\r\n3\r\nlob\r\n0\r\n\r\n"
    );
    let answer = String::from_utf8(raw(roadstead.at(), text.as_bytes(), SOON).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let lines = answer.lines().filter_map(|line| line.split_once(": "));
    let location = lines.clone().find(|(name, _)| name.eq_ignore_ascii_case("location")).unwrap().1;
    let digest = hub::sha256(b"a blob");
    let put = registry.request("PUT", &with_digest(location, &digest)).body("");
    assert_eq!(registry.send(put).await.status, 201);
    assert_eq!(registry.get(&blob_path(NAME, &digest)).await.text(), "a blob");
}

#[tokio::test]
async fn a_write_is_never_sent_twice() {
    let (at, heads) = scripted(vec![accepted(&format!("{UPLOADS}1"))]).await;
    let roadstead = before(at).await;
    let put = |number: u32| {
        let path = format!("{UPLOADS}{number}?digest={}", hub::sha256(b"x"));
        request(roadstead.at(), "PUT", path).body("x")
    };
    // The first leaves a connection that can be used again; the second is hung up on, having been
    // read: it may have been done.
    assert_eq!(put(1).send().await.status, 202);
    let reply = put(2).send().await;
    assert_eq!((reply.status, &*reply.error_code()), (502, "UNAVAILABLE"));
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 2, "{heads:#?}");
}

#[tokio::test]
async fn an_upload_goes_on_through_us_wherever_the_registry_says() {
    // As ghcr.io has it, and as a registry behind a terminator.
    let odd = "/v2/acme/app/blobs/upload/4b/1?_state=a%2Bb%3D%3D";
    // With a space: our front lets none in.
    let spaced = format!("{UPLOADS}3?_state=a%20b");
    let (at, heads) = scripted(vec![
        accepted(odd),
        accepted(&format!("http://127.0.0.1{UPLOADS}2?_state=a%2Bb%3D%3D")),
        accepted(&spaced),
        "HTTP/1.1 201 Created\r\nLocation: https://elsewhere.example/x\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
    ])
    .await;
    let roadstead = before(at).await;
    let post = request(roadstead.at(), "POST", UPLOADS).body("");
    let location = post.send().await.header("location").unwrap().to_owned();
    assert!(location.starts_with(UPLOADS), "{location}");
    let patch = request(roadstead.at(), "PATCH", location.clone()).body("a blob");
    let reply = patch.send().await;
    let next = format!("{UPLOADS}2?_state=a%2Bb%3D%3D");
    assert_eq!(reply.header("location"), Some(&*next));
    let patch = request(roadstead.at(), "PATCH", next.clone()).body("more");
    let last = patch.send().await.header("location").unwrap().to_owned();
    let digest = hub::sha256(b"a blob");
    let put = request(roadstead.at(), "PUT", with_digest(&last, &digest)).body("");
    let reply = put.send().await;
    assert_eq!((reply.status, reply.header("location")), (201, Some(&*blob_path(NAME, &digest))));
    let heads = heads.lock().unwrap().clone();
    assert!(heads[1].starts_with(&format!("PATCH {odd} HTTP/1.1\r\n")), "{}", heads[1]);
    assert!(heads[2].starts_with(&format!("PATCH {next} ")), "{}", heads[2]);
    assert!(heads[3].starts_with(&format!("PUT {spaced}&digest={digest} ")), "{}", heads[3]);
    // What stands for the place is good in that repository alone, and can't be made up.
    let session = location.split_once('?').unwrap().0.rsplit_once('/').unwrap().1;
    for path in
        [format!("/v2/acme/other/blobs/uploads/{session}"), format!("{UPLOADS}~{}", "0".repeat(32))]
    {
        let reply = request(roadstead.at(), "PATCH", path).body("x").send().await;
        assert_eq!((reply.status, &*reply.error_code()), (404, "BLOB_UPLOAD_UNKNOWN"));
    }
}

#[tokio::test]
async fn an_upload_that_goes_on_at_a_stranger_s_is_refused() {
    let elsewhere = "https://storage.example/bucket?sig=1";
    let (at, _) = scripted(vec![accepted(elsewhere), accepted(elsewhere)]).await;
    let mut roadstead = before(at).await;
    let reply = request(roadstead.at(), "POST", UPLOADS).body("").send().await;
    assert_eq!((reply.status, &*reply.error_code()), (502, "UNAVAILABLE"));
    assert!(reply.text().contains("storage.example"), "{}", reply.text());
    assert!(reply.text().contains("redirect_hosts"), "{}", reply.text());
    assert_eq!(reply.header("location"), None);
    roadstead.terminate().await;
    roadstead.restart_with(|setup| setup.with("redirect_hosts", json!(["storage.example"]))).await;
    let reply = request(roadstead.at(), "POST", UPLOADS).body("").send().await;
    assert_eq!((reply.status, reply.header("location")), (202, Some(elsewhere)));
}

#[tokio::test]
async fn a_connection_serves_pushes_and_pulls_one_after_the_other() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).start().await;
    let digest = hub::sha256(b"a blob");
    let mut connection = Connection::open(roadstead.at()).await.unwrap();
    for _ in 0..3 {
        let post = request(roadstead.at(), "POST", format!("{UPLOADS}?digest={digest}"));
        let answer = connection.exchange(&post.body("a blob")).await.unwrap();
        let (reply, kept) = answer.finish_and_keep().await;
        assert_eq!(reply.status, 201);
        let get = request(roadstead.at(), "GET", blob_path(NAME, &digest));
        let (reply, kept) = kept.exchange(&get).await.unwrap().finish_and_keep().await;
        assert_eq!((reply.status, &*reply.text()), (200, "a blob"));
        connection = kept;
    }
}

#[tokio::test]
async fn what_a_client_cut_short_is_not_passed_on_as_the_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let registry = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = head(&mut socket).await.unwrap();
        let mut body = Vec::new();
        // It may be reset, or closed.
        let _ = socket.read_to_end(&mut body).await;
        (head, String::from_utf8(body).unwrap())
    });
    let roadstead = before(at).await;
    let mut client = TcpStream::connect(roadstead.at()).await.unwrap();
    let text = format!(
        "PATCH {UPLOADS}1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na blob\r\n"
    );
    client.write_all(text.as_bytes()).await.unwrap();
    drop(client);
    let (head, body) = timeout(SOON, registry).await.unwrap().unwrap();
    assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert!(!body.contains("\r\n0\r\n") && !body.starts_with("0\r\n"), "{body:?}");
}

#[tokio::test]
async fn a_namespace_is_given_back_as_a_query_has_it() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).with("hosts", json!(["registry.lan"])).start().await;
    let digest = hub::sha256(b"a blob");
    for (namespace, echoed) in [("%C3%A9", Some("é")), ("a%26b", Some("a&b"))] {
        let begin = format!("{UPLOADS}?ns={namespace}");
        let post = || request(roadstead.at(), "POST", &begin).header("Host", "registry.lan");
        let reply = post().body("").send().await;
        assert_eq!((reply.status, reply.header("oci-namespace")), (202, echoed));
        let location = reply.header("location").unwrap();
        assert!(location.ends_with(&format!("ns={namespace}")), "{location}");
        let put = request(roadstead.at(), "PUT", with_digest(location, &digest));
        let reply = put.header("Host", "registry.lan").body("a blob").send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let place = format!("{}?ns={namespace}", blob_path(NAME, &digest));
        assert_eq!(reply.header("location"), Some(&*place));
    }
}

/// What limits the time of a head does not limit that of the body which follows a 100.
#[tokio::test]
async fn a_client_that_asked_first_has_time_for_its_body() {
    let hub = writable().await;
    let setup = forwarding(&hub).key("downstream", json!({ "head": "1s" }));
    let roadstead = setup.start().await;
    let location = Registry::at(roadstead.at()).begin(NAME).await;
    let mut client = told_to_go_on(&roadstead, &location).await;
    client.write_all(b"a b").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.write_all(b"lob").await.unwrap();
    has_six_bytes(&mut client).await;
}

#[tokio::test]
async fn a_push_that_has_begun_is_finished_before_the_end() {
    let hub = writable().await;
    let mut roadstead = forwarding(&hub).start().await;
    let location = Registry::at(roadstead.at()).begin(NAME).await;
    let mut client = told_to_go_on(&roadstead, &location).await;
    client.write_all(b"a b").await.unwrap();
    roadstead.signal_term();
    let drains = async {
        while let Ok(reply) = get(roadstead.admin(), "/readyz").try_send().await
            && reply.status == 200
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, drains).await.unwrap();
    client.write_all(b"lob").await.unwrap();
    has_six_bytes(&mut client).await;
    assert!(roadstead.ended().await.success());
}
