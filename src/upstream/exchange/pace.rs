//! So many a second: requests that wait for their turn, and bytes that make the next ones wait.
//!
//! A bucket that is written down as the instant at which it is full again. Who asks is given an
//! instant there and then, so turns go in the order of asking, nobody polls, and a wait that is
//! longer than allowed is known before it begins.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{metrics, upstream::Failure};

/// Bytes that pass at full speed after a rest, as the time in which they are earned. Long enough
/// for a read of 64 KiB at the rates that matter, short enough that a second shows the limit.
const BYTES_SLACK: Duration = Duration::from_millis(100);

/// One limit, shared by all whom it concerns.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    /// How far ahead of its rate it may be after a rest.
    slack: Duration,
    /// When all that was taken so far has been earned.
    earned: Mutex<Option<Instant>>,
}

// === impl Pace ===

impl Pace {
    /// `limit` requests a second, and as many at once after a rest.
    pub(super) fn of_requests(limit: u32) -> Self {
        let per_second = f64::from(limit);
        let slack = Duration::from_secs_f64((per_second - 1.0) / per_second);
        Self { per_second, slack, earned: Mutex::default() }
    }

    /// `limit` bytes a second.
    pub(super) fn of_bytes(limit: u64) -> Self {
        Self { per_second: limit as f64, slack: BYTES_SLACK, earned: Mutex::default() }
    }

    /// Waits for the turn of one request; refuses at once if it would come after `patience`. Says
    /// how long it took.
    pub(super) async fn turn(
        &self,
        host: &Arc<str>,
        patience: Duration,
    ) -> Result<Duration, Failure> {
        let now = Instant::now();
        let Some(wait) = self.take_turn(now, patience) else {
            metrics::LIMITED.with_label_values(&["rate"]).inc();
            let limit = "max_requests_per_second";
            return Err(Failure::Busy { host: Arc::clone(host), limit });
        };
        tokio::time::sleep_until(now + wait).await;
        Ok(wait)
    }

    /// How long until the turn, which is taken unless that is more than `patience`.
    fn take_turn(&self, now: Instant, patience: Duration) -> Option<Duration> {
        let mut earned = self.earned.lock().unwrap_or_else(PoisonError::into_inner);
        let from = earned.map_or(now, |earned| earned.max(now));
        let wait = (from - now).saturating_sub(self.slack);
        if wait > patience {
            return None;
        }
        *earned = Some(from + self.cost(1));
        Some(wait)
    }

    /// Books bytes that have come, and says when more of the same body may be read. Each body waits
    /// for what all have received, so those that read as fast as they may get the same.
    pub(super) fn received(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut earned = self.earned.lock().unwrap_or_else(PoisonError::into_inner);
        let until = earned.map_or(now, |earned| earned.max(now)) + self.cost(bytes);
        *earned = Some(until);
        until.checked_sub(self.slack).filter(|until| *until > now)
    }

    fn cost(&self, amount: usize) -> Duration {
        Duration::from_secs_f64(amount as f64 / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn requests_come_at_their_rate_after_a_first_burst() {
        let (pace, host) = (Pace::of_requests(5), "registry:443".into());
        let began = Instant::now();
        for number in 0..25_u32 {
            pace.turn(&host, 10 * SECOND).await.unwrap();
            let due = SECOND / 5 * number.saturating_sub(4);
            let took = began.elapsed();
            assert!(took >= due && took < due + SECOND / 100, "{number}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_would_come_too_late_is_refused_at_once_and_takes_no_place() {
        let (pace, host) = (Pace::of_requests(1), "registry:443".into());
        let waits: Vec<_> =
            (0..5).filter_map(|_| pace.take_turn(Instant::now(), 2 * SECOND)).collect();
        assert_eq!(waits, [Duration::ZERO, SECOND, 2 * SECOND]);
        let refused = pace.turn(&host, 2 * SECOND).await.unwrap_err();
        assert!(refused.to_string().contains("max_requests_per_second"), "{refused}");
        tokio::time::advance(SECOND).await;
        assert_eq!(pace.turn(&host, 2 * SECOND).await.unwrap(), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_share_the_bytes_evenly() {
        const PIECE: usize = 64 << 10;
        let pace = Arc::new(Pace::of_bytes(1 << 20));
        let deadline = Instant::now() + 10 * SECOND;
        let body = |start: Duration| {
            let pace = Arc::clone(&pace);
            async move {
                tokio::time::sleep(start).await;
                let mut bytes = 0;
                while Instant::now() < deadline {
                    bytes += PIECE;
                    if let Some(until) = pace.received(PIECE, Instant::now()) {
                        tokio::time::sleep_until(until).await;
                    }
                }
                bytes
            }
        };
        let (one, two, three) =
            tokio::join!(body(Duration::ZERO), body(Duration::ZERO), body(SECOND / 10));
        let all = one + two + three;
        assert!((10 << 20..11 << 20).contains(&all), "{all}");
        for bytes in [one, two, three] {
            assert!(bytes.abs_diff(all / 3) <= 4 * PIECE, "{one} {two} {three}");
        }
    }
}
