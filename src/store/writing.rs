//! What is staged and published, and what is recorded beside it; each wait is bounded in time.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{Error, Kind, Link, LinkKey, Staging, Store, TagKey, TagRecord, blocking};
use crate::protocol::Digest;

// === impl Store: writing ===

impl Store {
    /// Publishes a small body whose digest the caller has verified. It is in memory at once.
    pub async fn put(
        self: &Arc<Self>,
        digest: Digest,
        body: Bytes,
        kind: Kind,
    ) -> Result<(), Error> {
        self.memory.insert(digest, body.clone());
        let store = Arc::clone(self);
        let published = blocking(move || {
            if store.index()?.blob(&digest)?.is_some() {
                return Ok(());
            }
            let mut staging = store.stage(digest)?;
            if !staging.present().is_empty() {
                staging.discard();
                staging = store.stage(digest)?;
            }
            let total = body.len() as u64;
            staging.prepare(Some(total), total)?;
            staging.write_at(0, &body)?;
            store.publish(staging, kind)
        });
        self.patiently("be written", published).await
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
        staging.sync().map_err(|error| self.failed("sync a staged file", error))?;
        let index = self.index()?;
        let known = index.publish(digest, size, kind, SystemTime::now())?;
        match staging.commit(&self.layout) {
            Ok(held) => self.space.publish(held, size, known.is_some()),
            Err(error) => {
                index.remove(vec![digest])?;
                return Err(self.failed("name a published file", error).into());
            }
        }
        if self.space.is_high() {
            self.keeper.wake();
        }
        Ok(())
    }

    /// Remembers, durably, that `key`'s repository has its digest.
    pub async fn link(&self, key: LinkKey, link: Link) -> Result<(), Error> {
        self.links.insert(key.clone(), link.clone());
        let index = self.index()?;
        self.patiently("be written", index.link(key, link)).await
    }

    /// Waits until no fill writes `digest`.
    pub async fn unclaimed(&self, digest: &Digest) {
        self.partials.unclaimed(digest).await;
    }

    /// Keeps a tag that moved, durably.
    pub async fn move_tag(&self, key: TagKey, record: TagRecord) -> Result<(), Error> {
        let index = self.index()?;
        self.patiently("be written", index.move_tag(key, record)).await
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
        self.patiently("be written", index.remove_tag(key)).await
    }

    pub(super) fn forget(&self, digest: Digest) -> Result<(), Error> {
        for size in self.index()?.remove(vec![digest])?.into_iter().flatten() {
            self.space.unpublish(size);
        }
        Ok(())
    }
}
