//! The one thread that writes the index.
//!
//! Operations that arrive together share a commit. Those that need not be
//! durable at once wait up to [`LAZY_DELAY`] for company.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use redb::{Database, ReadableTable, WriteTransaction};
use tokio::sync::oneshot;

use super::{
    BLOBS, LINKS, RECENCY, TAGS, TOTALS,
    record::{BlobRecord, Link, LinkKey, TagKey, TagRecord, digest_key, millis},
};
use crate::{protocol::Digest, store::Error};

/// How long a lazy operation may wait for its commit.
const LAZY_DELAY: Duration = Duration::from_secs(1);

/// Operations in one commit at the most.
const BATCH: usize = 1024;

/// Operations waiting for the thread at the most; senders wait beyond.
const QUEUE: usize = 4096;

/// One change of the index.
#[derive(Debug)]
pub(super) enum Operation {
    Publish { digest: Digest, record: BlobRecord },
    RemoveBlob { digest: Digest },
    Touch { digest: Digest, now: SystemTime },
    Link { key: LinkKey, link: Link },
    Tag { key: TagKey, record: TagRecord },
    RemoveTag { key: TagKey },
}

/// What became of an operation: the size of the blob that it replaced or removed.
type Outcome = Result<Option<u64>, Error>;

enum Message {
    Now(Operation, oneshot::Sender<Outcome>),
    Later(Operation),
    Close,
}

/// The writer has ended.
#[derive(Debug)]
pub(super) struct Stopped;

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::SyncSender<Message>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> Result<Self, Error> {
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || Batches { database, messages, lazy: Vec::new() }.run())?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `operation` and waits until it is durable. Blocks.
    pub(super) fn run_blocking(&self, operation: Operation) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Message::Now(operation, done)).map_err(|_| Stopped)?;
        outcome.blocking_recv().map_err(|_| Stopped)?
    }

    /// Runs `operation` and waits until it is durable.
    pub(super) async fn run(&self, operation: Operation) -> Result<(), Error> {
        let (done, outcome) = oneshot::channel();
        let mut message = Message::Now(operation, done);
        // The queue is drained in milliseconds: it is full only while a disk stalls.
        while let Err(full) = self.queue.try_send(message) {
            message = match full {
                mpsc::TrySendError::Full(message) => message,
                mpsc::TrySendError::Disconnected(_) => return Err(Stopped.into()),
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        outcome.await.map_err(|_| Stopped)?.map(|_| ())
    }

    /// Has `operation` done within [`LAZY_DELAY`]; drops it when the queue is full.
    pub(super) fn later(&self, operation: Operation) {
        if self.queue.try_send(Message::Later(operation)).is_err() {
            tracing::debug!("the index is busy or closed; a recency update was dropped");
        }
    }

    /// Ends the thread once all before is written. Blocks.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Fails only if the thread is gone already, and then there is nothing to wait for.
            if self.queue.send(Message::Close).is_ok() && thread.join().is_err() {
                tracing::error!("the index writer panicked");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's own state.
struct Batches {
    database: Arc<Database>,
    messages: mpsc::Receiver<Message>,
    lazy: Vec<Operation>,
}

// === impl Batches ===

impl Batches {
    fn run(mut self) {
        let mut open = true;
        while open {
            let mut urgent = Vec::new();
            open = self.collect(&mut urgent);
            self.commit(urgent);
        }
    }

    /// Fills a batch; false when the writer is to end.
    fn collect(&mut self, urgent: &mut Vec<(Operation, oneshot::Sender<Outcome>)>) -> bool {
        let mut deadline = None;
        loop {
            let wait = match deadline {
                _ if !urgent.is_empty() => Duration::ZERO,
                Some(deadline) => Instant::saturating_duration_since(&deadline, Instant::now()),
                None => Duration::from_secs(3600),
            };
            match self.messages.recv_timeout(wait) {
                Ok(Message::Now(operation, done)) => urgent.push((operation, done)),
                Ok(Message::Later(operation)) => {
                    self.lazy.push(operation);
                    deadline.get_or_insert_with(|| Instant::now() + LAZY_DELAY);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return true,
                Ok(Message::Close) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
            if urgent.len() + self.lazy.len() >= BATCH {
                return true;
            }
        }
    }

    fn commit(&mut self, urgent: Vec<(Operation, oneshot::Sender<Outcome>)>) {
        let lazy = coalesce(std::mem::take(&mut self.lazy));
        if urgent.is_empty() && lazy.is_empty() {
            return;
        }
        let (operations, waiting): (Vec<_>, Vec<_>) = urgent.into_iter().unzip();
        match apply_all(&self.database, lazy.iter().chain(&operations)) {
            Ok(outcomes) => {
                for (done, outcome) in
                    waiting.into_iter().zip(outcomes.into_iter().skip(lazy.len()))
                {
                    // A receiver that is gone has nobody left to tell.
                    let _ = done.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the index could not be written");
                for done in waiting {
                    let _ = done.send(Err(copy(&error)));
                }
            }
        }
    }
}

/// Only the last of several lazy changes of one tag or one recency counts.
fn coalesce(operations: Vec<Operation>) -> Vec<Operation> {
    let mut last = HashMap::new();
    for operation in operations {
        let key = match &operation {
            Operation::Touch { digest, .. } => digest_key(digest),
            Operation::Tag { key, .. } => key.encode(),
            Operation::Publish { .. }
            | Operation::RemoveBlob { .. }
            | Operation::Link { .. }
            | Operation::RemoveTag { .. } => unreachable!("never lazy"),
        };
        last.insert(key, operation);
    }
    last.into_values().collect()
}

/// Creates the tables, so that readers always find them.
pub(super) fn create_tables(database: &Database) -> Result<(), Error> {
    let transaction = begin(database)?;
    transaction.open_table(BLOBS)?;
    transaction.open_table(RECENCY)?;
    transaction.open_table(LINKS)?;
    transaction.open_table(TAGS)?;
    transaction.open_table(TOTALS)?;
    Ok(transaction.commit()?)
}

fn begin(database: &Database) -> Result<WriteTransaction, Error> {
    let mut transaction = database.begin_write()?;
    // Opening after a crash then takes half a millisecond, however large the index is.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn apply_all<'a>(
    database: &Database,
    operations: impl Iterator<Item = &'a Operation>,
) -> Result<Vec<Option<u64>>, Error> {
    let transaction = begin(database)?;
    let outcomes: Result<Vec<_>, Error> =
        operations.map(|operation| apply(&transaction, operation)).collect();
    if outcomes.is_ok() {
        transaction.commit()?;
    }
    outcomes
}

fn apply(transaction: &WriteTransaction, operation: &Operation) -> Result<Option<u64>, Error> {
    match operation {
        Operation::Publish { digest, record } => replace_blob(transaction, digest, Some(*record)),
        Operation::RemoveBlob { digest } => replace_blob(transaction, digest, None),
        Operation::Touch { digest, now } => {
            let Some(mut record) = read_blob(transaction, digest)? else {
                return Ok(None);
            };
            transaction.open_table(RECENCY)?.remove(record.recency_key(digest).as_slice())?;
            record.used_ms = millis(*now);
            write_blob(transaction, digest, &record)?;
            Ok(None)
        }
        Operation::Link { key, link } => {
            let mut table = transaction.open_table(LINKS)?;
            table.insert(key.encode().as_slice(), link.encode().as_slice())?;
            Ok(None)
        }
        Operation::Tag { key, record } => {
            let mut table = transaction.open_table(TAGS)?;
            table.insert(key.encode().as_slice(), record.encode().as_slice())?;
            Ok(None)
        }
        Operation::RemoveTag { key } => {
            transaction.open_table(TAGS)?.remove(key.encode().as_slice())?;
            Ok(None)
        }
    }
}

/// Puts `record` in the place of what is there; keeps the total right.
fn replace_blob(
    transaction: &WriteTransaction,
    digest: &Digest,
    record: Option<BlobRecord>,
) -> Result<Option<u64>, Error> {
    let before = read_blob(transaction, digest)?;
    if let Some(before) = before {
        transaction.open_table(RECENCY)?.remove(before.recency_key(digest).as_slice())?;
        transaction.open_table(BLOBS)?.remove(digest_key(digest).as_slice())?;
    }
    if let Some(record) = record {
        write_blob(transaction, digest, &record)?;
    }
    let mut totals = transaction.open_table(TOTALS)?;
    let total = totals.get("bytes")?.map_or(0, |value| value.value());
    let total = total.saturating_sub(before.map_or(0, |record| record.size));
    totals.insert("bytes", total + record.map_or(0, |record| record.size))?;
    Ok(before.map(|record| record.size))
}

fn read_blob(transaction: &WriteTransaction, digest: &Digest) -> Result<Option<BlobRecord>, Error> {
    let table = transaction.open_table(BLOBS)?;
    let found = table.get(digest_key(digest).as_slice())?;
    Ok(found.and_then(|value| BlobRecord::decode(value.value())))
}

fn write_blob(
    transaction: &WriteTransaction,
    digest: &Digest,
    record: &BlobRecord,
) -> Result<(), Error> {
    let mut blobs = transaction.open_table(BLOBS)?;
    blobs.insert(digest_key(digest).as_slice(), record.encode().as_slice())?;
    let mut recency = transaction.open_table(RECENCY)?;
    recency.insert(record.recency_key(digest).as_slice(), ())?;
    Ok(())
}

/// One failure, told to everyone whose operation was in the batch.
fn copy(error: &Error) -> Error {
    match error {
        Error::Index(error) => Error::Index(Arc::clone(error)),
        other => std::io::Error::other(other.to_string()).into(),
    }
}
