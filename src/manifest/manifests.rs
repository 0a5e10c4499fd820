//! The requests of the manifest side: what is cached, checked and fetched.
//!
//! Work on upstream runs in tasks of its own, one for all who want the same: a
//! client that leaves ends nothing.

use std::{
    hash::Hash,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    negative::{Negatives, Question},
    revalidation::{Health, Plan, plan},
    tag_table::TagTable,
};
use crate::{
    collapse::{Collapse, Join},
    metrics,
    protocol::{
        Digest, Reference, Repository, Tag,
        accept::Accept,
        media_type::{ManifestKind, children, inspect, kind_of},
    },
    store::{Kind, Link, LinkKey, Store, TagKey, TagRecord},
    upstream::{self, Caller, Failure, ManifestHead, Upstream},
};

/// The platform whose manifest a client gets that can't read an index, as distribution chooses it.
const OLD_CLIENT_PLATFORM: (&str, &str) = ("linux", "amd64");

/// Why there is no manifest to serve.
pub type Error = upstream::Error;

/// Whether the body is wanted, or only its description (a client's HEAD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A HEAD: nothing that is counted is spent on it.
    Head,
    /// A GET.
    Body,
}

/// Who asks for what of which repository.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The registry.
    pub upstream: Arc<Upstream>,
    /// The repository there.
    pub repository: Repository,
    /// Whether the body is wanted.
    pub want: Want,
    /// On whose behalf upstream is asked.
    pub caller: Caller,
}

/// A verified manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type under which its repository serves it.
    pub media_type: Arc<str>,
    /// Its bytes, as upstream sent them.
    pub body: Bytes,
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// The manifest.
    Whole(Manifest),
    /// For a HEAD of what is not cached: upstream's description of it.
    Described {
        /// Its digest.
        digest: Digest,
        /// Its media type.
        media_type: String,
        /// Its length in bytes.
        size: u64,
    },
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, without asking.
    Hit {
        /// How long it stays fresh; `None` for ever.
        left: Option<Duration>,
    },
    /// From the cache, after a free HEAD.
    Validated {
        /// The HEAD was another request's.
        collapsed: bool,
    },
    /// From upstream.
    Fetched {
        /// By another request.
        collapsed: bool,
    },
    /// From the cache, though upstream could not be asked.
    Stale {
        /// Why, in a word.
        why: &'static str,
    },
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Served {
    /// The manifest or its description.
    pub found: Found,
    /// Where it came from.
    pub outcome: Outcome,
    /// When upstream last confirmed the tag; `None` for what a digest names.
    pub validated: Option<SystemTime>,
}

/// A tag's digest, confirmed by upstream a moment ago.
#[derive(Debug, Clone)]
struct Checked {
    digest: Digest,
    /// What the HEAD said; `None` where the registry had to be asked by GET.
    head: Option<ManifestHead>,
}

type Checks = Collapse<(TagKey, Option<Digest>), Result<Checked, Error>>;
type Fetches = Collapse<(LinkKey, Option<Digest>), Result<Manifest, Error>>;

/// The manifests of every upstream.
#[derive(Debug)]
pub struct Manifests {
    store: Arc<Store>,
    tags: TagTable,
    negatives: Negatives,
    checks: Checks,
    fetches: Fetches,
    max_manifest: u64,
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
            max_manifest,
        }
    }

    /// The manifest that `tag` names.
    pub async fn by_tag(
        self: &Arc<Self>,
        ask: &Ask,
        tag: &Tag,
        accept: &Accept,
    ) -> Result<Served, Error> {
        let mut served = self.resolve(ask, tag).await?;
        if let Found::Whole(manifest) = &served.found
            && is_index_for_others(manifest, accept)
        {
            let child = Box::pin(self.child_of_default_platform(ask, accept, manifest)).await?;
            if let Some((found, outcome)) = child {
                served.found = found;
                if !matches!(outcome, Outcome::Hit { .. }) {
                    served.outcome = outcome;
                }
            }
        }
        self.count_saved(ask, &served);
        Ok(served)
    }

    /// The manifest named by `digest`: what is cached is never asked for again.
    pub async fn by_digest(self: &Arc<Self>, ask: &Ask, digest: Digest) -> Result<Served, Error> {
        let deadline = Instant::now() + ask.upstream.config().timeouts.fetch;
        self.authorise(ask, &Reference::Digest(digest), deadline)
            .await?;
        let (found, outcome) = self.obtain(ask, digest, None, deadline).await?;
        let served = Served {
            found,
            outcome,
            validated: None,
        };
        self.count_saved(ask, &served);
        Ok(served)
    }

    async fn resolve(self: &Arc<Self>, ask: &Ask, tag: &Tag) -> Result<Served, Error> {
        let key = ask.tag_key(tag);
        let record = self.record(&key).await;
        let health = if ask.upstream.is_held_back() {
            Health::Down
        } else {
            Health::Up
        };
        let now = SystemTime::now();
        let policy = &ask.upstream.config().tags;
        match (
            plan(tag.as_str(), record.as_ref(), policy, now, health),
            record,
        ) {
            (Plan::ServeFresh { left }, Some(record)) if ask.is_authorised() => {
                self.serve_fresh(ask, &record, left).await
            }
            (Plan::ServeStale, Some(record)) if ask.is_authorised() => {
                let word = "upstream-held-back";
                match self.stale(ask, &record, word).await {
                    Some(served) => Ok(served),
                    None => Box::pin(self.revalidate(ask, key, None)).await,
                }
            }
            (
                Plan::Revalidate {
                    may_serve_stale: true,
                },
                Some(record),
            ) if ask.is_authorised() => Box::pin(self.revalidate(ask, key, Some(record))).await,
            _ => Box::pin(self.revalidate(ask, key, None)).await,
        }
    }

    async fn serve_fresh(
        self: &Arc<Self>,
        ask: &Ask,
        record: &TagRecord,
        left: Option<Duration>,
    ) -> Result<Served, Error> {
        let deadline = Instant::now() + ask.upstream.config().timeouts.fetch;
        match self.obtain(ask, record.digest, None, deadline).await {
            Ok((found, outcome)) => {
                let outcome = match outcome {
                    Outcome::Hit { .. } => Outcome::Hit { left },
                    other => other,
                };
                Ok(Served {
                    found,
                    outcome,
                    validated: Some(record.validated),
                })
            }
            Err(error) => self.stale_or(ask, Some(record), error).await,
        }
    }

    /// Checks the tag; falls back on `known` if upstream is in trouble.
    async fn revalidate(
        self: &Arc<Self>,
        ask: &Ask,
        key: TagKey,
        known: Option<TagRecord>,
    ) -> Result<Served, Error> {
        let timeouts = &ask.upstream.config().timeouts;
        let patience = if known.is_some() {
            timeouts.validate
        } else {
            timeouts.fetch
        };
        let deadline = Instant::now() + patience;
        let (checked, collapsed) = self.check(ask, &key, patience).await;
        let found = match checked {
            Ok(checked) => {
                ask.upstream.authorise(&ask.caller, &ask.repository);
                let digest = checked.digest;
                let asked_by_get = checked.head.is_none();
                let found = self.obtain(ask, digest, checked.head, deadline).await;
                found.map(|(found, outcome)| match outcome {
                    Outcome::Hit { .. } if asked_by_get => (found, Outcome::Fetched { collapsed }),
                    Outcome::Hit { .. } => (found, Outcome::Validated { collapsed }),
                    other => (found, other),
                })
            }
            Err(error) => Err(error),
        };
        match found {
            Ok((found, outcome)) => Ok(Served {
                found,
                outcome,
                validated: Some(SystemTime::now()),
            }),
            Err(error) => self.stale_or(ask, known.as_ref(), error).await,
        }
    }

    /// The last known manifest if `error` is trouble rather than an answer.
    async fn stale_or(
        &self,
        ask: &Ask,
        known: Option<&TagRecord>,
        error: Error,
    ) -> Result<Served, Error> {
        let Some(word) = error.trouble().map(Failure::word) else {
            return Err(error);
        };
        let stale = match known {
            Some(record) => self.stale(ask, record, word).await,
            None => None,
        };
        stale.ok_or(error)
    }

    async fn stale(&self, ask: &Ask, record: &TagRecord, why: &'static str) -> Option<Served> {
        for digest in [Some(record.digest), record.previous].into_iter().flatten() {
            if let Some(manifest) = self.cached(ask, digest).await {
                metrics::STALE_ANSWERS
                    .with_label_values(&[ask.upstream.name()])
                    .inc();
                tracing::info!(
                    upstream = %ask.upstream.name(), repository = %ask.repository, %digest, why,
                    "served the last known manifest"
                );
                let (found, outcome) = (Found::Whole(manifest), Outcome::Stale { why });
                return Some(Served {
                    found,
                    outcome,
                    validated: Some(record.validated),
                });
            }
        }
        None
    }

    /// Asks upstream what the tag names, together with all who ask for the same caller.
    async fn check(
        self: &Arc<Self>,
        ask: &Ask,
        key: &TagKey,
        patience: Duration,
    ) -> (Result<Checked, Error>, bool) {
        let question = ask.question(Reference::Tag(key.tag.clone()));
        if let Some(error) = self.negatives.get(&question) {
            return (Err(error), true);
        }
        let (this, ask, key) = (Arc::clone(self), ask.clone(), key.clone());
        together(
            &self.checks,
            (key.clone(), ask.caller.identity()),
            async move {
                let host = Arc::clone(ask.upstream.name());
                let result = match tokio::time::timeout(patience, this.check_now(&ask, &key)).await
                {
                    Ok(result) => result,
                    Err(_) => Err(Failure::Timeout {
                        host,
                        waiting_for: "a tag check",
                    }
                    .into()),
                };
                match &result {
                    Ok(checked) => {
                        this.tags
                            .confirmed(&key, checked.digest, SystemTime::now())
                            .await
                    }
                    Err(error) => {
                        this.negatives.remember(&question, error);
                        if matches!(error, Error::NotFound { .. }) {
                            this.tags.gone(&key).await;
                        }
                    }
                }
                result
            },
        )
        .await
    }

    /// P1: a HEAD, and a GET only where HEAD can't tell the digest.
    async fn check_now(&self, ask: &Ask, key: &TagKey) -> Result<Checked, Error> {
        let reference = Reference::Tag(key.tag.clone());
        let (upstream, repository) = (&ask.upstream, &ask.repository);
        let head = upstream
            .head_manifest(repository, &reference, &ask.caller)
            .await?;
        if let Some(head) = head
            && let Some(digest) = head.digest
        {
            return Ok(Checked {
                digest,
                head: Some(head),
            });
        }
        let body = upstream
            .get_manifest(repository, &reference, &ask.caller)
            .await?;
        let manifest = self.keep(ask, body).await;
        Ok(Checked {
            digest: manifest.digest,
            head: None,
        })
    }

    /// The manifest of a digest that the repository has: cached, described, or fetched.
    async fn obtain(
        self: &Arc<Self>,
        ask: &Ask,
        digest: Digest,
        head: Option<ManifestHead>,
        deadline: Instant,
    ) -> Result<(Found, Outcome), Error> {
        if let Some(manifest) = self.cached(ask, digest).await {
            return Ok((Found::Whole(manifest), Outcome::Hit { left: None }));
        }
        // Boxed, so that a hit does not carry the weight of a miss.
        Box::pin(self.obtain_uncached(ask, digest, head, deadline)).await
    }

    async fn obtain_uncached(
        self: &Arc<Self>,
        ask: &Ask,
        digest: Digest,
        head: Option<ManifestHead>,
        deadline: Instant,
    ) -> Result<(Found, Outcome), Error> {
        let confirmed = head.is_some();
        let in_store = self.holds(digest).await;
        // Known from elsewhere: free to learn whether this repository has it too.
        let head = match head {
            None if in_store || ask.want == Want::Head => {
                let reference = Reference::Digest(digest);
                self.describe(ask, &reference, deadline).await?
            }
            head => head,
        };
        if in_store
            && head.is_some()
            && let Some(manifest) = self.adopt(ask, digest, head.as_ref()).await
        {
            let outcome = if confirmed {
                Outcome::Hit { left: None }
            } else {
                Outcome::Validated { collapsed: false }
            };
            return Ok((Found::Whole(manifest), outcome));
        }
        if ask.want == Want::Head
            && let Some(ManifestHead {
                media_type: Some(media_type),
                size: Some(size),
                ..
            }) = head
        {
            let found = Found::Described {
                digest,
                media_type,
                size,
            };
            return Ok((found, Outcome::Validated { collapsed: false }));
        }
        let (manifest, collapsed) = within(ask, deadline, self.fetch(ask, digest)).await?;
        Ok((Found::Whole(manifest?), Outcome::Fetched { collapsed }))
    }

    /// HEAD of a digest; `None` where the registry can't do HEAD.
    async fn describe(
        &self,
        ask: &Ask,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<Option<ManifestHead>, Error> {
        let question = ask.question(reference.clone());
        if let Some(error) = self.negatives.get(&question) {
            return Err(error);
        }
        let head = ask
            .upstream
            .head_manifest(&ask.repository, reference, &ask.caller);
        let result = within(ask, deadline, head).await.and_then(|result| result);
        result.inspect_err(|error| self.negatives.remember(&question, error))
    }

    /// GETs a manifest by digest, together with all who want it for the same caller. Counted.
    async fn fetch(self: &Arc<Self>, ask: &Ask, digest: Digest) -> (Result<Manifest, Error>, bool) {
        let question = ask.question(Reference::Digest(digest));
        if let Some(error) = self.negatives.get(&question) {
            return (Err(error), true);
        }
        let (this, ask) = (Arc::clone(self), ask.clone());
        let key = (ask.link_key(digest), ask.caller.identity());
        together(&self.fetches, key, async move {
            // Whoever led before this one may have just ended.
            if let Some(manifest) = this.cached(&ask, digest).await {
                return Ok(manifest);
            }
            let reference = Reference::Digest(digest);
            let fetched = ask
                .upstream
                .get_manifest(&ask.repository, &reference, &ask.caller)
                .await;
            match fetched {
                Ok(body) => Ok(this.keep(&ask, body).await),
                Err(error) => {
                    this.negatives.remember(&question, &error);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Stores a verified manifest. A store that fails costs a later fetch, not this answer.
    async fn keep(&self, ask: &Ask, fetched: upstream::ManifestBody) -> Manifest {
        let upstream::ManifestBody {
            digest,
            media_type,
            body,
        } = fetched;
        let stored = self.store.put(digest, body.clone(), Kind::Manifest).await;
        let link = Link {
            media_type: Some(media_type.clone()),
        };
        let linked = self.store.link(ask.link_key(digest), link).await;
        if let Err(error) = stored.and(linked) {
            tracing::warn!(%error, %digest, "a manifest could not be stored");
        }
        Manifest {
            digest,
            media_type: media_type.into(),
            body,
        }
    }

    /// Links a manifest that another repository brought, once upstream has said that this
    /// repository has it too.
    async fn adopt(
        &self,
        ask: &Ask,
        digest: Digest,
        head: Option<&ManifestHead>,
    ) -> Option<Manifest> {
        let body = self
            .store
            .read(digest, self.max_manifest)
            .await
            .ok()
            .flatten()?;
        let content_type = head.and_then(|head| head.media_type.as_deref());
        let media_type = inspect(content_type, &body).ok()?.media_type;
        let link = Link {
            media_type: Some(media_type.clone()),
        };
        if let Err(error) = self.store.link(ask.link_key(digest), link).await {
            tracing::warn!(%error, %digest, "a manifest could not be linked");
        }
        Some(Manifest {
            digest,
            media_type: media_type.into(),
            body,
        })
    }

    /// The manifest, if it is stored and this repository is known to have it.
    async fn cached(&self, ask: &Ask, digest: Digest) -> Option<Manifest> {
        let linked = self.store.linked(ask.link_key(digest)).await;
        let media_type = logged(linked).flatten()?.media_type?;
        let body = logged(self.store.read(digest, self.max_manifest).await).flatten()?;
        Some(Manifest {
            digest,
            media_type: media_type.into(),
            body,
        })
    }

    async fn holds(&self, digest: Digest) -> bool {
        logged(self.store.contains(digest).await).unwrap_or(false)
    }

    async fn record(&self, key: &TagKey) -> Option<TagRecord> {
        logged(self.tags.get(key).await).flatten()
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
            let platform = child
                .platform
                .as_ref()
                .map(|(os, arch)| (os.as_str(), arch.as_str()));
            platform == Some(OLD_CLIENT_PLATFORM) && accept.accepts(&child.media_type)
        });
        let Some(child) = child else { return Ok(None) };
        let deadline = Instant::now() + ask.upstream.config().timeouts.fetch;
        self.obtain(ask, child.digest, None, deadline)
            .await
            .map(Some)
    }

    fn count_saved(&self, ask: &Ask, served: &Served) {
        let spent = served.outcome == Outcome::Fetched { collapsed: false };
        if ask.want == Want::Body && !spent {
            metrics::PULLS_SAVED
                .with_label_values(&[ask.upstream.name()])
                .inc();
        }
    }
}

// === impl Ask ===

impl Ask {
    fn tag_key(&self, tag: &Tag) -> TagKey {
        TagKey {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            tag: tag.clone(),
        }
    }

    fn link_key(&self, digest: Digest) -> LinkKey {
        LinkKey {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            digest,
        }
    }

    fn question(&self, reference: Reference) -> Question {
        Question {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            reference,
            identity: self.caller.identity(),
        }
    }

    fn is_authorised(&self) -> bool {
        self.upstream.is_authorised(&self.caller, &self.repository)
    }
}

/// Runs `work` in a task of its own, once for all who join with an equal key. The flag says
/// whether this caller joined another's.
async fn together<K, T>(
    collapse: &Collapse<K, Result<T, Error>>,
    key: K,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> (Result<T, Error>, bool)
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    let (follower, collapsed) = match collapse.join(key) {
        Join::Follower(follower) => (follower, true),
        Join::Leader(leader) => {
            let follower = leader.follow();
            tokio::spawn(async move {
                let outcome = work.await;
                leader.finish(outcome);
            });
            (follower, false)
        }
    };
    let outcome = follower.outcome().await;
    (
        outcome.unwrap_or_else(|_| Err(Failure::GivenUp.into())),
        collapsed,
    )
}

async fn within<T>(
    ask: &Ask,
    deadline: Instant,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| {
        let host = Arc::clone(ask.upstream.name());
        Failure::Timeout {
            host,
            waiting_for: "a manifest",
        }
        .into()
    })
}

/// An index before a client that accepts manifests, but not indexes.
fn is_index_for_others(manifest: &Manifest, accept: &Accept) -> bool {
    kind_of(&manifest.media_type) == Some(ManifestKind::Index)
        && !accept.accepts(&manifest.media_type)
        && accept.accepts_any_manifest()
}

/// A store that can't be read counts as one that has nothing.
fn logged<T>(result: Result<T, crate::store::Error>) -> Option<T> {
    result
        .inspect_err(|error| tracing::warn!(%error, "the store could not be read"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
        };
        let (tag, accept) = (Tag::parse("a").unwrap(), Accept::default());
        let size = size_of_val(&manifests.by_tag(&ask, &tag, &accept));
        assert!(size < 4096, "{size} bytes");
    }
}
