//! Usage for those who do not want to wait.
//!
//! Who uses how much is known only after a walk over the whole index, which takes seconds where there
//! are a million objects. It is made in a thread of its own, one at a time and never more than a
//! small part of the time; who asks meanwhile is given the last one, with its age.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Error, Inventory, UsageReport};

/// How long who asks waits for a walk that is under way.
const PATIENCE: Duration = Duration::from_millis(120);

/// A walk that took less is made anew for each who asks.
const QUICK: Duration = Duration::from_millis(100);

/// Otherwise there is none for so many times as long as the last one took.
const REST: u32 = 20;

/// What the walks came to.
#[derive(Debug, Default)]
pub(super) struct Books {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_walking: bool,
    last: Option<Walked>,
    /// Why the last walk came to nothing; told once.
    failed: Option<Error>,
}

#[derive(Debug)]
struct Walked {
    report: UsageReport,
    ended: Instant,
    took: Duration,
}

// === impl Inventory ===

impl Inventory {
    /// Who uses how much, as it was a while ago where counting takes long: `as_of` says when, and is
    /// `None` if nothing has been counted yet. Blocks for a moment.
    pub fn usage_soon(self: &Arc<Self>) -> Result<UsageReport, Error> {
        let store = self.catalogue.usage()?.into();
        let mut state = self.books.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_walking && state.last.as_ref().is_none_or(Walked::is_old) {
            let inventory = Arc::clone(self);
            let thread = thread::Builder::new().name("usage".to_owned());
            // Without a thread there is what was known before.
            state.is_walking = thread.spawn(move || inventory.walk()).is_ok();
        }
        let ended = &self.books.ended;
        let waited = ended.wait_timeout_while(state, PATIENCE, |state| state.is_walking);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        Ok(match &state.last {
            Some(last) => UsageReport { store, ..last.report.clone() },
            None => UsageReport {
                store,
                upstreams: Vec::new(),
                repositories: Vec::new(),
                repositories_left_out: 0,
                as_of: None,
            },
        })
    }

    fn walk(&self) {
        let began = Instant::now();
        let walked = self.usage();
        let mut state = self.books.state.lock().unwrap_or_else(PoisonError::into_inner);
        match walked {
            Ok(report) => {
                let (ended, took) = (Instant::now(), began.elapsed());
                state.last = Some(Walked { report, ended, took });
            }
            Err(error) => state.failed = Some(error),
        }
        state.is_walking = false;
        self.books.ended.notify_all();
    }
}

// === impl Walked ===

impl Walked {
    fn is_old(&self) -> bool {
        self.took < QUICK || self.ended.elapsed() >= self.took * REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{Fake, Shape};

    #[test]
    fn a_quick_count_is_made_for_each_who_asks() {
        let fake = Fake::default();
        let inventory = Arc::new(fake.inventory());
        for (number, tag) in ["1", "2"].into_iter().enumerate() {
            fake.image("docker.io", "library/a", tag, &Shape::new(&["base", tag]));
            let report = inventory.usage_soon().unwrap();
            assert!(report.as_of.is_some());
            assert_eq!(report.repositories[0].tags, number as u64 + 1);
        }
    }

    #[test]
    fn a_slow_count_is_not_made_again_at_once_and_the_store_is_always_of_now() {
        let fake = Fake::default();
        fake.image("docker.io", "library/a", "1", &Shape::new(&["base"]));
        let inventory = Arc::new(fake.inventory());
        inventory.usage_soon().unwrap();
        inventory.books.state.lock().unwrap().last.as_mut().unwrap().took = Duration::from_secs(9);
        fake.image("docker.io", "library/b", "1", &Shape::new(&["other"]));
        let report = inventory.usage_soon().unwrap();
        assert_eq!((report.repositories.len(), report.store.objects), (1, 5));
    }

    #[test]
    fn nobody_waits_for_the_first_count() {
        let inventory = Arc::new(Fake::default().inventory());
        inventory.books.state.lock().unwrap().is_walking = true;
        let report = inventory.usage_soon().unwrap();
        assert_eq!((report.as_of, report.repositories.len()), (None, 0));
    }
}
