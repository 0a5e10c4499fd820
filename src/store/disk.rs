//! The store's life on its disk: opening, closing, failing, and working again.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::fs::statvfs;
use tokio::sync::Semaphore;

use super::{
    Error, LOOKUPS, Store,
    eviction::{self, Goal},
    health::{Health, Trouble},
    held::Epoch,
    index::{Index, OpenError},
    keeper::Keeper,
    layout::{Layout, remove_if_there},
    links::Links,
    memory::Memory,
    object::OpenObjects,
    recovery,
    space::Space,
    writing::Backlog,
};
use crate::config;

/// Left free on the file system, for what is not counted.
const MARGIN_BYTES: u64 = 1 << 20;

/// What a probe writes.
const PROBE_BYTES: usize = 64 * 1024;

/// A full disk counts as one until so much fits at the most, whatever did not fit.
const LARGEST_PROBE_BYTES: u64 = 64 << 20;

/// A probe that takes longer shows a disk that is still slow.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// How long a closed index may still be read by those who were at it.
const LET_GO: Duration = Duration::from_secs(5);

// === impl Store: its life ===

impl Store {
    /// Opens or creates the store in `config.directory`. Blocks.
    pub fn open(config: &config::Store) -> Result<Self, Error> {
        let layout = Layout::prepare(&config.directory)?;
        let (space, health) = (Arc::new(Space::new(config)), Arc::new(Health::default()));
        let index = match open_index(&layout, &space, &health) {
            Ok(index) => Some(Arc::new(index)),
            Err(error @ (Error::InUse { .. } | Error::Unusable { .. })) => return Err(error),
            // A disk that is full or read-only makes a plain proxy; the index is opened later.
            Err(error) => {
                health.failed("open the index", &io::Error::other(error.to_string()));
                None
            }
        };
        let partials = recovery::scan_partials(&layout, index.as_deref())?;
        space.found(partials.left_bytes());
        let epoch = Arc::<Epoch>::default();
        let store = Self {
            layout,
            index: RwLock::new(index),
            memory: Memory::new(config.memory_of_bodies(), Arc::clone(&epoch)),
            open: OpenObjects::default(),
            space,
            partials,
            links: Links::new(Arc::clone(&epoch)),
            epoch,
            health,
            evicting: Mutex::default(),
            publications: AtomicU64::new(0),
            adopting: Mutex::default(),
            strays: AtomicU64::new(0),
            has_strays: AtomicBool::new(false),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            unsaved: Backlog::default(),
            keeper: Keeper::default(),
            scrub_rate: AtomicU64::new(config.scrub_rate),
        };
        eviction::count_quarantine(&store);
        store.count_history();
        store.count_published()?;
        Ok(store)
    }

    /// Has the store looked after from now on: eviction between the watermarks, a disk that works
    /// again, the scrub.
    pub fn keep(self: &Arc<Self>) -> io::Result<()> {
        self.keeper.start(self)
    }

    /// From now on under other limits. What is too much for a smaller disk is evicted beside the
    /// requests; another directory is not taken notice of.
    pub fn reconfigure(&self, config: &config::Store) {
        self.space.set_limits(config);
        self.memory.resize(config.memory_of_bodies());
        self.scrub_rate.store(config.scrub_rate, Ordering::Relaxed);
        self.keeper.wake();
    }

    /// Writes what is still pending, at the end of the process. Blocks.
    pub fn close(&self) {
        self.keeper.stop();
        if let Ok(index) = self.index() {
            index.close();
        }
    }

    /// Lets the index go, for another process to take over: what is pending is written, and its
    /// lock is free when this ends. From then on published files are served without it and nothing
    /// is staged. Blocks.
    pub fn release(&self) {
        self.keeper.stop();
        self.close_index();
    }

    /// Takes the index back after [`Store::release`]. Blocks.
    pub fn reopen(self: &Arc<Self>) -> Result<(), Error> {
        let opened = self.open_index_again();
        // Where it could not be opened, what looks after the store tries again.
        self.keep()?;
        opened
    }

    /// What is wrong with the disk, in a sentence.
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble().map(|trouble| trouble.to_string())
    }

    /// True while nothing is staged, because the disk fails or the index was let go.
    pub fn is_unavailable(&self) -> bool {
        self.health.is_failing() || self.index().is_err()
    }

    /// True while a staged file is being written or published.
    pub fn has_writers(&self) -> bool {
        self.partials.has_writers()
    }

    /// A write took too long: nothing is staged until the disk is faster.
    pub fn report_slow(&self) {
        self.health.slow("be written");
    }

    /// The limit.
    pub fn capacity(&self) -> u64 {
        self.space.capacity()
    }

    /// Bytes counted against the limit now.
    pub fn used_bytes(&self) -> u64 {
        self.space.used()
    }

    pub(super) fn index(&self) -> Result<Arc<Index>, Error> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.clone().ok_or(Error::Closed)
    }

    /// Notes that the disk failed, and hands the error on.
    pub(super) fn failed(&self, what: &'static str, error: io::Error) -> io::Error {
        self.health.failed(what, &error);
        error
    }

    fn close_index(&self) {
        let Some(index) = self.index.write().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        index.close();
        // Its file's lock is free once the last reader is done.
        let deadline = Instant::now() + LET_GO;
        while Arc::strong_count(&index) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn open_index_again(&self) -> Result<(), Error> {
        self.close_index();
        self.layout.make_folders()?;
        self.layout.check_format()?;
        let index = open_index(&self.layout, &self.space, &self.health)?;
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(index));
        self.count_published()
    }

    /// Counts what the index knows; where it knows nothing, what lies there without it.
    fn count_published(&self) -> Result<(), Error> {
        let Ok(index) = self.index() else { return Ok(()) };
        let totals = index.totals()?;
        self.space.recount(totals.objects, totals.bytes);
        self.space.release(self.strays.swap(0, Ordering::AcqRel));
        if totals.objects == 0 {
            let strays = recovery::bytes_of_files(&self.layout);
            self.strays.store(strays, Ordering::Release);
            self.space.found(strays);
            self.has_strays.store(strays > 0, Ordering::Release);
        }
        Ok(())
    }

    /// So many of the bytes that the index missed are counted otherwise now.
    pub(super) fn found_stray(&self, bytes: u64) {
        let less = |strays: u64| Some(strays.saturating_sub(bytes));
        let before = self.strays.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.space.release(before.unwrap_or_default().min(bytes));
    }
}

/// Opens the index; one that can't be read is set aside, and the files adopted into a new one.
fn open_index(layout: &Layout, space: &Arc<Space>, health: &Arc<Health>) -> Result<Index, Error> {
    let path = layout.index();
    let open = || {
        let (space, health, path) = (Arc::clone(space), Arc::clone(health), path.clone());
        let committed = Box::new(move |error: Option<&Error>| {
            if let Ok(metadata) = std::fs::metadata(&path) {
                space.set_index(metadata.len());
            }
            if let Some(error) = error {
                health.failed("write the index", &io::Error::other(error.to_string()));
            }
        });
        Index::open(layout, committed)
    };
    let opened = match open() {
        Err(OpenError::Damaged(problem)) => {
            tracing::error!(
                path = %path.display(), problem,
                remedy = "look at the disk's health; what was set aside in quarantine/ can be removed",
                "the index can't be read; it is set aside, and the files are verified and adopted anew"
            );
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            layout.set_aside_as(&path, &format!("index-{}.redb", since.as_millis()))?;
            open()
        }
        opened => opened,
    };
    let index = opened.map_err(|error| match error {
        OpenError::InUse => Error::InUse { path: path.clone() },
        OpenError::Damaged(problem) => Error::Unusable {
            path: path.clone(),
            problem,
            remedy: "move the file away to start with an empty index",
        },
        OpenError::Failed(error) => error,
    })?;
    space.set_index(std::fs::metadata(&path)?.len());
    Ok(index)
}

// === impl Store: room ===

impl Store {
    /// Makes room for `wanted` more bytes and counts them as held. Blocks.
    pub(super) fn reserve(&self, wanted: u64) -> Result<(), Error> {
        if self.missing_on_disk(wanted) == 0 && self.space.try_hold(wanted) {
            return Ok(());
        }
        let full = Error::Full { wanted, capacity: self.space.capacity() };
        if wanted > self.space.limit() {
            return Err(full);
        }
        let _one = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        eviction::make_room(self, wanted)?;
        let missing = self.missing_on_disk(wanted);
        if missing > 0 {
            self.health.full(wanted.min(LARGEST_PROBE_BYTES));
            // Nothing is evicted for what will not fit all the same.
            if missing > eviction::evictable(self) {
                return Err(full);
            }
            // Manifests are not worth the room that they would make.
            let target = self.space.used().saturating_sub(missing);
            eviction::evict(self, Goal { target, must: self.space.limit() })?;
        }
        if self.missing_on_disk(wanted) == 0 && self.space.try_hold(wanted) {
            return Ok(());
        }
        Err(full)
    }

    /// How many bytes the file system itself is short of, for `wanted` more; what is held and not
    /// yet written is spoken for.
    fn missing_on_disk(&self, wanted: u64) -> u64 {
        let Ok(system) = statvfs(self.layout.root()) else {
            // Whoever writes finds out.
            return 0;
        };
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let needed = wanted + self.space.promised() + self.space.index() + MARGIN_BYTES;
        needed.saturating_sub(free)
    }
}

// === impl Store: working again ===

impl Store {
    /// Finds out whether a disk that failed works again, and whether the files are still there.
    pub(super) fn look_at_disk(&self) {
        let trouble = self.health.trouble();
        if trouble.is_none() && self.index_is_in_place() {
            return;
        }
        match self.probe(trouble.as_ref()) {
            Ok(true) => self.health.recovered(),
            Ok(false) => {}
            Err(Error::Io(error)) => self.health.failed("write a probe", &error),
            Err(error) => {
                let problem = io::Error::other(error.to_string());
                self.health.failed("open the index again", &problem);
            }
        }
    }

    /// True if the index that is open is the one that lies in the directory.
    fn index_is_in_place(&self) -> bool {
        self.index().is_ok_and(|index| index.is_at(&self.layout.index()))
    }

    fn probe(&self, trouble: Option<&Trouble>) -> Result<bool, Error> {
        if let Some(Trouble::Full { wanted }) = trouble {
            let enough = (*wanted).max(PROBE_BYTES as u64);
            return Ok(self.missing_on_disk(enough) == 0);
        }
        let started = Instant::now();
        self.layout.make_folders()?;
        self.write_probe()?;
        if started.elapsed() > PROBE_PATIENCE {
            return Ok(false);
        }
        if !self.index_is_in_place() || self.index_failed() {
            tracing::info!("the store's index is opened again");
            self.open_index_again()?;
            self.open.clear();
        }
        Ok(true)
    }

    fn write_probe(&self) -> io::Result<()> {
        let path = self.layout.probe();
        let written = std::fs::File::create(&path).and_then(|mut file| {
            io::Write::write_all(&mut file, &[0; PROBE_BYTES])?;
            file.sync_all()
        });
        let removed = remove_if_there(&path);
        written.and(removed)
    }

    /// True if the index can't be written any more: redb wants to be opened again after an error.
    fn index_failed(&self) -> bool {
        self.index().is_ok_and(|index| index.check().is_err())
    }
}
