//! One fill: what upstream sends of a blob, feeding the store and every waiting reader.
//!
//! Readers see what has come, all but the last [`HELD_BACK_BYTES`] to come
//! until the digest is verified, and either the whole verified blob or an
//! error. They read at their own pace; none waits for another.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

use super::{
    Error, Reader,
    report::Meter,
    window::{Frontier, Interest, Window},
};
use crate::{
    protocol::{ByteRange, Coverage, Digest, Hasher, Repository},
    store::Map,
};

/// The piece that waits for the digest: no client ever holds a complete blob that is not what
/// its name says.
pub const HELD_BACK_BYTES: u64 = 64 * 1024;

/// One blob on its way.
#[derive(Debug)]
pub(super) struct Fill {
    digest: Digest,
    /// Upstream and repository that it comes from: their clients need no other leave.
    origin: Origin,
    progress: watch::Sender<Progress>,
    window: Mutex<Window>,
    /// Counts the writers that this fill has had: what an earlier one says no longer counts.
    writer: AtomicU64,
    /// Set once the staged file is to be left to another process.
    lets_go: AtomicBool,
    /// When it began, for those who look at it.
    pub(super) since: SystemTime,
    /// How fast it is, for them.
    pub(super) meter: Mutex<Meter>,
    /// Wakes who plans what to fetch: a reader has come, gone, or gone on.
    pub(super) changed: Notify,
    /// Wakes who waits for memory.
    pub(super) freed: Notify,
}

/// Where a fill comes from, and on whose behalf.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) upstream: Arc<str>,
    pub(super) epoch: u64,
    pub(super) repository: Repository,
    pub(super) identity: Option<Digest>,
}

/// How far a fill is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// The blob's length, once upstream has said it or the body has ended.
    pub(super) total: Option<u64>,
    /// What has come; the bytes never change and this only grows.
    pub(super) received: Coverage,
    /// What of it readers may have.
    pub(super) visible: Coverage,
}

/// A fill's life, in order; it ends in one of the last two.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// For its turn.
    Waiting,
    Asking,
    Receiving,
    Verified,
    Failed(Error),
}

// === impl Fill: making ===

impl Fill {
    pub(super) fn new(digest: Digest, origin: Origin) -> Arc<Self> {
        let start = Progress {
            phase: Phase::Waiting,
            total: None,
            received: Coverage::default(),
            visible: Coverage::default(),
        };
        let frontier = Frontier { at: 0, hasher: Hasher::new(digest.algorithm()) };
        Arc::new(Self {
            digest,
            origin,
            progress: watch::Sender::new(start),
            window: Mutex::new(Window::new(frontier)),
            writer: AtomicU64::new(0),
            lets_go: AtomicBool::new(false),
            since: SystemTime::now(),
            meter: Mutex::default(),
            changed: Notify::new(),
            freed: Notify::new(),
        })
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn is_from(&self, origin: &Origin) -> bool {
        self.origin == *origin
    }

    /// A place for one more; `None` if there are `limit` already.
    pub(super) fn reader(self: &Arc<Self>, interest: Interest, limit: usize) -> Option<Reader> {
        let mut window = self.window();
        if window.count_readers() >= limit {
            return None;
        }
        let id = window.join(interest);
        drop(window);
        self.changed.notify_one();
        Some(Reader::new(Arc::clone(self), id, interest, self.progress.subscribe()))
    }

    pub(super) fn readers(&self) -> usize {
        self.window().count_readers()
    }

    pub(super) fn has_readers(&self) -> bool {
        self.readers() > 0
    }

    /// True if a reader that comes now can have the bytes from `start` on.
    pub(super) fn can_serve(&self, start: u64) -> bool {
        let received = self.progress.borrow().received.end_of(start);
        self.window().can_serve(start, received)
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    pub(super) fn total(&self) -> Option<u64> {
        self.progress.borrow().total
    }

    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Fill: filling ===

impl Fill {
    pub(super) fn asking(&self) {
        self.progress.send_modify(|progress| progress.phase = Phase::Asking);
    }

    /// It has a staged file with the bytes of `present`, and stores what comes.
    pub(super) fn store(&self, map: Map, present: Coverage) {
        self.window().store(map, present.clone());
        self.progress.send_modify(|progress| progress.received = present);
    }

    /// Bytes may come; the length is known unless upstream does not say it.
    pub(super) fn begin(&self, total: Option<u64>) {
        let mut here = 0;
        self.progress.send_modify(|progress| {
            here = progress.received.len();
            progress.phase = Phase::Receiving;
            progress.total = total;
            for range in progress.received.ranges().to_vec() {
                progress.show(range);
            }
        });
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.begin(here, Instant::now());
    }

    /// Takes bytes that have come. They must not have come before.
    pub(super) fn receive(&self, start: u64, bytes: Bytes, permit: Option<OwnedSemaphorePermit>) {
        let range = ByteRange::new(start, start + bytes.len() as u64);
        // The bytes are there before anybody is told.
        self.window().insert(start, bytes, permit);
        self.progress.send_modify(|progress| {
            progress.received.add(range);
            progress.show(range);
        });
    }

    /// The missing parts of `bytes`, which begin at `start`.
    pub(super) fn missing(&self, start: u64, bytes: &Bytes) -> Vec<(u64, Bytes)> {
        let progress = self.progress.borrow();
        let end = start + bytes.len() as u64;
        let mut parts = Vec::new();
        let mut at = start;
        while let Some(gap) = progress.received.gap(ByteRange::new(at, end)) {
            let place = |position: u64| usize::try_from(position - start).unwrap_or(usize::MAX);
            parts.push((gap.start, bytes.slice(place(gap.start)..place(gap.end))));
            at = gap.end;
        }
        parts
    }

    /// The number of a new writer; the ones before are not heard any more.
    pub(super) fn next_writer(&self) -> u64 {
        self.writer.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The writer `number` says that these pieces are on disk.
    pub(super) fn written(&self, number: u64, pieces: &[(u64, u64)], frontier: Frontier) {
        let mut window = self.window();
        if self.is_heard(number) {
            window.written(pieces, frontier);
        }
        drop(window);
        self.freed.notify_one();
    }

    /// The writer `number` says that all before `frontier` is hashed and not stored.
    pub(super) fn hashed(&self, number: u64, frontier: Frontier) {
        let mut window = self.window();
        if self.is_heard(number) {
            window.hashed(frontier);
        }
    }

    /// The writer `number` can't store what comes from now on.
    pub(super) fn stop_storing(&self, number: u64) {
        let mut window = self.window();
        if self.is_heard(number) && window.is_stored() {
            window.stop_storing();
        }
        drop(window);
        self.freed.notify_one();
        self.changed.notify_one();
    }

    fn is_heard(&self, number: u64) -> bool {
        self.writer.load(Ordering::Acquire) == number
    }

    /// The staged file is to be left to another process.
    pub(super) fn let_go(&self) {
        self.lets_go.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(super) fn lets_go(&self) -> bool {
        self.lets_go.load(Ordering::Acquire)
    }

    pub(super) fn verified(&self) {
        self.progress.send_modify(|progress| {
            progress.total = Some(progress.received.end_of(0));
            progress.visible = progress.received.clone();
            progress.phase = Phase::Verified;
        });
    }

    pub(super) fn fail(&self, error: Error) {
        self.progress.send_modify(|progress| {
            if !matches!(progress.phase, Phase::Verified | Phase::Failed(_)) {
                progress.phase = Phase::Failed(error);
            }
        });
    }
}

// === impl Progress ===

impl Progress {
    /// Lets readers have `range`, all but what would leave less than [`HELD_BACK_BYTES`] of the
    /// blob hidden.
    fn show(&mut self, range: ByteRange) {
        if matches!(self.phase, Phase::Verified) {
            self.visible.add(range);
            return;
        }
        match self.total {
            Some(total) => {
                let may_be_seen = total.saturating_sub(HELD_BACK_BYTES);
                let left = may_be_seen.saturating_sub(self.visible.len());
                self.visible.add(ByteRange::new(range.start, range.start + range.len().min(left)));
            }
            // Of unknown length: it comes from front to back.
            None => {
                let end = self.received.end_of(0).saturating_sub(HELD_BACK_BYTES);
                self.visible = Coverage::prefix(end);
            }
        }
    }

    /// True if so little is missing that what is there may be held back for it.
    pub(super) fn is_nearly_complete(&self) -> bool {
        self.total.is_some_and(|total| self.received.len() + HELD_BACK_BYTES >= total)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Verified | Phase::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn shown(total: Option<u64>, pieces: &[(u64, u64)]) -> Coverage {
        let mut progress = Progress {
            phase: Phase::Receiving,
            total,
            received: Coverage::default(),
            visible: Coverage::default(),
        };
        for (start, end) in pieces {
            progress.received.add(ByteRange::new(*start, *end));
            progress.show(ByteRange::new(*start, *end));
        }
        progress.visible
    }

    #[test]
    fn the_last_piece_waits_for_the_digest() {
        let all_but_the_last = Coverage::prefix(MIB - HELD_BACK_BYTES);
        assert_eq!(shown(Some(MIB), &[(0, MIB)]), all_but_the_last);
        assert_eq!(shown(Some(MIB), &[(0, 10), (10, MIB - 1), (MIB - 1, MIB)]), all_but_the_last);
        assert_eq!(shown(Some(MIB), &[(0, 10)]), Coverage::prefix(10));
        assert!(shown(Some(HELD_BACK_BYTES), &[(0, HELD_BACK_BYTES)]).is_empty());
        assert_eq!(shown(None, &[(0, MIB)]), all_but_the_last);
    }

    #[test]
    fn the_last_piece_is_whichever_comes_last() {
        // The end first, as lazy pullers do, then the rest: the beginning is held back.
        let visible = shown(Some(4 * MIB), &[(3 * MIB, 4 * MIB), (MIB, 3 * MIB), (0, MIB)]);
        assert_eq!(visible.len(), 4 * MIB - HELD_BACK_BYTES);
        assert!(visible.covers(ByteRange::new(MIB, 4 * MIB)));
        assert!(!visible.covers(ByteRange::new(MIB - 1, MIB)));
    }
}
