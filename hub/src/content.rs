//! What is published: repositories with tags and manifests, and the blobs behind them.
//!
//! A blob is stored once, and visible in the repositories it was published to.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use crate::digest::{sha256, sha512};
use crate::image::build::Build;

#[derive(Debug, Default)]
pub(crate) struct Content {
    repositories: HashMap<String, Repository>,
    blobs: HashMap<String, Bytes>,
}

#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    /// By sha256 and by sha512 digest.
    manifests: HashMap<String, Manifest>,
    blobs: HashSet<String>,
}

/// A manifest or index as it was pushed.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// The digest it was asked for by, or that the tag names.
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) body: Bytes,
}

// === impl Content ===

impl Content {
    pub(crate) fn publish(&mut self, build: &Build, tags: &[String]) {
        let image = &build.image;
        for (digest, body) in &build.blobs {
            self.put_blob(&image.repository, digest.clone(), body.clone());
        }
        for (media_type, body) in &build.manifests {
            self.put_manifest(&image.repository, media_type, body.clone());
        }
        for tag in tags {
            self.tag(&image.repository, tag, &image.digest);
        }
    }

    /// Returns the sha256 digest.
    pub(crate) fn put_manifest(&mut self, name: &str, media_type: &str, body: Bytes) -> String {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        for digest in [sha256(&body), sha512(&body)] {
            let media_type = media_type.to_owned();
            let manifest = Manifest { digest: digest.clone(), media_type, body: body.clone() };
            repository.manifests.insert(digest, manifest);
        }
        sha256(&body)
    }

    pub(crate) fn put_blob(&mut self, name: &str, digest: String, body: Bytes) {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        repository.blobs.insert(digest.clone());
        self.blobs.insert(digest, body);
    }

    pub(crate) fn tag(&mut self, name: &str, tag: &str, digest: &str) {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        repository.tags.insert(tag.to_owned(), digest.to_owned());
    }

    pub(crate) fn delete_tag(&mut self, name: &str, tag: &str) {
        if let Some(repository) = self.repositories.get_mut(name) {
            repository.tags.remove(tag);
        }
    }

    /// Removes the manifest under each of its digests, and the tags that name it; false if there
    /// was none.
    pub(crate) fn delete_manifest(&mut self, name: &str, digest: &str) -> bool {
        let Some(repository) = self.repositories.get_mut(name) else { return false };
        let Some(manifest) = repository.manifests.get(digest) else { return false };
        let digests = [sha256(&manifest.body), sha512(&manifest.body)];
        repository.manifests.retain(|digest, _| !digests.contains(digest));
        repository.tags.retain(|_, digest| !digests.contains(digest));
        true
    }

    /// Removes a blob from a repository; false if it was not there.
    pub(crate) fn delete_blob(&mut self, name: &str, digest: &str) -> bool {
        self.repositories.get_mut(name).is_some_and(|repository| repository.blobs.remove(digest))
    }

    pub(crate) fn has_tag(&self, name: &str, tag: &str) -> bool {
        self.repositories.get(name).is_some_and(|repository| repository.tags.contains_key(tag))
    }

    pub(crate) fn has_repository(&self, name: &str) -> bool {
        self.repositories.contains_key(name)
    }

    /// By tag or digest.
    pub(crate) fn manifest(&self, name: &str, reference: &str) -> Option<Manifest> {
        let repository = self.repositories.get(name)?;
        let digest = repository.tags.get(reference).map_or(reference, String::as_str);
        repository.manifests.get(digest).cloned()
    }

    pub(crate) fn blob_in(&self, name: &str, digest: &str) -> Option<Bytes> {
        let repository = self.repositories.get(name)?;
        repository.blobs.contains(digest).then(|| self.blob(digest))?
    }

    pub(crate) fn blob(&self, digest: &str) -> Option<Bytes> {
        self.blobs.get(digest).cloned()
    }

    /// At most `n` tags after `last`, in order, and whether more follow.
    pub(crate) fn tags(&self, name: &str, last: Option<&str>, n: usize) -> (Vec<String>, bool) {
        let Some(repository) = self.repositories.get(name) else {
            return (Vec::new(), false);
        };
        let mut rest =
            repository.tags.keys().filter(|tag| last.is_none_or(|last| tag.as_str() > last));
        let page: Vec<_> = rest.by_ref().take(n).cloned().collect();
        (page, rest.next().is_some())
    }

    /// Manifests of the repository that name `digest` as their subject, in digest order.
    pub(crate) fn referrers(&self, name: &str, digest: &str) -> Vec<Manifest> {
        let Some(repository) = self.repositories.get(name) else {
            return Vec::new();
        };
        let mut found: Vec<_> = repository
            .manifests
            .values()
            .filter(|manifest| manifest.digest.starts_with("sha256:"))
            .filter(|manifest| subject_of(&manifest.body).as_deref() == Some(digest))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        found
    }
}

// === impl Manifest ===

impl Manifest {
    /// Digests of an index's children; none for an image manifest.
    pub(crate) fn children(&self) -> HashSet<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let children = body.get("manifests").and_then(|children| children.as_array());
        children
            .into_iter()
            .flatten()
            .filter_map(|child| child.get("digest")?.as_str().map(str::to_owned))
            .collect()
    }
}

pub(crate) fn subject_of(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body.get("subject")?.get("digest")?.as_str().map(str::to_owned)
}
