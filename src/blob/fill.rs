//! One fill: a single upstream body feeding the store and every waiting reader.
//!
//! Readers see what is written, all but the last [`HELD_BACK_BYTES`] until the
//! digest is verified, and either the whole verified blob or an error. They
//! read at their own pace from the staged file's map; none waits for another.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::Error;
use crate::{
    protocol::{Digest, Repository},
    store::Staged,
};

/// The piece that waits for the digest: no client ever holds a complete blob that is not what
/// its name says.
pub const HELD_BACK_BYTES: u64 = 64 * 1024;

/// One blob on its way.
#[derive(Debug)]
pub(super) struct Fill {
    digest: Digest,
    /// Upstream and repository that it comes from: their clients need no other leave.
    origin: Origin,
    progress: watch::Sender<Progress>,
    /// Set once, before the first bytes are announced.
    staged: OnceLock<Staged>,
    /// Readers now. Changed under the lock of the fills' table only when it grows from zero.
    readers: AtomicUsize,
}

/// Where a fill comes from, and on whose behalf.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) upstream: Arc<str>,
    pub(super) repository: Repository,
    pub(super) identity: Option<Digest>,
}

/// How far a fill is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// The blob's length, once upstream has said it or the body has ended.
    pub(super) total: Option<u64>,
    /// Bytes written; they never change and this only grows.
    pub(super) written: u64,
}

/// A fill's life, in order; it ends in one of the last two.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    Asking,
    Receiving,
    Verified,
    Failed(Error),
}

/// A client's place at a fill.
#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
}

// === impl Fill ===

impl Fill {
    pub(super) fn new(digest: Digest, origin: Origin) -> Arc<Self> {
        let start = Progress { phase: Phase::Asking, total: None, written: 0 };
        Arc::new(Self {
            digest,
            origin,
            progress: watch::Sender::new(start),
            staged: OnceLock::new(),
            readers: AtomicUsize::new(0),
        })
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn is_from(&self, origin: &Origin) -> bool {
        self.origin == *origin
    }

    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        Reader { fill: Arc::clone(self), progress: self.progress.subscribe() }
    }

    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The staged file is there, with `written` bytes of an earlier life.
    pub(super) fn begin(&self, staged: Staged, total: Option<u64>, written: u64) {
        // Set only here, once in a fill's life.
        let _ = self.staged.set(staged);
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Receiving;
            progress.total = total;
            progress.written = written;
        });
    }

    pub(super) fn advance(&self, written: u64) {
        self.progress.send_modify(|progress| progress.written = written);
    }

    pub(super) fn verified(&self) {
        self.progress.send_modify(|progress| {
            progress.total = Some(progress.written);
            progress.phase = Phase::Verified;
        });
    }

    /// What a fill that ended without its receiver's doing has failed with.
    pub(super) fn failure(&self) -> Error {
        match self.progress().phase {
            Phase::Failed(error) => error,
            _ => Error::Lost,
        }
    }

    pub(super) fn fail(&self, error: Error) {
        self.progress.send_modify(|progress| {
            if !matches!(progress.phase, Phase::Verified | Phase::Failed(_)) {
                progress.phase = Phase::Failed(error);
            }
        });
    }
}

// === impl Progress ===

impl Progress {
    /// How many bytes readers may have.
    fn visible(&self) -> u64 {
        match (&self.phase, self.total) {
            (Phase::Verified, _) => self.written,
            (_, Some(total)) => self.written.min(total.saturating_sub(HELD_BACK_BYTES)),
            (_, None) => self.written.saturating_sub(HELD_BACK_BYTES),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Verified | Phase::Failed(_))
    }
}

// === impl Reader ===

impl Reader {
    /// Waits until the first bytes may be read, so that whatever goes wrong before can still be
    /// told with a status; answers the blob's length, which is known by then or at its end.
    pub async fn start(&mut self) -> Result<Option<u64>, Error> {
        let ready = |progress: &Progress| progress.visible() > 0 || progress.is_over();
        let progress = self.wait(ready).await?;
        match progress.phase {
            Phase::Failed(error) => Err(error),
            _ => Ok(progress.total),
        }
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

    /// The next bytes from `start` on, at most `limit`; waits for them. `None` at the end of a
    /// verified blob.
    pub async fn read(&mut self, start: u64, limit: u64) -> Result<Option<Bytes>, Error> {
        let progress =
            self.wait(|progress| progress.visible() > start || progress.is_over()).await?;
        let visible = progress.visible();
        if visible > start {
            let staged = self.fill.staged.get().ok_or(Error::Lost)?;
            return Ok(Some(staged.map.slice(start, (visible - start).min(limit))));
        }
        match progress.phase {
            Phase::Failed(error) => Err(error),
            _ => Ok(None),
        }
    }

    async fn wait(&mut self, ready: impl FnMut(&Progress) -> bool) -> Result<Progress, Error> {
        // The sender lives in the fill that this reader holds.
        self.progress
            .wait_for(ready)
            .await
            .map(|progress| progress.clone())
            .map_err(|_| Error::Lost)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(phase: Phase, total: Option<u64>, written: u64) -> u64 {
        Progress { phase, total, written }.visible()
    }

    #[test]
    fn the_last_piece_waits_for_the_digest() {
        let mib = 1 << 20;
        assert_eq!(progress(Phase::Receiving, Some(mib), mib), mib - HELD_BACK_BYTES);
        assert_eq!(progress(Phase::Receiving, Some(mib), 10), 10);
        assert_eq!(progress(Phase::Receiving, Some(HELD_BACK_BYTES), HELD_BACK_BYTES), 0);
        assert_eq!(progress(Phase::Receiving, None, mib), mib - HELD_BACK_BYTES);
        assert_eq!(progress(Phase::Verified, Some(mib), mib), mib);
    }
}
