//! One account's budget, as the registry reports it: pure arithmetic on what was said and when.
//!
//! Requests that are under way count as spent, so that many at once don't spend
//! the last pull twice. When a window ends is never said; it is at most one
//! window after its first pull was seen.

use std::time::{Duration, SystemTime};

use crate::protocol::ratelimit::RateLimit;

/// A window that no registry named: Docker Hub's.
const WINDOW: Duration = Duration::from_secs(6 * 60 * 60);

/// What is known of one account's budget.
#[derive(Debug, Clone, Default)]
pub(super) struct Purse {
    /// What was last said, and when it was heard.
    said: Option<(RateLimit, SystemTime)>,
    /// The first pull of the present window was seen then.
    began: Option<SystemTime>,
    /// Counted requests that have no answer yet.
    under_way: u64,
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

impl Purse {
    /// What can be spent at `now`.
    pub(super) fn standing(&self, now: SystemTime) -> Standing {
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
        let left = remaining.saturating_sub(self.under_way);
        if left == 0 {
            return Standing::Waiting;
        }
        let spent = said.limit.unwrap_or(remaining).saturating_sub(left);
        Standing::Left { left, spent }
    }

    /// What was last said, and when.
    pub(super) fn said(&self) -> Option<&(RateLimit, SystemTime)> {
        self.said.as_ref()
    }

    /// When the present window has ended for certain, if one is known to have begun.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        let ends = self.began.map(|began| began + self.window());
        ends.into_iter().chain(self.refused_until).max()
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
        let before = self.said.as_ref();
        let left_before = before.and_then(|(said, _)| said.remaining);
        let heard = before.map(|(_, heard)| *heard);
        let is_more = matches!((left_before, limit.remaining), (Some(a), Some(b)) if b > a);
        // An answer that was on its way while another said less is the older of the two.
        if is_more && heard.is_some_and(|heard| sent < heard) {
            return;
        }
        if limit.remaining.is_some_and(|left| left > 0) {
            self.refused_until = None;
        }
        let is_whole = limit.remaining.is_some() && limit.remaining == limit.limit;
        if is_whole {
            self.began = None;
        } else if self.began.is_none() || is_more {
            self.began = Some(now);
        }
        self.said = Some((limit, now));
    }

    /// A 429 said that nothing is left; `wait` is its `Retry-After`.
    pub(super) fn refused(&mut self, wait: Option<Duration>, now: SystemTime) {
        let until = match wait {
            Some(wait) => now + wait,
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
