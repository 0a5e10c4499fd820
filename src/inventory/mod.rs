//! What is cached, as its operator sees it: images, repositories, objects and pins.
//!
//! Everything here blocks on the disk and belongs off the runtime. Lists come in
//! pages; what has to be held at once is bounded by one image, or by what one
//! purge removes. References are read as people type them (`names`), and a tag
//! is followed from its index down to its layers (`tree`): only what is stored
//! counts, and what is missing is told.

mod books;
mod catalogue;
mod images;
mod names;
mod outcome;
mod pattern;
mod pins;
mod purge;
mod report;
mod repositories;
mod select;
#[cfg(test)]
mod testing;
mod tree;
mod usage;
mod verify;

use std::{
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

pub use names::{BadReference, ImageName, Names, Wanted};
pub use outcome::{
    Done, Finding, PinPage, PinReport, Pinned, Problem, PurgeReport, PurgeRequest, UnpinReport,
    VerifyState, VerifyStatus,
};
pub use pattern::Pattern;
pub use report::{
    Amount, Blob, BlobKind, BlobPage, Freshness, FreshnessState, Image, ImagePage, Platform,
    RepositoryInfo, RepositoryPage, RepositoryUsage, Server, State, StoreUsage, TagInfo, TagPage,
    UpstreamUsage, UsageReport,
};

use crate::{
    config::Config,
    store::{self, Store, TagKey},
};
use books::Books;
use catalogue::Catalogue;
use verify::Job;

/// The most that one page holds.
pub const MOST_PER_PAGE: usize = 1000;

/// The most references in one request.
pub const MOST_REFERENCES: usize = 1000;

/// Called with each tag that was purged, so that who keeps it in memory forgets it too.
type Forget = Box<dyn Fn(&TagKey) + Send + Sync>;

/// The inventory of one store.
pub struct Inventory {
    catalogue: Arc<dyn Catalogue>,
    names: ArcSwap<Names>,
    directory: PathBuf,
    /// Manifests are read up to this size.
    max_manifest: AtomicU64,
    forget: Option<Forget>,
    /// The last verification, running or ended. There is one at a time: two would only share the
    /// disk.
    job: Mutex<Option<Arc<Job>>>,
    books: Books,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was asked wrongly.
    #[error(transparent)]
    BadReference(#[from] BadReference),
    /// One verification at a time.
    #[error("a verification runs already; wait for its end, or cancel it")]
    Running,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

// === impl Inventory ===

impl Inventory {
    /// The inventory of `store`, whose references are read by the upstreams of `config`.
    pub fn new(store: Arc<Store>, config: &Config) -> Self {
        let names = Names::new(&config.upstreams);
        Self {
            directory: config.store.directory.clone(),
            ..Self::over(store, names, config.fill.max_manifest)
        }
    }

    /// Has `forget` called with each tag that is purged.
    #[must_use]
    pub fn with_forget(self, forget: impl Fn(&TagKey) + Send + Sync + 'static) -> Self {
        Self { forget: Some(Box::new(forget)), ..self }
    }

    fn over(catalogue: Arc<dyn Catalogue>, names: Names, max_manifest: u64) -> Self {
        let directory = PathBuf::new();
        let (names, max_manifest) = (ArcSwap::from_pointee(names), AtomicU64::new(max_manifest));
        let (job, books) = (Mutex::default(), Books::default());
        Self { catalogue, names, directory, max_manifest, forget: None, job, books }
    }

    /// From now on references are read by the upstreams of another configuration.
    pub fn reconfigure(&self, config: &Config) {
        self.names.store(Arc::new(Names::new(&config.upstreams)));
        self.max_manifest.store(config.fill.max_manifest, Ordering::Relaxed);
    }

    fn max_manifest(&self) -> u64 {
        self.max_manifest.load(Ordering::Relaxed)
    }

    /// Which store this is, so that a command is not carried out on another one.
    pub fn server(&self) -> Server {
        let directory = std::path::absolute(&self.directory);
        Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            directory: directory.unwrap_or_else(|_| self.directory.clone()),
            directory_id: directory_id(&self.directory),
        }
    }
}

impl std::fmt::Debug for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inventory").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Device and inode: two names of one folder have the same, through a bind mount too.
pub fn directory_id(directory: &std::path::Path) -> Option<String> {
    let metadata = directory.metadata().ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Whole seconds since 1970, as every report gives a time.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
