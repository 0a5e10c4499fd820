//! Content-addressed storage: blobs as files named by their digest, one index.
//!
//! Nothing unverified is ever found here: bytes are staged, hashed, and only
//! then renamed into place. It knows nothing of HTTP or of registries beyond
//! the keys under which it keeps tags and links.

mod disk;
mod eviction;
mod index;
mod layout;
mod mapped;
mod memory;
mod object;
mod recovery;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use moka::sync::Cache;

pub use disk::{Staged, Staging};
pub use index::{Kind, Link, LinkKey, TagKey, TagRecord};
pub use mapped::Map;
pub use object::{Lease, Object};

use crate::{config, metrics, protocol::Digest};
use disk::Partials;
use eviction::Space;
use index::Index;
use layout::Layout;
use memory::Memory;
use object::OpenObjects;

/// Bodies up to this size live in the memory tier once read.
pub const SMALL_BYTES: u64 = 64 * 1024;

/// Links kept in memory; about 300 bytes each.
const LINKS: u64 = 20_000;

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
    /// The configured capacity leaves no room, even after evicting.
    #[error("no room for {wanted} bytes under the store's limit of {capacity} bytes")]
    Full {
        /// The bytes asked for.
        wanted: u64,
        /// The configured limit.
        capacity: u64,
    },
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
    index: Index,
    memory: Memory,
    open: OpenObjects,
    space: Space,
    partials: Partials,
    /// Links read or written lately.
    links: Cache<LinkKey, Link>,
    /// One eviction round at a time: two would race for the same victims.
    evicting: Mutex<()>,
}

// === impl Store ===

impl Store {
    /// Opens or creates the store in `config.directory`. Blocks.
    pub fn open(config: &config::Store) -> Result<Self, Error> {
        let layout = Layout::prepare(&config.directory)?;
        let index = Index::open(&layout)?;
        let partials = recovery::scan_partials(&layout, &index)?;
        let space = Space::new(config.disk, index.used_bytes()? + partials.total_bytes());
        metrics::STORE_BYTES.with_label_values(&["capacity"]).set(clamp(config.disk));
        Ok(Self {
            layout,
            index,
            memory: Memory::new(config.memory),
            open: OpenObjects::default(),
            space,
            partials,
            links: Cache::new(LINKS),
            evicting: Mutex::default(),
        })
    }

    /// A published body of up to [`SMALL_BYTES`], if it is in memory already.
    pub fn in_memory(&self, digest: &Digest) -> Option<Bytes> {
        let body = self.memory.get(digest)?;
        if self.memory.needs_touch(digest) {
            self.index.touch(*digest, SystemTime::now());
        }
        Some(body)
    }

    /// Opens what is published under `digest`. Reads the index and opens a file.
    pub async fn get(self: &Arc<Self>, digest: Digest) -> Result<Option<Lease>, Error> {
        if let Some(lease) = self.open.get(&digest) {
            self.touch(&lease);
            return Ok(Some(lease));
        }
        let store = Arc::clone(self);
        blocking(move || store.open_published(digest)).await
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
        let store = Arc::clone(self);
        blocking(move || {
            let Some(lease) = store.open_published(digest)? else {
                return Ok(None);
            };
            if lease.len() > limit {
                return Ok(None);
            }
            // A page that can't be read is an error here, and a signal that kills in a copy.
            lease.map().populate(0, lease.len())?;
            let body = Bytes::copy_from_slice(&lease.slice(0, lease.len()));
            // A manifest is small and read whole: its content is checked each time it enters
            // memory, so that a file which went bad on disk is never served from here.
            let found = Digest::of(digest.algorithm(), &body);
            if found != digest {
                store.quarantine(&lease);
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
        let store = Arc::clone(self);
        blocking(move || Ok(store.index.blob(&digest)?.is_some())).await
    }

    /// Publishes a small body whose digest the caller has verified.
    pub async fn put(
        self: &Arc<Self>,
        digest: Digest,
        body: Bytes,
        kind: Kind,
    ) -> Result<(), Error> {
        self.memory.insert(digest, body.clone());
        let store = Arc::clone(self);
        blocking(move || {
            if store.index.blob(&digest)?.is_some() {
                return Ok(());
            }
            let mut staging = store.stage(digest)?;
            if !staging.is_empty() {
                staging.discard();
                staging = store.stage(digest)?;
            }
            staging.prepare(Some(body.len() as u64))?;
            staging.append(&body)?;
            store.publish(staging, kind)
        })
        .await
    }

    /// Opens the staged file of `digest`, the left-over one if there is one. Blocks.
    pub fn stage(self: &Arc<Self>, digest: Digest) -> Result<Staging, Error> {
        Staging::open(self, digest)
    }

    /// Publishes a staged file that its owner has verified: sync, index, rename, sync of the
    /// folders. Blocks until all of it is durable.
    ///
    /// The index comes before the name: a crash in between leaves a record whose file still lies
    /// among the partial ones, where the next start finds it. The other way round it would leave a
    /// file that nobody knows of, to be found only by looking at all.
    pub fn publish(self: &Arc<Self>, staging: Staging, kind: Kind) -> Result<(), Error> {
        let (digest, size) = (staging.digest(), staging.len());
        staging.sync()?;
        let known = self.index.publish(digest, size, kind, SystemTime::now())?;
        match staging.commit(&self.layout) {
            Ok(held) => self.space.published(held, if known { 0 } else { size }),
            Err(error) => {
                self.index.remove_blob(digest)?;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Remembers, durably, that `key`'s repository has its digest.
    pub async fn link(&self, key: LinkKey, link: Link) -> Result<(), Error> {
        self.links.insert(key.clone(), link.clone());
        self.index.link(key, link).await
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
        let store = Arc::clone(self);
        blocking(move || {
            let link = store.index.linked(&key)?;
            if let Some(link) = &link {
                store.links.insert(key, link.clone());
            }
            Ok(link)
        })
        .await
    }

    /// Waits until no fill writes `digest`.
    pub async fn unclaimed(&self, digest: &Digest) {
        self.partials.unclaimed(digest).await;
    }

    /// The record of a tag. Reads the index.
    pub async fn tag(self: &Arc<Self>, key: TagKey) -> Result<Option<TagRecord>, Error> {
        let store = Arc::clone(self);
        blocking(move || store.index.tag(&key)).await
    }

    /// Keeps a tag that moved, durably.
    pub async fn move_tag(&self, key: TagKey, record: TagRecord) -> Result<(), Error> {
        self.index.move_tag(key, record).await
    }

    /// Keeps a tag that was freshened. Written within a second, not awaited: what a crash
    /// loses is an age, and that costs one free HEAD.
    pub fn freshen_tag(&self, key: TagKey, record: TagRecord) {
        self.index.freshen_tag(key, record);
    }

    /// Forgets a tag that upstream no longer has.
    pub async fn remove_tag(&self, key: TagKey) -> Result<(), Error> {
        self.index.remove_tag(key).await
    }

    /// Writes what is still pending, at the end of the process. Blocks.
    pub fn close(&self) {
        self.index.close();
    }

    /// Bytes counted against the limit now: published, staged and left over.
    pub fn used_bytes(&self) -> u64 {
        self.space.used()
    }

    fn open_published(self: &Arc<Self>, digest: Digest) -> Result<Option<Lease>, Error> {
        let Some(record) = self.index.blob(&digest)? else {
            return Ok(None);
        };
        let object = match Object::open(&self.layout, digest, record.size) {
            Ok(object) => object,
            // It is being published at this moment: it has its record and not yet its name.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.partials.is_claimed(&digest) =>
            {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(%digest, "a published file is gone; it will be fetched again");
                self.forget(digest)?;
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%digest, %error, "a published file went bad; set aside");
                self.layout.set_aside(&digest)?;
                self.forget(digest)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let lease = self.open.insert(object);
        // Evicted while it was being opened: out of the books, so out of the table too.
        if self.index.blob(&digest)?.is_none() {
            self.open.remove(&digest);
            return Ok(None);
        }
        self.touch(&lease);
        Ok(Some(lease))
    }

    fn quarantine(&self, lease: &Lease) {
        let digest = lease.digest();
        tracing::warn!(%digest, "a published file does not match its digest; set aside");
        self.open.remove(&digest);
        let gone = self.layout.set_aside(&digest).map_err(Error::from);
        if let Err(error) = gone.and_then(|()| self.forget(digest)) {
            tracing::warn!(%digest, %error, "could not set a bad file aside");
        }
    }

    fn forget(&self, digest: Digest) -> Result<(), Error> {
        if let Some(size) = self.index.remove_blob(digest)? {
            self.space.removed(size);
        }
        Ok(())
    }

    fn touch(&self, lease: &Lease) {
        if lease.needs_touch() {
            self.index.touch(lease.digest(), SystemTime::now());
        }
    }

    /// Makes room for `wanted` more bytes and counts them as held. Blocks.
    fn reserve(&self, wanted: u64) -> Result<(), Error> {
        if self.space.try_hold(wanted) {
            return Ok(());
        }
        let _one = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        eviction::make_room(self, wanted)?;
        if self.space.try_hold(wanted) {
            return Ok(());
        }
        Err(Error::Full { wanted, capacity: self.space.capacity() })
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
        Err(_) => Err(io::Error::other("the server is stopping").into()),
    }
}

/// Prometheus gauges are signed.
fn clamp(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
