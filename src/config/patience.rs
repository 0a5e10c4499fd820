//! How long an upstream may take, and when it is left alone for a while.
//!
//! The defaults keep the promise made to clients: a known tag within 5 s and an unseen
//! object's refusal within 15 s while upstream hangs.

use std::time::Duration;

use super::problem::Scope;
use super::quantity::print_duration;
use super::raw::{RawBreaker, RawTimeouts, Scalar};

/// Limits on each wait for an upstream; all above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS, until a connection can be used. Default: 3s.
    pub connect: Duration,
    /// From the request's last byte to the head of the answer. Default: 10s.
    pub response: Duration,
    /// A whole tag check, the token included; then the stale copy is served. Default: 4s.
    pub validate: Duration,
    /// Everything until the head of an unseen object's answer; then 504. Default: 14s.
    pub fetch: Duration,
    /// Between two reads of a body. Default: 20s.
    pub read: Duration,
    /// A pooled connection that nobody uses is closed after this. Default: 60s.
    pub idle: Duration,
}

/// When an upstream that keeps failing is not asked any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row that open it; at least 1. Default: 3.
    pub failures: u32,
    /// Open for this long, then one request may try. Default: 5s.
    pub open_for: Duration,
    /// Requests that may be repeated after a failure, in percent of all to the upstream, besides
    /// ten at the start. 0–100. Default: 20.
    pub retries_percent: u32,
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(10),
            validate: Duration::from_secs(4),
            fetch: Duration::from_secs(14),
            read: Duration::from_secs(20),
            idle: Duration::from_secs(60),
        }
    }
}

impl Timeouts {
    pub(super) fn read(scope: &Scope<'_>, raw: RawTimeouts) -> Self {
        let default = Self::default();
        Self {
            connect: scope.wait("connect", raw.connect.as_ref(), default.connect),
            response: scope.wait("response", raw.response.as_ref(), default.response),
            validate: scope.wait("validate", raw.validate.as_ref(), default.validate),
            fetch: scope.wait("fetch", raw.fetch.as_ref(), default.fetch),
            read: scope.wait("read", raw.read.as_ref(), default.read),
            idle: scope.wait("idle", raw.idle.as_ref(), default.idle),
        }
    }

    pub(super) fn to_raw(&self) -> RawTimeouts {
        RawTimeouts {
            connect: Scalar::print(print_duration(self.connect)),
            response: Scalar::print(print_duration(self.response)),
            validate: Scalar::print(print_duration(self.validate)),
            fetch: Scalar::print(print_duration(self.fetch)),
            read: Scalar::print(print_duration(self.read)),
            idle: Scalar::print(print_duration(self.idle)),
        }
    }
}

// === impl Breaker ===

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 3, open_for: Duration::from_secs(5), retries_percent: 20 }
    }
}

impl Breaker {
    pub(super) fn read(scope: &Scope<'_>, raw: RawBreaker) -> Self {
        let default = Self::default();
        Self {
            failures: scope.count(
                "failures",
                raw.failures.as_ref(),
                default.failures,
                1..=1_000_000,
            ),
            open_for: scope.wait("open_for", raw.open_for.as_ref(), default.open_for),
            retries_percent: scope.count(
                "retries_percent",
                raw.retries_percent.as_ref(),
                default.retries_percent,
                0..=100,
            ),
        }
    }

    pub(super) fn to_raw(&self) -> RawBreaker {
        RawBreaker {
            failures: Scalar::print(self.failures),
            open_for: Scalar::print(print_duration(self.open_for)),
            retries_percent: Scalar::print(self.retries_percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};
    use super::*;

    #[test]
    fn each_limit_may_be_set_alone() {
        let upstream = only_upstream(
            "upstreams: [{ name: docker.io, timeouts: { read: 1m }, breaker: { failures: 9 } }]",
        );
        let expected = Timeouts { read: Duration::from_secs(60), ..Timeouts::default() };
        assert_eq!(upstream.timeouts, expected);
        assert_eq!(upstream.breaker, Breaker { failures: 9, ..Breaker::default() });
    }

    #[test]
    fn a_wait_of_zero_is_refused() {
        assert_eq!(
            refused("upstreams: [{ name: docker.io, timeouts: { connect: 0s } }]"),
            "test.yaml: upstreams[0].timeouts.connect: is zero; write more than zero, such as 3s"
        );
    }

    #[test]
    fn a_bad_count_is_refused_with_its_range() {
        for count in ["0", "-1", "three", "99999999999"] {
            let line = refused(&format!(
                "upstreams: [{{ name: docker.io, breaker: {{ failures: {count} }} }}]"
            ));
            assert!(
                line.contains("breaker.failures: ") && line.contains("write one from 1 to 1000000"),
                "{line}"
            );
        }
    }
}
