//! The blocking half of a fill: hashes what comes, writes it, publishes it.
//!
//! It runs on a thread that may wait for the disk, behind a bounded queue, so
//! that a slow disk slows its own upstream and nobody's readers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Error, fill::Fill};
use crate::{
    protocol::Hasher,
    store::{Kind, Staging, Store},
};

/// Pieces on their way from the receiver to the writer; a piece has up to about 512 KiB.
const QUEUE: usize = 4;

/// What the receiver tells the writer.
enum Message {
    Piece(Bytes),
    /// The body is not the blob's.
    Discard,
    /// The body is complete.
    End(oneshot::Sender<Result<(), Error>>),
}

/// The receiver's end of the writer.
#[derive(Debug)]
pub(super) struct Pipe {
    queue: mpsc::Sender<Message>,
}

/// The writer is gone: its disk failed. The fill knows why.
#[derive(Debug)]
pub(super) struct WriterGone;

// === impl Pipe ===

impl Pipe {
    /// Starts the writer of `staging`. What an earlier life left in it is hashed first.
    pub(super) fn start(fill: Arc<Fill>, store: Arc<Store>, staging: Staging) -> Self {
        let (queue, mut messages) = mpsc::channel(QUEUE);
        tokio::task::spawn_blocking(move || {
            // The queue stays open until the fill knows why, so that its receiver learns it too.
            if let Err(error) = write(&fill, &store, staging, &mut messages) {
                tracing::warn!(digest = %fill.digest(), %error, "a fill could not be written");
                fill.fail(Error::Store(Arc::new(error)));
            }
        });
        Self { queue }
    }

    /// Hands over the next bytes; waits while the writer is behind.
    pub(super) async fn write(&self, piece: Bytes) -> Result<(), WriterGone> {
        self.queue.send(Message::Piece(piece)).await.map_err(|_| WriterGone)
    }

    /// Drops what was written.
    pub(super) async fn discard(self) {
        // A writer that is gone has nothing left to drop.
        let _ = self.queue.send(Message::Discard).await;
    }

    /// Verifies and publishes. Readers have the last piece once the digest is right; this answers
    /// when the blob is durable, or with what is wrong.
    pub(super) async fn finish(self) -> Result<Result<(), Error>, WriterGone> {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Message::End(done)).await.map_err(|_| WriterGone)?;
        outcome.await.map_err(|_| WriterGone)
    }
}

/// The writer's life. Dropping `staging` on the way keeps the partial file.
fn write(
    fill: &Fill,
    store: &Arc<Store>,
    mut staging: Staging,
    messages: &mut mpsc::Receiver<Message>,
) -> Result<(), crate::store::Error> {
    let digest = fill.digest();
    let mut hasher = Hasher::new(digest.algorithm());
    staging.rehash(&mut hasher)?;
    let mut next = messages.blocking_recv();
    while let Some(message) = next {
        next = None;
        match message {
            Message::Piece(piece) => {
                let mut batch = vec![piece];
                // What has queued up is written in one go: readers are woken once for all of it.
                while let Ok(message) = messages.try_recv() {
                    match message {
                        Message::Piece(piece) => batch.push(piece),
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                for piece in &batch {
                    staging.append(piece)?;
                }
                fill.advance(staging.len());
                for piece in &batch {
                    hasher.update(piece);
                }
            }
            Message::Discard => {
                staging.discard();
                return Ok(());
            }
            Message::End(done) => {
                let found = hasher.finish();
                if found != digest {
                    staging.discard();
                    // The receiver may be gone with the runtime; then nobody is left to tell.
                    let _ = done.send(Err(Error::mismatch(digest, found)));
                    return Ok(());
                }
                fill.verified();
                let published = store.publish(staging, Kind::Blob);
                let _ = done.send(published.map_err(|error| Error::Store(Arc::new(error))));
                return Ok(());
            }
        }
        if next.is_none() {
            next = messages.blocking_recv();
        }
    }
    Ok(())
}
