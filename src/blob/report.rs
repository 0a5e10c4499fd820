//! The fills under way, as an operator sees them.

use std::{
    sync::PoisonError,
    time::{Instant, SystemTime},
};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Blobs,
    fill::{Fill, Phase},
};

/// How long bytes are counted for a rate at the least: a look just after another one says what that
/// one said.
const LEAST_SECONDS: f64 = 0.5;

/// How long it takes until a rate is more of what came since than of what came before.
const SMOOTH_SECONDS: f64 = 3.0;

/// One blob on its way from upstream.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FillReport {
    /// The blob's digest.
    pub digest: String,
    /// The upstream that it comes from.
    pub upstream: String,
    /// The repository there.
    pub repository: String,
    /// How far it is.
    pub state: FillState,
    /// Bytes that are here, those of an earlier attempt included.
    pub received_bytes: u64,
    /// The blob's length; `null` until upstream has said it.
    pub total_bytes: Option<u64>,
    /// Clients that read it.
    pub readers: usize,
    /// Bytes per second that come from upstream: over the last seconds, as long as somebody looks.
    pub bytes_per_second: f64,
    /// When it began; seconds since 1970.
    pub since: u64,
}

/// A fill's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FillState {
    /// For a place among those that may talk to upstream.
    Waiting,
    /// Upstream was asked and has not answered yet.
    Asking,
    /// Bytes come.
    Receiving,
}

/// How fast bytes come, from one look to the next. Costs nothing while nobody looks.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// When somebody looked, or bytes could come first, and how many were there.
    last: Option<(Instant, u64)>,
    bytes_per_second: Option<f64>,
}

// === impl Blobs ===

impl Blobs {
    /// The fills under way, the oldest first.
    pub fn fills(&self) -> Vec<FillReport> {
        let now = Instant::now();
        let mut fills: Vec<_> = self.fills.all().iter().filter_map(|it| report(it, now)).collect();
        fills.sort_unstable_by(|a, b| (a.since, &a.digest).cmp(&(b.since, &b.digest)));
        fills
    }
}

/// `None` for one that is over.
fn report(fill: &Fill, now: Instant) -> Option<FillReport> {
    let progress = fill.progress();
    let state = match progress.phase {
        Phase::Waiting => FillState::Waiting,
        Phase::Asking => FillState::Asking,
        Phase::Receiving => FillState::Receiving,
        Phase::Verified | Phase::Failed(_) => return None,
    };
    let received_bytes = progress.received.len();
    let is_receiving = state == FillState::Receiving;
    let mut meter = fill.meter.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes_per_second = if is_receiving { meter.look(received_bytes, now) } else { 0.0 };
    drop(meter);
    let origin = fill.origin();
    Some(FillReport {
        digest: fill.digest().to_string(),
        upstream: origin.upstream.to_string(),
        repository: origin.repository.to_string(),
        state,
        received_bytes,
        total_bytes: progress.total,
        readers: fill.readers(),
        bytes_per_second,
        since: fill.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
    })
}

// === impl Meter ===

impl Meter {
    /// Bytes come from now on; so many are here already.
    pub(super) fn begin(&mut self, bytes: u64, now: Instant) {
        *self = Self { last: Some((now, bytes)), bytes_per_second: None };
    }

    /// So many bytes are here now. Gives bytes per second.
    fn look(&mut self, bytes: u64, now: Instant) -> f64 {
        let (last, before) = *self.last.get_or_insert((now, bytes));
        let seconds = now.saturating_duration_since(last).as_secs_f64();
        if seconds >= LEAST_SECONDS {
            let since = bytes.saturating_sub(before) as f64 / seconds;
            let kept = self.bytes_per_second.map_or(0.0, |_| (-seconds / SMOOTH_SECONDS).exp());
            let rate = self.bytes_per_second.unwrap_or_default() * kept + since * (1.0 - kept);
            (self.last, self.bytes_per_second) = (Some((now, bytes)), Some(rate));
        }
        self.bytes_per_second.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_follows_what_comes_and_is_not_of_what_was_there() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut meter = Meter::default();
        meter.begin(1_000_000, start);
        assert_eq!(meter.look(1_000_000, at(0.1)), 0.0, "too soon to say");
        assert_eq!(meter.look(1_002_000, at(2.0)), 1000.0);
        assert_eq!(meter.look(2_000_000, at(2.1)), 1000.0, "as it was a moment ago");
        let faster = meter.look(1_012_000, at(3.0));
        assert!((1001.0..10_000.0).contains(&faster), "{faster}");
        assert!(meter.look(1_012_000, at(60.0)) < 0.01, "it stands still");
    }
}
