//! Which hosts are not asked for now, because they failed a moment ago.
//!
//! A host that does not answer opens its breaker at once, one that refuses or
//! answers 502–504 after a few failures in a row. One that says 429 is left
//! alone for as long as it asks for. Either ends when a probe, sent by
//! `exchange` and never by a client's request, gets an answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use url::Url;

use super::Failure;
use crate::{config, metrics};

/// The breakers of every host that one upstream has sent us to.
#[derive(Debug)]
pub(super) struct Breakers {
    settings: config::Breaker,
    /// Who was asked for a shorter time than this was not silent.
    patience: Duration,
    hosts: Mutex<HashMap<Arc<str>, State>>,
    openings: AtomicU64,
}

/// One time that a breaker opened: its probes end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening(u64);

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        opening: Opening,
        because: String,
        timed_out: bool,
    },
    /// It wants to be left alone.
    Paused {
        opening: Opening,
        until: Instant,
        message: String,
    },
}

/// One request under way. Dropped without a verdict after a fair wait it counts
/// as unanswered: only a deadline that passed drops it so.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    breakers: &'a Breakers,
    host: Arc<str>,
    open_with: Option<&'a dyn Probing>,
    url: &'a Url,
    begun: Instant,
}

/// Who sends the probes once a breaker has opened.
pub(super) trait Probing: std::fmt::Debug + Sync {
    /// Probe `url`'s host until it answers, not before `after` has passed, then close its breaker,
    /// unless that has ended otherwise.
    fn start_probing(&self, host: Arc<str>, url: Url, opening: Opening, after: Option<Duration>);
}

// === impl Breakers ===

impl Breakers {
    pub(super) fn new(settings: config::Breaker, patience: Duration) -> Self {
        Self { settings, patience, hosts: Mutex::default(), openings: AtomicU64::new(0) }
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
        let (host, begun) = (Arc::clone(host), Instant::now());
        Ok(Attempt { breakers: self, host, open_with: Some(probing), url, begun })
    }

    /// Why `host` is not asked now, if it isn't.
    pub(super) fn held_back(&self, host: &Arc<str>) -> Option<Failure> {
        match self.lock().get(host) {
            Some(State::Open { because, timed_out, .. }) => Some(Failure::HeldBack {
                host: Arc::clone(host),
                because: because.clone(),
                timed_out: *timed_out,
            }),
            Some(State::Paused { until, message, .. }) => Some(Failure::RateLimited {
                message: message.clone(),
                retry_after: Some(until.saturating_duration_since(Instant::now())),
            }),
            Some(State::Closed { .. }) | None => None,
        }
    }

    /// Leaves `host` alone for `wait`; `None` if it is left alone already.
    pub(super) fn pause(&self, host: &Arc<str>, wait: Duration, message: &str) -> Option<Opening> {
        let mut hosts = self.lock();
        if matches!(hosts.get(host), Some(State::Open { .. } | State::Paused { .. })) {
            return None;
        }
        let (opening, until) = (self.opening(), Instant::now() + wait);
        let paused = State::Paused { opening, until, message: message.to_owned() };
        hosts.insert(Arc::clone(host), paused);
        metrics::BREAKER_OPEN.with_label_values(&[host]).set(1);
        tracing::warn!(
            %host, wait_seconds = wait.as_secs(), message,
            remedy = "it allows fewer requests at once: lower max_connections, or set max_requests_per_second, of this upstream",
            "is not asked for as long as it wants"
        );
        Some(opening)
    }

    /// A probe was told to wait on.
    pub(super) fn prolong(&self, host: &Arc<str>, wait: Duration) {
        if let Some(State::Paused { until, .. }) = self.lock().get_mut(host) {
            *until = Instant::now() + wait;
        }
    }

    /// True as long as `host` is held back since then.
    pub(super) fn is_since(&self, host: &Arc<str>, opening: Opening) -> bool {
        self.lock().get(host).and_then(State::opening) == Some(opening)
    }

    /// Lets requests to `host` pass again, if it is held back since then.
    pub(super) fn close(&self, host: &Arc<str>, opening: Opening) {
        let mut hosts = self.lock();
        if hosts.get(host).and_then(State::opening) == Some(opening) {
            hosts.remove(host);
            told_open_no_more(host);
        }
    }

    /// Forgets the failures of a host that has answered. One that wants to be left alone has
    /// answered an older request, and stays so.
    fn forgive(&self, host: &Arc<str>) {
        let mut hosts = self.lock();
        if matches!(hosts.get(host), Some(State::Paused { .. })) {
            return;
        }
        if let Some(State::Open { .. }) = hosts.remove(host) {
            told_open_no_more(host);
        }
    }

    /// Counts a failure; says so if it opened the breaker.
    fn fail(&self, host: &Arc<str>, failure: &Failure) -> Option<Opening> {
        let mut hosts = self.lock();
        let state = hosts.entry(Arc::clone(host)).or_insert(State::Closed { failures: 0 });
        let State::Closed { failures } = state else {
            return None;
        };
        *failures += 1;
        let timed_out = failure.is_timeout();
        if !timed_out && *failures < self.settings.failures {
            return None;
        }
        let opening = self.opening();
        *state = State::Open { opening, because: failure.to_string(), timed_out };
        metrics::BREAKER_OPEN.with_label_values(&[host]).set(1);
        tracing::warn!(
            %host, %failure,
            remedy = "what is cached is served meanwhile; if it lasts, look at the registry's status page, and from this machine at DNS, proxy and firewall",
            "is not asked until it answers a probe"
        );
        Some(opening)
    }

    fn opening(&self) -> Opening {
        Opening(self.openings.fetch_add(1, Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, State>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Breakers {
    fn drop(&mut self) {
        // Nobody probes them any more.
        let hosts = self.hosts.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (host, _) in hosts.iter().filter(|(_, state)| state.opening().is_some()) {
            let _ = metrics::BREAKER_OPEN.remove_label_values(&[host]);
        }
    }
}

fn told_open_no_more(host: &str) {
    // Upstream names the hosts, so that those which are well would be without number.
    let _ = metrics::BREAKER_OPEN.remove_label_values(&[host]);
    tracing::info!(%host, "answers again");
}

// === impl State ===

impl State {
    fn opening(&self) -> Option<Opening> {
        match self {
            Self::Open { opening, .. } | Self::Paused { opening, .. } => Some(*opening),
            Self::Closed { .. } => None,
        }
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

    /// What came of it says nothing about the host.
    pub(super) fn says_nothing(mut self) {
        self.open_with = None;
    }

    fn settle(&mut self, failure: &Failure) {
        let Some(probing) = self.open_with.take() else {
            return;
        };
        let Some(opening) = self.breakers.fail(&self.host, failure) else {
            return;
        };
        // Who answers with trouble may have it with this one thing only: that is found out at once.
        let after = matches!(failure, Failure::Status { .. }).then_some(Duration::ZERO);
        probing.start_probing(Arc::clone(&self.host), self.url.clone(), opening, after);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.begun.elapsed() < self.breakers.patience {
            return;
        }
        let host = Arc::clone(&self.host);
        self.settle(&Failure::Timeout { host, waiting_for: "an answer" });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use prometheus::core::Collector as _;

    use super::*;

    #[derive(Debug, Default)]
    struct Probes(AtomicU32);

    impl Probing for Probes {
        fn start_probing(&self, _: Arc<str>, _: Url, _: Opening, _: Option<Duration>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn breakers() -> (Breakers, Arc<str>, Url, Probes) {
        let settings = config::Breaker::default();
        let url = Url::parse("http://registry.example/v2/").unwrap();
        (Breakers::new(settings, Duration::ZERO), "registry.example".into(), url, Probes::default())
    }

    fn refused(host: &Arc<str>) -> Failure {
        Failure::Unreachable { host: Arc::clone(host), problem: "refused".to_owned() }
    }

    #[test]
    fn what_goes_while_it_is_open_leaves_no_metric() {
        let (breakers, _, url, probes) = breakers();
        let host: Arc<str> = "gone.example".into();
        let is_told = || {
            let families = metrics::BREAKER_OPEN.collect();
            let labels =
                families.iter().flat_map(|it| it.get_metric()).flat_map(|it| it.get_label());
            labels.into_iter().any(|label| label.get_value() == "gone.example")
        };
        for _ in 0..3 {
            breakers.admit(&host, &url, &probes).unwrap().failed(&refused(&host));
        }
        assert!(is_told());
        drop(breakers);
        assert!(!is_told());
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
        breakers.close(&host, Opening(0));
        assert!(breakers.admit(&host, &url, &probes).is_ok());
    }

    #[test]
    fn who_was_hardly_asked_was_not_silent() {
        let (mut breakers, host, url, probes) = breakers();
        breakers.patience = Duration::from_secs(60);
        drop(breakers.admit(&host, &url, &probes).unwrap());
        assert!(breakers.held_back(&host).is_none());
    }

    #[test]
    fn the_probes_of_one_failure_do_not_end_the_next() {
        let (breakers, host, url, probes) = breakers();
        let slow = breakers.admit(&host, &url, &probes).unwrap();
        drop(breakers.admit(&host, &url, &probes).unwrap());
        assert!(breakers.is_since(&host, Opening(0)));
        slow.answered();
        let wait = Duration::from_secs(3600);
        assert_eq!(breakers.pause(&host, wait, "Too Many Requests"), Some(Opening(1)));
        assert!(!breakers.is_since(&host, Opening(0)));
        breakers.close(&host, Opening(0));
        assert!(breakers.held_back(&host).is_some(), "an older probe let requests pass");
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
        let opening = breakers.pause(&host, wait, "Too Many Requests").unwrap();
        let again = breakers.pause(&host, wait, "Too Many Requests");
        assert!(again.is_none(), "once is enough");
        older.answered();
        let held_back = breakers.held_back(&host);
        let Some(Failure::RateLimited { retry_after: Some(left), .. }) = held_back else {
            panic!("it is asked: {held_back:?}");
        };
        assert!(left > Duration::from_secs(50) && left <= wait);
        breakers.close(&host, opening);
        assert!(breakers.held_back(&host).is_none());
    }
}
