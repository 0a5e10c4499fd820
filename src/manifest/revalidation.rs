//! What to do about a tag: record × policy × now × health → plan. Pure.
//!
//! RFC 9111 §4.2 freshness, with the registry's own rule on top: a manifest GET
//! is counted, a HEAD is free, so a stale tag is checked by HEAD and by nothing
//! else (P1). Which digest then answers is a choice of its own: a tag that moved
//! cools first (`tags.cooldown`).

use std::time::{Duration, SystemTime};

use crate::{config::Tags, protocol::Digest, store::TagRecord};

/// Whether upstream can be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known against it.
    Up,
    /// It failed a moment ago and has not answered a probe since.
    Down,
}

/// What a request for a tag leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Serve the digest on record; `left` is how long it stays fresh, if not for ever.
    ServeFresh {
        /// Time until it must be checked.
        left: Option<Duration>,
    },
    /// Ask by HEAD first.
    Revalidate {
        /// Whether the digest on record may be served if upstream is in trouble.
        may_serve_stale: bool,
    },
    /// Serve the digest on record without asking: upstream is down.
    ServeStale,
    /// Nothing is on record: ask.
    Fetch,
}

/// Which digest answers for a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What is served.
    pub digest: Digest,
    /// What may be served where that can't be had.
    pub stand_in: Option<Digest>,
    /// For how long yet the tag cools, if it does: then `digest` is what it named before.
    pub cooling: Option<Duration>,
}

/// The plan for a tag of a name `tag`, of which `record` is known, at `now`. What is fresh stays so
/// `stretch` times as long as the policy says.
pub fn plan(
    tag: &str,
    record: Option<&TagRecord>,
    policy: &Tags,
    stretch: u32,
    now: SystemTime,
    health: Health,
) -> Plan {
    let Some(record) = record else {
        return Plan::Fetch;
    };
    if policy.immutable.matches(tag) {
        // What never moves is never too old, but may have been pushed anew.
        return match health {
            _ if !record.is_doubted() => Plan::ServeFresh { left: None },
            Health::Down => Plan::ServeStale,
            Health::Up => Plan::Revalidate { may_serve_stale: true },
        };
    }
    // A record from the future was written under a wrong clock; its age is not known.
    let Ok(age) = now.duration_since(record.validated) else {
        return Plan::Revalidate { may_serve_stale: true };
    };
    let fresh_for = policy.fresh_for.of(tag).saturating_mul(stretch).min(policy.serve_stale_for);
    if age < fresh_for {
        return Plan::ServeFresh { left: Some(fresh_for - age) };
    }
    // RFC 9111 §4.2.4: stale only while disconnected or allowed.
    let may_serve_stale = age <= policy.serve_stale_for;
    match health {
        Health::Down if may_serve_stale => Plan::ServeStale,
        Health::Up | Health::Down => Plan::Revalidate { may_serve_stale },
    }
}

/// Which of the digests on record answers at `now`.
pub fn choose(record: &TagRecord, cooldown: Duration, now: SystemTime) -> Choice {
    // A record from the future was written under a wrong clock: it is as good as new, and the next
    // confirmation puts its time right.
    let age = now.duration_since(record.moved).unwrap_or_default();
    let left = cooldown.saturating_sub(age);
    match record.previous {
        // Nothing stands in: the one on record is just what must not be served yet.
        Some(previous) if !left.is_zero() && previous != record.digest => {
            Choice { digest: previous, stand_in: None, cooling: Some(left) }
        }
        stand_in => Choice { digest: record.digest, stand_in, cooling: None },
    }
}

/// What is on record once upstream has named `digest` at `now`; `before` is what was.
pub fn confirm(
    before: Option<&TagRecord>,
    digest: Digest,
    cooldown: Duration,
    now: SystemTime,
) -> TagRecord {
    let new = TagRecord { digest, previous: None, validated: now, moved: now };
    match before {
        None => new,
        Some(before) if before.digest == digest => {
            let moved = before.moved.min(now);
            TagRecord { validated: now, moved, ..before.clone() }
        }
        // A step back, to what was seen before and is older than what it replaces.
        Some(before) if before.previous == Some(digest) => new,
        Some(before) => TagRecord { previous: Some(choose(before, cooldown, now).digest), ..new },
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{Config, FreshFor},
        protocol::{Algorithm, Digest},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Tags {
        let text = "upstreams: [{name: x, url: 'https://x.example', tags: {fresh_for: 60s, serve_stale_for: 1h, immutable: ['v*']}}]";
        Config::parse(text, "test").unwrap().upstreams[0].tags.clone()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn record() -> TagRecord {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        TagRecord { digest, previous: None, validated: at(0), moved: at(0) }
    }

    fn plan_at(seconds: u64, health: Health) -> Plan {
        plan("latest", Some(&record()), &policy(), 1, at(seconds), health)
    }

    #[test]
    fn a_tag_is_fresh_then_checked_then_stale_then_gone() {
        assert_eq!(plan_at(59, Health::Up), Plan::ServeFresh { left: Some(SECOND) });
        assert_eq!(plan_at(60, Health::Up), Plan::Revalidate { may_serve_stale: true });
        assert_eq!(plan_at(60, Health::Down), Plan::ServeStale);
        assert_eq!(plan_at(3600, Health::Down), Plan::ServeStale);
        assert_eq!(plan_at(3601, Health::Down), Plan::Revalidate { may_serve_stale: false });
    }

    #[test]
    fn an_immutable_tag_is_never_asked_for_again() {
        let plan = plan("v1.2", Some(&record()), &policy(), 1, at(1_000_000), Health::Up);
        assert_eq!(plan, Plan::ServeFresh { left: None });
    }

    #[test]
    fn an_immutable_tag_in_doubt_is_checked_and_stands_in_while_upstream_is_down() {
        let plan =
            |health| plan("v1.2", Some(&record().doubted()), &policy(), 1, at(1_000_000), health);
        assert_eq!(plan(Health::Up), Plan::Revalidate { may_serve_stale: true });
        assert_eq!(plan(Health::Down), Plan::ServeStale);
    }

    #[test]
    fn nothing_on_record_is_fetched_whatever_the_health() {
        assert_eq!(plan("v1", None, &policy(), 1, at(0), Health::Down), Plan::Fetch);
    }

    #[test]
    fn a_clock_that_went_back_means_a_check() {
        let before = UNIX_EPOCH + Duration::from_secs(10);
        let plan = plan("latest", Some(&record()), &policy(), 1, before, Health::Up);
        assert_eq!(plan, Plan::Revalidate { may_serve_stale: true });
    }

    #[test]
    fn fresh_for_zero_checks_each_time() {
        let mut policy = policy();
        policy.fresh_for = FreshFor::all(Duration::ZERO);
        let plan = plan("latest", Some(&record()), &policy, 1, at(0), Health::Up);
        assert_eq!(plan, Plan::Revalidate { may_serve_stale: true });
    }

    // === cooling ===

    const COOLDOWN: Duration = Duration::from_secs(60);

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &[number as u8])
    }

    /// The record after a tag named these, by number, at these seconds.
    fn after(steps: &[(u64, usize)]) -> TagRecord {
        let steps = steps.iter().fold(None, |before: Option<TagRecord>, (seconds, number)| {
            Some(confirm(before.as_ref(), digest(*number), COOLDOWN, at(*seconds)))
        });
        steps.unwrap()
    }

    fn served(record: &TagRecord, seconds: u64) -> Digest {
        choose(record, COOLDOWN, at(seconds)).digest
    }

    #[test]
    fn a_tag_seen_for_the_first_time_is_served_at_once() {
        let choice = choose(&after(&[(0, 1)]), COOLDOWN, at(0));
        assert_eq!(choice, Choice { digest: digest(1), stand_in: None, cooling: None });
    }

    #[test]
    fn a_tag_that_moved_names_the_digest_before_until_it_has_cooled() {
        let record = after(&[(0, 1), (100, 2)]);
        let choice = choose(&record, COOLDOWN, at(159));
        let expected = Choice { digest: digest(1), stand_in: None, cooling: Some(SECOND) };
        assert_eq!(choice, expected);
        let choice = choose(&record, COOLDOWN, at(160));
        let expected = Choice { digest: digest(2), stand_in: Some(digest(1)), cooling: None };
        assert_eq!(choice, expected);
        assert_eq!(choose(&record, Duration::ZERO, at(100)), expected, "it is off");
    }

    #[test]
    fn a_confirmation_does_not_start_the_clock_again() {
        let record = after(&[(0, 1), (100, 2), (150, 2)]);
        assert_eq!((served(&record, 159), served(&record, 160)), (digest(1), digest(2)));
    }

    #[test]
    fn a_move_while_cooling_starts_the_clock_again() {
        let record = after(&[(0, 1), (100, 2), (150, 3)]);
        assert_eq!((served(&record, 209), served(&record, 210)), (digest(1), digest(3)));
    }

    #[test]
    fn a_step_back_is_taken_at_once() {
        let while_cooling = after(&[(0, 1), (100, 2), (110, 1)]);
        let cooled = after(&[(0, 1), (100, 2), (200, 2), (210, 1)]);
        for record in [while_cooling, cooled] {
            let choice = choose(&record, COOLDOWN, at(210));
            assert_eq!((choice.digest, choice.cooling), (digest(1), None));
        }
    }

    #[test]
    fn a_clock_that_went_back_starts_the_cooling_again() {
        let record = after(&[(0, 1), (1_000_000, 2)]);
        assert_eq!(choose(&record, COOLDOWN, at(10)).cooling, Some(COOLDOWN));
        let record = confirm(Some(&record), digest(2), COOLDOWN, at(10));
        assert_eq!((served(&record, 69), served(&record, 70)), (digest(1), digest(2)));
    }

    #[test]
    fn what_is_its_own_predecessor_does_not_cool() {
        let record = TagRecord { previous: Some(digest(1)), ..after(&[(0, 1)]) };
        assert_eq!(choose(&record, COOLDOWN, at(1)).cooling, None);
    }

    proptest! {
        /// Whatever a tag does: what answers was there first, or was first seen long enough ago;
        /// and what stays gets its turn.
        #[test]
        fn nothing_young_is_served_and_nothing_old_is_withheld(
            steps in prop::collection::vec((0..40u64, 0..4usize), 1..40),
            cooldown in 0..100u64,
        ) {
            let cooldown = Duration::from_secs(cooldown);
            let mut record: Option<TagRecord> = None;
            let mut first_seen: HashMap<Digest, SystemTime> = HashMap::new();
            let mut now = at(0);
            let first = digest(steps[0].1);
            for (seconds, number) in steps {
                now += Duration::from_secs(seconds);
                let named = digest(number);
                let moved = record.as_ref().map(|record| record.digest) != Some(named);
                let next = confirm(record.as_ref(), named, cooldown, now);
                first_seen.entry(named).or_insert(now);
                prop_assert_eq!((next.digest, next.validated), (named, now));
                prop_assert!(next.moved == now || !moved);
                for wait in [Duration::ZERO, cooldown / 2] {
                    let answer = choose(&next, cooldown, now + wait).digest;
                    let age = (now + wait).duration_since(first_seen[&answer]).unwrap();
                    prop_assert!(answer == first || age >= cooldown, "{:?} old", age);
                }
                prop_assert_eq!(choose(&next, cooldown, now + cooldown).digest, named);
                record = Some(next);
            }
        }
    }
}
