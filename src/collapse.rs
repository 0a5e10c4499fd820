//! One leader, many followers, for any key.
//!
//! Of all callers that join with an equal key at the same time one is the
//! leader; the others receive what it finished with, or learn that it is gone.
//! Whose task does the work, and how long followers wait, is the caller's.

use std::{collections::HashMap, hash::Hash};

use tokio::sync::watch;

use crate::sync::{Arc, Mutex, PoisonError};

/// The flights under way, by key.
#[derive(Debug)]
pub struct Collapse<K, V> {
    flights: Arc<Mutex<Flights<K, V>>>,
}

type Flights<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

/// What a caller became by joining.
#[derive(Debug)]
pub enum Join<K: Eq + Hash, V> {
    /// Nobody else works on this key: do the work, then [`Leader::finish`].
    Leader(Leader<K, V>),
    /// Somebody does: [`Follower::outcome`] waits for it.
    Follower(Follower<V>),
}

/// The duty to finish. Dropped unfinished, it tells the followers so.
#[derive(Debug)]
pub struct Leader<K: Eq + Hash, V> {
    key: K,
    /// The flight is closed; another one may have the key by now.
    is_finished: bool,
    outcome: watch::Sender<Option<V>>,
    flights: Arc<Mutex<Flights<K, V>>>,
}

/// A place in the queue behind a leader.
#[derive(Debug, Clone)]
pub struct Follower<V> {
    outcome: watch::Receiver<Option<V>>,
}

/// The leader was dropped without finishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request that this one waited for was given up")]
pub struct LeaderGone;

// === impl Collapse ===

impl<K, V> Default for Collapse<K, V> {
    fn default() -> Self {
        Self { flights: Arc::new(Mutex::new(HashMap::new())) }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Collapse<K, V> {
    /// Joins the flight for `key`, or opens it.
    pub fn join(&self, key: K) -> Join<K, V> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = flights.get(&key) {
            return Join::Follower(Follower { outcome: outcome.clone() });
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver);
        let flights = Arc::clone(&self.flights);
        Join::Leader(Leader { key, is_finished: false, outcome: sender, flights })
    }
}

// === impl Leader ===

impl<K: Eq + Hash, V> Leader<K, V> {
    /// A follower of this leader, for the caller that works in another task.
    pub fn follow(&self) -> Follower<V> {
        Follower { outcome: self.outcome.subscribe() }
    }

    /// Hands `value` to every follower and closes the flight: whoever joins
    /// from now on starts a new one.
    pub fn finish(mut self, value: V) {
        // Closed first: a follower that goes on and joins again must not find this outcome.
        self.close();
        self.outcome.send_replace(Some(value));
    }

    fn close(&mut self) {
        if !self.is_finished {
            self.is_finished = true;
            self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, V> Drop for Leader<K, V> {
    fn drop(&mut self) {
        self.close();
    }
}

// === impl Follower ===

impl<V: Clone> Follower<V> {
    /// Waits for the leader.
    pub async fn outcome(mut self) -> Result<V, LeaderGone> {
        let value = self.outcome.wait_for(Option::is_some).await.map_err(|_| LeaderGone)?;
        value.clone().ok_or(LeaderGone)
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use loom::{
        future::block_on,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    /// Leads or follows; answers what came of it.
    fn take_part(collapse: &Collapse<u8, usize>, led: &AtomicUsize) -> Result<usize, LeaderGone> {
        match collapse.join(0) {
            Join::Leader(leader) => {
                let value = led.fetch_add(1, Ordering::AcqRel);
                leader.finish(value);
                Ok(value)
            }
            Join::Follower(follower) => block_on(follower.outcome()),
        }
    }

    /// Two at the same time: each has an outcome, and one that followed has the leader's.
    #[test]
    fn everyone_has_an_outcome() {
        loom::model(|| {
            let shared = Arc::new((Collapse::default(), AtomicUsize::new(0)));
            let other = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || take_part(&shared.0, &shared.1))
            };
            let mine = take_part(&shared.0, &shared.1).unwrap();
            let others = other.join().unwrap().unwrap();
            match shared.1.load(Ordering::Acquire) {
                1 => assert_eq!((mine, others), (0, 0)),
                2 => assert_ne!(mine, others),
                led => panic!("{led} have led"),
            }
        });
    }

    /// Who has an outcome and asks again is not given the same one.
    #[test]
    fn an_outcome_is_not_given_to_who_comes_after_it() {
        loom::model(|| {
            let collapse = Arc::new(Collapse::<u8, usize>::default());
            let Join::Leader(leader) = collapse.join(0) else { panic!("nobody leads yet") };
            let follower = leader.follow();
            let finishing = thread::spawn(move || leader.finish(7));
            assert_eq!(block_on(follower.outcome()), Ok(7));
            assert!(matches!(collapse.join(0), Join::Leader(_)));
            finishing.join().unwrap();
        });
    }

    /// A leader that is dropped leaves nobody waiting, and the next one leads.
    #[test]
    fn a_leader_that_goes_leaves_nobody_waiting() {
        loom::model(|| {
            let collapse = Arc::new(Collapse::<u8, usize>::default());
            let Join::Leader(leader) = collapse.join(0) else { panic!("nobody leads yet") };
            let follower = leader.follow();
            let going = thread::spawn(move || drop(leader));
            assert_eq!(block_on(follower.outcome()), Err(LeaderGone));
            going.join().unwrap();
            assert!(matches!(collapse.join(0), Join::Leader(_)));
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn leader(join: Join<&'static str, u32>) -> Leader<&'static str, u32> {
        match join {
            Join::Leader(leader) => leader,
            Join::Follower(_) => panic!("expected to lead"),
        }
    }

    fn follower(join: Join<&'static str, u32>) -> Follower<u32> {
        match join {
            Join::Follower(follower) => follower,
            Join::Leader(_) => panic!("expected to follow"),
        }
    }

    #[tokio::test]
    async fn followers_get_what_the_leader_finished_with() {
        let collapse = Collapse::default();
        let lead = leader(collapse.join("a"));
        let (one, two) = (follower(collapse.join("a")), follower(collapse.join("a")));
        lead.finish(7);
        assert_eq!((one.outcome().await, two.outcome().await), (Ok(7), Ok(7)));
    }

    #[tokio::test]
    async fn followers_learn_that_the_leader_is_gone() {
        let collapse = Collapse::default();
        let lead = leader(collapse.join("a"));
        let waiting = follower(collapse.join("a"));
        drop(lead);
        assert_eq!(waiting.outcome().await, Err(LeaderGone));
        leader(collapse.join("a"));
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let collapse = Collapse::default();
        let _a = leader(collapse.join("a"));
        let _b = leader(collapse.join("b"));
    }
}
