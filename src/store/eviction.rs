//! The limit on bytes, and who goes when it is reached.
//!
//! Left-over partial files go first, then the blobs read longest ago, then
//! manifests. What is being read stays: unlinking it would free nothing.

use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Error, Store, clamp, index::is_manifest};
use crate::metrics;

/// Victims looked at in one step.
const BATCH: usize = 64;

/// A round frees this share of the capacity more than it must (1/32), so that a
/// full store does not evict on every fill.
const SLACK_DIVISOR: u64 = 32;

/// The books of the store's bytes.
#[derive(Debug)]
pub(super) struct Space {
    capacity: u64,
    /// Published, staged, held and left-over bytes.
    used: AtomicU64,
}

// === impl Space ===

impl Space {
    pub(super) fn new(capacity: u64, used: u64) -> Self {
        let space = Self { capacity, used: AtomicU64::new(used) };
        space.show(used);
        space
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Counts `bytes` as held if they fit.
    pub(super) fn try_hold(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.capacity);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(before) => {
                self.show(before + bytes);
                true
            }
            Err(_) => false,
        }
    }

    /// The file behind `believed` counted bytes has `found`.
    pub(super) fn correct(&self, believed: u64, found: u64) {
        if found > believed {
            self.show(self.used.fetch_add(found - believed, Ordering::AcqRel) + found - believed);
        } else {
            self.release(believed - found);
        }
    }

    pub(super) fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let before = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.show(before.unwrap_or_default().saturating_sub(bytes));
    }

    /// `held` bytes became `size` published ones.
    pub(super) fn published(&self, held: u64, size: u64) {
        if size > held {
            self.show(self.used.fetch_add(size - held, Ordering::AcqRel) + (size - held));
        } else {
            self.release(held - size);
        }
    }

    pub(super) fn removed(&self, size: u64) {
        self.release(size);
    }

    fn show(&self, used: u64) {
        metrics::STORE_BYTES.with_label_values(&["used"]).set(clamp(used));
    }
}

/// Frees room until `wanted` more bytes fit, or nothing is left to free. Blocks.
pub(super) fn make_room(store: &Store, wanted: u64) -> Result<(), Error> {
    let capacity = store.space.capacity();
    if wanted > capacity {
        return Ok(());
    }
    // What others hold can't be freed: where that leaves too little, nothing is evicted for it.
    let evictable = store.index.used_bytes()? + store.partials.total_bytes();
    if store.space.used().saturating_sub(evictable) + wanted > capacity {
        return Ok(());
    }
    let least = capacity.saturating_sub(wanted);
    let target = least.saturating_sub(capacity / SLACK_DIVISOR);
    drop_partials(store, target);
    let mut after = None;
    while store.space.used() > target {
        let victims = store.index.oldest(after.as_deref(), BATCH)?;
        let Some((last, _)) = victims.last() else {
            break;
        };
        after = Some(last.clone());
        for (key, digest) in victims {
            // Manifests go only where they must: getting one back costs a counted request.
            let enough = if is_manifest(&key) { least } else { target };
            if store.space.used() <= enough {
                return Ok(());
            }
            if !store.open.is_read(&digest) {
                evict(store, digest)?;
            }
        }
    }
    Ok(())
}

fn drop_partials(store: &Store, target: u64) {
    while store.space.used() > target {
        let Some((digest, bytes)) = store.partials.take_left() else {
            return;
        };
        if let Err(error) = fs::remove_file(store.layout.partial(&digest)) {
            tracing::warn!(%digest, %error, "could not remove a left-over partial file");
        }
        store.space.release(bytes);
    }
}

/// The index forgets first: a crash in between leaves a file too much, never a
/// record without its file.
fn evict(store: &Store, digest: crate::protocol::Digest) -> Result<(), Error> {
    let Some(size) = store.index.remove_blob(digest)? else {
        return Ok(());
    };
    store.open.remove(&digest);
    store.memory.remove(&digest);
    match fs::remove_file(store.layout.blob(&digest)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    store.space.removed(size);
    metrics::EVICTIONS.inc();
    metrics::EVICTED_BYTES.inc_by(size);
    tracing::debug!(%digest, size, "evicted");
    Ok(())
}
