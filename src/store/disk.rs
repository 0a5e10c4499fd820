//! Staged files: bytes on their way to being published.
//!
//! A [`Staging`] is the one writer of one digest's staged file; readers follow
//! through its map. Dropped without [`Store::publish`] or [`Staging::discard`]
//! the file stays, counted, and the next fill of the digest resumes it.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Error, Map, Store, layout::Layout};
use tokio::sync::Notify;

use crate::protocol::{Digest, Hasher};

/// How much address space a body of unknown length gets; the largest such body.
const UNKNOWN_RESERVE_BYTES: u64 = 64 << 30;

/// Room is held in steps of this size where the length is unknown.
const HOLD_STEP_BYTES: u64 = 16 << 20;

/// The writer of one staged file.
#[derive(Debug)]
pub struct Staging {
    store: Arc<Store>,
    digest: Digest,
    file: File,
    path: PathBuf,
    /// Bytes in the file; it only grows.
    len: u64,
    /// Bytes of the store's capacity that are held for this file.
    held: u64,
    /// Set by [`Staging::prepare`].
    staged: Option<Staged>,
    ending: Ending,
}

/// What readers of a staged file need. They keep to the bytes that the writer
/// says are there.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The file's map, as long as the body will be.
    pub map: Map,
}

/// What happens to the file when its writer is dropped.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Keep,
    Discard,
    Committed,
}

/// Staged files that have no writer now, and those that have.
#[derive(Debug, Default)]
pub(super) struct Partials {
    states: Mutex<HashMap<Digest, PartialState>>,
    /// Wakes who waits for a writer to let go.
    released: Notify,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum PartialState {
    /// A [`Staging`] writes it.
    Claimed,
    /// It was left with this many bytes.
    Left(u64),
}

// === impl Staging ===

impl Staging {
    pub(super) fn open(store: &Arc<Store>, digest: Digest) -> Result<Self, Error> {
        let left = store.partials.claim(digest)?;
        let path = store.layout.partial(&digest);
        let opened = (|| {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
            Ok::<_, io::Error>((file.metadata()?.len(), file))
        })();
        let (len, file) = opened.inspect_err(|_| store.partials.release(digest, left))?;
        // The books may be wrong about a file that was touched by hand; it is what it is.
        store.space.correct(left, len);
        let store = Arc::clone(store);
        Ok(Self { store, digest, file, path, len, held: len, staged: None, ending: Ending::Keep })
    }

    /// Makes room for `total` bytes, or for as many as will come, and maps them. Blocks.
    pub fn prepare(&mut self, total: Option<u64>) -> Result<(), Error> {
        let wanted = total.unwrap_or(self.len + HOLD_STEP_BYTES);
        if wanted > self.held {
            self.store.reserve(wanted - self.held)?;
            self.held = wanted;
        }
        let map = Map::new(&self.file, total.unwrap_or(UNKNOWN_RESERVE_BYTES).max(self.len))?;
        self.staged = Some(Staged { map });
        Ok(())
    }

    /// The digest that the bytes are to have.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes in the file now, those of an earlier life included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True while nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What readers need; there once [`Staging::prepare`] has been called.
    pub fn staged(&self) -> Result<Staged, Error> {
        let unprepared = || io::Error::other("the staged file is not prepared");
        Ok(self.staged.clone().ok_or_else(unprepared)?)
    }

    /// Hashes what an earlier life left in the file. Blocks on the disk.
    pub fn rehash(&self, hasher: &mut Hasher) -> io::Result<()> {
        let mut left = File::open(&self.path)?.take(self.len);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = left.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
    }

    /// Writes `bytes` behind those that are there. Blocks on the disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.len + bytes.len() as u64;
        if self.staged.as_ref().is_some_and(|staged| end > staged.map.len()) {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        if end > self.held {
            let step = HOLD_STEP_BYTES.max(end - self.held);
            self.store.reserve(step)?;
            self.held += step;
        }
        self.file.write_all_at(bytes, self.len)?;
        self.len = end;
        Ok(())
    }

    /// Drops the file and what it holds.
    pub fn discard(mut self) {
        self.ending = Ending::Discard;
    }

    /// Makes the bytes durable where they are.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives synced bytes their final name; answers what was held.
    pub(super) fn commit(mut self, layout: &Layout) -> io::Result<u64> {
        layout.publish(&self.digest)?;
        self.ending = Ending::Committed;
        Ok(self.held)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let (partials, space) = (&self.store.partials, &self.store.space);
        match self.ending {
            Ending::Committed => partials.release(self.digest, 0),
            Ending::Keep if self.len > 0 => {
                space.release(self.held.saturating_sub(self.len));
                partials.release(self.digest, self.len);
            }
            Ending::Keep | Ending::Discard => {
                if let Err(error) = fs::remove_file(&self.path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %self.path.display(), %error, "could not remove a staged file");
                }
                space.release(self.held);
                partials.release(self.digest, 0);
            }
        }
    }
}

// === impl Partials ===

impl Partials {
    pub(super) fn new(left: impl IntoIterator<Item = (Digest, u64)>) -> Self {
        let states = left.into_iter().map(|(d, len)| (d, PartialState::Left(len))).collect();
        Self { states: Mutex::new(states), released: Notify::new() }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.lock().values().map(PartialState::bytes).sum()
    }

    /// Takes the digest for one writer; answers the bytes that lie there already.
    fn claim(&self, digest: Digest) -> Result<u64, Error> {
        match self.lock().insert(digest, PartialState::Claimed) {
            Some(PartialState::Claimed) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another fill writes it").into())
            }
            Some(PartialState::Left(len)) => Ok(len),
            None => Ok(0),
        }
    }

    fn release(&self, digest: Digest, left: u64) {
        let mut states = self.lock();
        if left == 0 {
            states.remove(&digest);
        } else {
            states.insert(digest, PartialState::Left(left));
        }
        drop(states);
        self.released.notify_waiters();
    }

    /// True while somebody writes or publishes `digest`.
    pub(super) fn is_claimed(&self, digest: &Digest) -> bool {
        matches!(self.lock().get(digest), Some(PartialState::Claimed))
    }

    /// Waits until nobody writes `digest`.
    pub(super) async fn unclaimed(&self, digest: &Digest) {
        loop {
            let released = self.released.notified();
            if !self.is_claimed(digest) {
                return;
            }
            released.await;
        }
    }

    /// Removes one left-over from the books, for eviction; never one that is being written.
    pub(super) fn take_left(&self) -> Option<(Digest, u64)> {
        let mut states = self.lock();
        let found = states.iter().find_map(|(digest, state)| match state {
            PartialState::Left(len) => Some((*digest, *len)),
            PartialState::Claimed => None,
        });
        if let Some((digest, _)) = found {
            states.remove(&digest);
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, PartialState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl PartialState ===

impl PartialState {
    fn bytes(&self) -> u64 {
        match self {
            Self::Claimed => 0,
            Self::Left(len) => *len,
        }
    }
}
