//! A client that shows the wire as it is: one request, one connection, every byte until its end.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use hub::Hub;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// All that came before the connection closed.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn length(&self) -> u64 {
        self.header("content-length").unwrap().parse().unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) async fn connect(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// `None`: the connection closed without an answer.
pub(crate) async fn send(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Reply> {
    let mut socket = connect(at, method, path, headers, body).await;
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.unwrap().unwrap();
    (!bytes.is_empty()).then(|| parse(&bytes))
}

pub(crate) async fn get(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(at, "GET", path, headers, "").await.unwrap()
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Reply { status, headers, body: bytes[end + 4..].to_vec() }
}

/// An anonymous token for this repository, as a header's value.
pub(crate) async fn bearer(hub: &Hub, repository: &str) -> String {
    bearer_of(hub, repository, &[]).await
}

/// The token of an account.
pub(crate) async fn bearer_as(hub: &Hub, user: &str, password: &str, repository: &str) -> String {
    let pair = format!("{user}:{password}");
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    bearer_of(hub, repository, &[("Authorization", &basic)]).await
}

async fn bearer_of(hub: &Hub, repository: &str, headers: &[(&str, &str)]) -> String {
    let path = format!("/token?service=registry.docker.io&scope=repository%3A{repository}%3Apull");
    let reply = get(hub.token(), &path, headers).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    format!("Bearer {}", reply.json()["token"].as_str().unwrap())
}

/// Manifest by an anonymous client with a token of its own.
pub(crate) async fn manifest(hub: &Hub, method: &str, repository: &str, reference: &str) -> Reply {
    let bearer = bearer(hub, repository).await;
    let path = format!("/v2/{repository}/manifests/{reference}");
    send(hub.registry(), method, &path, &[("Authorization", &bearer)], "").await.unwrap()
}

/// Path and query at the CDN that the registry redirects a blob GET to.
pub(crate) async fn cdn_path(hub: &Hub, repository: &str, digest: &str) -> String {
    let bearer = bearer(hub, repository).await;
    let path = format!("/v2/{repository}/blobs/{digest}");
    let reply = get(hub.registry(), &path, &[("Authorization", &bearer)]).await;
    assert_eq!(reply.status, 307, "{reply:?}");
    let origin = format!("http://{}", hub.cdn());
    reply.header("location").unwrap().strip_prefix(&origin).unwrap().to_owned()
}
