//! Staged files: bytes on their way to being published.
//!
//! A [`Staging`] is the one writer of one digest's staged file; readers follow
//! through its map. Each byte is written once, in any order; where that is not
//! from front to back a journal says what is there. Dropped without
//! [`Store::publish`] or [`Staging::discard`] the file stays, counted, and the
//! next fill of the digest resumes it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::Arc,
};

use super::{Error, Map, Store, journal::Journal, layout::Layout};
use crate::protocol::{ByteRange, Coverage, Digest, Hasher};

/// How much address space a body of unknown length gets; the largest such body.
const UNKNOWN_RESERVE_BYTES: u64 = 64 << 30;

/// Room is held in steps of this size where the length is unknown.
const HOLD_STEP_BYTES: u64 = 16 << 20;

/// Read at a time where bytes are hashed from the file.
const BUFFER_BYTES: usize = 1 << 20;

/// The writer of one staged file.
#[derive(Debug)]
pub struct Staging {
    store: Arc<Store>,
    digest: Digest,
    file: File,
    path: PathBuf,
    /// The bytes in the file; they only grow.
    present: Coverage,
    /// The blob's length, where it is known.
    total: Option<u64>,
    /// There once bytes came in another order than from front to back.
    journal: Option<Journal>,
    /// Bytes of the store's capacity that are held for this file.
    held: u64,
    /// Those of them that are not written yet.
    promised: u64,
    /// Set by [`Staging::prepare`].
    map: Option<Map>,
    ending: Ending,
}

/// What happens to the file when its writer is dropped.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Keep,
    Discard,
    Committed,
}

// === impl Staging ===

impl Staging {
    pub(super) fn open(store: &Arc<Store>, digest: Digest) -> Result<Self, Error> {
        let left = store.partials.claim(digest)?;
        match Self::open_claimed(store, digest) {
            Ok(staging) => {
                // The books may be wrong about a file that was touched by hand; it is what it is.
                store.space.correct(left, staging.held);
                Ok(staging)
            }
            Err(error) => {
                // It may have been removed by hand, or here, before that went wrong.
                let found = measured(&store.layout, &digest).unwrap_or(left);
                store.space.correct(left, found);
                store.partials.release(digest, found);
                Err(store.failed("open a staged file", error).into())
            }
        }
    }

    fn open_claimed(store: &Arc<Store>, digest: Digest) -> io::Result<Self> {
        let path = store.layout.partial(&digest);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        let map = store.layout.map(&digest);
        let (file, journal, total, present) = match Journal::reopen(&map, &file)? {
            Some((journal, total, present)) => (file, Some(journal), Some(total), present),
            // Without its journal it can't be known which bytes are there.
            None if map.exists() => {
                store.layout.discard(&digest)?;
                (options.open(&path)?, None, None, Coverage::default())
            }
            None => {
                let len = file.metadata()?.len();
                (file, None, None, Coverage::prefix(len))
            }
        };
        Ok(Self {
            held: disk_bytes(&store.layout, &digest)?,
            store: Arc::clone(store),
            digest,
            file,
            path,
            present,
            total,
            journal,
            promised: 0,
            map: None,
            ending: Ending::Keep,
        })
    }

    /// Maps the file for a body of `total` bytes, or of a length that is not known, and makes room
    /// for `wanted` bytes of it. Blocks.
    pub fn prepare(&mut self, total: Option<u64>, wanted: u64) -> Result<Map, Error> {
        if wanted > self.held {
            self.hold(wanted - self.held)?;
        }
        let end = self.present.ranges().last().map_or(0, |range| range.end);
        let map = Map::new(&self.file, total.unwrap_or(UNKNOWN_RESERVE_BYTES).max(end))?;
        self.total = total;
        self.map = Some(map.clone());
        Ok(map)
    }

    /// The digest that the bytes are to have.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes in the file now, those of an earlier life included.
    pub fn present(&self) -> &Coverage {
        &self.present
    }

    /// The blob's length, where an earlier life or [`Staging::prepare`] noted it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Takes the bytes of `range` from the file into `hasher`. Blocks on the disk.
    pub fn hash(&self, range: ByteRange, hasher: &mut Hasher) -> io::Result<()> {
        hash_range(&self.file, range, hasher)
    }

    /// Writes `bytes` at `start`, where nothing was before. Blocks on the disk.
    pub fn write_at(&mut self, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = start + bytes.len() as u64;
        if self.map.as_ref().is_none_or(|map| end > map.len()) {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        let needed = self.present.len() + bytes.len() as u64;
        if needed > self.held {
            let left = self.total.map_or(u64::MAX, |total| total.saturating_sub(self.held));
            self.hold(HOLD_STEP_BYTES.min(left).max(needed - self.held))?;
        }
        let written = self.write(start, bytes);
        written.map_err(|error| self.store.failed("write a staged file", error))?;
        self.present.add(ByteRange::new(start, end));
        self.fulfil(bytes.len() as u64);
        Ok(())
    }

    fn hold(&mut self, bytes: u64) -> Result<(), Error> {
        self.store.reserve(bytes)?;
        self.store.space.promise(bytes);
        self.held += bytes;
        self.promised += bytes;
        Ok(())
    }

    fn fulfil(&mut self, bytes: u64) {
        let bytes = bytes.min(self.promised);
        self.promised -= bytes;
        self.store.space.fulfil(bytes);
    }

    /// Drops the file and what it holds.
    pub fn discard(mut self) {
        self.ending = Ending::Discard;
    }

    fn write(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        if self.journal.is_none() && start != self.present.end_of(0) {
            self.journal = Some(self.begin_journal()?);
        }
        self.file.write_all_at(bytes, start)?;
        match &mut self.journal {
            Some(journal) => journal.append(start, bytes),
            None => Ok(()),
        }
    }

    /// A journal of what is there; without one the file reads as a beginning.
    fn begin_journal(&self) -> io::Result<Journal> {
        let path = self.store.layout.map(&self.digest);
        let mut journal = Journal::create(&path, self.total.unwrap_or_default())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        for range in self.present.ranges() {
            read_range(&self.file, *range, &mut buffer, |at, part| journal.append(at, part))?;
        }
        Ok(journal)
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

    /// What stays behind is durable as far as that can be had: a resume checks it.
    fn leave(&self) -> u64 {
        if self.present.is_empty() {
            return 0;
        }
        // The bytes first: a record of bytes that are not there is found out, but costs them.
        let synced = self.file.sync_data();
        let synced = synced.and_then(|()| self.journal.as_ref().map_or(Ok(()), Journal::sync));
        match synced.and_then(|()| measured(&self.store.layout, &self.digest)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "what a fill left behind can't be looked at");
                self.held
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.fulfil(self.promised);
        let (partials, space) = (&self.store.partials, &self.store.space);
        let left = match self.ending {
            Ending::Committed => return partials.release(self.digest, 0),
            Ending::Keep => self.leave(),
            Ending::Discard => 0,
        };
        // Without an index another process may have the file by now.
        if left == 0
            && self.store.index().is_ok()
            && let Err(error) = self.store.layout.discard(&self.digest)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove a staged file");
        }
        space.correct(self.held, left);
        partials.release(self.digest, left);
    }
}

/// What a staged file and its journal take on disk. A file with holes takes its blocks.
pub(super) fn disk_bytes(layout: &Layout, digest: &Digest) -> io::Result<u64> {
    let body = fs::metadata(layout.partial(digest))?;
    match fs::metadata(layout.map(digest)) {
        Ok(map) => Ok(body.len().min(body.blocks() * 512) + map.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(body.len()),
        Err(error) => Err(error),
    }
}

/// The same where somebody may have removed it by hand, or all of the directory.
fn measured(layout: &Layout, digest: &Digest) -> io::Result<u64> {
    match disk_bytes(layout, digest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        found => found,
    }
}

/// Takes the bytes of `range` from `file` into `hasher`.
pub(super) fn hash_range(file: &File, range: ByteRange, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    read_range(file, range, &mut buffer, |_, part| {
        hasher.update(part);
        Ok(())
    })
}

/// Hands the bytes of `range` to `take`, a buffer at a time.
fn read_range(
    file: &File,
    range: ByteRange,
    buffer: &mut [u8],
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let want = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact_at(part, at)?;
        take(at, part)?;
        at += want as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, protocol::Algorithm};

    #[test]
    fn what_is_gone_when_it_is_opened_is_not_counted_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("", "test").unwrap();
        config.store.directory = folder.path().to_owned();
        let store = Arc::new(Store::open(&config.store).unwrap());
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let staged = store.space.staged();
        let mut staging = store.stage(digest).unwrap();
        staging.prepare(Some(100), 50).unwrap();
        staging.write_at(0, &[1; 50]).unwrap();
        drop(staging);
        assert_eq!((store.left_over(&digest), store.space.staged()), (50, staged + 50));
        let partial = store.layout.partial(&digest);
        fs::remove_dir_all(partial.parent().unwrap()).unwrap();
        store.stage(digest).unwrap_err();
        assert_eq!((store.left_over(&digest), store.space.staged()), (0, staged));
    }
}
