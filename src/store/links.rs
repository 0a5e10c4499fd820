//! Which repository has which digest, as far as memory knows, and what was taken from them.

use std::{sync::Arc, time::Duration};

use moka::{ops::compute::Op, sync::Cache};

use super::{Link, LinkKey, held::Epoch};

/// Links kept in memory; about 300 bytes each.
const KNOWN: u64 = 20_000;

/// How long a link that was taken can't come back by itself: longer than any download.
const TAKEN_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// Such links remembered; about 300 bytes each.
const TAKEN: u64 = 10_000;

/// Links read or written lately.
#[derive(Debug)]
pub(super) struct Links {
    known: Cache<LinkKey, Link>,
    /// What repositories lost a while ago: what was under way then must not link it again.
    taken: Cache<LinkKey, ()>,
    epoch: Arc<Epoch>,
}

// === impl Links ===

impl Links {
    pub(super) fn new(epoch: Arc<Epoch>) -> Self {
        let taken = Cache::builder().max_capacity(TAKEN).time_to_live(TAKEN_FOR).build();
        Self { known: Cache::new(KNOWN), taken, epoch }
    }

    pub(super) fn get(&self, key: &LinkKey) -> Option<Link> {
        self.known.get(key).filter(|_| !self.is_taken(key))
    }

    pub(super) fn insert(&self, key: LinkKey, link: Link) {
        let is_another = self.known.get(&key).is_some_and(|before| before != link);
        self.known.insert(key, link);
        if is_another {
            self.epoch.end();
        }
    }

    /// What is in memory is read from the index again.
    pub(super) fn forget(&self, key: &LinkKey) {
        self.known.invalidate(key);
        self.epoch.end();
    }

    /// The same of all.
    pub(super) fn forget_all(&self) {
        self.known.invalidate_all();
        self.epoch.end();
    }

    /// The repository lost the digest. It is not linked again until [`Links::give_back`].
    pub(super) fn take(&self, key: &LinkKey) {
        // As `give_back_if` does it: one after the other.
        self.taken.entry(key.clone()).and_compute_with(|_| Op::Put(()));
        self.forget(key);
    }

    pub(super) fn is_taken(&self, key: &LinkKey) -> bool {
        self.taken.contains_key(key)
    }

    pub(super) fn give_back(&self, key: &LinkKey) {
        self.taken.invalidate(key);
    }

    /// Gives it back if that is `still` right: [`Links::take`] comes before that is looked at, or
    /// after it was given back.
    pub(super) fn give_back_if(&self, key: &LinkKey, still: impl FnOnce() -> bool) {
        let give = |_| if still() { Op::Remove } else { Op::Nop };
        self.taken.entry_by_ref(key).and_compute_with(give);
    }
}
