//! A client's place at a fill: it reads what has come, at its own pace.
//!
//! It says where it is, so that what it needs next is asked for and kept.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Error,
    fill::{Fill, Phase, Progress},
    serving::bring_in,
    window::{Found, Frontier, Interest},
};
use crate::metrics;

/// A client's place at a fill.
#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
    interest: Interest,
    /// Where its first bytes were.
    begun_at: Option<u64>,
    progress: watch::Receiver<Progress>,
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// The blob ends here, verified.
    End,
    /// The bytes had to make room: the reader goes on by itself.
    Left {
        /// From here: the hash of all before.
        from: Box<Frontier>,
        total: Option<u64>,
    },
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(
        fill: Arc<Fill>,
        id: u64,
        interest: Interest,
        progress: watch::Receiver<Progress>,
    ) -> Self {
        metrics::FILL_READERS.inc();
        Self { fill, id, interest, begun_at: None, progress }
    }

    /// Waits for the blob's length.
    pub async fn total(&mut self) -> Result<u64, Error> {
        let progress = self.wait(|progress| progress.total.is_some() || progress.is_over()).await?;
        match (progress.phase, progress.total) {
            (Phase::Failed(error), _) => Err(error),
            (_, Some(total)) => Ok(total),
            (_, None) => Err(Error::Lost),
        }
    }

    /// Waits until the byte `start` may be read, so that whatever goes wrong before can still be
    /// told with a status; answers the blob's length, which is known by then or at its end.
    pub async fn ready(&mut self, start: u64, until: Option<u64>) -> Result<Option<u64>, Error> {
        self.declare(start, until);
        let there = move |progress: &Progress| progress.visible.end_of(start) > start;
        let progress = self.wait(|progress| there(progress) || progress.is_over()).await?;
        match progress.phase {
            Phase::Failed(error) if !there(&progress) => Err(error),
            _ => Ok(progress.total),
        }
    }

    /// The next bytes from `start` on, at most `limit`; waits for them. `until` says where the
    /// reader will stop, if it is not the end.
    pub(super) async fn read(
        &mut self,
        start: u64,
        until: Option<u64>,
        limit: u64,
    ) -> Result<Piece, Error> {
        self.declare(start, until);
        let end_of = |progress: &Progress| progress.visible.end_of(start);
        let (visible, total) = {
            let waited = self.progress.wait_for(|p| end_of(p) > start || p.is_over()).await;
            // The sender lives in the fill that this reader holds.
            let progress = waited.map_err(|_| Error::Lost)?;
            if end_of(&progress) == start {
                return match &progress.phase {
                    Phase::Failed(error) => Err(error.clone()),
                    _ => Ok(Piece::End),
                };
            }
            (end_of(&progress), progress.total)
        };
        let found = self.fill.window().read(start, (visible - start).min(limit));
        let begun_at = *self.begun_at.get_or_insert(start);
        match found {
            Found::Here(bytes) => {
                // A whole piece, of which what is held back is not shown yet.
                let len = usize::try_from(visible - start).unwrap_or(usize::MAX);
                Ok(Piece::Bytes(bytes.slice(..bytes.len().min(len))))
            }
            Found::OnDisk(map, len) => match bring_in(&map, start, len).await {
                Ok(()) => Ok(Piece::Bytes(map.slice(start, len))),
                Err(error) => {
                    tracing::warn!(digest = %self.fill.digest(), %error, "a staged file can't be read");
                    Err(Error::Moved)
                }
            },
            Found::Gone => {
                let from = self.fill.window().mark(start).ok_or(Error::Lost)?;
                // What it has was hashed with all before it: it gets nothing else for it.
                if from.at != start && begun_at != start {
                    return Err(Error::Lost);
                }
                Ok(Piece::Left { from: Box::new(from), total })
            }
        }
    }

    /// Says where the reader is. A whole reader stays one.
    fn declare(&mut self, at: u64, until: Option<u64>) {
        let is_whole = self.interest.is_whole && until.is_none();
        let interest = Interest { at, until, is_whole };
        if interest != self.interest {
            self.interest = interest;
            self.fill.window().moved(self.id, interest);
            if !interest.is_whole {
                self.fill.changed.notify_one();
            }
            self.fill.freed.notify_one();
        }
    }

    /// True while the fill waits for its turn.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.progress.borrow().phase, Phase::Waiting)
    }

    async fn wait(&mut self, ready: impl FnMut(&Progress) -> bool) -> Result<Progress, Error> {
        let progress = self.progress.wait_for(ready).await;
        progress.map(|progress| progress.clone()).map_err(|_| Error::Lost)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        metrics::FILL_READERS.dec();
        self.fill.window().leave(self.id);
        self.fill.changed.notify_one();
        self.fill.freed.notify_one();
    }
}
