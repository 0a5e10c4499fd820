//! Which hosts are not asked for now, because they failed a moment ago.
//!
//! A host that does not answer opens its breaker at once, one that refuses or
//! answers 502–504 after a few failures in a row. One that says 429 is left
//! alone for as long as it asks for. Either ends when a probe, sent by
//! `exchange` and never by a client's request, gets an answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use url::Url;

use super::Failure;
use crate::{config, metrics};

/// The breakers of every host that one upstream has sent us to.
#[derive(Debug)]
pub(super) struct Breakers {
    settings: config::Breaker,
    hosts: Mutex<HashMap<Arc<str>, State>>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        because: String,
        timed_out: bool,
    },
    /// It wants to be left alone.
    Paused {
        until: Instant,
        message: String,
    },
}

/// One request under way. Dropped without a verdict it counts as unanswered:
/// only a deadline that passed drops it so.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    breakers: &'a Breakers,
    host: Arc<str>,
    open_with: Option<&'a dyn Probing>,
    url: &'a Url,
}

/// Who sends the probes once a breaker has opened.
pub(super) trait Probing: std::fmt::Debug + Sync {
    /// Probe `url`'s host until it answers, not before `after` has passed, then close its breaker.
    fn start_probing(&self, host: Arc<str>, url: Url, after: Option<Duration>);
}

// === impl Breakers ===

impl Breakers {
    pub(super) fn new(settings: config::Breaker) -> Self {
        Self { settings, hosts: Mutex::default() }
    }

    /// Leave to ask `host`, unless it is held back.
    pub(super) fn admit<'a>(
        &'a self,
        host: &Arc<str>,
        url: &'a Url,
        probing: &'a dyn Probing,
    ) -> Result<Attempt<'a>, Failure> {
        if let Some(held_back) = self.held_back(host) {
            return Err(held_back);
        }
        Ok(Attempt { breakers: self, host: Arc::clone(host), open_with: Some(probing), url })
    }

    /// Why `host` is not asked now, if it isn't.
    pub(super) fn held_back(&self, host: &Arc<str>) -> Option<Failure> {
        match self.lock().get(host) {
            Some(State::Open { because, timed_out }) => Some(Failure::HeldBack {
                host: Arc::clone(host),
                because: because.clone(),
                timed_out: *timed_out,
            }),
            Some(State::Paused { until, message }) => Some(Failure::RateLimited {
                message: message.clone(),
                retry_after: Some(until.saturating_duration_since(Instant::now())),
            }),
            Some(State::Closed { .. }) | None => None,
        }
    }

    /// Leaves `host` alone for `wait`; false if it is left alone already.
    pub(super) fn pause(&self, host: &Arc<str>, wait: Duration, message: &str) -> bool {
        let mut hosts = self.lock();
        if matches!(hosts.get(host), Some(State::Open { .. } | State::Paused { .. })) {
            return false;
        }
        let paused = State::Paused { until: Instant::now() + wait, message: message.to_owned() };
        hosts.insert(Arc::clone(host), paused);
        metrics::BREAKER_OPEN.with_label_values(&[host]).set(1);
        tracing::warn!(%host, wait_seconds = wait.as_secs(), message, "is not asked for as long as it wants");
        true
    }

    /// A probe was told to wait on.
    pub(super) fn prolong(&self, host: &Arc<str>, wait: Duration) {
        if let Some(State::Paused { until, .. }) = self.lock().get_mut(host) {
            *until = Instant::now() + wait;
        }
    }

    /// Lets requests to `host` pass again.
    pub(super) fn close(&self, host: &Arc<str>) {
        let before = self.lock().remove(host);
        if matches!(before, Some(State::Open { .. } | State::Paused { .. })) {
            metrics::BREAKER_OPEN.with_label_values(&[host]).set(0);
            tracing::info!(%host, "answers again");
        }
    }

    /// Forgets the failures of a host that has answered. One that wants to be left alone has
    /// answered an older request, and stays so.
    fn forgive(&self, host: &Arc<str>) {
        let is_paused = matches!(self.lock().get(host), Some(State::Paused { .. }));
        if !is_paused {
            self.close(host);
        }
    }

    /// Counts a failure; true if it opened the breaker.
    fn fail(&self, host: &Arc<str>, failure: &Failure) -> bool {
        let mut hosts = self.lock();
        let state = hosts.entry(Arc::clone(host)).or_insert(State::Closed { failures: 0 });
        let State::Closed { failures } = state else {
            return false;
        };
        *failures += 1;
        if !failure.is_timeout() && *failures < self.settings.failures {
            return false;
        }
        *state = State::Open { because: failure.to_string(), timed_out: failure.is_timeout() };
        metrics::BREAKER_OPEN.with_label_values(&[host]).set(1);
        tracing::warn!(%host, %failure, "is not asked until it answers a probe");
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, State>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// The host answered, whatever it said.
    pub(super) fn answered(mut self) {
        self.open_with = None;
        self.breakers.forgive(&self.host);
    }

    /// The host failed.
    pub(super) fn failed(mut self, failure: &Failure) {
        self.settle(failure);
    }

    fn settle(&mut self, failure: &Failure) {
        let Some(probing) = self.open_with.take() else {
            return;
        };
        if self.breakers.fail(&self.host, failure) {
            probing.start_probing(Arc::clone(&self.host), self.url.clone(), None);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let host = Arc::clone(&self.host);
        self.settle(&Failure::Timeout { host, waiting_for: "an answer" });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Probes(AtomicU32);

    impl Probing for Probes {
        fn start_probing(&self, _: Arc<str>, _: Url, _: Option<Duration>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn breakers() -> (Breakers, Arc<str>, Url, Probes) {
        let settings = config::Breaker::default();
        let url = Url::parse("http://registry.example/v2/").unwrap();
        (Breakers::new(settings), "registry.example".into(), url, Probes::default())
    }

    fn refused(host: &Arc<str>) -> Failure {
        Failure::Unreachable { host: Arc::clone(host), problem: "refused".to_owned() }
    }

    #[test]
    fn opens_after_failures_in_a_row_and_starts_one_probe() {
        let (breakers, host, url, probes) = breakers();
        for _ in 0..2 {
            breakers.admit(&host, &url, &probes).unwrap().failed(&refused(&host));
        }
        breakers.admit(&host, &url, &probes).unwrap().answered();
        for _ in 0..3 {
            breakers.admit(&host, &url, &probes).unwrap().failed(&refused(&host));
        }
        assert!(matches!(
            breakers.admit(&host, &url, &probes),
            Err(Failure::HeldBack { timed_out: false, .. })
        ));
        assert_eq!(probes.0.load(Ordering::Relaxed), 1);
        breakers.close(&host);
        assert!(breakers.admit(&host, &url, &probes).is_ok());
    }

    #[test]
    fn a_host_that_does_not_answer_is_held_back_at_once() {
        let (breakers, host, url, probes) = breakers();
        drop(breakers.admit(&host, &url, &probes).unwrap());
        assert!(matches!(
            breakers.admit(&host, &url, &probes),
            Err(Failure::HeldBack { timed_out: true, .. })
        ));
        assert!(breakers.held_back(&host).is_some());
    }

    #[test]
    fn a_host_that_wants_to_be_left_alone_is_until_a_probe_says_otherwise() {
        let (breakers, host, url, probes) = breakers();
        let older = breakers.admit(&host, &url, &probes).unwrap();
        let wait = Duration::from_secs(60);
        assert!(breakers.pause(&host, wait, "Too Many Requests"));
        assert!(!breakers.pause(&host, wait, "Too Many Requests"), "once is enough");
        older.answered();
        let held_back = breakers.held_back(&host);
        let Some(Failure::RateLimited { retry_after: Some(left), .. }) = held_back else {
            panic!("it is asked: {held_back:?}");
        };
        assert!(left > Duration::from_secs(50) && left <= wait);
        breakers.close(&host);
        assert!(breakers.held_back(&host).is_none());
    }
}
