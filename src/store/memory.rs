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

use bytes::Bytes;
use moka::sync::Cache;

use crate::protocol::Digest;

/// What an entry costs besides its body: key, counters, the cache's own nodes.
const ENTRY_BYTES: usize = 512;

/// How often a hit's recency is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Small bodies in memory.
#[derive(Debug)]
pub(super) struct Memory {
    bodies: Cache<Digest, Arc<Entry>>,
    started: Instant,
}

#[derive(Debug)]
struct Entry {
    body: Bytes,
    /// Seconds after the start at which the recency was last written.
    touched: AtomicU64,
}

// === impl Memory ===

impl Memory {
    /// A tier of at most `budget` bytes.
    pub(super) fn new(budget: u64) -> Self {
        let weight = |_: &Digest, entry: &Arc<Entry>| {
            u32::try_from(entry.body.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        Self {
            bodies: Cache::builder().max_capacity(budget).weigher(weight).build(),
            started: Instant::now(),
        }
    }

    /// A body, and whether its recency is to be written down: once a minute for one that is used.
    pub(super) fn get(&self, digest: &Digest) -> Option<(Bytes, bool)> {
        let entry = self.bodies.get(digest)?;
        Some((entry.body.clone(), entry.needs_touch(self.started.elapsed().as_secs())))
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.bodies.contains_key(digest)
    }

    pub(super) fn insert(&self, digest: Digest, body: Bytes) {
        let touched = AtomicU64::new(self.started.elapsed().as_secs());
        self.bodies.insert(digest, Arc::new(Entry { body, touched }));
    }

    pub(super) fn remove(&self, digest: &Digest) {
        self.bodies.invalidate(digest);
    }
}

// === impl Entry ===

impl Entry {
    fn needs_touch(&self, now: u64) -> bool {
        let last = self.touched.load(Ordering::Relaxed);
        now >= last + TOUCH_EVERY.as_secs()
            && self
                .touched
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
