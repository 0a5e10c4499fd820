//! What real images and real clients bring along: old schemas, odd layers, indexes in indexes.

use bytes::Bytes;
use hub::{Hub, ImageSpec};
use serde_json::{Value, json};

use crate::client::{Reply, get, head};
use crate::pull::{accepting, blob_path, get_manifest, manifest_path, pull};
use crate::roadstead::Roadstead;

const NAME: &str = "library/odd";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A Roadstead in front of a hub.
struct Stage {
    hub: Hub,
    roadstead: Roadstead,
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        let hub = Hub::start().await;
        let roadstead = Roadstead::start(&hub).await;
        Self { hub, roadstead }
    }

    fn put(&self, tag: Option<&str>, media_type: &str, manifest: &Value) -> String {
        let body = Bytes::from(manifest.to_string());
        self.hub.put_manifest(NAME, tag, media_type, body)
    }

    fn blob(&self, media_type: &str, body: &'static [u8]) -> Value {
        let digest = self.hub.put_blob(NAME, Bytes::from_static(body));
        json!({ "mediaType": media_type, "digest": digest, "size": body.len() })
    }

    async fn manifest(&self, reference: &str) -> Reply {
        get_manifest(self.roadstead.at(), NAME, reference).send().await
    }

    /// By tag and by digest, cold and warm: the very bytes and type.
    async fn assert_passes(&self, tag: &str, digest: &str, media_type: &str) {
        for reference in [tag, digest, tag, digest] {
            let reply = self.manifest(reference).await;
            assert_eq!(reply.status, 200, "{reference}: {}", reply.text());
            assert_eq!(reply.header("content-type"), Some(media_type));
            assert_eq!(hub::sha256(&reply.body), digest);
        }
        assert_eq!(self.hub.stats().counted, 1);
    }
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

#[tokio::test]
async fn schema_1_is_refused_with_what_it_is() {
    let stage = Stage::set().await;
    let old = json!({ "schemaVersion": 1, "name": NAME, "tag": "old", "fsLayers": [] });
    for media_type in [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/json",
    ] {
        stage.put(Some("old"), media_type, &old);
        let reply = stage.manifest("old").await;
        assert!((400..500).contains(&reply.status), "{media_type}: {reply:?}");
        assert_eq!(reply.error_code(), "MANIFEST_INVALID");
        assert!(reply.text().contains("schema 1"), "{}", reply.text());
    }
}

/// The layer lies elsewhere, and clients fetch it from there; the registry does not have it.
#[tokio::test]
async fn a_foreign_layer_is_left_to_where_it_lies() {
    let stage = Stage::set().await;
    let foreign = hub::sha256(b"on another server");
    let config = stage.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let mut layer =
        descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &foreign, 17);
    layer["urls"] = json!(["https://layers.example/one"]);
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
    let digest = stage.put(Some("windows"), OCI_MANIFEST, &manifest);
    stage.assert_passes("windows", &digest, OCI_MANIFEST).await;
    let reply = get(stage.roadstead.at(), blob_path(NAME, &foreign)).send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "BLOB_UNKNOWN"));
}

#[tokio::test]
async fn an_index_in_an_index_passes() {
    let stage = Stage::set().await;
    let image = stage.hub.push(&ImageSpec::new(NAME).single());
    let size = stage.manifest(&image.digest).await.body.len();
    let index =
        |child: Value| json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child] });
    let inner = index(descriptor(OCI_MANIFEST, &image.digest, size));
    let inner_digest = stage.put(None, OCI_INDEX, &inner);
    let outer = index(descriptor(OCI_INDEX, &inner_digest, inner.to_string().len()));
    let outer_digest = stage.put(Some("nested"), OCI_INDEX, &outer);
    stage.hub.reset_stats();
    stage.assert_passes("nested", &outer_digest, OCI_INDEX).await;
    assert_eq!(stage.manifest(&inner_digest).await.text(), inner.to_string());
}

/// An artifact: a type of its own, an empty config, no layer that a container could use.
#[tokio::test]
async fn an_artifact_with_an_empty_config_passes() {
    let stage = Stage::set().await;
    let config = stage.blob("application/vnd.oci.empty.v1+json", b"{}");
    let signature = stage.blob("application/vnd.dev.cosign.simplesigning.v1+json", b"{\"a\":1}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": config,
        "layers": [signature],
    });
    let digest = stage.put(Some("signature"), OCI_MANIFEST, &manifest);
    stage.assert_passes("signature", &digest, OCI_MANIFEST).await;
    let blob = config["digest"].as_str().unwrap();
    let reply = get(stage.roadstead.at(), blob_path(NAME, blob)).send().await;
    assert_eq!((reply.status, &*reply.body), (200, b"{}".as_slice()));
}

#[tokio::test]
async fn a_blob_without_bytes_is_a_blob() {
    let stage = Stage::set().await;
    let digest = stage.hub.put_blob(NAME, Bytes::new());
    let path = blob_path(NAME, &digest);
    for _ in 0..2 {
        let reply = head(stage.roadstead.at(), &path).send().await;
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("0")));
        let reply = get(stage.roadstead.at(), &path).send().await;
        assert_eq!((reply.status, reply.body.len(), reply.complete), (200, 0, true));
        assert_eq!(reply.header("content-length"), Some("0"));
        stage.roadstead.settled().await;
    }
    assert_eq!(stage.hub.blob_gets(&digest), 1);
}

/// Nobody is asked for a login where access control wants none.
#[tokio::test]
async fn no_answer_asks_for_a_login_that_nobody_wants() {
    let stage = Stage::set().await;
    stage.hub.push(&ImageSpec::new(NAME).tag("latest").single());
    pull(stage.roadstead.at(), NAME, "latest").await;
    let paths = ["/v2/".to_owned(), manifest_path(NAME, "latest"), manifest_path(NAME, "none")];
    for path in paths {
        let reply = accepting(get(stage.roadstead.at(), &path)).send().await;
        assert_ne!(reply.status, 401, "{path}");
        assert_eq!(reply.header("www-authenticate"), None, "{path}");
        assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
}

/// `docker search` speaks the first API, which is Docker Hub's own.
#[tokio::test]
async fn a_search_is_told_where_to_search() {
    let stage = Stage::set().await;
    let reply = get(stage.roadstead.at(), "/v1/search?q=alpine&n=25").send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "UNSUPPORTED"));
    assert!(reply.text().contains("hub.docker.com"), "{}", reply.text());
    assert_eq!(stage.hub.stats().requests(), 0);
}
