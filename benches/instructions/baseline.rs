//! The baseline: what a request of each kind cost when that was last accepted, and how far from it another count is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Counts, and what they hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Architecture and system; counts on another say nothing about these.
    pub(crate) target: String,
    /// The compiler; another may well make other code of the same source.
    pub(crate) rustc: String,
    /// Instructions by kind of request.
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// How far a count may be from its baseline, in percent of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    BothWays(f64),
    /// For a count whose least varies by itself: a lower one is no reason to lower the baseline.
    Upwards(f64),
}

/// What a count means beside its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Within,
    /// It has become dearer.
    Above,
    /// It has become cheaper, and the baseline hides how much of that is lost again.
    Below,
    /// It came out lower, which is only said.
    Lower,
    /// There is no baseline for this kind.
    Unknown,
}

// === impl Baseline ===

impl Baseline {
    pub(crate) fn new(rustc: &str, instructions: BTreeMap<String, u64>) -> Self {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        Self { target, rustc: rustc.to_owned(), instructions }
    }

    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// The kinds that `found` has no count of: a baseline that names them says that they are guarded.
    pub(crate) fn unmeasured<'a>(&'a self, found: &'a Self) -> impl Iterator<Item = &'a str> {
        let kinds = self.instructions.keys().map(String::as_str);
        kinds.filter(|kind| !found.instructions.contains_key(*kind))
    }

    /// How far `count` is from the baseline of `kind`, in percent.
    pub(crate) fn change_percent(&self, kind: &str, count: u64) -> Option<f64> {
        let accepted = *self.instructions.get(kind)? as f64;
        // The division comes last, so that a round percentage comes out as one.
        Some((count as f64 - accepted) * 100.0 / accepted)
    }

    /// What `count` means for `kind`.
    pub(crate) fn verdict(&self, kind: &str, count: u64, limit: Limit) -> Verdict {
        match self.change_percent(kind, count) {
            None => Verdict::Unknown,
            Some(change) if change > limit.percent() => Verdict::Above,
            Some(change) if change >= -limit.percent() => Verdict::Within,
            Some(_) if matches!(limit, Limit::Upwards(_)) => Verdict::Lower,
            Some(_) => Verdict::Below,
        }
    }
}

// === impl Limit ===

impl Limit {
    /// Of a kind of request whose count comes back within a percent.
    pub(crate) const USUAL: Self = Self::BothWays(5.0);

    pub(crate) const fn percent(self) -> f64 {
        match self {
            Self::BothWays(percent) | Self::Upwards(percent) => percent,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::BothWays(percent) => format!("±{percent:.0} %"),
            Self::Upwards(percent) => format!("+{percent:.0} %"),
        };
        f.pad(&text)
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether a change with this verdict may go in. A baseline that has become too high would let later regressions
    /// pass by as much, so it is lowered along with the change that made it so; where the compiler differs, it may be
    /// the compiler's doing, and there is nothing to lower.
    pub(crate) const fn is_accepted(self, is_same_compiler: bool) -> bool {
        match self {
            Self::Within | Self::Lower => true,
            Self::Above | Self::Unknown => false,
            Self::Below => !is_same_compiler,
        }
    }

    /// Whether nothing has to be done about it.
    pub(crate) const fn is_within(self) -> bool {
        matches!(self, Self::Within | Self::Lower)
    }

    /// For the table's last column.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Within => "",
            Self::Above => "MORE THAN ACCEPTED",
            Self::Lower => "less, which varies",
            Self::Below => "less: the baseline is to be lowered",
            Self::Unknown => "NO BASELINE",
        }
    }
}
