//! What was measured, as a table beside the baseline, and what follows from it.

use std::collections::BTreeMap;

use crate::baseline::{Baseline, Verdict};
use crate::kinds::Kind;

/// A kind, and its count in each round.
pub(crate) struct Measured {
    kind: Kind,
    counts: Vec<f64>,
}

/// What goes into a baseline.
pub(crate) fn counts(measured: &[Measured]) -> BTreeMap<String, u64> {
    measured.iter().map(|one| (one.kind.name.to_owned(), one.count())).collect()
}

/// Prints a line per kind; without a baseline only what was measured.
pub(crate) fn print(measured: &[Measured], baseline: Option<&Baseline>) {
    println!(
        "{:<22} {:>12} {:>7} {:>12} {:>8} {:>6}",
        "instructions", "measured", "spread", "baseline", "change", "limit"
    );
    for one in measured {
        let (name, count) = (one.kind.name, one.count());
        let accepted = baseline.and_then(|baseline| baseline.instructions.get(name));
        let accepted = accepted.map_or_else(|| "-".to_owned(), u64::to_string);
        let change = baseline.and_then(|baseline| baseline.change_percent(name, count));
        let change = change.map_or_else(|| "-".to_owned(), |change| format!("{change:+.1} %"));
        let verdict = baseline.map_or("", |baseline| one.verdict(baseline).as_str());
        let spread = format!("{:.1} %", one.spread_percent());
        println!(
            "{name:<22} {count:>12} {spread:>7} {accepted:>12} {change:>8} {:>6}  {verdict}",
            one.kind.limit,
        );
    }
}

/// Says what is to be done, and whether nothing has to be.
pub(crate) fn judge(measured: &[Measured], baseline: &Baseline, found: &Baseline) -> bool {
    let is_same_compiler = baseline.rustc == found.rustc;
    let verdicts: Vec<_> = measured.iter().map(|one| one.verdict(baseline)).collect();
    let unmeasured: Vec<_> = baseline.unmeasured(found).collect();
    if unmeasured.is_empty() && verdicts.iter().all(|verdict| verdict.is_within()) {
        println!("\nall within their limits");
        return true;
    }
    for kind in &unmeasured {
        println!("\nNOT MEASURED: {kind}, which the baseline has");
    }
    println!("\nWhere the change is wanted: cargo bench --bench instructions -- --bless");
    if !is_same_compiler {
        println!(
            "The baseline is of rustc {}, this is {}: it may be the compiler's doing.",
            baseline.rustc, found.rustc
        );
    }
    unmeasured.is_empty() && verdicts.iter().all(|it| it.is_accepted(is_same_compiler))
}

// === impl Measured ===

impl Measured {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, counts: Vec::new() }
    }

    pub(crate) fn add(&mut self, count: f64) {
        self.counts.push(count);
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The least: what other work adds, it adds by chance.
    fn count(&self) -> u64 {
        self.least().round() as u64
    }

    /// How far apart the rounds were.
    fn spread_percent(&self) -> f64 {
        let most = self.counts.iter().copied().fold(0.0, f64::max);
        (most / self.least() - 1.0) * 100.0
    }

    fn least(&self) -> f64 {
        self.counts.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn verdict(&self, baseline: &Baseline) -> Verdict {
        baseline.verdict(self.kind.name, self.count(), self.kind.limit)
    }
}
