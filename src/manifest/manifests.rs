//! The requests of the manifest side: a tag or a digest in, a manifest out.
//!
//! The branches stand here: fresh, validated, fetched, stale. Work on upstream
//! runs in tasks of its own, one for all who want the same: a client that
//! leaves ends nothing.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    negative::Negatives,
    obtain::{Checked, Checks, Fetches, logged, together},
    revalidation::{Health, Plan, plan},
    tag_table::TagTable,
    types::{Ask, Error, Found, Manifest, Outcome, Served, Side, Want},
};
use crate::{
    collapse::Collapse,
    metrics,
    protocol::{
        Digest, Reference, Tag,
        accept::Accept,
        media_type::{ManifestKind, children, kind_of},
    },
    store::{Store, TagKey, TagRecord},
    upstream::Failure,
};

/// The platform whose manifest a client gets that can't read an index, as distribution chooses it.
const OLD_CLIENT_PLATFORM: (&str, &str) = ("linux", "amd64");

/// The manifests of every upstream.
#[derive(Debug)]
pub struct Manifests {
    pub(super) store: Arc<Store>,
    pub(super) tags: TagTable,
    pub(super) negatives: Negatives,
    pub(super) checks: Checks,
    pub(super) fetches: Fetches,
    /// What goes on beside answers that did not wait for it.
    beside: Collapse<(TagKey, Side, Want), Result<(), Error>>,
    max_manifest: AtomicU64,
}

// === impl Manifests ===

impl Manifests {
    /// Manifests of up to `max_manifest` bytes, kept in `store`.
    pub fn new(store: Arc<Store>, max_manifest: u64) -> Self {
        Self {
            tags: TagTable::new(Arc::clone(&store)),
            store,
            negatives: Negatives::default(),
            checks: Collapse::default(),
            fetches: Collapse::default(),
            beside: Collapse::default(),
            max_manifest: AtomicU64::new(max_manifest),
        }
    }

    /// From now on manifests of up to `max_manifest` bytes.
    pub fn set_max_manifest(&self, max_manifest: u64) {
        self.max_manifest.store(max_manifest, Ordering::Relaxed);
    }

    pub(super) fn max_manifest(&self) -> u64 {
        self.max_manifest.load(Ordering::Relaxed)
    }

    /// Forgets what a tag named, once its record has been purged: the next request asks upstream.
    pub fn forget(&self, key: &TagKey) {
        self.tags.forget(key);
    }

    /// The manifest that `tag` names.
    pub async fn by_tag(
        self: &Arc<Self>,
        ask: &Ask,
        tag: &Tag,
        accept: &Accept,
    ) -> Result<Served, Error> {
        let key = ask.tag_key(tag);
        let recent = self.recent_tag(ask, &key, SystemTime::now());
        let mut served = match recent {
            Some(recent) => recent.into(),
            None => self.resolve(ask, &key).await?,
        };
        if let Found::Described { media_type, .. } = &served.found
            && is_index_for_others(media_type, accept)
        {
            // HEAD and GET answer alike: which child it is stands in the index's body.
            let whole = Ask { want: Want::Body, ..ask.clone() };
            served = Box::pin(self.resolve(&whole, &key)).await?;
        }
        if let Found::Whole(manifest) = &served.found
            && is_index_for_others(&manifest.media_type, accept)
        {
            let child = Box::pin(self.child_of_default_platform(ask, accept, manifest)).await?;
            if let Some((found, outcome)) = child {
                served.found = found;
                if !matches!(outcome, Outcome::Hit { .. }) {
                    served.outcome = outcome;
                }
            }
        }
        self.count(ask, &served);
        Ok(served)
    }

    /// The manifest named by `digest`: what is cached is never asked for again.
    pub async fn by_digest(self: &Arc<Self>, ask: &Ask, digest: Digest) -> Result<Served, Error> {
        if let Some(recent) = self.recent_digest(ask, &ask.link_key(digest)) {
            let served = recent.into();
            self.count(ask, &served);
            return Ok(served);
        }
        let deadline = Instant::now() + ask.upstream.config().timeouts.fetch;
        self.authorise(ask, &Reference::Digest(digest), deadline).await?;
        let (found, outcome) = self.obtain(ask, digest, None, deadline).await?;
        let served = Served { found, outcome, validated: None, cooling: false };
        self.count(ask, &served);
        Ok(served)
    }

    async fn resolve(self: &Arc<Self>, ask: &Ask, key: &TagKey) -> Result<Served, Error> {
        let (key, tag) = (key.clone(), &key.tag);
        let record = self.record(&key).await;
        let held_back = ask.upstream.held_back();
        let health = if held_back.is_some() { Health::Down } else { Health::Up };
        let now = SystemTime::now();
        let policy = &ask.upstream.config().tags;
        let stretch = ask.upstream.stretch();
        match (plan(tag.as_str(), record.as_ref(), policy, stretch, now, health), record) {
            (Plan::ServeFresh { left }, Some(record)) if ask.is_authorised() => {
                self.serve_fresh(ask, &key, &record, left).await
            }
            (Plan::ServeStale, Some(record)) if ask.is_authorised() => {
                let word = held_back.map_or("upstream-held-back", |failure| failure.word());
                match self.stale(ask, &key, &record, word).await {
                    Some(served) => Ok(served),
                    None => Box::pin(self.revalidate(ask, key, None)).await,
                }
            }
            (Plan::Revalidate { may_serve_stale: true }, Some(record)) if ask.is_authorised() => {
                if ask.upstream.is_slow()
                    && let Some(served) = Box::pin(self.beside_check(ask, &key, &record)).await
                {
                    return Ok(served);
                }
                Box::pin(self.revalidate(ask, key, Some(record))).await
            }
            _ => Box::pin(self.revalidate(ask, key, None)).await,
        }
    }

    async fn serve_fresh(
        self: &Arc<Self>,
        ask: &Ask,
        key: &TagKey,
        record: &TagRecord,
        left: Option<Duration>,
    ) -> Result<Served, Error> {
        let timeouts = &ask.upstream.config().timeouts;
        // What the tag named before can be served instead, and then nobody waits long.
        let can_wait = ask.choice(&key.tag, record).stand_in.is_none();
        let patience = if can_wait { timeouts.fetch } else { timeouts.validate };
        let deadline = Instant::now() + patience;
        match self.answer(ask, key, record, None, deadline).await {
            Ok(served) => {
                let outcome = match served.outcome {
                    Outcome::Hit { .. } => Outcome::Hit { left },
                    other => other,
                };
                Ok(Served { outcome, ..served })
            }
            Err(error) => self.stale_or(ask, key, Some(record), error).await,
        }
    }

    /// Of an upstream that is slow: serves the last known manifest, and checks the tag without this
    /// request. `None` where the manifest is not cached.
    async fn beside_check(
        self: &Arc<Self>,
        ask: &Ask,
        key: &TagKey,
        record: &TagRecord,
    ) -> Option<Served> {
        let served = self.stale(ask, key, record, "upstream-slow").await?;
        let (this, asked, tag) = (Arc::clone(self), ask.clone(), key.clone());
        let patience = ask.upstream.config().timeouts.validate;
        // With the manifest that the tag may have moved to, if it is a GET that would wait for it.
        let work = async move { this.validated(&asked, &tag, patience).await.map(|_| ()) };
        let begun = together(&self.beside, (key.clone(), ask.side(), ask.want), work);
        // It is begun, and not waited for.
        let _ = tokio::time::timeout(Duration::ZERO, begun).await;
        Some(served)
    }

    /// Checks the tag; falls back on `known` if upstream is in trouble.
    async fn revalidate(
        self: &Arc<Self>,
        ask: &Ask,
        key: TagKey,
        known: Option<TagRecord>,
    ) -> Result<Served, Error> {
        let timeouts = &ask.upstream.config().timeouts;
        let patience = if known.is_some() { timeouts.validate } else { timeouts.fetch };
        match self.validated(ask, &key, patience).await {
            Ok(served) => Ok(served),
            Err(error) => self.stale_or(ask, &key, known.as_ref(), error).await,
        }
    }

    /// Checks the tag, and has what it names.
    async fn validated(
        self: &Arc<Self>,
        ask: &Ask,
        key: &TagKey,
        patience: Duration,
    ) -> Result<Served, Error> {
        let deadline = Instant::now() + patience;
        let (checked, collapsed) = self.check(ask, key, patience).await;
        let Checked { record, head } = checked?;
        ask.upstream.authorise(&ask.caller, &ask.repository);
        let asked_by_get = head.is_none();
        let served = self.answer(ask, key, &record, head, deadline).await?;
        let outcome = match served.outcome {
            Outcome::Hit { .. } if asked_by_get => Outcome::Fetched { collapsed },
            Outcome::Hit { .. } => Outcome::Validated { collapsed },
            other => other,
        };
        Ok(Served { outcome, ..served })
    }

    /// The last known manifest if `error` is trouble rather than an answer.
    async fn stale_or(
        &self,
        ask: &Ask,
        key: &TagKey,
        known: Option<&TagRecord>,
        error: Error,
    ) -> Result<Served, Error> {
        let Some(word) = error.trouble().map(Failure::word) else {
            return Err(error);
        };
        let stale = match known {
            Some(record) => self.stale(ask, key, record, word).await,
            None => None,
        };
        stale.ok_or(error)
    }

    async fn stale(
        &self,
        ask: &Ask,
        key: &TagKey,
        record: &TagRecord,
        why: &'static str,
    ) -> Option<Served> {
        let choice = ask.choice(&key.tag, record);
        for digest in [Some(choice.digest), choice.stand_in].into_iter().flatten() {
            if let Some(manifest) = self.cached(ask, digest).await {
                metrics::STALE_ANSWERS.with_label_values(&[ask.upstream.name()]).inc();
                tracing::info!(
                    upstream = %ask.upstream.name(), repository = %ask.repository, %digest, why,
                    "served the last known manifest"
                );
                return Some(Served {
                    found: Found::Whole(manifest),
                    outcome: Outcome::Stale { why },
                    validated: Some(record.validated).filter(|_| !record.is_doubted()),
                    cooling: choice.cooling.is_some(),
                });
            }
        }
        None
    }

    pub(super) async fn record(&self, key: &TagKey) -> Option<TagRecord> {
        let record = logged(self.tags.get(key).await).flatten();
        record.filter(|record| !record.is_gone())
    }

    /// A caller with its own credentials is served what upstream would serve it now.
    async fn authorise(
        &self,
        ask: &Ask,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<(), Error> {
        if !ask.is_authorised() {
            self.describe(ask, reference, deadline).await?;
            ask.upstream.authorise(&ask.caller, &ask.repository);
        }
        Ok(())
    }

    /// A client that can't read an index gets the manifest of its default platform.
    async fn child_of_default_platform(
        self: &Arc<Self>,
        ask: &Ask,
        accept: &Accept,
        index: &Manifest,
    ) -> Result<Option<(Found, Outcome)>, Error> {
        let child = children(&index.body).into_iter().find(|child| {
            let platform = child.platform.as_ref().map(|(os, arch)| (os.as_str(), arch.as_str()));
            platform == Some(OLD_CLIENT_PLATFORM) && accept.accepts(&child.media_type)
        });
        let Some(child) = child else { return Ok(None) };
        let deadline = Instant::now() + ask.upstream.config().timeouts.fetch;
        self.obtain(ask, child.digest, None, deadline).await.map(Some)
    }

    fn count(&self, ask: &Ask, served: &Served) {
        if served.cooling {
            metrics::COOLING_ANSWERS.with_label_values(&[ask.upstream.name()]).inc();
        }
        let spent = served.outcome == Outcome::Fetched { collapsed: false };
        if ask.want == Want::Body && !spent {
            self.saved(ask, ask.client);
        }
    }

    /// A manifest was sent to `client` without a counted request.
    pub fn saved(&self, ask: &Ask, client: Option<IpAddr>) {
        metrics::PULLS_SAVED.with_label_values(&[ask.upstream.name()]).inc();
        ask.upstream.ledger().save(&ask.repository, client);
    }
}

/// An index before a client that accepts manifests, but not indexes.
fn is_index_for_others(media_type: &str, accept: &Accept) -> bool {
    kind_of(media_type) == Some(ManifestKind::Index)
        && !accept.accepts(media_type)
        && accept.accepts_any_manifest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        protocol::Repository,
        upstream::{Caller, Upstream},
    };

    #[test]
    fn a_hit_does_not_carry_the_weight_of_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("", "test").unwrap();
        config.store.directory = folder.path().to_owned();
        let store = Arc::new(Store::open(&config.store).unwrap());
        let manifests = Arc::new(Manifests::new(store, 1 << 22));
        let upstream = Arc::new(Upstream::new(config.upstreams.remove(0), 1 << 22).unwrap());
        let ask = Ask {
            upstream,
            repository: Repository::parse("a").unwrap(),
            want: Want::Body,
            caller: Caller::Shared,
            client: None,
        };
        let (tag, accept) = (Tag::parse("a").unwrap(), Accept::default());
        let size = size_of_val(&manifests.by_tag(&ask, &tag, &accept));
        assert!(size < 4096, "{size} bytes");
    }
}
