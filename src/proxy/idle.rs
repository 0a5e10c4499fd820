//! Connections on which nothing goes on, and their end when the server stops.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// Connections that may be closed because nothing goes on there. Each has a notice of its own: one
/// for all would be locked by each request.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// From then on only what is there is answered.
    is_closed: AtomicBool,
    all: Mutex<Numbered>,
}

#[derive(Debug, Default)]
struct Numbered {
    /// The number of the last one.
    last: u64,
    open: HashMap<u64, Arc<Notify>>,
}

/// One of them, while it lives.
pub(super) struct Place<'a> {
    idle: &'a Idle,
    number: u64,
    /// Notified when it is to end.
    pub(super) closes: Arc<Notify>,
}

// === impl Idle ===

impl Idle {
    /// One connection more.
    pub(super) fn enter(&self) -> Place<'_> {
        let closes = Arc::new(Notify::new());
        let mut all = self.lock();
        all.last += 1;
        let number = all.last;
        all.open.insert(number, Arc::clone(&closes));
        Place { idle: self, number, closes }
    }

    /// Closes those on which no request has begun, now and from now on.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        for closes in self.lock().open.values() {
            closes.notify_waiters();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.idle.lock().open.remove(&self.number);
    }
}
