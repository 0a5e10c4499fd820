//! One account's budget, as the registry reports it: pure arithmetic on what was said and when.
//!
//! Requests that are under way count as spent, so that many at once don't spend
//! the last pull twice. When a window ends is never said; it is at most one
//! window after its first pull was seen.

use std::time::{Duration, SystemTime};

use crate::protocol::ratelimit::RateLimit;

/// A window that no registry named: Docker Hub's.
const WINDOW: Duration = Duration::from_secs(6 * 60 * 60);

/// Whom a registry charges for one account may change with the address that we leave by; so many
/// are told apart.
const SOURCES: usize = 8;

/// A refusal holds at least so long, whatever it says: who is told to wait for nothing would ask
/// without end.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// What is known of one account's budget.
#[derive(Debug, Clone)]
pub(super) struct Purse {
    /// By whom the registry charges, the last one first. Never empty.
    sources: Vec<Budget>,
    /// Counted requests that have no answer yet.
    under_way: u64,
}

/// The budget of one source.
#[derive(Debug, Clone, Default)]
struct Budget {
    /// What was last said, and when it was heard.
    said: Option<(RateLimit, SystemTime)>,
    /// The first pull of the present window was seen then.
    began: Option<SystemTime>,
    /// A 429 said that nothing is left, until then at the latest.
    refused_until: Option<SystemTime>,
}

/// What an account can still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The registry reports no limit, or has not been asked yet.
    Unlimited,
    /// So many pulls are left and so many are spent.
    Left {
        /// What is left besides what is under way.
        left: u64,
        /// What is spent, with what is under way.
        spent: u64,
    },
    /// The last pulls are under way; their answers tell whether any was left.
    Waiting,
    /// Nothing is left until this time, at the latest.
    Spent {
        /// When the window has ended for certain.
        until: SystemTime,
    },
}

// === impl Purse ===

impl Default for Purse {
    fn default() -> Self {
        Self { sources: vec![Budget::default()], under_way: 0 }
    }
}

impl Purse {
    /// What can be spent at `now`.
    pub(super) fn standing(&self, now: SystemTime) -> Standing {
        self.current().map_or(Standing::Unlimited, |budget| budget.standing(self.under_way, now))
    }

    /// What was last said, and when.
    pub(super) fn said(&self) -> Option<&(RateLimit, SystemTime)> {
        self.current().and_then(|budget| budget.said.as_ref())
    }

    /// What was last said of every source, the last one first.
    pub(super) fn all_said(&self) -> impl Iterator<Item = &RateLimit> {
        self.sources.iter().filter_map(|budget| budget.said.as_ref()).map(|(said, _)| said)
    }

    /// When the present window has ended for certain, if one is known to have begun.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        self.current().and_then(Budget::ends)
    }

    /// A counted request goes out.
    pub(super) fn spend(&mut self) {
        self.under_way += 1;
    }

    /// It has ended, with or without an answer.
    pub(super) fn settle(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// An answer to a request that was sent at `sent` says `limit`; it is heard at `now`.
    pub(super) fn observe(&mut self, limit: RateLimit, sent: SystemTime, now: SystemTime) {
        self.turn_to(limit.source.as_deref());
        if let Some(budget) = self.sources.first_mut() {
            budget.observe(limit, sent, now);
        }
    }

    /// A 429 said that nothing is left; `wait` is its `Retry-After`.
    pub(super) fn refused(&mut self, wait: Option<Duration>, now: SystemTime) {
        if let Some(budget) = self.sources.first_mut() {
            budget.refused(wait, now);
        }
    }

    fn current(&self) -> Option<&Budget> {
        self.sources.first()
    }

    /// The one whom the registry names comes first; who names none speaks of the last one.
    fn turn_to(&mut self, source: Option<&str>) {
        let Some(source) = source else { return };
        let is_it = |budget: &Budget| match &budget.said {
            // Nothing was heard of it before it was named.
            None => true,
            Some((said, _)) => said.source.as_deref().is_none_or(|named| named == source),
        };
        let found = self.sources.iter().position(is_it).map(|index| self.sources.remove(index));
        self.sources.truncate(SOURCES - 1);
        self.sources.insert(0, found.unwrap_or_default());
    }
}

// === impl Budget ===

impl Budget {
    fn standing(&self, under_way: u64, now: SystemTime) -> Standing {
        if let Some(until) = self.refused_until.filter(|until| now < *until) {
            return Standing::Spent { until };
        }
        let Some((said, _)) = &self.said else { return Standing::Unlimited };
        let Some(remaining) = said.remaining else { return Standing::Unlimited };
        let ends = self.ends();
        // Nobody has asked since the window ended: all of it is there again.
        let remaining = match (said.limit, ends) {
            (Some(limit), Some(ends)) if ends <= now => limit,
            _ => remaining,
        };
        if remaining == 0 {
            return Standing::Spent { until: ends.unwrap_or(now + self.window()) };
        }
        let left = remaining.saturating_sub(under_way);
        if left == 0 {
            return Standing::Waiting;
        }
        let spent = said.limit.unwrap_or(remaining).saturating_sub(left);
        Standing::Left { left, spent }
    }

    fn ends(&self) -> Option<SystemTime> {
        let ends = self.began.map(|began| began + self.window());
        ends.into_iter().chain(self.refused_until).max()
    }

    fn observe(&mut self, limit: RateLimit, sent: SystemTime, now: SystemTime) {
        let before = self.said.as_ref();
        let left_before = before.and_then(|(said, _)| said.remaining);
        let heard = before.map(|(_, heard)| *heard);
        let is_more = matches!((left_before, limit.remaining), (Some(a), Some(b)) if b > a);
        // An answer that was on its way while another said less is the older of the two. What was
        // heard in the future was heard under a wrong clock.
        if is_more && heard.is_some_and(|heard| sent < heard && heard <= now) {
            return;
        }
        // What can't be read, or was not sent, is as it was.
        let limit = match before {
            None => limit,
            Some((said, _)) => RateLimit {
                limit: limit.limit.or(said.limit),
                remaining: limit.remaining.or(said.remaining),
                window: limit.window.or(said.window),
                source: limit.source.or_else(|| said.source.clone()),
            },
        };
        if limit.remaining.is_some_and(|left| left > 0) {
            self.refused_until = None;
        }
        let is_whole = limit.remaining.is_some() && limit.remaining == limit.limit;
        if is_whole {
            self.began = None;
        } else if is_more || self.began.is_none_or(|began| began > now) {
            self.began = Some(now);
        }
        self.said = Some((limit, now));
    }

    fn refused(&mut self, wait: Option<Duration>, now: SystemTime) {
        let until = match wait {
            Some(wait) => now + wait.max(LEAST_WAIT),
            None => self.ends().filter(|ends| *ends > now).unwrap_or(now + self.window()),
        };
        self.refused_until = Some(until);
        if let Some((said, heard)) = &mut self.said {
            said.remaining = Some(0);
            *heard = now;
        }
    }

    fn window(&self) -> Duration {
        self.said.as_ref().and_then(|(said, _)| said.window).unwrap_or(WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn says(remaining: u64) -> RateLimit {
        RateLimit {
            limit: Some(100),
            remaining: Some(remaining),
            window: Some(Duration::from_secs(600)),
            source: None,
        }
    }

    fn purse(remaining: u64) -> Purse {
        let mut purse = Purse::default();
        purse.observe(says(remaining), at(0), at(0));
        purse
    }

    #[test]
    fn who_was_never_told_a_limit_has_none() {
        assert_eq!(Purse::default().standing(at(0)), Standing::Unlimited);
    }

    #[test]
    fn what_is_under_way_counts_as_spent() {
        let mut purse = purse(2);
        purse.spend();
        assert_eq!(purse.standing(at(1)), Standing::Left { left: 1, spent: 99 });
        purse.spend();
        assert_eq!(purse.standing(at(1)), Standing::Waiting);
        purse.observe(says(1), at(1), at(2));
        purse.settle();
        assert_eq!(purse.standing(at(2)), Standing::Waiting);
        purse.observe(says(0), at(1), at(3));
        purse.settle();
        assert_eq!(purse.standing(at(3)), Standing::Spent { until: at(600) });
    }

    #[test]
    fn an_older_answer_does_not_give_back_what_is_spent() {
        let mut purse = purse(100);
        purse.observe(says(4), at(10), at(12));
        purse.observe(says(9), at(9), at(13));
        assert_eq!(purse.standing(at(14)), Standing::Left { left: 4, spent: 96 });
        purse.observe(says(100), at(15), at(16));
        assert_eq!(purse.standing(at(17)), Standing::Left { left: 100, spent: 0 });
    }

    #[test]
    fn a_window_ends_one_window_after_its_first_pull() {
        let mut purse = purse(100);
        assert_eq!(purse.ends(), None);
        purse.observe(says(99), at(50), at(50));
        purse.observe(says(0), at(90), at(90));
        assert_eq!(purse.standing(at(100)), Standing::Spent { until: at(650) });
        // Nobody has asked since: it is whole again.
        assert_eq!(purse.standing(at(650)), Standing::Left { left: 100, spent: 0 });
    }

    #[test]
    fn a_refusal_holds_until_it_says_or_a_head_says_otherwise() {
        let mut purse = Purse::default();
        purse.refused(Some(Duration::from_secs(60)), at(0));
        assert_eq!(purse.standing(at(59)), Standing::Spent { until: at(60) });
        assert_eq!(purse.standing(at(60)), Standing::Unlimited);
        purse.refused(None, at(100));
        purse.observe(says(3), at(110), at(111));
        assert_eq!(purse.standing(at(112)), Standing::Left { left: 3, spent: 97 });
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_account_spent() {
        let mut purse = purse(100);
        purse.observe(says(0), at(7200), at(7200));
        // Two hours back.
        purse.observe(says(50), at(10), at(11));
        assert_eq!(purse.standing(at(12)), Standing::Left { left: 50, spent: 50 });
        assert_eq!(purse.ends(), Some(at(611)));
    }

    #[test]
    fn what_can_not_be_read_leaves_what_was_known() {
        let mut purse = purse(3);
        purse.observe(RateLimit { remaining: None, ..says(0) }, at(1), at(1));
        assert_eq!(purse.standing(at(2)), Standing::Left { left: 3, spent: 97 });
        purse.observe(RateLimit { limit: None, window: None, ..says(2) }, at(3), at(3));
        assert_eq!(purse.standing(at(4)), Standing::Left { left: 2, spent: 98 });
    }

    #[test]
    fn a_refusal_without_a_wait_does_not_let_ask_on() {
        let mut purse = Purse::default();
        purse.refused(Some(Duration::ZERO), at(0));
        assert_eq!(purse.standing(at(0)), Standing::Spent { until: at(1) });
    }

    #[test]
    fn sources_have_budgets_of_their_own_and_few_are_remembered() {
        let of = |source: &str, remaining| RateLimit {
            source: Some(source.to_owned()),
            ..says(remaining)
        };
        let mut purse = purse(40);
        // The first that is named is the one that was heard of.
        purse.observe(of("192.0.2.1", 39), at(1), at(1));
        purse.observe(of("192.0.2.2", 0), at(2), at(2));
        assert!(matches!(purse.standing(at(3)), Standing::Spent { .. }));
        purse.observe(of("192.0.2.1", 38), at(4), at(4));
        assert_eq!(purse.standing(at(5)), Standing::Left { left: 38, spent: 62 });
        assert_eq!(purse.ends(), Some(at(600)), "the other's pulls begin no window of this one");
        assert_eq!(purse.all_said().count(), 2);
        for n in 0..100 {
            purse.observe(of(&format!("198.51.100.{n}"), 9), at(6), at(6));
        }
        assert_eq!(purse.all_said().count(), SOURCES);
    }

    proptest! {
        #[test]
        fn no_more_goes_out_than_was_left(remaining in 0u64..50, tries in 0usize..100) {
            let mut purse = purse(remaining);
            let mut sent = 0;
            for _ in 0..tries {
                if matches!(purse.standing(at(1)), Standing::Left { .. }) {
                    purse.spend();
                    sent += 1;
                }
            }
            prop_assert!(sent <= remaining);
        }
    }
}
