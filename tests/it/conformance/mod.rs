//! The distribution spec, 1.1, section by section: one module for each of its four categories, in
//! them one for each anchor of the text.
//!
//! Every scenario runs twice, against a conformant registry and through Roadstead before another
//! like it; what the spec demands is asserted of both, and both must answer alike.

mod discovery;
mod management;
mod pull;
mod push;

use std::net::SocketAddr;
use std::time::Duration;

use hub::{Hub, Options};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Reply, Request, request};
use crate::roadstead::{Roadstead, Setup};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The repository of a scenario.
pub(crate) const NAME: &str = "conformance/one";

/// Another, to mount from.
pub(crate) const OTHER: &str = "conformance/two";

/// Headers of which both must say the same.
const HEADERS: [&str; 8] = [
    "content-type",
    "docker-content-digest",
    "link",
    "location",
    "oci-chunk-min-length",
    "oci-filters-applied",
    "oci-subject",
    "range",
];

/// A registry that takes pushes from anybody.
pub(crate) async fn writable() -> Hub {
    let options = Options {
        writable: true,
        require_token: false,
        redirect_blobs: false,
        limit: None,
        ..Options::default()
    };
    Hub::start_with(options).await.unwrap()
}

/// Runs a scenario against the registry itself and through Roadstead.
async fn conforms(scenario: impl AsyncFn(&mut Registry)) {
    let (alone, behind) = (writable().await, writable().await);
    let roadstead = Setup::of(&behind).with("writes", "forward").start().await;
    let mut direct = Registry::at(alone.registry());
    scenario(&mut direct).await;
    let mut through = Registry::at(roadstead.at());
    scenario(&mut through).await;
    assert_eq!(direct.seen, through.seen, "the registry, and Roadstead before it");
    roadstead_was_asked(&roadstead, through.seen.len()).await;
}

/// By its own count.
async fn roadstead_was_asked(roadstead: &Roadstead, requests: usize) {
    // A request is counted a moment after its answer.
    let deadline = Instant::now() + Duration::from_secs(5);
    while roadstead.metric(&["roadstead_requests_total"]).await as usize != requests {
        assert!(Instant::now() < deadline, "not {requests}: {:#?}", roadstead.metrics().await);
        sleep(Duration::from_millis(10)).await;
    }
}

/// A registry as a client sees it, and all that it answered.
pub(crate) struct Registry {
    at: SocketAddr,
    seen: Vec<String>,
}

impl Registry {
    pub(crate) fn at(at: SocketAddr) -> Self {
        Self { at, seen: Vec::new() }
    }

    /// A request for a path, or for a `Location` as it came.
    pub(crate) fn request(&self, method: &str, place: &str) -> Request {
        let host = format!("http://{}", self.at);
        request(self.at, method, place.strip_prefix(&host).unwrap_or(place))
    }

    pub(crate) async fn send(&mut self, request: Request) -> Reply {
        let reply = request.send().await;
        assert!(reply.complete, "{reply:?}");
        self.seen.push(told(&reply));
        reply
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.send(self.request("GET", path)).await
    }

    pub(crate) async fn head(&mut self, path: &str) -> Reply {
        self.send(self.request("HEAD", path)).await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Reply {
        self.send(self.request("DELETE", path)).await
    }

    /// `POST` of an upload, with a query; answers where it goes on.
    pub(crate) async fn begin(&mut self, name: &str) -> String {
        let post = self.request("POST", &format!("/v2/{name}/blobs/uploads/")).body("");
        let reply = self.send(post).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.header("location").unwrap().to_owned()
    }

    /// A blob by POST and PUT; its digest.
    pub(crate) async fn push_blob(&mut self, name: &str, blob: &[u8]) -> String {
        let (digest, location) = (hub::sha256(blob), self.begin(name).await);
        let put = self.request("PUT", &with_digest(&location, &digest));
        let put = put.header("Content-Type", "application/octet-stream").body(blob);
        let reply = self.send(put).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        digest
    }

    /// A manifest under a reference.
    pub(crate) async fn push_manifest(
        &mut self,
        name: &str,
        reference: &str,
        media_type: &str,
        manifest: &Value,
    ) -> Reply {
        let put = self.request("PUT", &format!("/v2/{name}/manifests/{reference}"));
        let put = put.header("Content-Type", media_type).body(manifest.to_string());
        self.send(put).await
    }

    /// An image with its blobs, under a tag; the manifest.
    pub(crate) async fn push_image(&mut self, name: &str, tag: &str) -> Value {
        let manifest = image("one");
        self.push_blob(name, &config("one")).await;
        self.push_blob(name, b"a layer").await;
        let reply = self.push_manifest(name, tag, MANIFEST, &manifest).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        manifest
    }
}

/// What of an answer must be the same for all; what a session is called may differ.
fn told(reply: &Reply) -> String {
    let mut told = reply.status.to_string();
    for name in HEADERS {
        if let Some(value) = reply.header(name) {
            let value = match value.split_once("/blobs/uploads/") {
                Some((before, _)) => format!("{before}/blobs/uploads/*"),
                None => value.to_owned(),
            };
            told.push_str(&format!("\n{name}: {value}"));
        }
    }
    if reply.status >= 400 && !reply.body.is_empty() {
        told.push_str(&format!("\n{}", reply.json()["errors"][0]["code"]));
    } else if reply.status < 300 {
        told.push_str(&format!("\n{}", reply.text()));
    }
    told
}

/// A `Location` with the digest that ends the upload.
pub(crate) fn with_digest(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

pub(crate) fn config(author: &str) -> Vec<u8> {
    let rootfs = json!({ "type": "layers", "diff_ids": [hub::sha256(b"a layer")] });
    let config =
        json!({ "architecture": "amd64", "os": "linux", "author": author, "rootfs": rootfs });
    config.to_string().into_bytes()
}

pub(crate) fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": hub::sha256(blob), "size": blob.len() })
}

/// An image's manifest; its blobs are [`config`] and `a layer`.
pub(crate) fn image(author: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config(author)),
        "layers": [descriptor(LAYER, b"a layer")],
    })
}

pub(crate) fn digest_of(manifest: &Value) -> String {
    hub::sha256(manifest.to_string().as_bytes())
}

pub(crate) fn manifest_path(name: &str, reference: &str) -> String {
    format!("/v2/{name}/manifests/{reference}")
}

pub(crate) fn blob_path(name: &str, digest: &str) -> String {
    format!("/v2/{name}/blobs/{digest}")
}
