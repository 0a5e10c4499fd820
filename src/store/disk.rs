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
    staged: Staged,
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
    pub(super) fn open(
        store: &Arc<Store>,
        digest: Digest,
        expected: Option<u64>,
    ) -> Result<Self, Error> {
        let left = store.partials.claim(digest)?;
        let path = store.layout.partial(&digest);
        let opened = Self::open_claimed(store, digest, path, expected, left);
        if opened.is_err() {
            store.partials.release(digest, left);
        }
        opened
    }

    fn open_claimed(
        store: &Arc<Store>,
        digest: Digest,
        path: PathBuf,
        expected: Option<u64>,
        left: u64,
    ) -> Result<Self, Error> {
        // A left-over file is already counted: only what is missing must be found room for.
        store.reserve(expected.unwrap_or(HOLD_STEP_BYTES).saturating_sub(left))?;
        let held = expected.unwrap_or(HOLD_STEP_BYTES).max(left);
        let opened = (|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let map = Map::new(&file, expected.unwrap_or(UNKNOWN_RESERVE_BYTES).max(left))?;
            Ok::<_, io::Error>((file.metadata()?.len(), file, map))
        })();
        let (len, file, map) = opened.inspect_err(|_| store.space.release(held - left))?;
        Ok(Self {
            store: Arc::clone(store),
            digest,
            file,
            path,
            len,
            held,
            staged: Staged { map },
            ending: Ending::Keep,
        })
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

    /// What readers need.
    pub fn staged(&self) -> Staged {
        self.staged.clone()
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
        if end > self.held {
            let step = HOLD_STEP_BYTES.max(end - self.held);
            self.store.reserve(step)?;
            self.held += step;
        }
        if end > UNKNOWN_RESERVE_BYTES.max(self.held) {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        self.file.write_all_at(bytes, self.len)?;
        self.len = end;
        Ok(())
    }

    /// Drops the file and what it holds.
    pub fn discard(mut self) {
        self.ending = Ending::Discard;
    }

    /// Makes the bytes durable under their final name; answers what was held.
    pub(super) fn commit(mut self, layout: &Layout) -> io::Result<u64> {
        self.file.sync_all()?;
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
                if let Err(error) = fs::remove_file(&self.path) {
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
        let states = left
            .into_iter()
            .map(|(d, len)| (d, PartialState::Left(len)))
            .collect();
        Self {
            states: Mutex::new(states),
        }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.lock().values().map(PartialState::bytes).sum()
    }

    pub(super) fn left(&self, digest: &Digest) -> u64 {
        self.lock().get(digest).map_or(0, PartialState::bytes)
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
