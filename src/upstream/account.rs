//! One account of a registry: its login, its tokens, its budget, and whether it stands aside.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use tokio::sync::Notify;

use super::{
    credential::{Credential, Login, Problem},
    purse::{Purse, Standing},
    report::{AccountReport, SourceReport},
    token::{Scheme, Tokens},
};
use crate::{config, metrics, protocol::ratelimit::RateLimit};

/// An account that was refused, or whose login can't be had, is tried again after this.
const ASIDE_FOR: Duration = Duration::from_secs(60);

/// What an account is called that has no login.
pub(super) const ANONYMOUS: &str = "anonymous";

/// An account, or the lack of one.
#[derive(Debug)]
pub(super) struct Account {
    upstream: Arc<str>,
    /// For logs and metrics.
    label: String,
    /// `None`: it asks without one.
    credential: Option<Credential>,
    pub(super) tokens: Tokens,
    state: Mutex<State>,
    /// Whoever waits for the last pulls is told when one of them has ended.
    settled: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    purse: Purse,
    aside: Option<Aside>,
    /// When it was last asked how much is left, only to know.
    checked: Option<Instant>,
    /// Counted requests answered, since the start.
    spent: u64,
    /// The log has said that it is refused.
    is_told: bool,
    /// It is one of those in force, and the metrics are to show it.
    is_shown: bool,
}

/// Why an account is not used for a while.
#[derive(Debug, Clone)]
struct Aside {
    since: Instant,
    until: Instant,
    why: String,
    /// The login that was refused; another one ends it.
    version: Option<u64>,
}

/// An account that may be used now.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) account: Arc<Account>,
    /// One of its pulls is set apart for it, until this is dropped.
    is_counted: bool,
}

// === impl Account ===

impl Account {
    /// The account `config` of `upstream`; `None` asks without one. `place` stands before its label
    /// where it is a mirror's.
    pub(super) fn new(
        upstream: &Arc<str>,
        place: Option<&str>,
        config: Option<config::Account>,
        scheme: &Arc<Mutex<Option<Scheme>>>,
        settled: &Arc<Notify>,
    ) -> Arc<Self> {
        let credential = config.map(Credential::new);
        let label = credential.as_ref().map_or(ANONYMOUS, Credential::label);
        let label = match place {
            Some(place) => format!("{place}/{label}"),
            None => label.to_owned(),
        };
        Arc::new(Self {
            upstream: Arc::clone(upstream),
            label,
            credential,
            tokens: Tokens::new(Arc::clone(scheme)),
            state: Mutex::default(),
            settled: Arc::clone(settled),
        })
    }

    /// It is in force: the metrics show how it is, and follow it.
    pub(super) fn show(&self) {
        let mut state = self.lock();
        state.is_shown = true;
        self.show_budget(&state);
        self.show_usable(&state);
    }

    /// It is in force no more: whatever requests that end on it still learn, the metrics have
    /// nothing of it.
    pub(super) fn hide(&self) {
        let mut state = self.lock();
        state.is_shown = false;
        let labels = [&*self.upstream, &*self.label];
        // What is taken down may never have been up.
        let _ = metrics::RATELIMIT_REMAINING.remove_label_values(&labels);
        let _ = metrics::RATELIMIT_LIMIT.remove_label_values(&labels);
        let _ = metrics::ACCOUNT_USABLE.remove_label_values(&labels);
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// What is configured of it; `None` for the lack of one.
    pub(super) fn config(&self) -> Option<&config::Account> {
        self.credential.as_ref().map(Credential::account)
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.credential.is_none()
    }

    /// True if its login is at hand.
    pub(super) fn is_ready(&self) -> bool {
        self.credential.as_ref().is_none_or(Credential::is_ready)
    }

    /// Begins to load its login, if that is due.
    pub(super) fn prepare(&self) {
        if let Some(credential) = &self.credential {
            credential.prepare();
        }
    }

    /// Its login as it is now.
    pub(super) async fn login(&self) -> Result<Option<Login>, Problem> {
        match &self.credential {
            None => Ok(None),
            Some(credential) => credential.login().await.map(Some),
        }
    }

    /// What it can spend.
    pub(super) fn standing(&self, now: SystemTime) -> Standing {
        self.lock().purse.standing(now)
    }

    /// What is left of its limit, and the limit; `None` where there is none.
    pub(super) fn left(&self, now: SystemTime) -> Option<(u64, u64)> {
        let state = self.lock();
        let limit = state.purse.said().and_then(|(said, _)| said.limit)?;
        match state.purse.standing(now) {
            Standing::Unlimited => None,
            Standing::Left { left, .. } => Some((left, limit)),
            Standing::Waiting | Standing::Spent { .. } => Some((0, limit)),
        }
    }

    /// How long a window of it is.
    pub(super) fn window(&self) -> Option<Duration> {
        self.lock().purse.said().and_then(|(said, _)| said.window)
    }

    /// Sets a pull apart, if one is left.
    pub(super) fn spend(self: &Arc<Self>, now: SystemTime) -> Option<Turn> {
        let mut state = self.lock();
        match state.purse.standing(now) {
            Standing::Left { .. } | Standing::Unlimited => state.purse.spend(),
            Standing::Waiting | Standing::Spent { .. } => return None,
        }
        drop(state);
        Some(Turn { account: Arc::clone(self), is_counted: true })
    }

    /// For a request that costs nothing.
    pub(super) fn use_free(self: &Arc<Self>) -> Turn {
        Turn { account: Arc::clone(self), is_counted: false }
    }

    /// Reads the budget of an answer to a request that was sent at `sent`. Malformed headers leave
    /// what was known.
    pub(super) fn observe(&self, headers: &HeaderMap, sent: SystemTime, is_counted: bool) {
        let seen = RateLimit::from_headers(headers);
        let mut state = self.lock();
        if is_counted {
            state.spent += 1;
            metrics::PULLS_SPENT.with_label_values(&[&*self.upstream, &*self.label]).inc();
        }
        let Some(seen) = seen else { return };
        state.purse.observe(seen, sent, SystemTime::now());
        self.show_budget(&state);
    }

    /// The registry refused a counted request for want of budget.
    pub(super) fn refuse_budget(&self, wait: Option<Duration>) {
        let mut state = self.lock();
        let now = SystemTime::now();
        let is_news = !matches!(state.purse.standing(now), Standing::Spent { .. });
        state.purse.refused(wait, now);
        self.show_budget(&state);
        if is_news {
            let remedy = "what is cached is served; add an account (credentials) or a mirror, or let tags be fresh for longer";
            tracing::warn!(upstream = %self.upstream, account = %self.label, remedy, "an account's pulls are spent");
        }
    }

    /// True, once in a while, if it is to be asked what is left before anybody is refused.
    pub(super) fn is_due(&self, every: Duration) -> bool {
        let mut state = self.lock();
        let is_lately = |heard: &SystemTime| heard.elapsed().is_ok_and(|ago| ago < every);
        let is_fresh = state.purse.said().is_some_and(|(_, heard)| is_lately(heard))
            || state.checked.is_some_and(|checked| checked.elapsed() < every);
        if !is_fresh {
            state.checked = Some(Instant::now());
        }
        !is_fresh
    }

    /// Not to be used for a while: its login can't be had, which `Credential` has said.
    pub(super) fn has_no_login(&self, problem: &Problem) {
        let why = problem.to_string();
        let since = Instant::now();
        let until = since + ASIDE_FOR;
        let mut state = self.lock();
        state.aside = Some(Aside { since, until, why, version: None });
        self.show_usable(&state);
    }

    /// Not to be used for a while: the registry refuses its login.
    pub(super) fn refuse_login(&self, login: Option<&Login>, why: &str) {
        let version = login.map(|login| login.version);
        if let (Some(credential), Some(version)) = (&self.credential, version) {
            credential.refused(version);
        }
        let mut state = self.lock();
        let since = Instant::now();
        let until = since + ASIDE_FOR;
        state.aside = Some(Aside { since, until, why: why.to_owned(), version });
        let is_told = std::mem::replace(&mut state.is_told, true);
        self.show_usable(&state);
        drop(state);
        if !is_told {
            tracing::warn!(
                upstream = %self.upstream, account = %self.label, why, remedy = "see that its password or token is right and not expired",
                "an account is refused and stands aside; it is tried again every minute, and when its login changes"
            );
        }
    }

    /// The registry took its login, in answer to what was asked at `asked`. One that was refused
    /// since then may still have had a token from before.
    pub(super) fn accepted(&self, asked: Instant) {
        let mut state = self.lock();
        let is_older = state.aside.as_ref().is_some_and(|aside| asked < aside.since);
        if is_older || (state.aside.is_none() && !state.is_told) {
            return;
        }
        state.aside = None;
        let was_told = std::mem::replace(&mut state.is_told, false);
        self.show_usable(&state);
        drop(state);
        if was_told {
            tracing::info!(upstream = %self.upstream, account = %self.label, "an account is accepted again");
        }
    }

    /// True while it is not to be used.
    pub(super) fn is_aside(&self) -> bool {
        self.lock().aside.as_ref().is_some_and(|aside| Instant::now() < aside.until)
    }

    /// Looks whether its login has changed since it was put aside; true if it can be used again.
    pub(super) async fn look_again(&self) -> bool {
        let Some(aside) = self.lock().aside.clone() else { return true };
        let Ok(login) = self.login().await else { return false };
        if login.map(|login| login.version) == aside.version {
            return false;
        }
        let mut state = self.lock();
        state.aside = None;
        self.show_usable(&state);
        true
    }

    pub(super) fn report(&self, now: SystemTime) -> AccountReport {
        let state = self.lock();
        let said = state.purse.said();
        let limit = said.map(|(said, _)| said);
        let standing = state.purse.standing(now);
        let aside = state.aside.as_ref().filter(|aside| Instant::now() < aside.until);
        AccountReport {
            account: self.label.clone(),
            limit: limit.and_then(|said| said.limit),
            remaining: match standing {
                Standing::Left { left, .. } => Some(left),
                Standing::Waiting | Standing::Spent { .. } => Some(0),
                Standing::Unlimited => None,
            },
            window_seconds: limit.and_then(|said| said.window).map(|window| window.as_secs()),
            source: limit.and_then(|said| said.source.clone()),
            other_sources: state.purse.all_said().skip(1).map(SourceReport::of).collect(),
            resets_at: state.purse.ends().filter(|ends| *ends > now).map(seconds),
            observed_at: said.map(|(_, heard)| seconds(*heard)),
            spent: state.spent,
            state: match standing {
                _ if aside.is_some() => "aside",
                Standing::Spent { .. } | Standing::Waiting => "spent",
                Standing::Left { .. } | Standing::Unlimited => "ready",
            },
            problem: aside.map(|aside| aside.why.clone()),
        }
    }

    fn show_budget(&self, state: &State) {
        if !state.is_shown {
            return;
        }
        let labels = [&*self.upstream, &*self.label];
        let Some((said, _)) = state.purse.said() else { return };
        if let Some(remaining) = said.remaining.and_then(|n| i64::try_from(n).ok()) {
            metrics::RATELIMIT_REMAINING.with_label_values(&labels).set(remaining);
        }
        if let Some(limit) = said.limit.and_then(|n| i64::try_from(n).ok()) {
            metrics::RATELIMIT_LIMIT.with_label_values(&labels).set(limit);
        }
    }

    fn show_usable(&self, state: &State) {
        if state.is_shown {
            let labels = [&*self.upstream, &*self.label];
            let is_usable = state.aside.is_none();
            metrics::ACCOUNT_USABLE.with_label_values(&labels).set(i64::from(is_usable));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_counted {
            self.account.lock().purse.settle();
            self.account.settled.notify_waiters();
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn an_answer_to_an_older_token_does_not_bring_a_refused_account_back() {
        let (username, password) = ("alice".to_owned(), Secret::new("a"));
        let config = config::Account::Password { username, password };
        let (scheme, settled) = (Arc::default(), Arc::default());
        let account = Account::new(&"docker.io".into(), None, Some(config), &scheme, &settled);
        let asked = Instant::now();
        account.refuse_login(None, "its password was changed");
        account.accepted(asked);
        assert!(account.is_aside());
        account.accepted(Instant::now());
        assert!(!account.is_aside());
    }
}
