//! What is published, opened and read; each look is bounded in time.
//!
//! A file that turns out not to be what its name says is set aside.

use std::{io, sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{
    DISK_PATIENCE, Error, Lease, Link, LinkKey, Object, Store, TagKey, TagRecord, Verdict,
    blocking, eviction, is_bad_file, memory::Entry, recovery,
};
use crate::{metrics, protocol::Digest};

// === impl Store: reading ===

impl Store {
    /// A published body of up to [`super::SMALL_BYTES`], if it is in memory already.
    pub fn in_memory(&self, digest: &Digest) -> Option<Bytes> {
        self.used_in_memory(digest).map(|entry| entry.body().clone())
    }

    /// The same, as memory has it.
    pub(super) fn used_in_memory(&self, digest: &Digest) -> Option<Arc<Entry>> {
        let (entry, needs_touch) = self.memory.use_of(digest)?;
        if needs_touch {
            self.touch(*digest);
        }
        Some(entry)
    }

    /// Opens what is published under `digest`. Reads the index and opens a file.
    pub async fn get(self: &Arc<Self>, digest: Digest) -> Result<Option<Lease>, Error> {
        if let Some(lease) = self.open.get(&digest) {
            self.touch_lease(&lease);
            return Ok(Some(lease));
        }
        self.lookup(move |store| store.open_published(digest)).await
    }

    /// The whole body published under `digest`, for bodies of up to
    /// `limit` bytes; larger ones count as absent.
    pub async fn read(
        self: &Arc<Self>,
        digest: Digest,
        limit: u64,
    ) -> Result<Option<Bytes>, Error> {
        if let Some(body) = self.in_memory(&digest) {
            return Ok(Some(body));
        }
        self.lookup(move |store| {
            let Some(lease) = store.open_published(digest)? else {
                return Ok(None);
            };
            if lease.len() > limit {
                return Ok(None);
            }
            // A page that can't be read is an error here, and a signal that kills in a copy.
            match lease.map().populate(0, lease.len()) {
                Err(error) if is_bad_file(&error) => {
                    store.set_aside(digest, &format!("it can't be read: {error}"));
                    return Ok(None);
                }
                populated => populated?,
            }
            let body = Bytes::copy_from_slice(&lease.slice(0, lease.len()));
            // A manifest is small and read whole: its content is checked each time it enters
            // memory, so that a file which went bad on disk is never served from here.
            let found = Digest::of(digest.algorithm(), &body);
            if found != digest {
                store.set_aside(digest, &format!("its bytes have the digest {found}"));
                return Ok(None);
            }
            store.memory.insert(digest, body.clone());
            // Purged or evicted while it was read: out of the books, so out of memory too.
            if store.index().and_then(|index| index.blob(&digest)).is_ok_and(|it| it.is_none()) {
                store.memory.remove([&digest]);
            }
            Ok(Some(body))
        })
        .await
    }

    /// True when `digest` is published. Reads the index.
    pub async fn contains(self: &Arc<Self>, digest: Digest) -> Result<bool, Error> {
        if self.memory.contains(&digest) || self.open.get(&digest).is_some() {
            return Ok(true);
        }
        self.lookup(move |store| match store.index().and_then(|index| index.blob(&digest)) {
            Ok(Some(_)) => Ok(true),
            Ok(None) | Err(_) => Ok(store.layout.blob(&digest).exists()),
        })
        .await
    }

    /// What is known of a digest in a repository, if it was asked for lately. Never blocks.
    pub fn linked_in_memory(&self, key: &LinkKey) -> Option<Link> {
        self.links.get(key)
    }

    /// What is known of a digest in a repository. Reads the index.
    pub async fn linked(self: &Arc<Self>, key: LinkKey) -> Result<Option<Link>, Error> {
        if let Some(link) = self.links.get(&key) {
            return Ok(Some(link));
        }
        if self.links.is_taken(&key) {
            return Ok(None);
        }
        self.lookup(move |store| {
            let losses = store.links.losses();
            let link = store.index()?.linked(&key)?;
            if let Some(link) = &link {
                store.links.learn(key, link.clone(), losses);
            }
            Ok(link)
        })
        .await
    }

    /// The record of a tag. Reads the index.
    pub async fn tag(self: &Arc<Self>, key: TagKey) -> Result<Option<TagRecord>, Error> {
        self.lookup(move |store| store.index()?.tag(&key)).await
    }

    /// A published file turned out not to be what its name says: it is moved out of the way and
    /// forgotten, and fetched again when it is asked for. Blocks.
    pub fn set_aside(&self, digest: Digest, problem: &str) {
        if self.index().is_err() {
            // Handed over: the files are another process's to judge.
            tracing::debug!(%digest, problem, "a published file went bad");
            return;
        }
        tracing::warn!(%digest, problem, "a published file went bad; set aside, to be fetched again");
        metrics::QUARANTINED.inc();
        self.open.remove(&digest);
        self.memory.remove([&digest]);
        let moved = self.layout.set_aside(&digest).map_err(Error::from);
        if let Err(error) = moved.and_then(|_| self.forget(digest)) {
            tracing::warn!(%digest, %error, "could not set a bad file aside");
        }
        // Whoever opened it meanwhile has put it back among the open ones.
        self.open.remove(&digest);
        eviction::bound_quarantine(self);
    }

    pub(super) fn open_published(self: &Arc<Self>, digest: Digest) -> Result<Option<Lease>, Error> {
        let recorded = self.index().and_then(|index| index.blob(&digest));
        let size = match recorded {
            Ok(Some(record)) => record.size,
            // The index misses it, or there is none now: the file itself can tell.
            Ok(None) | Err(_) => match recovery::adopt_for_request(self, &digest)? {
                Verdict::Good { size } => size,
                Verdict::Bad { .. } | Verdict::Gone => return Ok(None),
            },
        };
        let was_claimed = self.partials.is_claimed(&digest);
        let object = match Object::open(&self.layout, digest, size) {
            Ok(object) => object,
            // It is being published at this moment: it has its record and not yet its name.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && (was_claimed || self.partials.is_claimed(&digest)) =>
            {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(%digest, "a published file is gone");
                self.forget(digest)?;
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.set_aside(digest, &error.to_string());
                return Ok(None);
            }
            // It says nothing of the disk as a whole: this one is streamed, and replaced.
            Err(error) => {
                metrics::STORE_OPEN_ERRORS.inc();
                return Err(error.into());
            }
        };
        let lease = self.open.insert(object);
        // Evicted while it was being opened: out of the books, so out of the table too.
        if self.index().and_then(|index| index.blob(&digest)).is_ok_and(|record| record.is_none()) {
            self.open.remove(&digest);
            return Ok(None);
        }
        self.touch_lease(&lease);
        Ok(Some(lease))
    }

    fn touch_lease(&self, lease: &Lease) {
        if lease.needs_touch() {
            self.touch(lease.digest());
        }
    }

    fn touch(&self, digest: Digest) {
        if let Ok(index) = self.index() {
            index.touch(digest, SystemTime::now());
        }
    }

    /// Runs `work` where it may wait for the disk, and gives up waiting after [`DISK_PATIENCE`].
    pub(super) async fn lookup<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(self);
        let found = async {
            // Held until the work ends, however long the caller waits: it bounds the threads that
            // a stuck disk can hold.
            let lookups = Arc::clone(&self.lookups);
            let place = lookups.acquire_owned().await.map_err(|_| Error::Closed)?;
            blocking(move || {
                let _place = place;
                work(&store)
            })
            .await
        };
        match tokio::time::timeout(DISK_PATIENCE, found).await {
            Ok(result) => result,
            Err(_) => {
                self.health.slow("be read");
                Err(Error::Slow("be read"))
            }
        }
    }
}
