//! Checking a tag and obtaining a manifest: where requests to upstream are made.
//!
//! P1 is kept here: a HEAD wherever one will do, a GET only for a digest that
//! is not stored, or from a registry whose HEAD can't tell.

use std::{
    hash::Hash,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    manifests::Manifests,
    negative::Question,
    types::{Ask, Error, Found, Manifest, Outcome, Served, Side, Want},
};
use crate::{
    collapse::{Collapse, Join},
    protocol::{Digest, Reference},
    store::{LinkKey, TagKey, TagRecord},
    trace,
    upstream::{Failure, ManifestHead},
};

/// How much later than the questions to upstream their sum is given up: what a question's end means
/// for the host is known by then.
const GRACE: Duration = Duration::from_millis(100);

/// A tag that upstream confirmed a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    /// What is on record of it from now on.
    pub(super) record: TagRecord,
    /// What the HEAD said of its digest; `None` where the registry had to be asked by GET.
    pub(super) head: Option<ManifestHead>,
}

/// How often a tag is asked for that is written meanwhile.
const CHECKS: usize = 3;

pub(super) type Checks = Collapse<(TagKey, Side), Result<Checked, Error>>;
pub(super) type Fetches = Collapse<(LinkKey, Side), Result<Manifest, Error>>;

// === impl Manifests ===

impl Manifests {
    /// Asks upstream what the tag names, together with all who ask for the same caller.
    pub(super) async fn check(
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
        together(&self.checks, (key.clone(), ask.side()), async move {
            let deadline = Instant::now() + patience + GRACE;
            let mut last = None;
            for _ in 0..CHECKS {
                match this.check_once(&ask, &key, deadline).await {
                    Ok(checked) => return checked,
                    Err(outdated) => last = Some(outdated),
                }
            }
            // It is written all the time. This is what upstream said in between, and is not kept.
            last.unwrap_or_else(|| Err(Failure::GivenUp.into()))
        })
        .await
    }

    /// Asks what the tag names and records it; an error with the answer that is not recorded, if the
    /// tag was written through us meanwhile.
    async fn check_once(
        &self,
        ask: &Ask,
        key: &TagKey,
        deadline: Instant,
    ) -> Result<Result<Checked, Error>, Result<Checked, Error>> {
        let question = ask.question(Reference::Tag(key.tag.clone()));
        let (written, writes) = (ask.upstream.writes(), self.tags.writes(key).await);
        let patience = deadline.saturating_duration_since(Instant::now());
        let checking = self.check_now(ask, key, patience.saturating_sub(GRACE));
        let result = match tokio::time::timeout_at(deadline, checking).await {
            Ok(result) => result,
            Err(_) => {
                let host = Arc::clone(ask.upstream.name());
                Err(Failure::Timeout { host, waiting_for: "a tag check" }.into())
            }
        };
        let (cooldown, now) = (ask.cooldown(&key.tag), SystemTime::now());
        match result {
            Ok((digest, head)) => {
                match self.tags.confirmed(key, digest, cooldown, now, writes).await {
                    Ok(record) => Ok(Ok(Checked { record, head })),
                    Err(record) => Err(Ok(Checked { record, head })),
                }
            }
            Err(error) => {
                // A stranger's 404 says only that it is not for the stranger.
                let is_gone = matches!(error, Error::NotFound { .. });
                if is_gone
                    && ask.is_authorised()
                    && !self.tags.gone(key, cooldown, now, writes).await
                {
                    return Err(Err(error));
                }
                self.remember(ask, &question, &error, written);
                Ok(Err(error))
            }
        }
    }

    /// Keeps a no that upstream said when it had taken `written` writes, unless it took more since.
    fn remember(&self, ask: &Ask, question: &Question, error: &Error, written: u64) {
        self.negatives.remember(question, error);
        // Afterwards: a write is counted first, and then what was said is forgotten.
        if ask.upstream.writes() != written {
            self.negatives.drop(question);
        }
    }

    /// The digest of a tag, and what a HEAD said of it. P1: a GET only where HEAD can't tell the
    /// digest.
    async fn check_now(
        &self,
        ask: &Ask,
        key: &TagKey,
        patience: Duration,
    ) -> Result<(Digest, Option<ManifestHead>), Error> {
        let reference = Reference::Tag(key.tag.clone());
        let (upstream, repository) = (&ask.upstream, &ask.repository);
        let began = Instant::now();
        let head = upstream.head_manifest(repository, &reference, &ask.caller, patience).await;
        upstream.tag_check_took(began.elapsed(), head.as_ref().err());
        if let Some(head) = head?
            && let Some(digest) = head.digest
        {
            return Ok((digest, Some(head)));
        }
        let body = upstream.get_manifest(repository, &reference, &ask.caller, ask.client).await?;
        let manifest = self.keep(ask, body).await;
        Ok((manifest.digest, None))
    }

    /// What answers for a tag: the manifest on record, of which `head` is the description, or, while
    /// it cools, the one before.
    pub(super) async fn answer(
        self: &Arc<Self>,
        ask: &Ask,
        key: &TagKey,
        record: &TagRecord,
        head: Option<ManifestHead>,
        deadline: Instant,
    ) -> Result<Served, Error> {
        if ask.choice(&key.tag, record).cooling.is_some() {
            // Boxed, like what is not cached: few answers are of this kind.
            return Box::pin(self.answer_cooling(ask, key, record, head, deadline)).await;
        }
        let (found, outcome) = self.obtain(ask, record.digest, head, deadline).await?;
        Ok(Served { found, outcome, validated: Some(record.validated), cooling: false })
    }

    /// The manifest before; if upstream has lost it, the one on record.
    async fn answer_cooling(
        self: &Arc<Self>,
        ask: &Ask,
        key: &TagKey,
        record: &TagRecord,
        head: Option<ManifestHead>,
        deadline: Instant,
    ) -> Result<Served, Error> {
        let validated = Some(record.validated);
        if let Some(previous) = record.previous {
            match self.obtain(ask, previous, None, deadline).await {
                Ok((found, outcome)) => {
                    return Ok(Served { found, outcome, validated, cooling: true });
                }
                Err(Error::NotFound { .. }) => self.tags.let_go(key, previous).await,
                Err(error) => return Err(error),
            }
        }
        let (found, outcome) = self.obtain(ask, record.digest, head, deadline).await?;
        Ok(Served { found, outcome, validated, cooling: false })
    }

    /// The manifest of a digest that the repository has: cached, described, or fetched.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        ask: &Ask,
        digest: Digest,
        head: Option<ManifestHead>,
        deadline: Instant,
    ) -> Result<(Found, Outcome), Error> {
        if let Some(manifest) = self.cached(ask, digest).await {
            if self.negatives.is_doubted(|| ask.link_key(digest)) {
                return Box::pin(self.settle(ask, manifest, head, deadline)).await;
            }
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
            && let Some(ManifestHead { media_type: Some(media_type), size: Some(size), .. }) = head
        {
            let found = Found::Described { digest, media_type, size };
            return Ok((found, Outcome::Validated { collapsed: false }));
        }
        let (manifest, collapsed) = within(ask, deadline, self.fetch(ask, digest)).await?;
        Ok((Found::Whole(manifest?), Outcome::Fetched { collapsed }))
    }

    /// HEAD of a digest; `None` where the registry can't do HEAD.
    pub(super) async fn describe(
        &self,
        ask: &Ask,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<Option<ManifestHead>, Error> {
        let question = ask.question(reference.clone());
        if let Some(error) = self.negatives.get(&question) {
            return Err(error);
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        let (upstream, repository) = (&ask.upstream, &ask.repository);
        let written = upstream.writes();
        let head = upstream.head_manifest(repository, reference, &ask.caller, patience).await;
        head.inspect_err(|error| self.remember(ask, &question, error, written))
    }

    /// GETs a manifest by digest, together with all who want it for the same caller. Counted.
    async fn fetch(self: &Arc<Self>, ask: &Ask, digest: Digest) -> (Result<Manifest, Error>, bool) {
        let question = ask.question(Reference::Digest(digest));
        if let Some(error) = self.negatives.get(&question) {
            return (Err(error), true);
        }
        let (this, ask) = (Arc::clone(self), ask.clone());
        let key = (ask.link_key(digest), ask.side());
        together(&self.fetches, key, async move {
            // Whoever led before this one may have just ended.
            if let Some(manifest) = this.cached(&ask, digest).await {
                return Ok(manifest);
            }
            let reference = Reference::Digest(digest);
            let (upstream, repository) = (&ask.upstream, &ask.repository);
            let written = upstream.writes();
            let fetched = upstream.get_manifest(repository, &reference, &ask.caller, ask.client);
            match fetched.await {
                Ok(body) => Ok(this.keep(&ask, body).await),
                Err(error) => {
                    this.remember(&ask, &question, &error, written);
                    Err(error)
                }
            }
        })
        .await
    }
}

/// Runs `work` in a task of its own, once for all who join with an equal key. The flag says
/// whether this caller joined another's.
pub(super) async fn together<K, T>(
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
            tokio::spawn(trace::inherit(async move {
                let outcome = work.await;
                leader.finish(outcome);
            }));
            (follower, false)
        }
    };
    let outcome = follower.outcome().await;
    (outcome.unwrap_or_else(|_| Err(Failure::GivenUp.into())), collapsed)
}

async fn within<T>(
    ask: &Ask,
    deadline: Instant,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| {
        let host = Arc::clone(ask.upstream.name());
        Failure::Timeout { host, waiting_for: "a manifest" }.into()
    })
}

/// A store that can't be read counts as one that has nothing.
pub(super) fn logged<T>(result: Result<T, crate::store::Error>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "the store could not be read")).ok()
}
