//! What each operation does to the tables, inside one transaction.
//!
//! The sums in the totals table are kept right here and nowhere else.

use std::time::SystemTime;

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::{
    BLOBS, LINKS, NOTES, PINNED, PINS, RECENCY, TAGS, TOTALS, Totals,
    record::{
        BlobRecord, Class, Link, LinkKey, TagKey, TagRecord, decode, digest_key, encode, millis,
    },
};
use crate::{protocol::Digest, store::Error};

/// A read counts as another one, and not as part of the first, after so long: the machines of one
/// rollout pull the same image within seconds.
const AGAIN_AFTER_MS: u64 = 60_000;

/// One change of the index, and what it answers.
#[derive(Debug)]
pub(super) enum Operation {
    /// Answers the size of the blob that it replaced.
    Publish {
        digest: Digest,
        record: BlobRecord,
    },
    /// The same of many; answers nothing.
    PublishAll {
        objects: Vec<(Digest, BlobRecord)>,
    },
    /// Answers the size of each that was there.
    Remove {
        digests: Vec<Digest>,
    },
    Touch {
        digest: Digest,
        now: SystemTime,
    },
    Link {
        key: LinkKey,
        link: Link,
    },
    /// Removes links.
    Unlink {
        keys: Vec<LinkKey>,
    },
    Tag {
        key: TagKey,
        record: TagRecord,
    },
    /// Answers a number if the tag was there.
    RemoveTag {
        key: TagKey,
    },
    /// Pins `digests`, and no others, by this name.
    Pin {
        name: String,
        digests: Vec<Digest>,
    },
    /// Answers a number if the pin was there.
    Unpin {
        name: String,
    },
    /// Keeps some bytes of the store's own by a name.
    Note {
        name: &'static str,
        bytes: Vec<u8>,
    },
}

/// Creates the tables, so that readers always find them, and brings those of the version before
/// up to date.
pub(super) fn create_tables(database: &Database) -> Result<(), Error> {
    let transaction = begin(database)?;
    transaction.open_table(BLOBS)?;
    transaction.open_table(RECENCY)?;
    transaction.open_table(LINKS)?;
    transaction.open_table(TAGS)?;
    transaction.open_table(PINS)?;
    transaction.open_table(PINNED)?;
    transaction.open_table(NOTES)?;
    if transaction.open_table(TOTALS)?.get(Totals::OBJECTS)?.is_none() {
        rebuild(&transaction)?;
    }
    Ok(transaction.commit()?)
}

/// Makes recency and totals anew out of the blobs' records.
fn rebuild(transaction: &WriteTransaction) -> Result<(), Error> {
    let mut totals = Totals::default();
    transaction.delete_table(TableDefinition::<&[u8], ()>::new("recency"))?;
    let mut recency = transaction.open_table(RECENCY)?;
    for row in transaction.open_table(BLOBS)?.iter()? {
        let (key, value) = row?;
        let digest = super::record::parse_digest_key(key.value());
        if let (Some(digest), Some(record)) = (digest, BlobRecord::decode(value.value())) {
            recency.insert(record.recency_key(&digest).as_slice(), record.size)?;
            totals.add(&record);
        }
    }
    drop(recency);
    write_totals(transaction, &totals)
}

fn begin(database: &Database) -> Result<WriteTransaction, Error> {
    let mut transaction = database.begin_write()?;
    // Opening after a crash then takes half a millisecond, however large the index is.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

pub(super) fn apply_all<'a>(
    database: &Database,
    operations: impl Iterator<Item = &'a Operation>,
) -> Result<Vec<Vec<Option<u64>>>, Error> {
    let transaction = begin(database)?;
    let mut totals = super::read_totals(&transaction.open_table(TOTALS)?)?;
    let before = totals;
    let mut outcomes = Vec::new();
    for operation in operations {
        outcomes.push(apply(&transaction, &mut totals, operation)?);
    }
    if totals != before {
        write_totals(&transaction, &totals)?;
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn write_totals(transaction: &WriteTransaction, totals: &Totals) -> Result<(), Error> {
    let mut table = transaction.open_table(TOTALS)?;
    for (name, value) in totals.rows() {
        table.insert(name, value)?;
    }
    Ok(())
}

fn apply(
    transaction: &WriteTransaction,
    totals: &mut Totals,
    operation: &Operation,
) -> Result<Vec<Option<u64>>, Error> {
    match operation {
        Operation::Publish { digest, record } => {
            let pinned = pins_of(transaction, digest)? > 0;
            let record = BlobRecord { pinned, ..*record };
            Ok(vec![replace_blob(transaction, totals, digest, Some(record))?])
        }
        Operation::PublishAll { objects } => {
            for (digest, record) in objects {
                replace_blob(transaction, totals, digest, Some(*record))?;
            }
            Ok(Vec::new())
        }
        Operation::Remove { digests } => {
            digests.iter().map(|digest| replace_blob(transaction, totals, digest, None)).collect()
        }
        Operation::Touch { digest, now } => {
            if let Some(record) = read_blob(transaction, digest)? {
                let used_ms = millis(*now);
                let later = used_ms.saturating_sub(record.used_ms) >= AGAIN_AFTER_MS;
                let reread = record.reread || later;
                let record = BlobRecord { used_ms, reread, ..record };
                replace_blob(transaction, totals, digest, Some(record))?;
            }
            Ok(Vec::new())
        }
        Operation::Link { key, link } => {
            let mut table = transaction.open_table(LINKS)?;
            table.insert(key.encode().as_slice(), link.encode().as_slice())?;
            Ok(Vec::new())
        }
        Operation::Unlink { keys } => {
            let mut table = transaction.open_table(LINKS)?;
            for key in keys {
                table.remove(key.encode().as_slice())?;
            }
            Ok(Vec::new())
        }
        Operation::Tag { key, record } => {
            let mut table = transaction.open_table(TAGS)?;
            table.insert(key.encode().as_slice(), record.encode().as_slice())?;
            Ok(Vec::new())
        }
        Operation::RemoveTag { key } => {
            let mut table = transaction.open_table(TAGS)?;
            let before = table.remove(key.encode().as_slice())?;
            Ok(vec![before.map(|_| 0)])
        }
        Operation::Pin { name, digests } => pin(transaction, totals, name, Some(digests)),
        Operation::Unpin { name } => pin(transaction, totals, name, None),
        Operation::Note { name, bytes } => {
            transaction.open_table(NOTES)?.insert(*name, bytes.as_slice())?;
            Ok(Vec::new())
        }
    }
}

/// Puts `digests` in the place of what the pin `name` named before.
fn pin(
    transaction: &WriteTransaction,
    totals: &mut Totals,
    name: &str,
    digests: Option<&Vec<Digest>>,
) -> Result<Vec<Option<u64>>, Error> {
    let mut pins = transaction.open_table(PINS)?;
    let before = match digests {
        Some(digests) => pins.insert(name, encode(digests).as_slice())?,
        None => pins.remove(name)?,
    };
    let before = before.map(|value| decode::<Vec<Digest>>(value.value()).unwrap_or_default());
    // The new ones first: what both name stays pinned all along.
    for digest in digests.into_iter().flatten() {
        let count = pins_of(transaction, digest)?;
        set_pins(transaction, totals, digest, count + 1)?;
    }
    for digest in before.iter().flatten() {
        let count = pins_of(transaction, digest)?;
        set_pins(transaction, totals, digest, count.saturating_sub(1))?;
    }
    Ok(vec![before.map(|digests| digests.len() as u64)])
}

fn pins_of(transaction: &WriteTransaction, digest: &Digest) -> Result<u64, Error> {
    let table = transaction.open_table(PINNED)?;
    let count = table.get(digest_key(digest).as_slice())?;
    Ok(count.map_or(0, |count| count.value()))
}

fn set_pins(
    transaction: &WriteTransaction,
    totals: &mut Totals,
    digest: &Digest,
    count: u64,
) -> Result<(), Error> {
    let mut table = transaction.open_table(PINNED)?;
    if count == 0 {
        table.remove(digest_key(digest).as_slice())?;
    } else {
        table.insert(digest_key(digest).as_slice(), count)?;
    }
    if let Some(record) = read_blob(transaction, digest)?
        && record.pinned != (count > 0)
    {
        let record = BlobRecord { pinned: count > 0, ..record };
        replace_blob(transaction, totals, digest, Some(record))?;
    }
    Ok(())
}

/// Puts `record` in the place of what is there; answers the size that was there.
fn replace_blob(
    transaction: &WriteTransaction,
    totals: &mut Totals,
    digest: &Digest,
    record: Option<BlobRecord>,
) -> Result<Option<u64>, Error> {
    let mut blobs = transaction.open_table(BLOBS)?;
    let mut recency = transaction.open_table(RECENCY)?;
    let key = digest_key(digest);
    let before = match &record {
        Some(record) => blobs.insert(key.as_slice(), record.encode().as_slice())?,
        None => blobs.remove(key.as_slice())?,
    };
    let before = before.and_then(|value| BlobRecord::decode(value.value()));
    if let Some(before) = &before {
        recency.remove(before.recency_key(digest).as_slice())?;
        totals.subtract(before);
    }
    if let Some(record) = &record {
        recency.insert(record.recency_key(digest).as_slice(), record.size)?;
        totals.add(record);
    }
    Ok(before.map(|record| record.size))
}

fn read_blob(transaction: &WriteTransaction, digest: &Digest) -> Result<Option<BlobRecord>, Error> {
    let table = transaction.open_table(BLOBS)?;
    let found = table.get(digest_key(digest).as_slice())?;
    Ok(found.and_then(|value| BlobRecord::decode(value.value())))
}

// === impl Totals ===

impl Totals {
    /// What shows that the totals are those of this version.
    pub(super) const OBJECTS: &'static str = "objects";

    pub(super) fn rows(&self) -> [(&'static str, u64); 5] {
        [
            ("bytes", self.bytes),
            (Self::OBJECTS, self.objects),
            ("probation", self.probation),
            ("protected", self.protected),
            ("pinned", self.pinned),
        ]
    }

    fn add(&mut self, record: &BlobRecord) {
        self.change(record, u64::saturating_add);
    }

    fn subtract(&mut self, record: &BlobRecord) {
        self.change(record, u64::saturating_sub);
    }

    fn change(&mut self, record: &BlobRecord, by: impl Fn(u64, u64) -> u64) {
        self.bytes = by(self.bytes, record.size);
        self.objects = by(self.objects, 1);
        let class = match record.class() {
            Class::Probation => &mut self.probation,
            Class::Protected => &mut self.protected,
            Class::Pinned => &mut self.pinned,
            Class::Manifest => return,
        };
        *class = by(*class, record.size);
    }
}
