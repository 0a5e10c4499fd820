//! What goes on beside the requests: eviction between the watermarks, a look
//! whether a disk that failed works again, and the scrub.
//!
//! Two threads, so that a scrub which waits for the disk holds up nothing.
//! They end with the store.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Store, eviction::Goal, scrub};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The threads, and how they are woken and ended.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    signal: Arc<Signal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Wakes the threads.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    /// There is something to do before the next look.
    is_urgent: bool,
}

// === impl Keeper ===

impl Keeper {
    /// Starts the threads.
    pub(super) fn start(&self, store: &Arc<Store>) -> std::io::Result<()> {
        *lock(&self.signal.state) = State::default();
        let spawn = |name: &str, run: fn(&Weak<Store>, &Signal)| {
            let (store, signal) = (Arc::downgrade(store), Arc::clone(&self.signal));
            thread::Builder::new().name(name.to_owned()).spawn(move || run(&store, &signal))
        };
        let threads = [spawn("keeper", look_after)?, spawn("scrub", scrub::run)?];
        lock(&self.threads).extend(threads);
        Ok(())
    }

    /// Has the store looked after now.
    pub(super) fn wake(&self) {
        let mut state = lock(&self.signal.state);
        // Once is enough, and this is on the way of every fill.
        if !state.is_urgent {
            state.is_urgent = true;
            self.signal.changed.notify_all();
        }
    }

    /// Ends the threads and waits for them.
    pub(super) fn stop(&self) {
        lock(&self.signal.state).is_stopped = true;
        self.signal.changed.notify_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // The last owner of the store may be one of its own threads.
            let is_own = thread.thread().id() == thread::current().id();
            if !is_own && thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Signal ===

impl Signal {
    /// Waits for so long, or less if `until_urgent` and there is something to do; false once it is
    /// time to end.
    pub(super) fn wait(&self, at_most: Duration, until_urgent: bool) -> bool {
        let state = lock(&self.state);
        let go_on = |state: &mut State| !(state.is_stopped || until_urgent && state.is_urgent);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, at_most, go_on)
            .unwrap_or_else(PoisonError::into_inner);
        if until_urgent {
            state.is_urgent = false;
        }
        !state.is_stopped
    }
}

fn look_after(store: &Weak<Store>, signal: &Signal) {
    while signal.wait(LOOK_EVERY, true) {
        let Some(store) = store.upgrade() else { return };
        // A damaged index may panic; that must not be the end of what looks after it.
        let turn = || look_once(&store);
        if panic::catch_unwind(AssertUnwindSafe(turn)).is_err() {
            tracing::error!("looking after the store panicked; it is tried again");
        }
    }
}

fn look_once(store: &Arc<Store>) {
    store.look_at_disk();
    if !store.is_unavailable() {
        store.save_unsaved();
    }
    if store.space.is_high() {
        let must = store.space.limit();
        let _one = lock(&store.evicting);
        let goal = Goal { target: store.space.low(), must };
        if let Err(error) = super::eviction::evict(store, goal) {
            tracing::debug!(%error, "nothing could be evicted");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
