//! What to do about a tag: record × policy × now × health → plan. Pure.
//!
//! RFC 9111 §4.2 freshness, with the registry's own rule on top: a manifest GET
//! is counted, a HEAD is free, so a stale tag is checked by HEAD and by nothing
//! else (P1).

use std::time::{Duration, SystemTime};

use crate::{config::Tags, store::TagRecord};

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

/// The plan for a tag of a name `tag`, of which `record` is known, at `now`.
pub fn plan(
    tag: &str,
    record: Option<&TagRecord>,
    policy: &Tags,
    now: SystemTime,
    health: Health,
) -> Plan {
    let Some(record) = record else {
        return Plan::Fetch;
    };
    if policy.immutable.matches(tag) {
        return Plan::ServeFresh { left: None };
    }
    // A record from the future was written under a wrong clock; its age is not known.
    let Ok(age) = now.duration_since(record.validated) else {
        return Plan::Revalidate { may_serve_stale: true };
    };
    let fresh_for = policy.fresh_for.of(tag);
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

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
        plan("latest", Some(&record()), &policy(), at(seconds), health)
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
        let plan = plan("v1.2", Some(&record()), &policy(), at(1_000_000), Health::Up);
        assert_eq!(plan, Plan::ServeFresh { left: None });
    }

    #[test]
    fn nothing_on_record_is_fetched_whatever_the_health() {
        assert_eq!(plan("v1", None, &policy(), at(0), Health::Down), Plan::Fetch);
    }

    #[test]
    fn a_clock_that_went_back_means_a_check() {
        let before = UNIX_EPOCH + Duration::from_secs(10);
        let plan = plan("latest", Some(&record()), &policy(), before, Health::Up);
        assert_eq!(plan, Plan::Revalidate { may_serve_stale: true });
    }

    #[test]
    fn fresh_for_zero_checks_each_time() {
        let mut policy = policy();
        policy.fresh_for = FreshFor::all(Duration::ZERO);
        let plan = plan("latest", Some(&record()), &policy, at(0), Health::Up);
        assert_eq!(plan, Plan::Revalidate { may_serve_stale: true });
    }
}
