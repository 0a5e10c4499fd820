//! What Roadstead has to reach, and whether it did: each target compares our median of one row with a limit or a peer.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::report::{Samples, Subject};
use crate::server::ServerKind;

/// Prints as it is read: `≥ 2 × nginx`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Target {
    /// At least so many times the peer's median.
    AtLeast { times: f64, peer: Subject },
    /// At most so many times the peer's median.
    AtMost { times: f64, peer: Subject },
    /// At most the peer's median and so much more, in the row's own unit.
    AtMostAbove { above: f64, peer: Subject },
    /// At most this, whatever the peers do.
    Limit { limit: f64 },
    /// Exactly this, in each round.
    EveryRound { value: f64 },
}

/// A target with the figures that it was held against.
#[derive(Debug, Serialize)]
pub(crate) struct Aim {
    /// The target in words.
    pub(crate) wanted: String,
    target: Target,
    pub(crate) ours: Option<f64>,
    /// The peer's median, where the target names a peer that was measured.
    pub(crate) theirs: Option<f64>,
    /// Ours ÷ theirs.
    pub(crate) ratio: Option<f64>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// One side of the comparison is absent, or the run was too short to mean anything.
    NotJudged,
}

// === impl Target ===

impl Target {
    pub(crate) fn at_least(times: f64, peer: impl Into<Subject>) -> Self {
        Self::AtLeast { times, peer: peer.into() }
    }

    pub(crate) fn at_most(times: f64, peer: impl Into<Subject>) -> Self {
        Self::AtMost { times, peer: peer.into() }
    }

    pub(crate) fn at_most_above(above: f64, peer: impl Into<Subject>) -> Self {
        Self::AtMostAbove { above, peer: peer.into() }
    }

    pub(crate) const fn limit(limit: f64) -> Self {
        Self::Limit { limit }
    }

    pub(crate) const fn every_round(value: f64) -> Self {
        Self::EveryRound { value }
    }

    pub(crate) const fn peer(self) -> Option<Subject> {
        match self {
            Self::AtLeast { peer, .. }
            | Self::AtMost { peer, .. }
            | Self::AtMostAbove { peer, .. } => Some(peer),
            Self::Limit { .. } | Self::EveryRound { .. } => None,
        }
    }

    /// Held against a row's figures; without a verdict when `unjudged`.
    pub(crate) fn judged(self, values: &BTreeMap<Subject, Samples>, unjudged: bool) -> Aim {
        let ours = values.get(&ServerKind::Roadstead.into());
        let theirs = self.peer().and_then(|peer| values.get(&peer)).map(|theirs| theirs.median);
        let met = ours.filter(|_| !unjudged).and_then(|ours| self.is_met(ours, theirs));
        let ours = ours.map(|ours| ours.median);
        Aim {
            wanted: self.to_string(),
            target: self,
            ours,
            theirs,
            ratio: ours.zip(theirs.filter(|theirs| *theirs > 0.0)).map(|(ours, it)| ours / it),
            verdict: met.map_or(Verdict::NotJudged, Verdict::of),
        }
    }

    /// `None` where the peer that it names was not measured.
    fn is_met(self, ours: &Samples, theirs: Option<f64>) -> Option<bool> {
        Some(match self {
            Self::AtLeast { times, .. } => ours.median >= times * theirs?,
            Self::AtMost { times, .. } => ours.median <= times * theirs?,
            Self::AtMostAbove { above, .. } => ours.median <= theirs? + above,
            Self::Limit { limit } => ours.median <= limit,
            Self::EveryRound { value } => ours.samples.iter().all(|sample| *sample == value),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast { times, peer } => write!(f, "≥ {times} × {}", peer.name()),
            Self::AtMost { times, peer } => write!(f, "≤ {times} × {}", peer.name()),
            Self::AtMostAbove { above, peer } => write!(f, "≤ {} + {above}", peer.name()),
            Self::Limit { limit } => write!(f, "≤ {limit}"),
            Self::EveryRound { value } => write!(f, "{value} in every round"),
        }
    }
}

// === impl Verdict ===

impl Verdict {
    const fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotJudged => "not judged",
        })
    }
}
