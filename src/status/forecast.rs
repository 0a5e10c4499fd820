//! How long an account's pulls last: arithmetic on what was spent and what is left.
//!
//! The present rate is what was spent lately, the last half hour counting most:
//! a pull counts for 1/e half an hour after it was spent. What was before the
//! start counts as quiet, so that one pull after it is no alarm. What others spend
//! of the same account is not foreseen, though it shows in what is left.

use super::Forecast;

/// How long a pull counts.
const MEMORY_SECONDS: f64 = 30.0 * 60.0;

/// Nothing is said before so much was seen: one build at the start is no rate.
const LEAST_SECONDS: f64 = 60.0;

/// Rates below one pull in so many seconds are none.
const LEAST_PER_SECOND: f64 = 1.0 / (30.0 * 24.0 * 3600.0);

/// What was spent lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Spending {
    /// Pulls, each by how much it counts.
    pulls: f64,
    /// Seconds that were seen, in all.
    seconds: f64,
}

/// What is known of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Pulls left; `None` where no limit is known.
    pub(super) remaining: Option<u64>,
    /// When the window has ended for certain; seconds since 1970.
    pub(super) resets_at: Option<u64>,
    /// How long a window is.
    pub(super) window_seconds: Option<u64>,
}

// === impl Spending ===

impl Spending {
    /// So many pulls were spent in the last so many seconds.
    pub(super) fn add(&mut self, pulls: u64, seconds: f64) {
        let kept = (-seconds / MEMORY_SECONDS).exp();
        self.pulls = self.pulls * kept + pulls as f64;
        self.seconds += seconds;
    }

    fn per_second(&self) -> Option<f64> {
        // All seconds there were, each by how much it counts, are as many as these.
        (self.seconds >= LEAST_SECONDS).then(|| self.pulls / MEMORY_SECONDS)
    }

    /// What comes of it where so much is `left` at `now`, in seconds since 1970.
    pub(super) fn forecast(&self, left: &Left, now: u64) -> Forecast {
        let rate = self.per_second();
        Forecast {
            spent_per_hour: rate.map(|rate| rate * 3600.0),
            runs_out_at: runs_out_at(rate, left, now),
        }
    }
}

fn runs_out_at(rate: Option<f64>, left: &Left, now: u64) -> Option<u64> {
    let remaining = left.remaining?;
    if remaining == 0 {
        return Some(now);
    }
    let rate = rate.filter(|rate| *rate >= LEAST_PER_SECOND)?;
    // A float that is too large becomes the largest number.
    let at = now.saturating_add((remaining as f64 / rate).ceil() as u64);
    // A window that has not begun begins with the next pull.
    let ends = left.resets_at.or_else(|| Some(now.saturating_add(left.window_seconds?)));
    ends.is_none_or(|ends| at < ends).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;
    const HOUR: u64 = 3600;

    /// So many pulls in each of so many steps of ten seconds.
    fn steady(pulls: u64, steps: usize) -> Spending {
        let mut spending = Spending::default();
        (0..steps).for_each(|_| spending.add(pulls, 10.0));
        spending
    }

    fn left(remaining: u64, resets_in: Option<u64>) -> Left {
        let resets_at = resets_in.map(|seconds| NOW + seconds);
        Left { remaining: Some(remaining), resets_at, window_seconds: Some(6 * HOUR) }
    }

    #[test]
    fn it_runs_out_where_the_rate_empties_it_before_the_window_ends() {
        let forecast = |left| steady(1, 1800).forecast(&left, NOW);
        let per_hour = forecast(left(100, Some(6 * HOUR))).spent_per_hour.unwrap();
        assert!((359.0..362.0).contains(&per_hour), "{per_hour}");
        let at = forecast(left(100, Some(6 * HOUR))).runs_out_at.unwrap();
        assert!((NOW + 990..=NOW + 1000).contains(&at), "{at}");
        // 100 pulls last for about 1000 seconds.
        assert_eq!(forecast(left(100, Some(900))).runs_out_at, None);
        assert_eq!(forecast(left(3000, None)).runs_out_at, None, "the next window is 6 h at most");
        assert!(forecast(left(1000, None)).runs_out_at.is_some());
    }

    #[test]
    fn nothing_left_is_now_and_nothing_known_is_never() {
        assert_eq!(Spending::default().forecast(&left(0, Some(HOUR)), NOW).runs_out_at, Some(NOW));
        let unknown = Left { remaining: None, ..left(0, None) };
        assert_eq!(steady(1, 360).forecast(&unknown, NOW).runs_out_at, None);
        assert_eq!(steady(0, 360).forecast(&left(5, None), NOW).runs_out_at, None);
        let endless = Left { remaining: Some(5), ..Left::default() };
        assert!(steady(1, 360).forecast(&endless, NOW).runs_out_at.is_some());
    }

    #[test]
    fn the_first_minute_says_nothing_and_the_last_half_hour_most() {
        assert_eq!(steady(9, 5).forecast(&left(9, None), NOW), Forecast::default());
        let mut started = Spending::default();
        started.add(0, 100.0);
        started.add(1, 10.0);
        let one = started.forecast(&left(99, Some(6 * HOUR)), NOW);
        assert_eq!(one.runs_out_at, None, "one pull after a start is no alarm");
        let mut spending = steady(10, 360);
        (0..180).for_each(|_| spending.add(0, 10.0));
        let quiet = spending.forecast(&left(1, None), NOW).spent_per_hour.unwrap();
        // 3600 an hour before; half an hour without any leaves about 1/e of it.
        assert!((1000.0..1500.0).contains(&quiet), "{quiet}");
        (0..360).for_each(|_| spending.add(0, 10.0));
        let later = spending.forecast(&left(1, None), NOW).spent_per_hour.unwrap();
        assert!(later < 300.0, "{later}");
    }
}
