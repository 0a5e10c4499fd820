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

/// What was asked, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    upstream: Arc<str>,
    epoch: u64,
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
}

// === impl Key ===

impl Key {
    pub(super) fn new(target: &Target, query: Option<&str>) -> Self {
        Self {
            upstream: Arc::clone(target.upstream.name()),
            epoch: target.upstream.epoch(),
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
        Self { said: Cache::builder().max_capacity(BYTES).weigher(weight).build() }
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

    /// Something was written to a repository.
    pub(super) fn forget(&self, upstream: &str, repository: &Repository) {
        for (key, _) in &self.said {
            if &*key.upstream == upstream && key.repository.as_ref() == Some(repository) {
                self.said.invalidate(&*key);
            }
        }
    }
}
