//! Those who watch live: what they see is made once a second, for all of them together.
//!
//! Nothing is made while nobody watches. A viewer that is slow misses some; it never waits in a queue.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Duration, MissedTickBehavior, interval},
};

/// Viewers at a time.
const MOST: usize = 64;

/// How often they see something new.
const EVERY: Duration = Duration::from_secs(1);

/// The viewers.
#[derive(Debug)]
pub struct Viewers {
    places: Arc<Semaphore>,
    /// The last event, if it is of this moment.
    said: watch::Sender<Option<Bytes>>,
    /// Whether a task makes events.
    is_made: Mutex<bool>,
}

/// There are as many as there may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// What one viewer holds while it watches.
struct Viewer {
    said: watch::Receiver<Option<Bytes>>,
    _place: OwnedSemaphorePermit,
}

// === impl Viewers ===

impl Default for Viewers {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MOST));
        Self { places, said: watch::Sender::new(None), is_made: Mutex::new(false) }
    }
}

impl Viewers {
    /// What one more viewer sees, beginning at once. If it is the first one, [`Viewers::make`] must be
    /// running from now on: then `begin` is called.
    pub(super) fn join(
        &self,
        begin: Box<dyn FnOnce() + '_>,
    ) -> Result<impl Stream<Item = Bytes> + use<>, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let mut viewer = Viewer { said: self.said.subscribe(), _place: place };
        viewer.said.mark_changed();
        let mut is_made = self.is_made.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_made, true) {
            begin();
        }
        Ok(stream::unfold(viewer, |mut viewer| async move {
            loop {
                // An error means that the server is gone.
                viewer.said.changed().await.ok()?;
                let event = viewer.said.borrow_and_update().clone();
                if let Some(event) = event {
                    return Some((event, viewer));
                }
            }
        }))
    }

    /// Has `event` made each second, until nobody watches any more.
    pub(super) async fn make<E: Future<Output = Bytes>>(&self, event: impl Fn() -> E) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.is_over() {
                return;
            }
            self.said.send_replace(Some(event().await));
        }
    }

    /// Whether nobody watches; who comes later begins anew, and sees nothing that is old.
    fn is_over(&self) -> bool {
        let mut is_made = self.is_made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = self.said.receiver_count() == 0;
        if is_over {
            *is_made = false;
            self.said.send_replace(None);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        pin::{Pin, pin},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_see_the_same_and_nothing_is_made_for_nobody() {
        let viewers = Viewers::default();
        let made = AtomicUsize::new(0);
        let event = async || Bytes::from(made.fetch_add(1, Ordering::Relaxed).to_string());
        for round in 0..2 {
            let begun = Cell::new(0);
            let join = || {
                let seen = viewers.join(Box::new(|| begun.set(begun.get() + 1))).unwrap();
                Box::pin(seen) as Pin<Box<dyn Stream<Item = Bytes>>>
            };
            let (mut one, mut other) = (join(), join());
            assert_eq!(begun.get(), 1);
            let watch = async {
                let first = one.next().await;
                assert_eq!(first, other.next().await);
                assert_ne!(first, one.next().await);
                let last = made.load(Ordering::Relaxed);
                drop((one, other));
                last
            };
            let mut making = pin!(viewers.make(&event));
            let last = tokio::select! {
                last = watch => last,
                () = &mut making => panic!("it ends before its viewers"),
            };
            making.await;
            assert_eq!(made.load(Ordering::Relaxed), last, "in round {round}");
        }
    }

    #[tokio::test]
    async fn there_are_only_so_many() {
        let viewers = Viewers::default();
        let mut watching: Vec<_> =
            (0..MOST).map(|_| viewers.join(Box::new(|| {})).unwrap()).collect();
        assert_eq!(viewers.join(Box::new(|| {})).err(), Some(Busy));
        watching.pop();
        assert!(viewers.join(Box::new(|| {})).is_ok());
    }
}
