//! The memory tier: manifests and small blobs, verified, by digest.
//!
//! Bounded by the bytes of the bodies plus what keeping one costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use moka::sync::Cache;

use super::held::Epoch;
use crate::protocol::Digest;

/// What an entry costs besides its body: key, counters, the cache's own nodes.
const ENTRY_BYTES: usize = 512;

/// How often a hit's recency is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Small bodies in memory.
#[derive(Debug)]
pub(super) struct Memory {
    bodies: ArcSwap<Bodies>,
    started: Instant,
    epoch: Arc<Epoch>,
}

type Bodies = Cache<Digest, Arc<Entry>>;

/// A body in memory.
#[derive(Debug)]
pub(super) struct Entry {
    body: Bytes,
    /// Seconds after the start at which the recency was last written.
    touched: AtomicU64,
}

// === impl Memory ===

impl Memory {
    /// A tier of at most `budget` bytes.
    pub(super) fn new(budget: u64, epoch: Arc<Epoch>) -> Self {
        Self { bodies: ArcSwap::from_pointee(bodies(budget)), started: Instant::now(), epoch }
    }

    /// From now on of at most `budget` bytes. What is in it is read from the disk again.
    pub(super) fn resize(&self, budget: u64) {
        if self.bodies.load().policy().max_capacity() != Some(budget) {
            self.bodies.store(Arc::new(bodies(budget)));
            self.epoch.end();
        }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.bodies.load().get(digest).map(|entry| entry.body.clone())
    }

    /// A body that is used, and whether that is to be written down, as it is once a minute.
    pub(super) fn use_of(&self, digest: &Digest) -> Option<(Arc<Entry>, bool)> {
        let entry = self.bodies.load().get(digest)?;
        let needs_touch = entry.needs_touch(self.second());
        Some((entry, needs_touch))
    }

    /// Seconds since the start.
    pub(super) fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.bodies.load().contains_key(digest)
    }

    pub(super) fn insert(&self, digest: Digest, body: Bytes) {
        let touched = AtomicU64::new(self.second());
        self.bodies.load().insert(digest, Arc::new(Entry { body, touched }));
    }

    pub(super) fn remove<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) {
        let bodies = self.bodies.load();
        digests.into_iter().for_each(|digest| bodies.invalidate(digest));
        self.epoch.end();
    }
}

fn bodies(budget: u64) -> Bodies {
    let weight = |_: &Digest, entry: &Arc<Entry>| {
        u32::try_from(entry.body.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(budget).weigher(weight).build()
}

// === impl Entry ===

impl Entry {
    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    fn needs_touch(&self, now: u64) -> bool {
        let last = self.touched.load(Ordering::Relaxed);
        now >= last + TOUCH_EVERY.as_secs()
            && self
                .touched
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Algorithm;

    #[test]
    fn only_a_use_takes_the_turn_to_be_written_down() {
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let mut memory = Memory::new(1 << 20, Arc::default());
        memory.insert(digest, Bytes::from_static(b"a"));
        let needs = |memory: &Memory| memory.use_of(&digest).unwrap().1;
        assert!(!needs(&memory), "it has just come");
        memory.started = memory.started.checked_sub(TOUCH_EVERY).unwrap();
        assert!(memory.get(&digest).is_some());
        assert!(needs(&memory), "a look is no use");
        assert!(!needs(&memory), "it is written down");
    }
}
