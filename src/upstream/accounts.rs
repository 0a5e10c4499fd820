//! The accounts of one registry: who asks next.
//!
//! The one that has spent least goes first, so that all last equally long. One
//! that is refused or has nothing left steps aside; without any, upstream is
//! asked anonymously, if that is allowed.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use moka::sync::Cache;
use tokio::sync::Notify;

use super::{
    account::{Account, Turn},
    purse::Standing,
    report::AccountReport,
    token::Scheme,
};
use crate::{
    config::{self, Budget, Credentials},
    protocol::Repository,
};

/// How long a registry's no to one account for one repository lets others go first.
const DENIED_FOR: Duration = Duration::from_secs(300);

/// Such answers remembered.
const DENIED: u64 = 10_000;

/// Nobody is refused for want of budget on word that is older than this.
const WORD_HOLDS: Duration = Duration::from_secs(5);

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    Free,
    /// One pull of the budget.
    Pull,
}

/// Who asks next.
#[derive(Debug)]
pub(super) enum Choice {
    /// This one.
    Use(Turn),
    /// Nobody before one of the pulls under way has ended.
    Wait,
    /// Nobody: nothing is left, until then at the latest.
    Spent { until: SystemTime },
    /// Nobody: all have been tried, or stand aside.
    Nobody,
}

/// The accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    named: Vec<Arc<Account>>,
    /// How the registry wants to be asked, as it told any of them.
    scheme: Arc<Mutex<Option<Scheme>>>,
    /// Asked where none of the named can be, or all run low.
    anonymous: Option<Arc<Account>>,
    budget: Budget,
    /// Accounts by label, and what they may not see.
    denied: Cache<(String, Repository), ()>,
    settled: Arc<Notify>,
    /// As of the last answer: every request of a client asks for it.
    /// Read by every answer, written when upstream says something new.
    outlook: RwLock<Arc<Outlook>>,
}

/// What all accounts together have left.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// Pulls left, of how many; `None` where there is no limit, or none is known.
    pub left: Option<(u64, u64)>,
    /// Less than the reserve is left.
    pub is_sparing: bool,
    /// The same as Docker Hub says it, for the answers of ours.
    pub headers: Option<[HeaderValue; 2]>,
}

// === impl Accounts ===

impl Accounts {
    /// `before`: those under the configuration before, of which the same go on with what they have.
    pub(super) fn new(
        upstream: &Arc<str>,
        place: Option<&str>,
        credentials: &Credentials,
        budget: &Budget,
        before: Option<&Self>,
    ) -> Self {
        let scheme = before.map(|before| Arc::clone(&before.scheme)).unwrap_or_default();
        let settled = before.map(|before| Arc::clone(&before.settled)).unwrap_or_default();
        let account = |config: Option<config::Account>| {
            let known = before.and_then(|it| it.all().find(|it| it.config() == config.as_ref()));
            let new = || Account::new(upstream, place, config.clone(), &scheme, &settled);
            known.map_or_else(new, Arc::clone)
        };
        let named: Vec<_> =
            credentials.accounts.iter().cloned().map(|config| account(Some(config))).collect();
        let anonymous = (named.is_empty() || credentials.anonymous).then(|| account(None));
        let denied = Cache::builder().max_capacity(DENIED).time_to_live(DENIED_FOR).build();
        let (budget, outlook) = (budget.clone(), RwLock::default());
        let accounts = Self { named, scheme, anonymous, budget, denied, settled, outlook };
        accounts.look_ahead(SystemTime::now());
        accounts
    }

    /// What all together have left, as of the last answer.
    pub(super) fn outlook(&self) -> Arc<Outlook> {
        Arc::clone(&self.outlook.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the budget is to be spared, as of the last answer.
    pub(super) fn spares(&self) -> bool {
        self.outlook().is_sparing
    }

    /// Looks at what was said since.
    pub(super) fn look_ahead(&self, now: SystemTime) {
        let left = self.left(now);
        let window = self.all().find_map(|account| account.window());
        let headers = left.map(|(left, limit)| {
            let window = window.map(|window| format!(";w={}", window.as_secs()));
            let window = window.unwrap_or_default();
            [limit, left].map(|count| {
                let text = format!("{count}{window}");
                HeaderValue::try_from(text).expect("digits and `;w=` can stand in a header")
            })
        });
        let outlook = Outlook { left, is_sparing: self.is_sparing(now), headers };
        *self.outlook.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(outlook);
    }

    /// All of them, those with a login first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.named.iter().chain(&self.anonymous)
    }

    /// True if any has a login.
    pub(super) fn has_named(&self) -> bool {
        !self.named.is_empty()
    }

    /// True while any with a login stands aside.
    pub(super) fn is_any_aside(&self) -> bool {
        self.named.iter().any(|account| account.is_aside())
    }

    /// Who asks next about `repository`, besides those who have been `tried`.
    pub(super) fn choose(
        &self,
        cost: Cost,
        repository: Option<&Repository>,
        tried: &[Arc<Account>],
        now: SystemTime,
    ) -> Choice {
        let is_tried = |account: &Arc<Account>| tried.iter().any(|one| Arc::ptr_eq(one, account));
        let open = |account: &&Arc<Account>| !is_tried(account) && !account.is_aside();
        let mut able: Vec<_> = self.named.iter().filter(open).collect();
        let spreads = able.iter().all(|account| self.is_low(account, now));
        able.extend(self.anonymous.iter().filter(open).filter(|_| spreads));
        let are_several = able.len() > 1;
        let rank = |account: &Arc<Account>| {
            let is_denied =
                are_several && repository.is_some_and(|name| self.is_denied(account, name));
            (is_denied, !account.is_ready(), spent(account.standing(now)))
        };
        // Stable: of equals, the first in the configuration.
        able.sort_by_key(|account| rank(account));
        if cost == Cost::Free {
            return able.first().map_or(Choice::Nobody, |account| Choice::Use(account.use_free()));
        }
        if let Some(turn) = able.iter().find_map(|account| account.spend(now)) {
            return Choice::Use(turn);
        }
        let standings = able.iter().map(|account| account.standing(now));
        let mut none_left = Choice::Nobody;
        for standing in standings {
            none_left = match (none_left, standing) {
                (Choice::Spent { until: a }, Standing::Spent { until: b }) => {
                    Choice::Spent { until: a.min(b) }
                }
                (Choice::Nobody, Standing::Spent { until }) => Choice::Spent { until },
                (_, Standing::Waiting | Standing::Left { .. } | Standing::Unlimited) => {
                    return Choice::Wait;
                }
                (choice, Standing::Spent { .. }) => choice,
            };
        }
        none_left
    }

    /// An account that is said to be spent, and was not asked lately whether it still is.
    pub(super) fn to_verify(
        &self,
        tried: &[Arc<Account>],
        now: SystemTime,
    ) -> Option<Arc<Account>> {
        let is_tried = |account: &Arc<Account>| tried.iter().any(|one| Arc::ptr_eq(one, account));
        let is_spent =
            |account: &Arc<Account>| matches!(account.standing(now), Standing::Spent { .. });
        let mut spent = self.all().filter(|it| !it.is_aside() && !is_tried(it) && is_spent(it));
        spent.find(|account| account.is_due(WORD_HOLDS)).cloned()
    }

    /// Waits until one of the pulls under way has ended, for a moment at the most.
    pub(super) async fn settled(&self) {
        // The one that ended before this began waiting tells nobody.
        let moment = Duration::from_millis(50);
        let _ = tokio::time::timeout(moment, self.settled.notified()).await;
    }

    /// The registry does not show `repository` to `account`: others go first.
    pub(super) fn deny(&self, account: &Account, repository: &Repository) {
        self.denied.insert((account.label().to_owned(), repository.clone()), ());
    }

    /// Looks whether the login of one that stands aside has changed.
    pub(super) async fn look_again(&self) -> bool {
        for account in self.all().filter(|account| account.is_aside()) {
            if account.look_again().await {
                return true;
            }
        }
        false
    }

    /// True while what is left is below the reserve: the budget is to be spared.
    fn is_sparing(&self, now: SystemTime) -> bool {
        let mut usable = self.all().filter(|account| !account.is_aside()).peekable();
        usable.peek().is_some() && usable.all(|account| self.is_low(account, now))
    }

    /// What is left to all together, of how much; `None` if any has no limit.
    pub(super) fn left(&self, now: SystemTime) -> Option<(u64, u64)> {
        let mut usable = self.all().filter(|account| !account.is_aside()).peekable();
        usable.peek()?;
        // An account that nobody has asked about has no say; one is enough to know something.
        let known: Vec<_> = usable.filter_map(|account| account.left(now)).collect();
        (!known.is_empty()).then(|| {
            known.iter().fold((0_u64, 0_u64), |(left, limit), &(l, m)| {
                (left.saturating_add(l), limit.saturating_add(m))
            })
        })
    }

    pub(super) fn report(&self, now: SystemTime) -> Vec<AccountReport> {
        self.all().map(|account| account.report(now)).collect()
    }

    fn is_low(&self, account: &Account, now: SystemTime) -> bool {
        account.left(now).is_some_and(|(left, limit)| left <= self.budget.reserve.of(limit))
    }

    fn is_denied(&self, account: &Account, repository: &Repository) -> bool {
        self.denied.contains_key(&(account.label().to_owned(), repository.clone()))
    }
}

/// What counts as spent when accounts are compared; one without limit has spent nothing.
fn spent(standing: Standing) -> u64 {
    match standing {
        Standing::Unlimited => 0,
        Standing::Left { spent, .. } => spent,
        Standing::Waiting | Standing::Spent { .. } => u64::MAX,
    }
}
