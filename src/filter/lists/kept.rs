//! The lists that upstream gave, by upstream, repository, query and caller.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;

use crate::{
    filter::Target,
    protocol::{Digest, Repository},
    upstream::{Error, List},
};

/// Memory for all of them.
const BYTES: u64 = 16 << 20;

/// What an entry costs besides its document.
const ENTRY: usize = 512;

/// DESIGN: a 404 is remembered for at most 10 s.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// DESIGN: what upstream allows a caller holds for a minute.
const ADMITTED_FOR: Duration = Duration::from_secs(60);

/// Callers and repositories remembered.
const ADMITTED: u64 = 10_000;

/// Who may list: upstream, repository and caller.
type Admission = (Arc<str>, Repository, Digest);

/// What was asked, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    upstream: Arc<str>,
    repository: Option<Repository>,
    /// Path and query.
    list: String,
    identity: Option<Digest>,
}

/// What upstream said, and when.
#[derive(Debug, Clone)]
struct Said {
    at: Instant,
    list: Result<List, Error>,
}

/// The lists.
#[derive(Debug)]
pub(super) struct Kept {
    said: Cache<Key, Said>,
    admitted: Cache<Admission, ()>,
}

// === impl Key ===

impl Key {
    pub(super) fn new(target: &Target, query: Option<&str>) -> Self {
        Self {
            upstream: Arc::clone(target.upstream.name()),
            repository: target.route.repository().cloned(),
            list: format!("{}?{}", target.route, query.unwrap_or_default()),
            identity: target.caller.identity(),
        }
    }
}

// === impl Kept ===

impl Default for Kept {
    fn default() -> Self {
        let weight = |key: &Key, said: &Said| {
            let body = said.list.as_ref().map_or(0, |list| list.body.len());
            u32::try_from(ENTRY + key.list.len() + body).unwrap_or(u32::MAX)
        };
        Self {
            said: Cache::builder().max_capacity(BYTES).weigher(weight).build(),
            admitted: Cache::builder().max_capacity(ADMITTED).time_to_live(ADMITTED_FOR).build(),
        }
    }
}

impl Kept {
    /// Keeps what upstream has just said.
    pub(super) fn keep(&self, key: Key, list: Result<List, Error>) {
        self.said.insert(key, Said { at: Instant::now(), list });
    }

    /// Forgets what it said.
    pub(super) fn drop(&self, key: &Key) {
        self.said.invalidate(key);
    }

    /// What it said not longer than `most` ago, and how long that holds; a no is kept for a moment.
    pub(super) fn fresh(
        &self,
        key: &Key,
        most: Duration,
    ) -> Option<Result<(List, Duration), Error>> {
        let Said { at, list } = self.said.get(key)?;
        let most = if list.is_ok() { most } else { most.min(ABSENT_FOR) };
        let left = most.checked_sub(at.elapsed())?;
        Some(list.map(|list| (list, left)))
    }

    /// The list that it gave not longer than `most` ago, and its age.
    pub(super) fn stale(&self, key: &Key, most: Duration) -> Option<(List, Duration)> {
        let Said { at, list } = self.said.get(key)?;
        let age = at.elapsed();
        list.ok().filter(|_| age <= most).map(|list| (list, age))
    }

    /// Upstream has just given this caller a list of this repository.
    pub(super) fn admit(&self, target: &Target) {
        if let Some(admission) = admission(target) {
            self.admitted.insert(admission, ());
        }
    }

    /// Whether it has within the last minute.
    pub(super) fn is_admitted(&self, target: &Target) -> bool {
        admission(target).is_some_and(|admission| self.admitted.contains_key(&admission))
    }

    /// Something was written to a repository.
    pub(super) fn forget(&self, upstream: &str, repository: &Repository) {
        for (key, _) in &self.said {
            if &*key.upstream == upstream && key.repository.as_ref() == Some(repository) {
                self.said.invalidate(&*key);
            }
        }
    }
}

/// `None` for those who ask on our behalf.
fn admission(target: &Target) -> Option<Admission> {
    let repository = target.route.repository()?.clone();
    Some((Arc::clone(target.upstream.name()), repository, target.caller.identity()?))
}
