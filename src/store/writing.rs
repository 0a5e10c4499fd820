//! What is staged and published, and what is recorded beside it; each wait is bounded in time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{Error, Kind, Link, LinkKey, Staging, Store, TagKey, TagRecord, blocking};
use crate::{metrics, protocol::Digest};

/// How long an answer waits for what it brought to be recorded. What is not by then costs at most
/// a request more after a crash.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// Bytes of bodies that wait for the disk to work again, at the most.
const UNSAVED_BYTES: usize = 16 << 20;

/// A small body that the disk did not take.
#[derive(Debug)]
pub(super) struct Unsaved {
    digest: Digest,
    body: Bytes,
    kind: Kind,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: Mutex<VecDeque<Unsaved>>,
}

// === impl Backlog ===

impl Backlog {
    /// Adds one; the oldest go where there is no room.
    fn add(&self, unsaved: Unsaved) {
        let mut waiting = self.lock();
        waiting.push_back(unsaved);
        let mut bytes: usize = waiting.iter().map(|unsaved| unsaved.body.len()).sum();
        while bytes > UNSAVED_BYTES
            && let Some(oldest) = waiting.pop_front()
        {
            bytes -= oldest.body.len();
        }
    }

    fn take(&self) -> Option<Unsaved> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Unsaved>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Store: writing ===

impl Store {
    /// Publishes a small body whose digest the caller has verified. It is in memory at once; where
    /// the disk can't take it, it is written once the disk works again.
    pub async fn put(
        self: &Arc<Self>,
        digest: Digest,
        body: Bytes,
        kind: Kind,
    ) -> Result<(), Error> {
        self.memory.insert(digest, body.clone());
        let (store, copy) = (Arc::clone(self), body.clone());
        let published = blocking(move || store.put_now(digest, &copy, kind));
        let outcome = self.briefly(published).await;
        if outcome.is_err() {
            self.unsaved.add(Unsaved { digest, body, kind });
        }
        outcome
    }

    /// Writes what could not be written before. Blocks.
    pub(super) fn save_unsaved(self: &Arc<Self>) {
        while let Some(unsaved) = self.unsaved.take() {
            let saved = self.put_now(unsaved.digest, &unsaved.body, unsaved.kind);
            // Where there is no room, there is no use in trying again.
            if let Err(error) = saved
                && !matches!(error, Error::Full { .. })
            {
                self.unsaved.add(unsaved);
                return;
            }
        }
    }

    fn put_now(self: &Arc<Self>, digest: Digest, body: &Bytes, kind: Kind) -> Result<(), Error> {
        if self.index()?.blob(&digest)?.is_some() {
            return Ok(());
        }
        let mut staging = self.stage(digest)?;
        if !staging.present().is_empty() {
            staging.discard();
            staging = self.stage(digest)?;
        }
        let total = body.len() as u64;
        staging.prepare(Some(total), total)?;
        staging.write_at(0, body)?;
        self.publish(staging, kind)
    }

    /// How often something was published by now. The count grows before [`Store::publish`] returns:
    /// what was not there at some count is not there as long as the count stays, except while it is
    /// being published.
    pub fn publications(&self) -> u64 {
        self.publications.load(Ordering::Acquire)
    }

    /// Whether a staged file of `digest` lies there, or is being written.
    pub fn is_staged(&self, digest: &Digest) -> bool {
        self.partials.is_known(digest)
    }

    /// Bytes of the staged file that was left behind for `digest`; 0 while it is being written.
    pub fn left_over(&self, digest: &Digest) -> u64 {
        self.partials.left(digest)
    }

    /// Opens the staged file of `digest`, the left-over one if there is one. Blocks.
    pub fn stage(self: &Arc<Self>, digest: Digest) -> Result<Staging, Error> {
        if self.health.is_failing() {
            return Err(Error::Failing);
        }
        // Without an index nothing can be published, and another process may own the files.
        self.index()?;
        Staging::open(self, digest)
    }

    /// Publishes a staged file that its owner has verified: sync, index, rename, sync of the
    /// folders. Blocks until all of it is durable.
    ///
    /// The index comes before the name: a crash in between leaves a record whose file still lies
    /// among the partial ones, where the next start finds it. The other way round it would leave a
    /// file that nobody knows of, to be found only by looking at all.
    pub fn publish(self: &Arc<Self>, staging: Staging, kind: Kind) -> Result<(), Error> {
        let (digest, size) = (staging.digest(), staging.present().len());
        let syncing = metrics::STORE_SYNC_SECONDS.start_timer();
        let synced = staging.sync();
        syncing.observe_duration();
        synced.map_err(|error| self.failed("sync a staged file", error))?;
        let index = self.index()?;
        let known = index.publish(digest, size, kind, SystemTime::now())?;
        match staging.commit(&self.layout) {
            Ok(held) => self.space.publish(held, size, known.is_some()),
            Err(error) => {
                let error = self.failed("name a published file", error);
                if known.is_none() {
                    index.remove(vec![digest])?;
                }
                return Err(error.into());
            }
        }
        self.publications.fetch_add(1, Ordering::Release);
        if let Err(error) = self.layout.settle(&digest) {
            let error = self.failed("sync a folder", error);
            tracing::warn!(%digest, %error, "a power cut now may cost what was just published");
        }
        if self.space.is_high() {
            self.keeper.wake();
        }
        Ok(())
    }

    /// Remembers, durably, that `key`'s repository has its digest; not where that was taken back
    /// with [`Store::unlink`] and not yet confirmed with [`Store::relink`].
    pub async fn link(&self, key: LinkKey, link: Link) -> Result<(), Error> {
        if self.links.is_taken(&key) {
            return Ok(());
        }
        self.links.insert(key.clone(), link.clone());
        let index = self.index()?;
        let written = self.briefly(index.link(key.clone(), link)).await;
        if self.links.is_taken(&key) {
            // Taken since it was looked: it may have come to the index after that was told.
            self.links.forget(&key);
            return self.briefly(blocking(move || index.unlink(vec![key]))).await;
        }
        written
    }

    /// Waits until no fill writes `digest`.
    pub async fn unclaimed(&self, digest: &Digest) {
        self.partials.unclaimed(digest).await;
    }

    /// Keeps a tag that moved, durably.
    pub async fn move_tag(&self, key: TagKey, record: TagRecord) -> Result<(), Error> {
        let index = self.index()?;
        self.briefly(index.move_tag(key, record)).await
    }

    /// Keeps a tag that was freshened. Written within a second, not awaited: what a crash
    /// loses is an age, and that costs one free HEAD.
    pub fn freshen_tag(&self, key: TagKey, record: TagRecord) {
        if let Ok(index) = self.index() {
            index.freshen_tag(key, record);
        }
    }

    /// Forgets a tag that upstream no longer has.
    pub async fn remove_tag(&self, key: TagKey) -> Result<(), Error> {
        let index = self.index()?;
        self.briefly(index.remove_tag(key)).await
    }

    /// Waits for `work` to be durable, but not so long that a client would notice; it goes on.
    async fn briefly<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let patience = if self.health.is_failing() { Duration::ZERO } else { WRITE_PATIENCE };
        let done = tokio::time::timeout(patience, work).await;
        done.unwrap_or(Err(Error::Slow("be written")))
    }

    pub(super) fn forget(&self, digest: Digest) -> Result<(), Error> {
        for size in self.index()?.remove(vec![digest])?.into_iter().flatten() {
            self.space.unpublish(size);
        }
        Ok(())
    }
}
