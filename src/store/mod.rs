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
mod held;
mod index;
mod journal;
mod keeper;
mod layout;
mod links;
mod mapped;
mod measure;
mod memory;
#[cfg(test)]
mod model;
mod object;
mod partials;
mod reading;
mod recovery;
mod report;
mod repository;
mod scrub;
mod space;
mod staging;
mod writing;

use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

pub use catalogue::{ObjectInfo, Pin, Share, Usage};
pub use held::Held;
pub use index::{Kind, Link, LinkKey, TagKey, TagRecord};
pub use mapped::{Map, is_bad_file};
pub use object::{Lease, Object};
pub use recovery::Verdict;
pub use report::{DiskReport, FileSystem};
pub use staging::Staging;

use crate::protocol::Digest;
use health::Health;
use held::Epoch;
use index::Index;
use keeper::Keeper;
use layout::Layout;
use links::Links;
use memory::Memory;
use object::OpenObjects;
use partials::Partials;
use space::Space;
use writing::Backlog;

/// Bodies up to this size live in the memory tier once read.
pub const SMALL_BYTES: u64 = 64 * 1024;

/// How long a request waits for the disk before it goes on without it.
pub const DISK_PATIENCE: Duration = Duration::from_secs(2);

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
    #[error(
        "{path}: another process uses this store; stop it, or give this one its own store.directory"
    )]
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
    links: Links,
    epoch: Arc<Epoch>,
    health: Arc<Health>,
    /// One eviction round at a time: two would race for the same victims.
    evicting: Mutex<()>,
    /// How often something was published.
    publications: AtomicU64,
    /// Files that are being looked at, to be adopted.
    adopting: Mutex<HashSet<Digest>>,
    /// Bytes of files that the index misses and that are not adopted yet.
    strays: AtomicU64,
    /// The index was made anew: there may be files that it misses.
    has_strays: AtomicBool,
    lookups: Arc<Semaphore>,
    /// Small bodies that the disk did not take.
    unsaved: Backlog,
    keeper: Keeper,
    /// Bytes per second that the scrub reads; 0: it is off.
    scrub_rate: AtomicU64,
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
