//! Pushes while upstream is asked: what it said before one does not hold after it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hub::{Action, Fault, ImageSpec, Target};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::client::request;
use crate::conformance::{MANIFEST, digest_of, image, manifest_path, writable};
use crate::pull::get_manifest;
use crate::roadstead::{Roadstead, Setup};
use crate::uploads::{SOON, head, length};

const NAME: &str = "acme/app";

/// A registry with one manifest, under every reference; what it says of it can be held back.
#[derive(Debug)]
struct Registry {
    manifest: Mutex<Option<String>>,
    /// So many answers are yet to be held.
    held: Mutex<usize>,
    /// One for each that is held.
    asked: Semaphore,
    /// One for each that may go.
    released: Semaphore,
}

impl Registry {
    async fn start(manifest: Option<String>, held: usize) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let this = Arc::new(Self {
            manifest: Mutex::new(manifest),
            held: Mutex::new(held),
            asked: Semaphore::new(0),
            released: Semaphore::new(0),
        });
        let registry = Arc::clone(&this);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&registry).serve(socket));
            }
        });
        (at, this)
    }

    async fn serve(self: Arc<Self>, mut socket: TcpStream) {
        while let Some(head) = head(&mut socket).await {
            let mut body = vec![0; length(&head) as usize];
            socket.read_exact(&mut body).await.unwrap();
            let answer = self.answer(&head, body);
            let is_held = (head.starts_with("GET") || head.starts_with("HEAD"))
                && head.contains("/manifests/")
                && {
                    let mut held = self.held.lock().unwrap();
                    let is_held = *held > 0;
                    *held = held.saturating_sub(1);
                    is_held
                };
            if is_held {
                self.asked.add_permits(1);
                self.released.acquire().await.unwrap().forget();
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    fn answer(&self, head: &str, body: Vec<u8>) -> String {
        let mut manifest = self.manifest.lock().unwrap();
        if head.starts_with("PUT") {
            let body = String::from_utf8(body).unwrap();
            if body == "fail" {
                return "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned();
            }
            let digest = hub::sha256(body.as_bytes());
            *manifest = Some(body);
            return format!(
                "HTTP/1.1 201 Created\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 0\r\n\r\n"
            );
        }
        if head.starts_with("DELETE") && body == b"fail" {
            *manifest = None;
            return "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        if head.starts_with("DELETE") {
            *manifest = None;
            return "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        let Some(manifest) = &*manifest else {
            return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
        };
        let (digest, size) = (hub::sha256(manifest.as_bytes()), manifest.len());
        let body = if head.starts_with("HEAD") { "" } else { manifest };
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {size}\r\n\r\n{body}"
        )
    }

    async fn is_asked(&self) {
        timeout(SOON, self.asked.acquire()).await.unwrap().unwrap().forget();
    }
}

async fn before(at: SocketAddr) -> Roadstead {
    let setup = Setup::upstream(&format!("http://{at}"), "http://127.0.0.1:1/token");
    setup.with("writes", "forward").with("tags.fresh_for", "1h").start().await
}

async fn push(roadstead: &Roadstead, reference: &str, author: &str) {
    let put = request(roadstead.at(), "PUT", manifest_path(NAME, reference));
    let put = put.header("Content-Type", MANIFEST).body(image(author).to_string());
    assert_eq!(put.send().await.status, 201);
}

#[tokio::test]
async fn a_check_of_a_tag_does_not_undo_a_push() {
    let (at, registry) = Registry::start(Some(image("zero").to_string()), 2).await;
    let roadstead = before(at).await;
    let get = get_manifest(roadstead.at(), NAME, "latest");
    let pull = tokio::spawn(async move { get.send().await });
    for author in ["one", "two"] {
        registry.is_asked().await;
        push(&roadstead, "latest", author).await;
        registry.released.add_permits(1);
    }
    assert_eq!(timeout(SOON, pull).await.unwrap().unwrap().status, 200);
    let reply = get_manifest(roadstead.at(), NAME, "latest").send().await;
    let two = digest_of(&image("two"));
    assert_eq!((reply.status, reply.header("docker-content-digest")), (200, Some(&*two)));
}

#[tokio::test]
async fn a_no_is_not_remembered_that_a_push_has_overtaken() {
    let (at, registry) = Registry::start(None, 1).await;
    let roadstead = before(at).await;
    let digest = digest_of(&image("one"));
    let get = get_manifest(roadstead.at(), NAME, &digest);
    let pull = tokio::spawn(async move { get.send().await });
    registry.is_asked().await;
    push(&roadstead, &digest, "one").await;
    registry.released.add_permits(1);
    assert_eq!(timeout(SOON, pull).await.unwrap().unwrap().status, 404);
    assert_eq!(get_manifest(roadstead.at(), NAME, &digest).send().await.status, 200);
}

#[tokio::test]
async fn what_was_deleted_while_upstream_was_asked_does_not_come_back() {
    let (at, registry) = Registry::start(Some(image("one").to_string()), 0).await;
    let roadstead = before(at).await;
    let digest = digest_of(&image("one"));
    // It is known from elsewhere, so that a HEAD will do.
    assert_eq!(get_manifest(roadstead.at(), "acme/other", &digest).send().await.status, 200);
    *registry.held.lock().unwrap() = 1;
    let get = get_manifest(roadstead.at(), NAME, &digest);
    let pull = tokio::spawn(async move { get.send().await });
    registry.is_asked().await;
    let delete = request(roadstead.at(), "DELETE", manifest_path(NAME, &digest));
    assert_eq!(delete.send().await.status, 202);
    registry.released.add_permits(1);
    assert_eq!(timeout(SOON, pull).await.unwrap().unwrap().status, 200);
    assert_eq!(get_manifest(roadstead.at(), NAME, &digest).send().await.status, 404);
}

/// An immutable tag is never asked for again, but for this.
#[tokio::test]
async fn an_immutable_tag_is_asked_for_after_a_write_that_failed() {
    let (at, registry) = Registry::start(Some(image("zero").to_string()), 0).await;
    let setup = Setup::upstream(&format!("http://{at}"), "http://127.0.0.1:1/token");
    let setup = setup.with("writes", "forward").with("tags.immutable", json!(["v*"]));
    let roadstead = setup.start().await;
    let named = async || {
        let reply = get_manifest(roadstead.at(), NAME, "v1").send().await;
        assert!(reply.header("age").is_none_or(|age| age.len() < 4), "{reply:?}");
        reply.header("docker-content-digest").unwrap().to_owned()
    };
    assert_eq!(named().await, digest_of(&image("zero")));
    *registry.manifest.lock().unwrap() = Some(image("one").to_string());
    assert_eq!(named().await, digest_of(&image("zero")));
    // Nobody knows how it ended.
    let put = request(roadstead.at(), "PUT", manifest_path(NAME, "v1"));
    let put = put.header("Content-Type", MANIFEST).body("fail");
    assert_eq!(put.send().await.status, 500);
    assert_eq!(named().await, digest_of(&image("one")));
    *registry.manifest.lock().unwrap() = Some(image("two").to_string());
    assert_eq!(named().await, digest_of(&image("one")), "it is immutable again");
}

/// The tags that name a digest go with it.
#[tokio::test]
async fn what_a_deletion_that_failed_may_have_taken_is_asked_for() {
    let (at, registry) = Registry::start(Some(image("zero").to_string()), 0).await;
    let setup = Setup::upstream(&format!("http://{at}"), "http://127.0.0.1:1/token");
    let setup = setup.with("writes", "forward").with("tags.fresh_for", "1h");
    let roadstead = setup.with("tags.immutable", json!(["v*"])).start().await;
    let digest = digest_of(&image("zero"));
    let ask = async |reference: &str| {
        let reply = get_manifest(roadstead.at(), NAME, reference).send().await;
        (reply.status, reply.header("docker-content-digest").map(str::to_owned))
    };
    let delete = async || {
        let delete = request(roadstead.at(), "DELETE", manifest_path(NAME, &digest)).body("fail");
        assert_eq!(delete.send().await.status, 500);
    };
    let references = ["v1", "latest", &digest];
    for reference in references {
        assert_eq!(ask(reference).await, (200, Some(digest.clone())));
    }
    // It was not done.
    delete().await;
    *registry.manifest.lock().unwrap() = Some(image("zero").to_string());
    for reference in references {
        assert_eq!(ask(reference).await, (200, Some(digest.clone())), "{reference}");
    }
    *registry.manifest.lock().unwrap() = None;
    for reference in references {
        assert_eq!(ask(reference).await.0, 200, "{reference}: nothing is in doubt any more");
    }
    // It was done.
    delete().await;
    for reference in references {
        assert_eq!(ask(reference).await.0, 404, "{reference}");
    }
}

#[tokio::test]
async fn what_may_have_been_deleted_is_served_while_upstream_can_not_say() {
    let hub = writable().await;
    let digest = hub.push(&ImageSpec::new(NAME).tag("latest").single()).digest;
    let roadstead = Setup::of(&hub).with("writes", "forward").impatient().start().await;
    for reference in ["latest", &digest] {
        assert_eq!(get_manifest(roadstead.at(), NAME, reference).send().await.status, 200);
    }
    hub.fault(Fault::new(Target::any(), Action::Drop));
    let delete = request(roadstead.at(), "DELETE", manifest_path(NAME, &digest));
    assert_eq!(delete.send().await.status, 502);
    for reference in ["latest", &digest] {
        let reply = get_manifest(roadstead.at(), NAME, reference).send().await;
        assert_eq!(reply.status, 200, "{reference}");
        assert!(reply.cache_status().starts_with("roadstead; hit; detail=upstream-"), "{reply:?}");
    }
}
