//! The index: blobs, recency, links, tags and pins in one embedded database.
//!
//! One thread writes, in batches; a caller that needs durability waits for its
//! batch. Reads take a snapshot and wait for nobody. Keys and values are laid
//! out in `record`, what a change does to the tables in `change`.

mod change;
mod names;
mod record;
mod writer;

use std::{io, os::unix::fs::MetadataExt, panic, path::Path, sync::Arc, time::SystemTime};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use change::Operation;
pub(super) use record::{BlobRecord, Class};
pub use record::{Kind, Link, LinkKey, TagKey, TagRecord};
use record::{decode, digest_key, parse_digest_key, parse_recency_key};
pub(super) use writer::Stopped;
use writer::{Committed, Writer};

use super::{Error, layout::Layout};
use crate::protocol::Digest;

type Bytes = &'static [u8];

/// digest → [`BlobRecord`]
const BLOBS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("blobs");
/// class, last use, digest → size: in the order in which they go
const RECENCY: TableDefinition<'_, Bytes, u64> = TableDefinition::new("order");
/// upstream, repository, digest → [`Link`]
const LINKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("links");
/// upstream, repository, tag → [`TagRecord`]
const TAGS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("tags");
/// a pin's name → its digests
const PINS: TableDefinition<'_, &'static str, Bytes> = TableDefinition::new("pins");
/// digest → how many pins name it
const PINNED: TableDefinition<'_, Bytes, u64> = TableDefinition::new("pinned");
/// [`Totals`], by name
const TOTALS: TableDefinition<'_, &'static str, u64> = TableDefinition::new("totals");
/// what the store remembers for itself
const NOTES: TableDefinition<'_, &'static str, Bytes> = TableDefinition::new("notes");

/// The memory that redb may use for its pages.
const CACHE_BYTES: usize = 16 << 20;

/// The index of one store.
#[derive(Debug)]
pub(super) struct Index {
    database: Arc<Database>,
    writer: Writer,
    /// Of its file, which may be another than the one that lies in its place later.
    inode: u64,
}

/// Sums over all published objects; bytes but for `objects`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) objects: u64,
    pub(super) probation: u64,
    pub(super) protected: u64,
    pub(super) pinned: u64,
}

/// An object in the order in which objects go.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Where it stands in the order.
    pub(super) key: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Why the index could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another process has it open.
    InUse,
    /// It is there and can't be read.
    Damaged(String),
    /// The file system failed.
    Failed(Error),
}

// === impl Index ===

impl Index {
    /// Opens or creates it. `committed` is called after each commit. Blocks.
    pub(super) fn open(layout: &Layout, committed: Committed) -> Result<Self, OpenError> {
        let path = layout.index();
        // redb trusts a file that was closed well, and panics where it was damaged since.
        let opened = panic::catch_unwind(|| open_database(&path));
        let database = Arc::new(opened.unwrap_or_else(|_| {
            Err(OpenError::Damaged("it is not what was written there".to_owned()))
        })?);
        let writer = Writer::start(Arc::clone(&database), committed).map_err(OpenError::Failed)?;
        let inode = inode(&path).map_err(|error| OpenError::Failed(error.into()))?;
        Ok(Self { database, writer, inode })
    }

    /// True if the file that is open is the one that lies at `path`.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        inode(path).is_ok_and(|inode| inode == self.inode)
    }

    /// Writes something, and so finds out whether it can be written. Blocks.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.writer.run_blocking(Operation::Note { name: "check", bytes: Vec::new() }).map(drop)
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, Error> {
        let table = self.database.begin_read()?.open_table(BLOBS)?;
        let found = table.get(digest_key(digest).as_slice())?;
        Ok(found.and_then(|value| BlobRecord::decode(value.value())))
    }

    pub(super) fn totals(&self) -> Result<Totals, Error> {
        read_totals(&self.database.begin_read()?.open_table(TOTALS)?)
    }

    pub(super) fn linked(&self, key: &LinkKey) -> Result<Option<Link>, Error> {
        let table = self.database.begin_read()?.open_table(LINKS)?;
        let found = table.get(key.encode().as_slice())?;
        Ok(found.and_then(|value| Link::decode(value.value())))
    }

    pub(super) fn tag(&self, key: &TagKey) -> Result<Option<TagRecord>, Error> {
        let table = self.database.begin_read()?.open_table(TAGS)?;
        let found = table.get(key.encode().as_slice())?;
        Ok(found.and_then(|value| TagRecord::decode(value.value())))
    }

    /// Up to `count` objects of a class, longest unused first, behind the key `after`.
    pub(super) fn oldest(
        &self,
        class: Class,
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Candidate>, Error> {
        let table = self.database.begin_read()?.open_table(RECENCY)?;
        let (first, behind) = ([class.first_byte()], [class.first_byte() + 1]);
        let mut found = Vec::with_capacity(count);
        for row in table.range(after.unwrap_or(&first)..behind.as_slice())? {
            let (key, size) = row?;
            let key = key.value().to_vec();
            if Some(key.as_slice()) == after {
                continue;
            }
            if let Some(digest) = parse_recency_key(&key) {
                found.push(Candidate { key, digest, size: size.value() });
            }
            if found.len() == count {
                break;
            }
        }
        Ok(found)
    }

    /// Up to `count` blobs by digest, behind `after`.
    pub(super) fn blobs(
        &self,
        after: Option<&Digest>,
        count: usize,
    ) -> Result<Vec<(Digest, BlobRecord)>, Error> {
        let table = self.database.begin_read()?.open_table(BLOBS)?;
        let after = after.map(digest_key);
        page(&table, after.as_deref(), count, |key, value| {
            Some((parse_digest_key(key)?, BlobRecord::decode(value)?))
        })
    }

    /// Up to `count` tags by their keys, behind `after`.
    pub(super) fn tags(
        &self,
        after: Option<&TagKey>,
        count: usize,
    ) -> Result<Vec<(TagKey, TagRecord)>, Error> {
        let table = self.database.begin_read()?.open_table(TAGS)?;
        let after = after.map(TagKey::encode);
        page(&table, after.as_deref(), count, |key, value| {
            Some((TagKey::decode(key)?, TagRecord::decode(value)?))
        })
    }

    /// Up to `count` links by their keys, behind `after`.
    pub(super) fn links(
        &self,
        after: Option<&LinkKey>,
        count: usize,
    ) -> Result<Vec<(LinkKey, Link)>, Error> {
        let table = self.database.begin_read()?.open_table(LINKS)?;
        let after = after.map(LinkKey::encode);
        page(&table, after.as_deref(), count, |key, value| {
            Some((LinkKey::decode(key)?, Link::decode(value)?))
        })
    }

    /// Every pin, by name.
    pub(super) fn pins(&self) -> Result<Vec<(String, Vec<Digest>)>, Error> {
        let table = self.database.begin_read()?.open_table(PINS)?;
        let mut found = Vec::new();
        for row in table.iter()? {
            let (name, digests) = row?;
            let digests = decode(digests.value()).unwrap_or_default();
            found.push((name.value().to_owned(), digests));
        }
        Ok(found)
    }

    pub(super) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let table = self.database.begin_read()?.open_table(NOTES)?;
        Ok(table.get(name)?.map(|value| value.value().to_vec()))
    }

    /// Records a published file, durably; answers the size that was recorded before. Blocks.
    pub(super) fn publish(
        &self,
        digest: Digest,
        size: u64,
        kind: Kind,
        now: SystemTime,
    ) -> Result<Option<u64>, Error> {
        let record = BlobRecord::new(size, kind, now);
        let outcome = self.writer.run_blocking(Operation::Publish { digest, record })?;
        Ok(outcome.into_iter().flatten().next())
    }

    /// Records many files in one commit. Blocks.
    pub(super) fn publish_all(&self, objects: Vec<(Digest, BlobRecord)>) -> Result<(), Error> {
        self.writer.run_blocking(Operation::PublishAll { objects }).map(drop)
    }

    /// Forgets files, durably; answers the size of each that was known. Blocks.
    pub(super) fn remove(&self, digests: Vec<Digest>) -> Result<Vec<Option<u64>>, Error> {
        self.writer.run_blocking(Operation::Remove { digests })
    }

    pub(super) async fn link(&self, key: LinkKey, link: Link) -> Result<(), Error> {
        self.writer.run(Operation::Link { key, link }).await.map(drop)
    }

    pub(super) fn unlink(&self, keys: Vec<LinkKey>) -> Result<(), Error> {
        self.writer.run_blocking(Operation::Unlink { keys }).map(drop)
    }

    pub(super) async fn move_tag(&self, key: TagKey, record: TagRecord) -> Result<(), Error> {
        self.writer.run(Operation::Tag { key, record }).await.map(drop)
    }

    pub(super) async fn remove_tag(&self, key: TagKey) -> Result<(), Error> {
        self.writer.run(Operation::RemoveTag { key }).await.map(drop)
    }

    /// Removes a tag; false if it was not there. Blocks.
    pub(super) fn purge_tag(&self, key: TagKey) -> Result<bool, Error> {
        let outcome = self.writer.run_blocking(Operation::RemoveTag { key })?;
        Ok(outcome.into_iter().flatten().next().is_some())
    }

    /// Pins `digests`, and no others, by this name. Blocks.
    pub(super) fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), Error> {
        let (name, digests) = (name.to_owned(), digests.to_vec());
        self.writer.run_blocking(Operation::Pin { name, digests }).map(drop)
    }

    /// Takes a pin away; false if it was not there. Blocks.
    pub(super) fn unpin(&self, name: &str) -> Result<bool, Error> {
        let outcome = self.writer.run_blocking(Operation::Unpin { name: name.to_owned() })?;
        Ok(outcome.into_iter().flatten().next().is_some())
    }

    pub(super) fn freshen_tag(&self, key: TagKey, record: TagRecord) {
        self.writer.later(Operation::Tag { key, record });
    }

    pub(super) fn touch(&self, digest: Digest, now: SystemTime) {
        self.writer.later(Operation::Touch { digest, now });
    }

    /// Keeps some bytes by a name, within a second.
    pub(super) fn keep_note(&self, name: &'static str, bytes: Vec<u8>) {
        self.writer.later(Operation::Note { name, bytes });
    }

    /// The same, durably. Blocks.
    pub(super) fn note_down(&self, name: &'static str, bytes: Vec<u8>) -> Result<(), Error> {
        self.writer.run_blocking(Operation::Note { name, bytes }).map(drop)
    }

    /// Writes what is pending and ends the writer. Blocks.
    pub(super) fn close(&self) {
        self.writer.close();
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let database = database.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse,
        DatabaseError::Storage(redb::StorageError::Io(error)) if !is_content(&error) => {
            OpenError::Failed(error.into())
        }
        damaged => OpenError::Damaged(damaged.to_string()),
    })?;
    change::create_tables(&database).map_err(|error| match error {
        Error::Index(error) => match &*error {
            redb::Error::Io(io) if !is_content(io) => OpenError::Failed(Error::Index(error)),
            _ => OpenError::Damaged(error.to_string()),
        },
        other => OpenError::Failed(other),
    })?;
    Ok(database)
}

/// An I/O error that is about what stands in the file, not about reaching it.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn read_totals(table: &impl ReadableTable<&'static str, u64>) -> Result<Totals, Error> {
    let read = |name| Ok::<_, Error>(table.get(name)?.map_or(0, |value| value.value()));
    Ok(Totals {
        bytes: read("bytes")?,
        objects: read(Totals::OBJECTS)?,
        probation: read("probation")?,
        protected: read("protected")?,
        pinned: read("pinned")?,
    })
}

/// Up to `count` rows behind the key `after` that `parse` understands.
fn page<T>(
    table: &impl ReadableTable<Bytes, Bytes>,
    after: Option<&[u8]>,
    count: usize,
    parse: impl Fn(&[u8], &[u8]) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for row in table.range(after.unwrap_or_default()..)? {
        if found.len() == count {
            break;
        }
        let (key, value) = row?;
        if Some(key.value()) != after {
            found.extend(parse(key.value(), value.value()));
        }
    }
    Ok(found)
}

// === impl Error ===

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Index(Arc::new(error.into()))
            }
        }
    )*};
}
from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::Closed
    }
}
