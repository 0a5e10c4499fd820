//! The blocking half of a fill: writes what comes, hashes it, publishes it.
//!
//! It runs on a thread that may wait for the disk. When the disk fails it goes
//! on as the hasher alone. When it is stuck, another writer takes over from
//! what this one last said, and this one is not heard any more.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Error, fill::Fill, window::Frontier};
use crate::{
    metrics,
    protocol::ByteRange,
    store::{self, Kind, Staging, Store},
};

/// Hashed of a file before it is said how far that is.
const HASH_STEP_BYTES: u64 = 16 << 20;

/// What the receiver tells the writer.
enum Message {
    Piece(u64, Bytes),
    /// The staged file is not to be written any more, and stays for a later fill.
    Leave(oneshot::Sender<()>),
    /// The body is not the blob's.
    Discard,
    /// The body is complete, with so many bytes.
    End(u64, oneshot::Sender<Result<(), Error>>),
}

/// The receiver's end of the writer. Its queue is bounded by the fill's window.
#[derive(Debug)]
pub(super) struct Pipe {
    queue: mpsc::UnboundedSender<Message>,
}

/// The writer's own state.
struct Writer {
    fill: Arc<Fill>,
    store: Arc<Store>,
    number: u64,
    /// Gone once the disk has failed.
    staging: Option<Staging>,
    frontier: Frontier,
}

// === impl Pipe ===

impl Pipe {
    /// Starts the writer of `staging`, or of nothing, from `frontier` on. What an earlier life
    /// left in the file is hashed first.
    pub(super) fn start(
        fill: &Arc<Fill>,
        store: &Arc<Store>,
        staging: Option<Staging>,
        frontier: Frontier,
    ) -> Self {
        let (queue, messages) = mpsc::unbounded_channel();
        let number = fill.next_writer();
        let (fill, store) = (Arc::clone(fill), Arc::clone(store));
        let writer = Writer { fill, store, number, staging, frontier };
        tokio::task::spawn_blocking(move || writer.run(messages));
        Self { queue }
    }

    /// Hands over the next bytes. A writer that is gone has said why.
    pub(super) fn write(&self, start: u64, piece: Bytes) {
        let _ = self.queue.send(Message::Piece(start, piece));
    }

    /// Leaves the staged file as it is; what comes is only hashed. Answers when that is so, or
    /// fails where the writer is gone.
    pub(super) fn leave(&self) -> oneshot::Receiver<()> {
        let (done, left) = oneshot::channel();
        let _ = self.queue.send(Message::Leave(done));
        left
    }

    /// Drops what was written.
    pub(super) fn discard(self) {
        // A writer that is gone has nothing left to drop.
        let _ = self.queue.send(Message::Discard);
    }

    /// Verifies and publishes. Readers have the last piece once the digest is right; the answer
    /// comes when the blob is durable, or with what is wrong.
    pub(super) fn finish(&self, total: u64) -> oneshot::Receiver<Result<(), Error>> {
        let (done, outcome) = oneshot::channel();
        let _ = self.queue.send(Message::End(total, done));
        outcome
    }
}

// === impl Writer ===

impl Writer {
    fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        self.catch_up();
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Piece(start, piece) => self.take(start, &piece),
                Message::Leave(done) => {
                    if self.staging.take().is_some() {
                        metrics::FILLS_UNSTORED.with_label_values(&["handover"]).inc();
                        self.fill.stop_storing(self.number);
                    }
                    // Whoever asked may have given up waiting.
                    let _ = done.send(());
                }
                Message::Discard => return self.discard(),
                Message::End(total, done) => {
                    let outcome = self.end(total);
                    // The receiver may be gone with the runtime; then nobody is left to tell.
                    let _ = done.send(outcome);
                    return;
                }
            }
        }
    }

    /// Hashes what is in the file from the frontier on.
    fn catch_up(&mut self) {
        let end = self.staging.as_ref().map_or(0, |it| it.present().end_of(self.frontier.at));
        self.hash_file_up_to(end);
    }

    /// Hashes the file's bytes from the frontier to `end`. Those that can't be read are worth
    /// nothing: then the file goes, and the frontier stays.
    fn hash_file_up_to(&mut self, end: u64) {
        while let Some(staging) = &self.staging
            && self.frontier.at < end
        {
            let mut next = self.frontier.clone();
            next.at = end.min(next.at + HASH_STEP_BYTES);
            let range = ByteRange::new(self.frontier.at, next.at);
            match staging.hash(range, &mut next.hasher) {
                Ok(()) => self.frontier = next,
                Err(error) => {
                    self.fail(&error.into(), true);
                    self.fill.fail(Error::Moved);
                    return;
                }
            }
            self.fill.written(self.number, &[], self.frontier.clone());
        }
    }

    fn take(&mut self, start: u64, piece: &Bytes) {
        let written = self.staging.as_mut().map(|staging| staging.write_at(start, piece));
        if let Some(Err(error)) = &written {
            self.fail(error, false);
        }
        if start == self.frontier.at {
            self.frontier.hasher.update(piece);
            self.frontier.at += piece.len() as u64;
        } else if self.staging.is_none() {
            // What lies between is out of reach: its readers begin anew.
            self.fill.fail(Error::Moved);
        }
        // What came earlier than its turn has its turn now.
        self.catch_up();
        if self.staging.is_some() {
            self.fill.written(self.number, &[(start, piece.len() as u64)], self.frontier.clone());
        } else {
            self.fill.hashed(self.number, self.frontier.clone());
        }
    }

    /// The disk failed: from here on the fill is not stored. What is in the file stays for a later
    /// one, unless it `is_worthless`.
    fn fail(&mut self, error: &store::Error, is_worthless: bool) {
        let digest = self.fill.digest();
        tracing::warn!(%digest, %error, "a fill could not be written; it goes on without being stored");
        let why = if matches!(error, store::Error::Full { .. }) { "full" } else { "disk" };
        metrics::FILLS_UNSTORED.with_label_values(&[why]).inc();
        if is_worthless {
            self.discard();
        }
        self.staging = None;
        self.fill.stop_storing(self.number);
    }

    fn discard(&mut self) {
        if let Some(staging) = self.staging.take() {
            staging.discard();
        }
    }

    fn end(mut self, total: u64) -> Result<(), Error> {
        // Pieces that came in another order are hashed now.
        self.hash_file_up_to(total);
        if self.frontier.at != total {
            return Err(Error::Moved);
        }
        let expected = self.fill.digest();
        let found = self.frontier.hasher.clone().finish();
        if found != expected {
            self.discard();
            return Err(Error::mismatch(expected, found));
        }
        self.fill.verified();
        if let Some(staging) = self.staging.take()
            && let Err(error) = self.store.publish(staging, Kind::Blob)
        {
            // Readers have it all the same.
            tracing::warn!(digest = %expected, %error, "a blob could not be published");
            metrics::FILLS_UNSTORED.with_label_values(&["disk"]).inc();
        }
        Ok(())
    }
}
