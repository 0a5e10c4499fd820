//! What a push or a deletion through us changes in what is known, at once.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use super::{Ask, Found, Manifest, Manifests, Outcome, obtain::logged};
use crate::{
    metrics,
    protocol::{Digest, Reference, Repository, Tag},
    store::{LinkKey, TagKey, TagRecord},
    upstream::{Error, Failure, ManifestHead, Upstream},
};

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
            let key = link_key(upstream, repository, digest);
            self.negatives.settle(&key);
            self.store.relink(&key);
        }
        let Reference::Tag(tag) = reference else { return };
        let key = tag_key(upstream, repository, tag.clone());
        match digest {
            Some(digest) => {
                let cooldown = upstream.config().tags.cooldown_of(tag.as_str());
                self.tags.pushed(&key, digest, cooldown, SystemTime::now()).await;
            }
            // The next pull asks.
            None => self.forget_tag(upstream, repository, tag.clone()).await,
        }
    }

    /// Nobody knows whether a write of `reference` was done: upstream is asked before the tag, or
    /// the digest and the tags that name it, is served again, and while it can't be, what is known is.
    pub async fn unsure(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        reference: &Reference,
    ) {
        self.negatives.forget(upstream.name(), repository, reference);
        match reference {
            Reference::Tag(tag) => self.outdate_tag(upstream, repository, tag.clone()).await,
            Reference::Digest(digest) => {
                self.negatives.doubt(link_key(upstream, repository, *digest));
                self.tags.doubt_all().await;
                let mut after = String::new();
                while let Some(page) = self.next_tags(upstream, repository, &mut after).await {
                    for (tag, _) in page.into_iter().filter(|(_, record)| names(record, digest)) {
                        self.outdate_tag(upstream, repository, tag).await;
                    }
                }
            }
        }
    }

    /// Upstream deleted a tag; or a manifest, and with it the tags that name it.
    pub async fn deleted(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        reference: &Reference,
    ) {
        match reference {
            Reference::Tag(tag) => self.forget_tag(upstream, repository, tag.clone()).await,
            Reference::Digest(digest) => {
                let key = link_key(upstream, repository, *digest);
                self.negatives.settle(&key);
                logged(self.store.unlink(key).await);
                self.tags.doubt_all().await;
                let mut after = String::new();
                while let Some(page) = self.next_tags(upstream, repository, &mut after).await {
                    for (tag, _) in page.into_iter().filter(|(_, record)| names(record, digest)) {
                        self.forget_tag(upstream, repository, tag).await;
                    }
                }
            }
        }
    }

    /// A cached manifest that may have been deleted: upstream is asked by HEAD, and while it can't
    /// be, or can't do HEAD, the manifest is served: a GET is counted.
    pub(super) async fn settle(
        &self,
        ask: &Ask,
        manifest: Manifest,
        head: Option<ManifestHead>,
        deadline: Instant,
    ) -> Result<(Found, Outcome), Error> {
        let key = ask.link_key(manifest.digest);
        let reference = Reference::Digest(manifest.digest);
        let writes = head.as_ref().map_or_else(|| ask.upstream.writes(), |head| head.writes);
        let soon = Instant::now() + ask.upstream.config().timeouts.validate;
        let said = match head {
            Some(head) => Ok(Some(head)),
            None => self.describe(ask, &reference, deadline.min(soon)).await,
        };
        let is_current = ask.upstream.writes() == writes;
        let outcome = match said {
            Ok(_) => {
                if is_current {
                    self.negatives.settle(&key);
                }
                Outcome::Validated { collapsed: false }
            }
            Err(error) => {
                if matches!(error, Error::NotFound { .. }) && ask.is_authorised() && is_current {
                    self.negatives.settle(&key);
                    logged(self.store.unlink(key).await);
                }
                let why = error.trouble().map(Failure::word).ok_or(error.clone())?;
                metrics::STALE_ANSWERS.with_label_values(&[ask.upstream.name()]).inc();
                Outcome::Stale { why }
            }
        };
        Ok((Found::Whole(manifest), outcome))
    }

    async fn forget_tag(&self, upstream: &Upstream, repository: &Repository, tag: Tag) {
        let cooldown = upstream.config().tags.cooldown_of(tag.as_str());
        let key = tag_key(upstream, repository, tag);
        self.tags.deleted(&key, cooldown, SystemTime::now()).await;
    }

    async fn outdate_tag(&self, upstream: &Upstream, repository: &Repository, tag: Tag) {
        let policy = &upstream.config().tags;
        let fresh_for = match policy.immutable.matches(tag.as_str()) {
            true => None,
            false => Some(policy.fresh_for.of(tag.as_str()).saturating_mul(upstream.stretch())),
        };
        let key = tag_key(upstream, repository, tag);
        self.tags.outdate(&key, fresh_for, SystemTime::now()).await;
    }
}

/// Whether a tag names `digest`, or named it before: it would serve it again where upstream fails.
fn names(record: &TagRecord, digest: &Digest) -> bool {
    record.digest == *digest || record.previous == Some(*digest)
}

fn link_key(upstream: &Upstream, repository: &Repository, digest: Digest) -> LinkKey {
    LinkKey { upstream: Arc::clone(upstream.name()), repository: repository.clone(), digest }
}

fn tag_key(upstream: &Upstream, repository: &Repository, tag: Tag) -> TagKey {
    TagKey { upstream: Arc::clone(upstream.name()), repository: repository.clone(), tag }
}
