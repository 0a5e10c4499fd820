//! Taking leave of clients: what is under way, and when idle connections may be closed.
//!
//! The listeners close first. From then on each answer says `Connection: close`, so that clients
//! move away by themselves; what still idles a while later is closed, and then the requests under
//! way are all that is waited for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// At a stop: from the last accepted connection until idle ones are closed. Who has just connected
/// gets an answer.
const STOP_LINGER: Duration = Duration::from_millis(300);

/// At a hand-over: no connection is closed before, so that a handshake that has begun can end and
/// its request come.
const LEAST_LINGER: Duration = Duration::from_secs(2);

/// At a hand-over: an idle connection may bring another request for this long. Its answer tells
/// the client to connect anew; a connection closed under a request that is on its way would fail
/// it.
const MOST_LINGER: Duration = Duration::from_secs(5);

/// How often it is looked whether all connections have ended.
const STEP: Duration = Duration::from_millis(20);

/// How far a server has come in taking leave of its clients.
#[derive(Debug)]
pub struct Drain {
    /// `shutdown.drain`: what is left after this is cut.
    patience: Duration,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// Another process accepts at the same addresses.
    has_successor: AtomicBool,
    /// The listeners are closed, and so is what idled.
    is_closed: AtomicBool,
}

/// Counts one while it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

// === impl Drain ===

impl Drain {
    /// Nobody has come yet; the end may take `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            requests: Arc::default(),
            connections: Arc::default(),
            has_successor: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Requests under way.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// From here on there is no hurry: another process accepts the clients.
    pub fn hand_over(&self) {
        self.has_successor.store(true, Ordering::Release);
    }

    /// True once nobody can come any more and all requests are answered.
    pub fn is_over(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) && self.requests() == 0
    }

    pub(super) fn request(&self) -> Counted {
        Counted::one_of(&self.requests)
    }

    pub(super) fn connection(&self) -> Counted {
        Counted::one_of(&self.connections)
    }

    /// The listeners are closed: waits until idle connections may be closed too.
    pub(super) async fn linger(&self) {
        let (least, most) = match self.has_successor.load(Ordering::Acquire) {
            true => (LEAST_LINGER, MOST_LINGER),
            false => (STOP_LINGER, STOP_LINGER),
        };
        // What is long under way needs the rest.
        let (least, most) = (least.min(self.patience / 2), most.min(self.patience / 2));
        tokio::time::sleep(least).await;
        let all_ended = async {
            while self.connections.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(STEP).await;
            }
        };
        // Those that have not ended by then are idle or serve a long request.
        let _ = tokio::time::timeout(most - least, all_ended).await;
    }

    /// Idle connections were told to close. One that had a request at that moment serves it, and
    /// counts it within this step.
    pub(super) async fn closed(&self) {
        tokio::time::sleep(STEP).await;
        self.is_closed.store(true, Ordering::Release);
    }
}

// === impl Counted ===

impl Counted {
    fn one_of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_gives_connections_time_and_ends_early_without_any() {
        let drain = Drain::new(Duration::from_secs(30));
        drain.hand_over();
        let started = tokio::time::Instant::now();
        drain.linger().await;
        assert_eq!(started.elapsed(), LEAST_LINGER);
        let _idle = drain.connection();
        drain.linger().await;
        assert_eq!(started.elapsed(), LEAST_LINGER + MOST_LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_drain_leaves_half_of_itself_to_requests() {
        let drain = Drain::new(Duration::from_secs(2));
        drain.hand_over();
        let _idle = drain.connection();
        let started = tokio::time::Instant::now();
        drain.linger().await;
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_the_listeners_are_closed_and_requests_answered() {
        let drain = Drain::new(Duration::from_secs(2));
        let request = drain.request();
        drain.closed().await;
        assert!(!drain.is_over());
        drop(request);
        assert!(drain.is_over());
    }
}
