//! The index: blobs, recency, links and tags in one embedded database.
//!
//! One thread writes, in batches; a caller that needs durability waits for its
//! batch. Reads take a snapshot and wait for nobody. Keys and values are laid
//! out in `record`.

mod record;
mod writer;

use std::{io, sync::Arc, time::SystemTime};

use redb::{Database, ReadableDatabase, TableDefinition};

pub(super) use record::is_manifest;
use record::{BlobRecord, digest_key, parse_recency_key};
pub use record::{Kind, Link, LinkKey, TagKey, TagRecord};
use writer::{Operation, Writer};

use super::{Error, layout::Layout};
use crate::protocol::Digest;

type Bytes = &'static [u8];

/// digest → [`BlobRecord`]
const BLOBS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("blobs");
/// kind, last use, digest → nothing: oldest first, blobs before manifests
const RECENCY: TableDefinition<'_, Bytes, ()> = TableDefinition::new("recency");
/// upstream, repository, digest → [`Link`]
const LINKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("links");
/// upstream, repository, tag → [`TagRecord`]
const TAGS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("tags");
/// "bytes" → the sum of all published sizes
const TOTALS: TableDefinition<'_, &'static str, u64> = TableDefinition::new("totals");

/// The memory that redb may use for its pages.
const CACHE_BYTES: usize = 16 << 20;

/// The index of one store.
#[derive(Debug)]
pub(super) struct Index {
    database: Arc<Database>,
    writer: Writer,
}

// === impl Index ===

impl Index {
    pub(super) fn open(layout: &Layout) -> Result<Self, Error> {
        let path = layout.index();
        let opened = Database::builder().set_cache_size(CACHE_BYTES).create(&path);
        let database = opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::Unusable {
                path: path.clone(),
                problem: "another process uses this store".to_owned(),
                remedy: "stop it, or give this one its own store.directory",
            },
            error => Error::Unusable {
                path: path.clone(),
                problem: error.to_string(),
                remedy: "move the file away to start with an empty index",
            },
        })?;
        let database = Arc::new(database);
        writer::create_tables(&database)?;
        let writer = Writer::start(Arc::clone(&database))?;
        Ok(Self { database, writer })
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, Error> {
        let table = self.database.begin_read()?.open_table(BLOBS)?;
        let found = table.get(digest_key(digest).as_slice())?;
        Ok(found.and_then(|value| BlobRecord::decode(value.value())))
    }

    pub(super) fn used_bytes(&self) -> Result<u64, Error> {
        let table = self.database.begin_read()?.open_table(TOTALS)?;
        Ok(table.get("bytes")?.map_or(0, |value| value.value()))
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

    /// Up to `count` digests in eviction order, behind the key `after`.
    pub(super) fn oldest(
        &self,
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<(Vec<u8>, Digest)>, Error> {
        let table = self.database.begin_read()?.open_table(RECENCY)?;
        let mut found = Vec::with_capacity(count);
        let start = after.unwrap_or_default();
        for row in table.range(start..)? {
            let key = row?.0.value().to_vec();
            if Some(key.as_slice()) == after {
                continue;
            }
            if let Some(digest) = parse_recency_key(&key) {
                found.push((key, digest));
            }
            if found.len() == count {
                break;
            }
        }
        Ok(found)
    }

    /// Records a published file, durably. True if it was known before. Blocks.
    pub(super) fn publish(
        &self,
        digest: Digest,
        size: u64,
        kind: Kind,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let record = BlobRecord::new(size, kind, now);
        let before = self.writer.run_blocking(Operation::Publish { digest, record })?;
        Ok(before.is_some())
    }

    /// Forgets a file, durably; answers its size. Blocks.
    pub(super) fn remove_blob(&self, digest: Digest) -> Result<Option<u64>, Error> {
        self.writer.run_blocking(Operation::RemoveBlob { digest })
    }

    pub(super) async fn link(&self, key: LinkKey, link: Link) -> Result<(), Error> {
        self.writer.run(Operation::Link { key, link }).await
    }

    pub(super) async fn move_tag(&self, key: TagKey, record: TagRecord) -> Result<(), Error> {
        self.writer.run(Operation::Tag { key, record }).await
    }

    pub(super) async fn remove_tag(&self, key: TagKey) -> Result<(), Error> {
        self.writer.run(Operation::RemoveTag { key }).await
    }

    pub(super) fn freshen_tag(&self, key: TagKey, record: TagRecord) {
        self.writer.later(Operation::Tag { key, record });
    }

    pub(super) fn touch(&self, digest: Digest, now: SystemTime) {
        self.writer.later(Operation::Touch { digest, now });
    }

    /// Writes what is pending and ends the writer. Blocks.
    pub(super) fn close(&self) {
        self.writer.close();
    }
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

impl From<writer::Stopped> for Error {
    fn from(_: writer::Stopped) -> Self {
        io::Error::other("the index is closed").into()
    }
}
