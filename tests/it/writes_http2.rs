//! Pushes over HTTP/2, as Go's clients send them to a listener with TLS.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use hub::Hub;
use serde_json::json;
use tokio::time::timeout;

use crate::conformance::{
    MANIFEST, blob_path, config, digest_of, image, manifest_path, with_digest, writable,
};
use crate::pull::get_manifest;
use crate::roadstead::{Roadstead, Setup, free_address};
use crate::secure::{self, Signer, Speaker};
use crate::uploads::SOON;

const NAME: &str = "acme/app";
const HOST: &str = "mirror.test";

async fn connected(hub: &Hub) -> (Roadstead, SendRequest<Bytes>) {
    let (signer, folder) = (Signer::new("one"), tempfile::tempdir().unwrap());
    signer.issue(HOST).write(folder.path(), "tls");
    let (certificate, key) = secure::paths(folder.path(), "tls");
    let at = free_address();
    let listen = json!([{
        "address": at.to_string(), "tls": { "certificate": certificate, "key": key },
    }]);
    let setup = Setup::of(hub).with("writes", "forward").key("listen", listen);
    let roadstead = setup.start().await;
    let speaker = Speaker::trusting(&[&signer.pem()]).protocol(b"h2");
    let stream = speaker.dial(at, HOST).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    (roadstead, client)
}

async fn send(
    client: &mut SendRequest<Bytes>,
    method: Method,
    path: &str,
    body: &[u8],
    is_long_as_said: bool,
) -> Response<h2::RecvStream> {
    let mut request = Request::builder().method(method).uri(format!("https://{HOST}{path}"));
    request = request.header("content-type", MANIFEST);
    if is_long_as_said {
        request = request.header("content-length", body.len());
    }
    let (answer, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
    timeout(SOON, answer).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_push_over_http_2_arrives_whole() {
    let hub = writable().await;
    let (roadstead, mut client) = connected(&hub).await;
    // More than a window of HTTP/2, with its length and without.
    for (fill, is_long_as_said) in [(1, true), (2, false)] {
        let blob = vec![fill; 1 << 20];
        let digest = hub::sha256(&blob);
        let begin = format!("/v2/{NAME}/blobs/uploads/");
        let answer = send(&mut client, Method::POST, &begin, b"", true).await;
        assert_eq!(answer.status(), 202);
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let answer = send(&mut client, Method::PATCH, &location, &blob, is_long_as_said).await;
        assert_eq!(answer.status(), 202);
        let location = answer.headers()["location"].to_str().unwrap();
        let last = with_digest(location, &digest);
        let answer = send(&mut client, Method::PUT, &last, b"", true).await;
        assert_eq!(answer.status(), 201);
        let place = answer.headers()["location"].to_str().unwrap();
        assert_eq!(place, blob_path(NAME, &digest));
    }
    for blob in [config("one"), b"a layer".to_vec()] {
        let begin = format!("/v2/{NAME}/blobs/uploads/?digest={}", hub::sha256(&blob));
        assert_eq!(send(&mut client, Method::POST, &begin, &blob, false).await.status(), 201);
    }
    let manifest = image("one");
    let path = manifest_path(NAME, "latest");
    let body = manifest.to_string();
    let answer = send(&mut client, Method::PUT, &path, body.as_bytes(), false).await;
    assert_eq!(answer.status(), 201);
    let reply = get_manifest(roadstead.at(), NAME, "latest").send().await;
    let digest = digest_of(&manifest);
    assert_eq!((reply.status, reply.header("docker-content-digest")), (200, Some(&*digest)));
}

/// A client far away fills the line between it and us, where HTTP/2's own 64 KiB would not. (h2's client keeps 400 KiB.)
#[tokio::test]
async fn more_than_a_window_of_a_push_may_be_under_way() {
    const WANTED: usize = 256 << 10;
    let hub = writable().await;
    let (_roadstead, mut client) = connected(&hub).await;
    // The connection's window comes with the first exchange.
    assert_eq!(send(&mut client, Method::GET, "/v2/", b"", true).await.status(), 200);
    let request = Request::patch(format!("https://{HOST}/v2/{NAME}/blobs/uploads/none"));
    let (_answer, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.reserve_capacity(WANTED);
    let mut capacity = 0;
    while capacity < WANTED {
        let more = poll_fn(|context| stream.poll_capacity(context));
        capacity = timeout(SOON, more).await.unwrap().unwrap().unwrap();
    }
}
