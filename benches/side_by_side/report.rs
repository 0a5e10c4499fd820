//! The figures of a run: samples per server and round, their medians and ratios, and the aims; written as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Plan;
use crate::server::ServerKind;
use crate::target::{Aim, Target, Verdict};

#[derive(Serialize)]
pub(crate) struct Report {
    /// Raised when a reader of the file would have to change.
    schema: u32,
    /// The day on which the run started, in UTC.
    date: String,
    pub(crate) plan: Plan,
    pub(crate) machine: Machine,
    pub(crate) origin: String,
    pub(crate) servers: BTreeMap<ServerKind, String>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) sections: Vec<Section>,
}

#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Others' load at the start: above 0.3 or so, absolute figures mean little.
    pub(crate) load_average: String,
}

#[derive(Serialize)]
pub(crate) struct Skipped {
    pub(crate) server: ServerKind,
    pub(crate) reason: &'static str,
}

/// One step's figures.
#[derive(Serialize)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

/// Who a figure belongs to: a server, or the client going straight to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    Direct,
    #[serde(untagged)]
    Server(ServerKind),
}

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    pub(crate) values: BTreeMap<Subject, Samples>,
    /// Our median ÷ each other's.
    pub(crate) ratios: BTreeMap<Subject, f64>,
    /// As many as the row has targets.
    pub(crate) aims: Vec<Aim>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Samples {
    pub(crate) median: f64,
    /// In the order of the rounds.
    pub(crate) samples: Vec<f64>,
}

/// Collects a step's samples; rows keep the order in which their figures are first named.
#[derive(Default)]
pub(crate) struct Collector {
    rows: Vec<Growing>,
}

/// A row whose samples are still coming in.
struct Growing {
    figure: &'static str,
    targets: Vec<Target>,
    values: BTreeMap<Subject, Vec<f64>>,
}

// === impl Collector ===

impl Collector {
    /// Gives the figure's row one more target; the row is reported even if nothing is measured for it.
    pub(crate) fn aim(&mut self, figure: &'static str, target: Target) {
        self.row(figure).targets.push(target);
    }

    pub(crate) fn add(&mut self, figure: &'static str, subject: impl Into<Subject>, value: f64) {
        self.row(figure).values.entry(subject.into()).or_default().push(value);
    }

    /// The section; without verdicts when `unjudged`.
    pub(crate) fn finish(self, title: String, unjudged: bool) -> Section {
        Section { title, rows: self.rows.into_iter().map(|row| row.finish(unjudged)).collect() }
    }

    fn row(&mut self, figure: &'static str) -> &mut Growing {
        let known = self.rows.iter().position(|row| row.figure == figure);
        let index = known.unwrap_or_else(|| {
            self.rows.push(Growing { figure, targets: Vec::new(), values: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows.get_mut(index).expect("the row was found or added")
    }
}

// === impl Growing ===

impl Growing {
    fn finish(self, unjudged: bool) -> Row {
        let values: BTreeMap<_, _> = self
            .values
            .into_iter()
            .map(|(subject, samples)| (subject, Samples::new(samples)))
            .collect();
        let aims = self.targets.iter().map(|target| target.judged(&values, unjudged)).collect();
        Row { figure: self.figure, ratios: ratios(&values), values, aims }
    }
}

/// Ours ÷ each other's.
fn ratios(values: &BTreeMap<Subject, Samples>) -> BTreeMap<Subject, f64> {
    let us = ServerKind::Roadstead.into();
    let Some(ours) = values.get(&us) else {
        return BTreeMap::new();
    };
    values
        .iter()
        .filter(|(subject, theirs)| **subject != us && theirs.median > 0.0)
        .map(|(subject, theirs)| (*subject, ours.median / theirs.median))
        .collect()
}

// === impl Samples ===

impl Samples {
    fn new(samples: Vec<f64>) -> Self {
        Self { median: median(&samples), samples }
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get((sorted.len().max(1) - 1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
}

// === impl Subject ===

impl Subject {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Server(kind) => kind.name(),
        }
    }
}

impl From<ServerKind> for Subject {
    fn from(kind: ServerKind) -> Self {
        Self::Server(kind)
    }
}

// === impl Skipped ===

impl Skipped {
    /// Says on the terminal why `kind` is left out, and keeps it for the report.
    pub(crate) fn announced(kind: ServerKind) -> Self {
        println!("{:<16} SKIPPED: {}", kind.name(), kind.remedy());
        Self { server: kind, reason: kind.remedy() }
    }
}

// === impl Machine ===

impl Machine {
    pub(crate) fn observed() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpu_info = read("/proc/cpuinfo");
        let model =
            cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_average: read("/proc/loadavg"),
        }
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(plan: Plan, machine: Machine) -> Self {
        Self {
            schema: 2,
            date: time::OffsetDateTime::now_utc().date().to_string(),
            plan,
            machine,
            origin: String::new(),
            servers: BTreeMap::new(),
            skipped: Vec::new(),
            sections: Vec::new(),
        }
    }

    pub(crate) fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        let rows = self.sections.iter().flat_map(|section| &section.rows);
        rows.flat_map(|row| &row.aims).map(|aim| aim.verdict)
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}
