//! A pull as podman does it: by tag with GET, the child for linux/amd64, config and layers, every
//! digest verified.

use std::net::SocketAddr;

use hub::{Hub, sha256, sha512};
use serde_json::Value;

use crate::client::{Reply, Request, get};

/// What containers/image accepts, in several lines.
const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// An image that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// What the tag named.
    pub(crate) digest: String,
    /// The manifest for linux/amd64.
    pub(crate) manifest: String,
    /// Config first, then the layers.
    pub(crate) blobs: Vec<String>,
}

/// Why it did not.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// 0 if there was no answer.
    pub(crate) status: u16,
    #[expect(dead_code, reason = "read by `Debug`")]
    what: String,
}

/// A client with or without a header for its rights.
#[derive(Debug, Clone)]
pub(crate) struct Puller {
    at: SocketAddr,
    authorization: Option<String>,
}

/// Pulls from Roadstead; the pull must succeed.
pub(crate) async fn pull(at: SocketAddr, repository: &str, tag: &str) -> Pulled {
    let pulled = Puller::new(at).image(repository, tag).await;
    pulled.unwrap_or_else(|failed| panic!("{repository}:{tag}: {failed:?}"))
}

/// The path of a manifest.
pub(crate) fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// The path of a blob.
pub(crate) fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// A GET of a manifest, as podman asks.
pub(crate) fn get_manifest(at: SocketAddr, repository: &str, reference: &str) -> Request {
    accepting(get(at, manifest_path(repository, reference)))
}

/// Adds podman's `Accept`.
pub(crate) fn accepting(request: Request) -> Request {
    ACCEPT.iter().fold(request, |request, accept| request.header("Accept", *accept))
}

/// The digest of these bytes, by the algorithm of `like`.
pub(crate) fn digest(like: &str, body: &[u8]) -> String {
    match like.starts_with("sha512:") {
        true => sha512(body),
        false => sha256(body),
    }
}

// === impl Puller ===

impl Puller {
    pub(crate) fn new(at: SocketAddr) -> Self {
        Self { at, authorization: None }
    }

    /// Straight from the hub, with a token of its own.
    pub(crate) async fn from_hub(hub: &Hub, repository: &str) -> Self {
        let path = format!("/token?service=registry.docker.io&scope=repository:{repository}:pull");
        let reply = get(hub.token(), path).send().await;
        let token = reply.json()["token"].as_str().unwrap().to_owned();
        Self { at: hub.registry(), authorization: Some(format!("Bearer {token}")) }
    }

    /// With this `Authorization` on each request.
    pub(crate) fn authorized(at: SocketAddr, authorization: String) -> Self {
        Self { at, authorization: Some(authorization) }
    }

    /// The whole image.
    pub(crate) async fn image(&self, repository: &str, tag: &str) -> Result<Pulled, Failed> {
        let mut pulled = self.manifests(repository, tag).await?;
        let manifest = self.manifest(repository, &pulled.manifest).await?;
        for descriptor in descriptors(&manifest.json()) {
            self.blob(repository, &descriptor).await?;
            pulled.blobs.push(descriptor);
        }
        Ok(pulled)
    }

    /// What the registry counts: the manifest by tag, and the child.
    pub(crate) async fn manifests(&self, repository: &str, tag: &str) -> Result<Pulled, Failed> {
        let top = self.manifest(repository, tag).await?;
        let json = top.json();
        let digest = sha256(&top.body);
        let child = json["manifests"].as_array().map(|children| {
            let mut children = children.iter();
            let child = children.find(|child| {
                child["platform"]["os"] == "linux" && child["platform"]["architecture"] == "amd64"
            });
            child.unwrap()["digest"].as_str().unwrap().to_owned()
        });
        let manifest = match child {
            Some(child) => {
                self.manifest(repository, &child).await?;
                child
            }
            None => digest.clone(),
        };
        Ok(Pulled { digest, manifest, blobs: Vec::new() })
    }

    /// One manifest, by tag or digest.
    pub(crate) async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Reply, Failed> {
        let request = get_manifest(self.at, repository, reference);
        let expected = reference.contains(':').then_some(reference);
        let reply = self.send(request).await?;
        let said = reply.header("docker-content-digest").unwrap();
        let expected = expected.unwrap_or(said);
        assert_eq!(said, expected);
        assert_eq!(digest(expected, &reply.body), expected, "wrong bytes");
        Ok(reply)
    }

    /// One blob.
    pub(crate) async fn blob(&self, repository: &str, name: &str) -> Result<Reply, Failed> {
        let reply = self.send(get(self.at, blob_path(repository, name))).await?;
        assert_eq!(digest(name, &reply.body), name, "wrong bytes");
        assert_eq!(reply.length(), Some(reply.body.len() as u64));
        Ok(reply)
    }

    async fn send(&self, mut request: Request) -> Result<Reply, Failed> {
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let what = format!("{request:?}");
        let failed = |status, why: String| Failed { status, what: format!("{why}: {what}") };
        match request.try_send().await {
            Err(error) => Err(failed(0, error.to_string())),
            Ok(reply) if reply.status != 200 => Err(failed(reply.status, reply.text())),
            Ok(reply) if !reply.complete => Err(failed(200, "cut".to_owned())),
            Ok(reply) => Ok(reply),
        }
    }
}

/// Config and layers.
fn descriptors(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap();
    std::iter::once(&manifest["config"])
        .chain(layers)
        .map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned())
        .collect()
}
