//! Which failed requests are sent again: few, and never all at once.
//!
//! A budget of retries keeps them a share of all requests, so that they don't
//! become the load that keeps a registry down.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;

use super::{Failure, exchange::Reply};

/// Times that one request is sent again at the most.
pub(super) const RETRIES: u32 = 2;

/// The longest wait before the first of them; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Retries saved up at the most, and there at the start.
const SAVED: f64 = 10.0;

/// The retries of one upstream.
#[derive(Debug)]
pub(super) struct Retries {
    /// Each request brings this share of one.
    share: f64,
    saved: Mutex<f64>,
}

// === impl Retries ===

impl Retries {
    pub(super) fn new(percent: u32) -> Self {
        let saved = if percent == 0 { 0.0 } else { SAVED };
        Self { share: f64::from(percent) / 100.0, saved: Mutex::new(saved) }
    }

    /// A request goes out for the first time.
    pub(super) fn earn(&self) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        *saved = (*saved + self.share).min(SAVED);
    }

    /// Leave to send one again.
    pub(super) fn spend(&self) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_enough = *saved >= 1.0;
        if is_enough {
            *saved -= 1.0;
        }
        is_enough
    }
}

/// True if the same request may fare better in a moment.
pub(super) fn is_transient(result: &Result<Reply, Failure>) -> bool {
    const GATEWAY: [StatusCode; 3] =
        [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    match result {
        Ok(reply) => GATEWAY.contains(&reply.status),
        // Who did not answer in time has had its time.
        Err(failure) => matches!(failure, Failure::Unreachable { .. }),
    }
}

/// How long to wait before the retry number `attempt`, from 1: anything up to a bound that doubles
/// ("full jitter").
pub(super) fn wait(attempt: u32) -> Duration {
    let bound = FIRST_WAIT.saturating_mul(1 << attempt.saturating_sub(1).min(10));
    bound.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_a_share_of_all_requests() {
        let retries = Retries::new(20);
        let mut sent_again = 0;
        for _ in 0..1000 {
            retries.earn();
            sent_again += u32::from(retries.spend());
        }
        assert!((200..=210).contains(&sent_again), "{sent_again}");
        let none = Retries::new(0);
        none.earn();
        assert!(!none.spend());
    }

    #[test]
    fn waits_are_spread_over_all_of_their_bound() {
        let waits: Vec<_> = (0..1000).map(|_| wait(2)).collect();
        let longest = FIRST_WAIT * 2;
        assert!(waits.iter().all(|wait| *wait <= longest));
        assert!(waits.iter().any(|wait| *wait < longest / 4));
        assert!(waits.iter().any(|wait| *wait > longest / 4 * 3));
    }
}
