//! Pull budgets: per account, or per address for those without one.
//!
//! A window opens with the first pull counted and refills the whole budget when it ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::content::Manifest;
use crate::options::{Counting, Options};

/// Who pays for a pull.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Payer {
    Account(String),
    Source(String),
}

/// What the rate-limit headers say; payers without limit have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) window_s: u64,
    pub(crate) source: String,
}

/// The outcome of asking for a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    Counted,
    /// Part of a pull already counted.
    Included,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Budgets {
    limit: Option<u64>,
    accounts: HashMap<String, Option<u64>>,
    window: Duration,
    counting: Counting,
    /// What addresses not yet seen start with, where a test set it.
    anonymous_start: Option<u64>,
    purses: HashMap<Payer, Purse>,
}

#[derive(Debug)]
struct Purse {
    /// `None`: no limit.
    remaining: Option<u64>,
    refills: Instant,
    /// Children of indexes counted lately, and until when they are free.
    included: Vec<(Instant, HashSet<String>)>,
}

// === impl Budgets ===

impl Budgets {
    pub(crate) fn new(options: &Options) -> Self {
        let accounts = options.accounts.iter();
        Self {
            limit: options.limit,
            accounts: accounts.map(|account| (account.user.clone(), account.limit)).collect(),
            window: options.window,
            counting: options.counting,
            anonymous_start: None,
            purses: HashMap::new(),
        }
    }

    /// Charges a GET of this manifest.
    pub(crate) fn charge(&mut self, payer: &Payer, manifest: &Manifest, now: Instant) -> Charge {
        let (window, counting) = (self.window, self.counting);
        let limit = self.limit_of(payer);
        let purse = self.purse(payer, now);
        if purse.includes(&manifest.digest, now) {
            return Charge::Included;
        }
        if purse.remaining == Some(0) {
            return Charge::Refused;
        }
        if purse.remaining == limit {
            purse.refills = now + window;
        }
        purse.remaining = purse.remaining.map(|remaining| remaining - 1);
        if counting == Counting::PerImage {
            purse.included.push((now + Counting::ONE_PULL, manifest.children()));
        }
        Charge::Counted
    }

    pub(crate) fn standing(&mut self, payer: &Payer, now: Instant) -> Option<Standing> {
        let limit = self.limit_of(payer)?;
        let window_s = self.window.as_secs();
        let remaining = self.purse(payer, now).remaining?;
        Some(Standing { limit, remaining, window_s, source: payer.name().to_owned() })
    }

    /// `account` `None`: every anonymous address, seen or not.
    pub(crate) fn set(&mut self, account: Option<&str>, remaining: u64, now: Instant) {
        match account {
            Some(user) => {
                let payer = Payer::Account(user.to_owned());
                self.set_purse(&payer, remaining, now);
            }
            None => {
                self.anonymous_start = Some(remaining);
                self.purses.retain(|payer, _| matches!(payer, Payer::Account(_)));
            }
        }
    }

    /// What is left of every purse opened so far.
    pub(crate) fn remaining(&self) -> BTreeMap<String, u64> {
        let purses = self.purses.iter();
        purses
            .filter_map(|(payer, purse)| Some((payer.name().to_owned(), purse.remaining?)))
            .collect()
    }

    fn set_purse(&mut self, payer: &Payer, remaining: u64, now: Instant) {
        let window = self.window;
        let purse = self.purse(payer, now);
        if purse.remaining.is_some() {
            purse.remaining = Some(remaining);
            purse.refills = now + window;
        }
    }

    fn limit_of(&self, payer: &Payer) -> Option<u64> {
        match payer {
            Payer::Account(user) => self.accounts.get(user).copied().flatten(),
            Payer::Source(_) => self.limit,
        }
    }

    fn purse(&mut self, payer: &Payer, now: Instant) -> &mut Purse {
        let limit = self.limit_of(payer);
        let start = match payer {
            Payer::Account(_) => limit,
            Payer::Source(_) => limit.map(|limit| self.anonymous_start.unwrap_or(limit)),
        };
        let refills = now + self.window;
        let purse = self.purses.entry(payer.clone()).or_insert_with(|| Purse {
            remaining: start,
            refills,
            included: Vec::new(),
        });
        if now >= purse.refills {
            purse.remaining = limit;
            purse.refills = refills;
        }
        purse
    }
}

impl Purse {
    fn includes(&mut self, digest: &str, now: Instant) -> bool {
        self.included.retain(|(until, _)| *until > now);
        self.included.iter().any(|(_, children)| children.contains(digest))
    }
}

impl Payer {
    /// As `docker-ratelimit-source` says it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Account(name) | Self::Source(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn index() -> Manifest {
        manifest("sha256:index", r#"{"manifests":[{"digest":"sha256:child"}]}"#)
    }

    fn manifest(digest: &str, body: &'static str) -> Manifest {
        let (digest, media_type) = (digest.to_owned(), String::new());
        Manifest { digest, media_type, body: Bytes::from(body) }
    }

    fn alice() -> Payer {
        Payer::Source("192.0.2.1".to_owned())
    }

    #[test]
    fn a_spent_budget_refuses_until_its_window_ends() {
        let options = Options { limit: Some(1), ..Options::default() };
        let mut budgets = Budgets::new(&options);
        let now = Instant::now();
        assert_eq!(budgets.charge(&alice(), &index(), now), Charge::Counted);
        assert_eq!(budgets.charge(&alice(), &index(), now), Charge::Refused);
        assert_eq!(budgets.charge(&alice(), &index(), now + options.window), Charge::Counted);
    }

    #[test]
    fn an_index_and_its_child_are_one_pull_where_images_are_counted() {
        let counting = Counting::PerImage;
        let mut budgets = Budgets::new(&Options { counting, ..Options::default() });
        let (now, child) = (Instant::now(), manifest("sha256:child", "{}"));
        assert_eq!(budgets.charge(&alice(), &index(), now), Charge::Counted);
        assert_eq!(budgets.charge(&alice(), &child, now), Charge::Included);
        let later = now + Counting::ONE_PULL;
        assert_eq!(budgets.charge(&alice(), &child, later), Charge::Counted);
    }

    #[test]
    fn a_budget_set_for_the_anonymous_holds_for_addresses_not_yet_seen() {
        let mut budgets = Budgets::new(&Options::default());
        let now = Instant::now();
        budgets.set(None, 0, now);
        assert_eq!(budgets.charge(&alice(), &index(), now), Charge::Refused);
    }
}
