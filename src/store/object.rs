//! Published objects that are open: their maps, and who reads them now.
//!
//! A file is opened and mapped once, however many read it. A [`Lease`] keeps
//! an object from being evicted; eviction asks here before it unlinks.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{Map, layout::Layout};
use crate::protocol::Digest;

/// Objects kept open without a reader.
const OPEN_OBJECTS: u64 = 1024;

/// How long an object without a reader stays open.
const OPEN_IDLE: Duration = Duration::from_secs(60);

/// How often a read object's recency is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// A published file, open and mapped.
#[derive(Debug)]
pub struct Object {
    digest: Digest,
    len: u64,
    map: Map,
    /// Leases out now; eviction passes over an object that has any.
    leases: AtomicUsize,
    opened: Instant,
    /// Seconds after `opened` at which the recency was last written, plus one.
    touched: AtomicU64,
}

/// The right to read an object; it is not evicted while this lives.
#[derive(Debug)]
pub struct Lease {
    object: Arc<Object>,
}

/// All open objects.
#[derive(Debug)]
pub(super) struct OpenObjects {
    idle: Cache<Digest, Arc<Object>>,
    /// Every live object, those too that `idle` has dropped while they were read.
    live: Mutex<HashMap<Digest, Weak<Object>>>,
}

// === impl Object ===

impl Object {
    /// Opens a published file that must be `len` bytes long.
    pub(super) fn open(layout: &Layout, digest: Digest, len: u64) -> io::Result<Self> {
        let file = File::open(layout.blob(&digest))?;
        let found = file.metadata()?.len();
        if found != len {
            let problem = format!("it has {found} bytes instead of {len}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Self {
            digest,
            len,
            map: Map::new(&file, len)?,
            leases: AtomicUsize::new(0),
            opened: Instant::now(),
            touched: AtomicU64::new(0),
        })
    }
}

// === impl Lease ===

impl Lease {
    fn new(object: Arc<Object>) -> Self {
        object.leases.fetch_add(1, Ordering::AcqRel);
        Self { object }
    }

    /// The object's digest.
    pub fn digest(&self) -> Digest {
        self.object.digest
    }

    /// The object's length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty object is like any other")]
    pub fn len(&self) -> u64 {
        self.object.len
    }

    /// The map, for reading in large slices off or on the runtime.
    pub fn map(&self) -> &Map {
        &self.object.map
    }

    /// Some of the object's bytes, without a copy.
    pub fn slice(&self, start: u64, len: u64) -> Bytes {
        self.object.map.slice(start, len)
    }

    /// True once a minute: the time to write the recency down.
    pub(super) fn needs_touch(&self) -> bool {
        let now = self.object.opened.elapsed().as_secs() + 1;
        let last = self.object.touched.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + TOUCH_EVERY.as_secs();
        due && self
            .object
            .touched
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.object))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.object.leases.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl OpenObjects ===

impl Default for OpenObjects {
    fn default() -> Self {
        Self {
            idle: Cache::builder().max_capacity(OPEN_OBJECTS).time_to_idle(OPEN_IDLE).build(),
            live: Mutex::default(),
        }
    }
}

impl OpenObjects {
    pub(super) fn get(&self, digest: &Digest) -> Option<Lease> {
        self.idle.get(digest).map(Lease::new)
    }

    /// Keeps a newly opened object; where another task was faster, its object.
    pub(super) fn insert(&self, object: Object) -> Lease {
        let digest = object.digest;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.len() > 2 * OPEN_OBJECTS as usize {
            live.retain(|_, object| object.strong_count() > 0);
        }
        let lease = match live.get(&digest).and_then(Weak::upgrade) {
            Some(present) => Lease::new(present),
            None => {
                let object = Arc::new(object);
                live.insert(digest, Arc::downgrade(&object));
                Lease::new(object)
            }
        };
        self.idle.insert(digest, Arc::clone(&lease.object));
        lease
    }

    pub(super) fn remove(&self, digest: &Digest) {
        self.idle.invalidate(digest);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    /// Forgets the object unless somebody reads it; true if nobody does.
    pub(super) fn retire(&self, digest: &Digest) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let object = live.get(digest).and_then(Weak::upgrade);
        if object.is_some_and(|object| object.leases.load(Ordering::Acquire) > 0) {
            return false;
        }
        live.remove(digest);
        self.idle.invalidate(digest);
        true
    }

    /// Forgets all objects; those that are being read live on with their readers.
    pub(super) fn clear(&self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.idle.invalidate_all();
    }
}
