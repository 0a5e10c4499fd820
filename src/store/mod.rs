//! Content-addressed storage: blobs as files named by their digest, one index.
//!
//! Nothing unverified is ever found here: bytes are staged, hashed, and only
//! then renamed into place. It knows nothing of HTTP or of registries beyond
//! the keys under which it keeps tags and links.
//!
//! A disk that fails is not the end: what can be read is read, nothing is
//! staged until it works again, and a store without its index still serves the
//! files that are there, each verified when it is opened.

mod catalogue;
mod disk;
mod eviction;
mod health;
mod index;
mod journal;
mod keeper;
mod layout;
mod mapped;
mod memory;
mod object;
mod partials;
mod recovery;
mod scrub;
mod space;
mod staging;

use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use moka::sync::Cache;
use tokio::sync::Semaphore;

pub use catalogue::{ObjectInfo, Pin, Usage};
pub use index::{Kind, Link, LinkKey, TagKey, TagRecord};
pub use mapped::Map;
pub use object::{Lease, Object};
pub use recovery::Verdict;
pub use staging::Staging;

use crate::{metrics, protocol::Digest};
use health::Health;
use index::Index;
use keeper::Keeper;
use layout::Layout;
use memory::Memory;
use object::OpenObjects;
use partials::Partials;
use space::Space;

/// Bodies up to this size live in the memory tier once read.
pub const SMALL_BYTES: u64 = 64 * 1024;

/// How long a request waits for the disk before it goes on without it.
pub const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// Links kept in memory; about 300 bytes each.
const LINKS: u64 = 20_000;

/// Look-ups that may wait for the disk at the same time; others wait for them.
const LOOKUPS: usize = 64;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory can't be used at all.
    #[error("{path}: {problem}; {remedy}")]
    Unusable {
        /// The file or folder concerned.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// Another process has the store open.
    #[error("{path}: another process uses this store; stop it, or give this one its own store.directory")]
    InUse {
        /// The index.
        path: PathBuf,
    },
    /// The configured capacity leaves no room, even after evicting.
    #[error("no room for {wanted} bytes under the store's limit of {capacity} bytes")]
    Full {
        /// The bytes asked for.
        wanted: u64,
        /// The configured limit.
        capacity: u64,
    },
    /// The disk fails, and nothing is staged until it works again.
    #[error("the store's disk fails")]
    Failing,
    /// The disk did not answer in time.
    #[error("the store's disk did not {0} in time")]
    Slow(&'static str),
    /// The index is closed: it was handed over, or is being opened again.
    #[error("the store's index is closed")]
    Closed,
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The index failed.
    #[error("the index failed: {0}")]
    Index(Arc<redb::Error>),
}

/// The store. Cheap to share behind an `Arc`; all blocking work is marked so.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    /// Empty while the index is being opened again, and from a hand-over on.
    index: RwLock<Option<Arc<Index>>>,
    memory: Memory,
    open: OpenObjects,
    space: Arc<Space>,
    partials: Partials,
    /// Links read or written lately.
    links: Cache<LinkKey, Link>,
    health: Arc<Health>,
    /// One eviction round at a time: two would race for the same victims.
    evicting: Mutex<()>,
    /// One file at a time is adopted.
    adopting: Mutex<()>,
    lookups: Semaphore,
    keeper: Keeper,
    /// Bytes per second that the scrub reads; 0: it is off.
    scrub_rate: u64,
}

// === impl Store: reading ===

impl Store {
    /// A published body of up to [`SMALL_BYTES`], if it is in memory already.
    pub fn in_memory(&self, digest: &Digest) -> Option<Bytes> {
        let body = self.memory.get(digest)?;
        if self.memory.needs_touch(digest) {
            self.touch(*digest);
        }
        Some(body)
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
            if let Err(error) = lease.map().populate(0, lease.len()) {
                store.set_aside(digest, &format!("it can't be read: {error}"));
                return Ok(None);
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
            Ok(Some(body))
        })
        .await
    }

    /// True when `digest` is published. Reads the index.
    pub async fn contains(self: &Arc<Self>, digest: Digest) -> Result<bool, Error> {
        if self.memory.get(&digest).is_some() || self.open.get(&digest).is_some() {
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
        self.lookup(move |store| {
            let link = store.index()?.linked(&key)?;
            if let Some(link) = &link {
                store.links.insert(key, link.clone());
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
        tracing::warn!(%digest, problem, "a published file went bad; set aside, to be fetched again");
        metrics::QUARANTINED.inc();
        self.open.remove(&digest);
        self.memory.remove(&digest);
        let gone = self.layout.set_aside(&digest).and_then(|_| eviction::bound_quarantine(self));
        if let Err(error) = gone.map_err(Error::from).and_then(|()| self.forget(digest)) {
            tracing::warn!(%digest, %error, "could not set a bad file aside");
        }
    }

    fn open_published(self: &Arc<Self>, digest: Digest) -> Result<Option<Lease>, Error> {
        let recorded = self.index().and_then(|index| index.blob(&digest));
        let size = match recorded {
            Ok(Some(record)) => record.size,
            // The index misses it, or there is none now: the file itself can tell.
            Ok(None) | Err(_) => match recovery::adopt(self, &digest)? {
                Verdict::Good { size } => size,
                Verdict::Bad { .. } | Verdict::Gone => return Ok(None),
            },
        };
        let object = match Object::open(&self.layout, digest, size) {
            Ok(object) => object,
            // It is being published at this moment: it has its record and not yet its name.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.partials.is_claimed(&digest) =>
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
            Err(error) => return Err(self.failed("open a published file", error).into()),
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
    async fn lookup<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(self);
        let found = async {
            // Held until the work ends, however long the caller waits: it bounds the threads that
            // a stuck disk can hold.
            let place = self.lookups.acquire().await.map_err(|_| Error::Closed)?;
            place.forget();
            blocking(move || {
                let result = work(&store);
                store.lookups.add_permits(1);
                result
            })
            .await
        };
        self.patiently("be read", found).await
    }

    async fn patiently<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(DISK_PATIENCE, work).await {
            Ok(result) => result,
            Err(_) => {
                self.health.slow(what);
                Err(Error::Slow(what))
            }
        }
    }
}

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

    fn forget(&self, digest: Digest) -> Result<(), Error> {
        for size in self.index()?.remove(vec![digest])?.into_iter().flatten() {
            self.space.unpublish(size);
        }
        Ok(())
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The hook has printed where. A damaged index may do it, and that must not end a request.
        Err(join) if join.is_panic() => Err(io::Error::other("the store panicked").into()),
        Err(_) => Err(io::Error::other("the server is stopping").into()),
    }
}

/// Prometheus gauges are signed.
fn clamp(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
