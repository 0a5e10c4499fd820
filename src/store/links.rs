//! Which repository has which digest, as far as memory knows, and what was taken from them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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
    /// How often something was forgotten; counted before it is.
    losses: AtomicU64,
    epoch: Arc<Epoch>,
}

// === impl Links ===

impl Links {
    pub(super) fn new(epoch: Arc<Epoch>) -> Self {
        let taken = Cache::builder().max_capacity(TAKEN).time_to_live(TAKEN_FOR).build();
        Self { known: Cache::new(KNOWN), taken, losses: AtomicU64::new(0), epoch }
    }

    pub(super) fn get(&self, key: &LinkKey) -> Option<Link> {
        self.known.get(key).filter(|_| !self.is_taken(key))
    }

    /// A link that says something else is heard at once, unless the one before made room for others:
    /// then it is when what is held is looked up again.
    pub(super) fn insert(&self, key: LinkKey, link: Link) {
        let mut is_another = false;
        self.known.entry(key).and_compute_with(|before| {
            is_another = before.is_some_and(|before| *before.value() != link);
            Op::Put(link)
        });
        if is_another {
            self.epoch.end();
        }
    }

    /// To be asked before the index is read for [`Links::learn`].
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// What the index said, unless something was forgotten since there were so many `losses`.
    pub(super) fn learn(&self, key: LinkKey, link: Link, losses: u64) {
        self.insert(key.clone(), link);
        if self.losses() != losses {
            self.forget(&key);
        }
    }

    /// What is in memory is read from the index again.
    pub(super) fn forget(&self, key: &LinkKey) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        self.known.invalidate(key);
        self.epoch.end();
    }

    /// The same of all.
    pub(super) fn forget_all(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Algorithm, Digest, Repository};

    #[test]
    fn what_the_index_said_before_something_was_forgotten_is_not_learned() {
        let links = Links::new(Arc::default());
        let (digest, repository) = (Digest::of(Algorithm::Sha256, b"x"), Repository::parse("a"));
        let key = LinkKey { upstream: "u".into(), repository: repository.unwrap(), digest };
        let link = Link { media_type: None };
        links.learn(key.clone(), link.clone(), links.losses());
        assert!(links.get(&key).is_some());
        for forget in [|links: &Links, _: &LinkKey| links.forget_all(), Links::forget] {
            let read = links.losses();
            forget(&links, &key);
            links.learn(key.clone(), link.clone(), read);
            assert_eq!(links.get(&key), None);
        }
    }
}
