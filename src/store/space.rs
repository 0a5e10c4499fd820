//! The books of the store's bytes, and the limit that they keep.
//!
//! Everything below the directory counts: published and staged files, what was
//! set aside, the index, and the history. The index grows by doubling, so as much as it has
//! is kept free for it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::clamp;
use crate::{config, metrics};

/// The books.
#[derive(Debug)]
pub(super) struct Space {
    capacity: AtomicU64,
    /// Eviction begins above this ...
    high: AtomicU64,
    /// ... and goes on down to this.
    low: AtomicU64,
    /// The sum of all below, and of what is staged, held for staging or left over.
    used: AtomicU64,
    published: AtomicU64,
    /// How many files are published.
    objects: AtomicU64,
    index: AtomicU64,
    quarantine: AtomicU64,
    history: AtomicU64,
    /// Bytes held for staged files and not yet written: the file system still shows them as free.
    promised: AtomicU64,
    /// One at a time shows the books: what was true a moment ago must not be the last that is shown.
    showing: Mutex<()>,
}

// === impl Space ===

impl Space {
    /// Empty books under the limits of `config`.
    pub(super) fn new(config: &config::Store) -> Self {
        let space = Self {
            capacity: AtomicU64::new(0),
            high: AtomicU64::new(0),
            low: AtomicU64::new(0),
            used: AtomicU64::new(0),
            published: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            index: AtomicU64::new(0),
            quarantine: AtomicU64::new(0),
            history: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            showing: Mutex::new(()),
        };
        space.set_limits(config);
        space
    }

    /// From now on under these limits.
    pub(super) fn set_limits(&self, config: &config::Store) {
        let share = |percent: u8| percent_of(config.disk, percent);
        metrics::STORE_BYTES.with_label_values(&["capacity"]).set(clamp(config.disk));
        self.capacity.store(config.disk, Ordering::Release);
        self.high.store(share(config.evict_above_percent), Ordering::Release);
        self.low.store(share(config.evict_to_percent), Ordering::Release);
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    pub(super) fn low(&self) -> u64 {
        self.low.load(Ordering::Acquire)
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    pub(super) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    pub(super) fn quarantine(&self) -> u64 {
        self.quarantine.load(Ordering::Acquire)
    }

    pub(super) fn history(&self) -> u64 {
        self.history.load(Ordering::Acquire)
    }

    /// Bytes of staged and left-over files, and those held for them.
    pub(super) fn staged(&self) -> u64 {
        let others = self.published() + self.index() + self.quarantine() + self.history();
        self.used().saturating_sub(others)
    }

    pub(super) fn promised(&self) -> u64 {
        self.promised.load(Ordering::Acquire)
    }

    pub(super) fn promise(&self, bytes: u64) {
        self.promised.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Promised bytes were written, or will not be.
    pub(super) fn fulfil(&self, bytes: u64) {
        lower(&self.promised, bytes);
    }

    pub(super) fn is_high(&self) -> bool {
        self.used() > self.high.load(Ordering::Acquire)
    }

    /// What all of the store but the index may use without the index's growth passing the limit.
    pub(super) fn limit(&self) -> u64 {
        self.capacity().saturating_sub(self.index())
    }

    /// Counts `bytes` as held if they fit.
    pub(super) fn try_hold(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let held = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        self.show();
        held
    }

    /// Counts bytes that are there, whether they fit or not.
    pub(super) fn found(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        self.show();
    }

    /// The file behind `believed` counted bytes has `found`.
    pub(super) fn correct(&self, believed: u64, found: u64) {
        if found > believed {
            self.found(found - believed);
        } else {
            self.release(believed - found);
        }
    }

    pub(super) fn release(&self, bytes: u64) {
        lower(&self.used, bytes);
        self.show();
    }

    /// `held` bytes became a published file of `size`; where it was known before, nothing new.
    pub(super) fn publish(&self, held: u64, size: u64, was_known: bool) {
        let new = if was_known { 0 } else { size };
        if !was_known {
            self.objects.fetch_add(1, Ordering::AcqRel);
        }
        self.published.fetch_add(new, Ordering::AcqRel);
        self.correct(held, new);
    }

    /// A published file is gone.
    pub(super) fn unpublish(&self, size: u64) {
        lower(&self.published, size);
        lower(&self.objects, 1);
        self.release(size);
    }

    /// So many files of so many bytes are published, whatever was believed.
    pub(super) fn recount(&self, objects: u64, bytes: u64) {
        self.objects.store(objects, Ordering::Release);
        self.correct(self.published.swap(bytes, Ordering::AcqRel), bytes);
    }

    pub(super) fn set_index(&self, len: u64) {
        self.correct(self.index.swap(len, Ordering::AcqRel), len);
    }

    pub(super) fn set_quarantine(&self, len: u64) {
        self.correct(self.quarantine.swap(len, Ordering::AcqRel), len);
    }

    pub(super) fn set_history(&self, len: u64) {
        self.correct(self.history.swap(len, Ordering::AcqRel), len);
    }

    fn show(&self) {
        let _one = self.showing.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = [
            ("used", self.used()),
            ("published", self.published()),
            ("staged", self.staged()),
            ("index", self.index()),
            ("quarantine", self.quarantine()),
            ("history", self.history()),
        ];
        for (state, bytes) in parts {
            metrics::STORE_BYTES.with_label_values(&[state]).set(clamp(bytes));
        }
        metrics::STORE_OBJECTS.set(clamp(self.objects.load(Ordering::Acquire)));
    }
}

fn lower(counter: &AtomicU64, bytes: u64) {
    let less = |value: u64| Some(value.saturating_sub(bytes));
    // The closure always answers, so there is no failure to look at.
    let _ = counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
}

pub(super) fn percent_of(whole: u64, percent: u8) -> u64 {
    // Divided first: a capacity times a hundred may not fit.
    whole / 100 * u64::from(percent) + whole % 100 * u64::from(percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(disk: u64) -> Space {
        Space::new(&config::Store { disk, ..config::Store::default() })
    }

    #[test]
    fn the_index_has_its_growth_reserved() {
        let space = space(1000);
        space.set_index(100);
        assert!(!space.try_hold(801));
        assert!(space.try_hold(800));
        assert_eq!((space.used(), space.staged()), (900, 800));
        space.publish(800, 700, false);
        assert_eq!((space.used(), space.published(), space.staged()), (800, 700, 0));
        space.set_index(200);
        assert_eq!(space.used(), 900);
        space.unpublish(700);
        assert_eq!(space.used(), 200);
        space.recount(3, 70);
        assert_eq!((space.used(), space.published(), space.staged()), (270, 70, 0));
    }

    #[test]
    fn shares_of_any_capacity_are_right() {
        assert_eq!(percent_of(u64::MAX, 100), u64::MAX);
        assert_eq!(percent_of(199, 50), 99);
    }
}
