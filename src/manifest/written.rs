//! What a push or a deletion through us changes in what is known, at once.

use std::{sync::Arc, time::SystemTime};

use super::{Manifests, obtain::logged};
use crate::{
    protocol::{Digest, Reference, Repository},
    store::{LinkKey, TagKey},
    upstream::Upstream,
};

/// Tags looked at in one go.
const PAGE: usize = 1000;

// === impl Manifests ===

impl Manifests {
    /// Upstream took a manifest as `reference`; `digest` is what it named it.
    pub async fn pushed(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        reference: &Reference,
        digest: Option<Digest>,
    ) {
        let name = upstream.name();
        self.negatives.forget(name, repository, reference);
        let digest = reference.digest().copied().or(digest);
        if let Some(digest) = digest {
            self.negatives.forget(name, repository, &Reference::Digest(digest));
            let (upstream, repository) = (Arc::clone(name), repository.clone());
            self.store.relink(&LinkKey { upstream, repository, digest });
        }
        let Reference::Tag(tag) = reference else { return };
        let key =
            TagKey { upstream: Arc::clone(name), repository: repository.clone(), tag: tag.clone() };
        match digest {
            Some(digest) => {
                let cooldown = upstream.config().tags.cooldown_of(tag.as_str());
                self.tags.pushed(&key, digest, cooldown, SystemTime::now()).await;
            }
            // The next pull asks.
            None => self.forget_tag(upstream, key).await,
        }
    }

    /// Nobody knows whether a write of `reference` was done: upstream is asked before the tag is
    /// served again, and while it can't be, what it named last is served.
    pub async fn unsure(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        reference: &Reference,
    ) {
        self.negatives.forget(upstream.name(), repository, reference);
        let Reference::Tag(tag) = reference else { return };
        let policy = &upstream.config().tags;
        let fresh_for = match policy.immutable.matches(tag.as_str()) {
            true => None,
            false => Some(policy.fresh_for.of(tag.as_str()).saturating_mul(upstream.stretch())),
        };
        let (upstream, repository) = (Arc::clone(upstream.name()), repository.clone());
        let key = TagKey { upstream, repository, tag: tag.clone() };
        self.tags.outdate(&key, fresh_for, SystemTime::now()).await;
    }

    /// Upstream deleted a tag; or a manifest, and with it the tags that name it.
    pub async fn deleted(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        reference: &Reference,
    ) {
        match reference {
            Reference::Tag(tag) => {
                let (name, repository) = (Arc::clone(upstream.name()), repository.clone());
                let key = TagKey { upstream: name, repository, tag: tag.clone() };
                self.forget_tag(upstream, key).await;
            }
            Reference::Digest(digest) => {
                let key = LinkKey {
                    upstream: Arc::clone(upstream.name()),
                    repository: repository.clone(),
                    digest: *digest,
                };
                logged(self.store.unlink(key).await);
                self.tags.doubt_all().await;
                self.forget_tags_of(upstream, repository, digest).await;
            }
        }
    }

    async fn forget_tag(&self, upstream: &Upstream, key: TagKey) {
        let cooldown = upstream.config().tags.cooldown_of(key.tag.as_str());
        self.tags.deleted(&key, cooldown, SystemTime::now()).await;
    }

    async fn forget_tags_of(&self, upstream: &Upstream, repository: &Repository, digest: &Digest) {
        let mut after = String::new();
        loop {
            let name = Arc::clone(upstream.name());
            let page = self.store.tags_of(name, repository.clone(), after.clone(), PAGE).await;
            let page = logged(page).unwrap_or_default();
            let Some((last, _)) = page.last() else { return };
            after = last.to_string();
            for (tag, record) in page {
                // One that named it before would serve it again where upstream fails.
                if record.digest == *digest || record.previous == Some(*digest) {
                    let (name, repository) = (Arc::clone(upstream.name()), repository.clone());
                    self.forget_tag(upstream, TagKey { upstream: name, repository, tag }).await;
                }
            }
        }
    }
}
