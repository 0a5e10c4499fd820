//! What clients may demand of us, and how we take leave of them.
//!
//! `server` and `proxy` enforce these; each is a named limit on what one client can hold.

use std::time::Duration;

use super::problem::Scope;
use super::quantity::print_duration;
use super::raw::{RawDownstream, RawShutdown, Scalar};

/// Limits on the clients' side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downstream {
    /// A request head must be complete within this, dribbled or not. Default: 30s.
    pub head: Duration,
    /// An idle connection is kept this long for the next request. Default: 60s.
    pub keepalive: Duration,
    /// A client that accepts no byte for this long is cut. Default: 60s.
    pub write: Duration,
    /// Connections open at a time; at least 1. Default: 10000.
    pub max_connections: usize,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// Requests under way get this long to finish; zero cuts them. Default: 30s.
    pub drain: Duration,
}

// === impl Downstream ===

impl Default for Downstream {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            keepalive: Duration::from_secs(60),
            write: Duration::from_secs(60),
            max_connections: 10_000,
        }
    }
}

impl Downstream {
    pub(super) fn read(scope: &Scope<'_>, raw: RawDownstream) -> Self {
        let default = Self::default();
        Self {
            head: scope.wait("head", raw.head.as_ref(), default.head),
            keepalive: scope.wait("keepalive", raw.keepalive.as_ref(), default.keepalive),
            write: scope.wait("write", raw.write.as_ref(), default.write),
            max_connections: scope.count(
                "max_connections",
                raw.max_connections.as_ref(),
                default.max_connections,
                1..=10_000_000,
            ),
        }
    }

    pub(super) fn to_raw(&self) -> RawDownstream {
        RawDownstream {
            head: Scalar::print(print_duration(self.head)),
            keepalive: Scalar::print(print_duration(self.keepalive)),
            write: Scalar::print(print_duration(self.write)),
            max_connections: Scalar::print(self.max_connections),
        }
    }
}

// === impl Shutdown ===

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain: Duration::from_secs(30) }
    }
}

impl Shutdown {
    pub(super) fn read(scope: &Scope<'_>, raw: RawShutdown) -> Self {
        Self { drain: scope.duration("drain", raw.drain.as_ref(), Self::default().drain) }
    }

    pub(super) fn to_raw(&self) -> RawShutdown {
        RawShutdown { drain: Scalar::print(print_duration(self.drain)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused};

    #[test]
    fn limits_are_read_and_bad_ones_refused() {
        let config =
            parsed("{ downstream: { head: 5s, max_connections: 7 }, shutdown: { drain: 0s } }");
        assert_eq!(config.downstream.head.as_secs(), 5);
        assert_eq!(config.downstream.max_connections, 7);
        assert!(config.shutdown.drain.is_zero());
        assert!(
            refused("downstream: { max_connections: 0 }")
                .contains("downstream.max_connections: `0`")
        );
        assert!(refused("downstream: { write: 0s }").contains("downstream.write: is zero"));
    }
}
