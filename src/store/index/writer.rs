//! The one thread that writes the index.
//!
//! Operations that arrive together share a commit. Those that need not be
//! durable at once wait up to [`LAZY_DELAY`] for company. What an operation
//! does to the tables is said in `change`.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use redb::Database;
use tokio::sync::oneshot;

use super::{
    change::{self, Operation},
    record::digest_key,
};
use crate::store::Error;

/// How long a lazy operation may wait for its commit.
const LAZY_DELAY: Duration = Duration::from_secs(1);

/// Operations in one commit at the most.
const BATCH: usize = 1024;

/// Operations waiting for the thread at the most; senders wait beyond.
const QUEUE: usize = 4096;

/// What became of an operation: see [`Operation`].
pub(super) type Outcome = Result<Vec<Option<u64>>, Error>;

/// Called after each commit, with an error if it failed.
pub(super) type Committed = Box<dyn Fn(Option<&Error>) + Send>;

enum Message {
    Now(Operation, oneshot::Sender<Outcome>),
    Later(Operation),
    Close,
}

/// The writer has ended.
#[derive(Debug)]
pub(in crate::store) struct Stopped;

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::SyncSender<Message>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(database: Arc<Database>, committed: Committed) -> Result<Self, Error> {
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let batches = Batches { database, messages, lazy: Vec::new(), committed };
        let thread = thread::Builder::new().name("index".to_owned()).spawn(|| batches.run())?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `operation` and waits until it is durable. Blocks.
    pub(super) fn run_blocking(&self, operation: Operation) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Message::Now(operation, done)).map_err(|_| Stopped)?;
        outcome.blocking_recv().map_err(|_| Stopped)?
    }

    /// Runs `operation` and waits until it is durable.
    pub(super) async fn run(&self, operation: Operation) -> Outcome {
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
        outcome.await.map_err(|_| Stopped)?
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
    committed: Committed,
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
        // redb panics where its file was damaged behind its back; that is an error like others.
        let apply = || change::apply_all(&self.database, lazy.iter().chain(&operations));
        let applied = panic::catch_unwind(AssertUnwindSafe(apply));
        match applied.unwrap_or_else(|_| Err(std::io::Error::other("the index panicked").into())) {
            Ok(outcomes) => {
                (self.committed)(None);
                for (done, outcome) in
                    waiting.into_iter().zip(outcomes.into_iter().skip(lazy.len()))
                {
                    // A receiver that is gone has nobody left to tell.
                    let _ = done.send(Ok(outcome));
                }
            }
            Err(error) => {
                (self.committed)(Some(&error));
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
            Operation::Note { name, .. } => name.as_bytes().to_vec(),
            _ => unreachable!("never lazy"),
        };
        last.insert(key, operation);
    }
    last.into_values().collect()
}

/// One failure, told to everyone whose operation was in the batch.
fn copy(error: &Error) -> Error {
    match error {
        Error::Index(error) => Error::Index(Arc::clone(error)),
        other => std::io::Error::other(other.to_string()).into(),
    }
}
