//! A slow link, as arithmetic: when bytes leave it and when they arrive.
//!
//! Pure: the time is an argument, and waiting is the relay's part. One `Lane` for each direction is shared by all of
//! its connections, so that together they never pass the link's rate.

use std::time::{Duration, Instant};

/// What is handed to a lane may wait this long for its turn, as in a router's queue; the rest stays with its sender.
/// Longer than a timer is late on a busy machine, or the lane would run dry between two pieces.
const QUEUE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// Each way; `None` has no limit.
    pub(crate) bits_per_second: Option<u64>,
    pub(crate) round_trip: Duration,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Lane {
    link: Link,
    /// When the last byte so far has left.
    free_at: Instant,
}

/// The way of one piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// No sooner may its sender hand over another one.
    pub(crate) next_from: Instant,
    pub(crate) arrives_at: Instant,
}

// === impl Link ===

impl Link {
    /// The least time that `bytes` take on the wire, without any waiting.
    pub(crate) fn transmission(&self, bytes: u64) -> Duration {
        let Some(rate) = self.bits_per_second else {
            return Duration::ZERO;
        };
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When a connection that was asked for at `asked_at` carries its first bytes: after the handshake.
    pub(crate) fn established_at(&self, asked_at: Instant) -> Instant {
        asked_at + self.round_trip
    }
}

// === impl Lane ===

impl Lane {
    pub(crate) fn new(link: Link, now: Instant) -> Self {
        Self { link, free_at: now }
    }

    /// Sends `bytes` behind all that was handed over before. Time that passed unused is lost: an idle lane saves up
    /// no burst.
    pub(crate) fn pass(&mut self, now: Instant, bytes: u64) -> Passage {
        self.free_at = self.free_at.max(now) + self.link.transmission(bytes);
        Passage {
            next_from: self.free_at.checked_sub(QUEUE).map_or(now, |from| from.max(now)),
            arrives_at: self.free_at + self.link.round_trip / 2,
        }
    }
}
