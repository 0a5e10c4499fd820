//! The books of staged files: who writes one now, and which were left behind.
//!
//! A digest has at most one writer. What a writer leaves behind counts against
//! the limit, is resumed by the next fill of its digest, and is the first to go.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::Error;
use crate::protocol::Digest;

/// Staged files that have no writer now, and those that have.
#[derive(Debug, Default)]
pub(super) struct Partials {
    states: Mutex<States>,
    /// Wakes who waits for a writer to let go.
    released: Notify,
}

#[derive(Debug, Default)]
struct States {
    of: HashMap<Digest, State>,
    /// Numbers the left-overs in the order in which they were left.
    next: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A [`super::Staging`] writes it.
    Claimed,
    Left {
        bytes: u64,
        order: u64,
    },
}

// === impl Partials ===

impl Partials {
    /// Left-overs of an earlier life, the oldest first.
    pub(super) fn new(left: impl IntoIterator<Item = (Digest, u64)>) -> Self {
        let partials = Self::default();
        left.into_iter().for_each(|(digest, bytes)| partials.release(digest, bytes));
        partials
    }

    /// Bytes of the left-overs.
    pub(super) fn left_bytes(&self) -> u64 {
        let bytes = |state: &State| match state {
            State::Claimed => 0,
            State::Left { bytes, .. } => *bytes,
        };
        self.lock().of.values().map(bytes).sum()
    }

    /// Takes the digest for one writer; answers the bytes that lie there already.
    pub(super) fn claim(&self, digest: Digest) -> Result<u64, Error> {
        match self.lock().of.insert(digest, State::Claimed) {
            Some(State::Claimed) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another fill writes it").into())
            }
            Some(State::Left { bytes, .. }) => Ok(bytes),
            None => Ok(0),
        }
    }

    /// A writer lets go and leaves so many bytes behind.
    pub(super) fn release(&self, digest: Digest, left: u64) {
        let mut states = self.lock();
        if left == 0 {
            states.of.remove(&digest);
        } else {
            let order = states.next;
            states.next += 1;
            states.of.insert(digest, State::Left { bytes: left, order });
        }
        drop(states);
        self.released.notify_waiters();
    }

    /// True while somebody writes or publishes `digest`.
    pub(super) fn is_claimed(&self, digest: &Digest) -> bool {
        matches!(self.lock().of.get(digest), Some(State::Claimed))
    }

    /// True while somebody writes `digest`, or a left-over of it lies there.
    pub(super) fn is_known(&self, digest: &Digest) -> bool {
        self.lock().of.contains_key(digest)
    }

    /// Bytes that were left behind for `digest`.
    pub(super) fn left(&self, digest: &Digest) -> u64 {
        match self.lock().of.get(digest) {
            Some(State::Left { bytes, .. }) => *bytes,
            Some(State::Claimed) | None => 0,
        }
    }

    /// True while anything is being written.
    pub(super) fn has_writers(&self) -> bool {
        self.lock().of.values().any(|state| matches!(state, State::Claimed))
    }

    /// Waits until nobody writes `digest`.
    pub(super) async fn unclaimed(&self, digest: &Digest) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registered before the look, so that no release falls in between.
            released.as_mut().enable();
            if !self.is_claimed(digest) {
                return;
            }
            released.await;
        }
    }

    /// Claims the left-over that lies there longest, for eviction; never one that is being written.
    /// Until it is released nobody opens the file that is about to go.
    pub(super) fn take_left(&self) -> Option<(Digest, u64)> {
        let mut states = self.lock();
        let left = states.of.iter().filter_map(|(digest, state)| match state {
            State::Left { bytes, order } => Some((*order, *digest, *bytes)),
            State::Claimed => None,
        });
        let (_, digest, bytes) = left.min_by_key(|(order, ..)| *order)?;
        states.of.insert(digest, State::Claimed);
        Some((digest, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Algorithm;

    #[test]
    fn the_longest_left_goes_first_and_what_is_written_stays() {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let partials = Partials::new([(digest("a"), 1), (digest("b"), 2), (digest("c"), 3)]);
        assert_eq!(partials.claim(digest("a")).unwrap(), 1);
        assert!(partials.claim(digest("a")).is_err());
        assert_eq!(partials.take_left(), Some((digest("b"), 2)));
        assert!(partials.claim(digest("b")).is_err(), "opened while it is removed");
        partials.release(digest("b"), 0);
        assert_eq!(partials.claim(digest("b")).unwrap(), 0);
        partials.release(digest("a"), 5);
        assert_eq!(partials.left_bytes(), 8);
        assert_eq!(partials.take_left(), Some((digest("c"), 3)));
        assert_eq!(partials.take_left(), Some((digest("a"), 5)));
        assert_eq!(partials.take_left(), None);
    }
}
