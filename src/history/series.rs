//! What the history answers: plain data, ready to be drawn.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stretch of time that is kept, and how finely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// The last hour, by 10 seconds.
    Hour,
    /// The last day, by 5 minutes.
    Day,
    /// The last week, by 30 minutes.
    Week,
}

/// A span's past, up to now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Series {
    /// Which span it is.
    pub span: Span,
    /// Seconds from one point to the next.
    pub step_seconds: u64,
    /// When the first point begins; seconds since 1970, a multiple of `step_seconds`.
    pub begins_at: u64,
    /// One for each step, the oldest first; the last one is of the step that is under way. `null`
    /// where nobody counted: the server was down, or this is before its first start.
    pub points: Vec<Option<Point>>,
}

/// What happened during one step. Counts are of this step alone, not running totals.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// When the step begins; seconds since 1970.
    pub at: u64,
    /// Seconds of the step during which somebody counted. Rates are counts divided by this.
    pub seconds: f64,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// Pulls left to all accounts of all upstreams that say so, at the step's end; `null` where none
    /// does.
    pub left: Option<u64>,
}

/// What is counted, over a time that whoever has it knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// Requests of clients that were answered.
    pub requests: u64,
    /// Those of them that were answered from what is kept: fresh, found unchanged, or stale.
    pub hits: u64,
    /// Those of them that could be kept and had to be fetched. What is neither a hit nor a miss can't
    /// be kept (pings, pushes), or was refused.
    pub misses: u64,
    /// Body bytes sent to clients.
    pub bytes: u64,
    /// Those of them that were kept.
    pub bytes_from_cache: u64,
    /// Those of them that are neither a hit's nor a miss': of pings, pushes and refusals.
    pub bytes_uncacheable: u64,
    /// Body bytes received from upstream.
    pub upstream_bytes: u64,
    /// Requests that a registry's pull limit counted.
    pub spent: u64,
    /// Manifest requests of clients that cost none.
    pub saved: u64,
    /// Answers that clients have to take as failures: 429 and 5xx.
    pub errors: u64,
    /// Answers with a copy that could not be validated.
    pub stale: u64,
    /// Fills of blobs that ended, however they did.
    pub fills: u64,
}

// === impl Span ===

impl Span {
    /// Seconds of a step.
    pub fn step_seconds(self) -> u64 {
        match self {
            Self::Hour => 10,
            Self::Day => 300,
            Self::Week => 1800,
        }
    }

    /// Steps that it has.
    pub fn steps(self) -> usize {
        match self {
            Self::Hour => 360,
            Self::Day => 288,
            Self::Week => 336,
        }
    }
}

// === impl Series ===

impl Series {
    /// All that was counted during it.
    pub fn sum(&self) -> Counts {
        let counts = self.points.iter().flatten().map(|point| &point.counts);
        counts.fold(Counts::default(), |sum, counts| sum.plus(counts))
    }
}

// === impl Counts ===

impl Counts {
    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What was counted since `before`; nothing where that is more.
    pub fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    /// Hits among hits and misses; `None` where there are none.
    pub fn hit_ratio(&self) -> Option<f64> {
        share(self.hits, self.hits.saturating_add(self.misses))
    }

    /// The bytes of hits, and those of hits and misses.
    pub fn bytes_of_hits(&self) -> (u64, u64) {
        (self.bytes_from_cache, self.bytes.saturating_sub(self.bytes_uncacheable))
    }

    /// Bytes of hits among those of hits and misses; `None` where there are none.
    pub fn byte_hit_ratio(&self) -> Option<f64> {
        let (hits, all) = self.bytes_of_hits();
        share(hits, all)
    }

    fn with(&self, other: &Self, both: fn(u64, u64) -> u64) -> Self {
        Self {
            requests: both(self.requests, other.requests),
            hits: both(self.hits, other.hits),
            misses: both(self.misses, other.misses),
            bytes: both(self.bytes, other.bytes),
            bytes_from_cache: both(self.bytes_from_cache, other.bytes_from_cache),
            bytes_uncacheable: both(self.bytes_uncacheable, other.bytes_uncacheable),
            upstream_bytes: both(self.upstream_bytes, other.upstream_bytes),
            spent: both(self.spent, other.spent),
            saved: both(self.saved, other.saved),
            errors: both(self.errors, other.errors),
            stale: both(self.stale, other.stale),
            fills: both(self.fills, other.fills),
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
