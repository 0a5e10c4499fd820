//! The way of received bytes into a fill: memory first, then its writer.
//!
//! It waits for room. A writer that gets nowhere for [`DISK_PATIENCE`] is left
//! behind: the fill goes on without being stored. Of an unstored fill the
//! slowest readers are left behind instead.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Error, fill::Fill, window::Frontier, writer::Pipe};
use crate::{
    metrics,
    store::{DISK_PATIENCE, Staging, Store},
};

/// How long the readers of an unstored fill may keep the others waiting.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// A permit stands for so many bytes of memory.
pub(super) const PERMIT_BYTES: u64 = 1024;

/// The way into one fill.
#[derive(Debug)]
pub(super) struct Lane {
    fill: Arc<Fill>,
    store: Arc<Store>,
    /// For the memory of all fills together.
    memory: Arc<Semaphore>,
    /// Bytes go into the window and to the writer in one step, so that a change of writers misses
    /// none of them. `None` once the fill has ended.
    pipe: Mutex<Option<Pipe>>,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(
        fill: &Arc<Fill>,
        store: &Arc<Store>,
        memory: &Arc<Semaphore>,
        staging: Option<Staging>,
    ) -> Self {
        let frontier = fill.window().frontier().clone();
        let pipe = Pipe::start(fill, store, staging, frontier);
        Self {
            fill: Arc::clone(fill),
            store: Arc::clone(store),
            memory: Arc::clone(memory),
            pipe: Mutex::new(Some(pipe)),
        }
    }

    /// Takes the bytes of `piece` that are not there yet.
    pub(super) async fn take(&self, start: u64, piece: &Bytes) -> Result<(), Error> {
        for (start, part) in self.fill.missing(start, piece) {
            let mut permit = self.room(part.len() as u64).await?;
            let pipe = self.pipe();
            // Looked at again: another request may have brought some of it meanwhile.
            for (start, part) in self.fill.missing(start, &part) {
                self.fill.receive(start, part.clone(), permit.take());
                if let Some(pipe) = pipe.as_ref() {
                    pipe.write(start, part);
                }
            }
        }
        Ok(())
    }

    /// Leaves the staged file to another process; the fill goes on in memory.
    pub(super) async fn leave(&self) {
        let Some(left) = self.pipe().as_ref().map(Pipe::leave) else { return };
        // A writer that is stuck is left behind as any other.
        let _ = timeout(DISK_PATIENCE, left).await;
    }

    /// Verifies and publishes all that came. A writer that is stuck before it has hashed all is left
    /// behind; one that is stuck while it publishes keeps no reader waiting.
    pub(super) async fn finish(&self, total: u64) -> Result<(), Error> {
        loop {
            let before = self.state();
            let mut finishing = self.pipe().as_ref().ok_or(Error::Lost)?.finish(total);
            loop {
                match timeout(DISK_PATIENCE, &mut finishing).await {
                    Ok(outcome) => return outcome.map_err(|_| Error::Lost)?,
                    Err(_) if self.state() == before && before.hashed < total => break,
                    Err(_) => {}
                }
            }
            self.leave_writer_behind()?;
        }
    }

    /// Drops what was written.
    pub(super) fn discard(&self) {
        if let Some(pipe) = self.pipe().take() {
            pipe.discard();
        }
    }

    /// Waits until `len` bytes may be in memory.
    async fn room(&self, len: u64) -> Result<Option<OwnedSemaphorePermit>, Error> {
        loop {
            let before = self.state();
            let patience = if before.is_stored { DISK_PATIENCE } else { READER_PATIENCE };
            if self.fill.window().has_room(len) {
                let count = u32::try_from(len.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
                let memory = Arc::clone(&self.memory);
                // Each fill may always go on with one piece, whatever the others hold.
                if before.is_empty {
                    return Ok(memory.try_acquire_many_owned(count).ok());
                }
                let permit = memory.acquire_many_owned(count);
                if let Ok(permit) = timeout(patience, permit).await {
                    return Ok(permit.ok());
                }
            } else if timeout(patience, self.fill.freed.notified()).await.is_ok() {
                continue;
            }
            let now = self.state();
            if now != before {
                continue;
            }
            if now.is_stored {
                self.leave_writer_behind()?;
            } else {
                self.fill.window().make_room(len);
            }
        }
    }

    /// The writer is stuck: another one hashes what is in memory and what comes.
    fn leave_writer_behind(&self) -> Result<(), Error> {
        self.store.report_slow();
        let mut pipe = self.pipe();
        let (frontier, unhashed) = {
            let mut window = self.fill.window();
            if !window.is_stored() {
                return Ok(());
            }
            window.stop_storing();
            (window.frontier().clone(), window.unhashed())
        };
        // What is only on disk can't be hashed while the disk is stuck.
        let received = self.fill.progress().received;
        let first = unhashed.first().map_or(received.end_of(0), |(start, _)| *start);
        let in_memory = first == frontier.at;
        if !received.is_prefix() || !in_memory {
            return Err(Error::Moved);
        }
        metrics::FILLS_UNSTORED.with_label_values(&["slow"]).inc();
        let next = Pipe::start(&self.fill, &self.store, None, frontier);
        unhashed.into_iter().for_each(|(start, piece)| next.write(start, piece));
        *pipe = Some(next);
        Ok(())
    }

    fn state(&self) -> State {
        let window = self.fill.window();
        let Frontier { at, .. } = window.frontier();
        let (len, is_stored) = (window.len(), window.is_stored());
        State { hashed: *at, len, is_empty: len == 0, is_stored }
    }

    fn pipe(&self) -> MutexGuard<'_, Option<Pipe>> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shows whether a fill gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    hashed: u64,
    len: u64,
    is_empty: bool,
    is_stored: bool,
}
