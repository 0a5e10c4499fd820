//! The figures of a run: samples per server and round, their medians, ratios and verdicts; written as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Plan;
use crate::server::ServerKind;

#[derive(Serialize)]
pub(crate) struct Report {
    /// Raised when a reader of the file would have to change.
    schema: u32,
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
    pub(crate) target: Option<Target>,
    pub(crate) values: BTreeMap<Subject, Samples>,
    /// Our median ÷ each other's.
    pub(crate) ratios: BTreeMap<Subject, f64>,
    pub(crate) verdict: Option<Verdict>,
}

/// What Roadstead has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The median at least nginx's.
    AtLeastNginx,
    /// The median no more than this.
    AtMost(f64),
    /// This in every round.
    Always(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// One side of the comparison is absent, or the run was too short to mean anything.
    NotJudged,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Samples {
    pub(crate) median: f64,
    /// In the order of the rounds.
    pub(crate) samples: Vec<f64>,
}

/// Collects a step's samples; rows keep the order in which their figures first appear.
#[derive(Default)]
pub(crate) struct Collector {
    rows: Vec<Growing>,
}

/// A row whose samples are still coming in.
struct Growing {
    figure: &'static str,
    target: Option<Target>,
    values: BTreeMap<Subject, Vec<f64>>,
}

// === impl Collector ===

impl Collector {
    pub(crate) fn add(&mut self, figure: &'static str, subject: impl Into<Subject>, value: f64) {
        self.add_with_target(figure, None, subject, value);
    }

    pub(crate) fn add_with_target(
        &mut self,
        figure: &'static str,
        target: Option<Target>,
        subject: impl Into<Subject>,
        value: f64,
    ) {
        let subject = subject.into();
        match self.rows.iter_mut().find(|row| row.figure == figure) {
            Some(row) => row.values.entry(subject).or_default().push(value),
            None => self.rows.push(Growing {
                figure,
                target,
                values: BTreeMap::from([(subject, vec![value])]),
            }),
        }
    }

    /// The section; without verdicts when `quick`.
    pub(crate) fn finish(self, title: String, quick: bool) -> Section {
        let rows = self.rows.into_iter().map(|Growing { figure, target, values }| {
            let values = values
                .into_iter()
                .map(|(subject, samples)| (subject, Samples::new(samples)))
                .collect();
            Row::judged(figure, target, values, quick)
        });
        Section { title, rows: rows.collect() }
    }
}

// === impl Row ===

impl Row {
    fn judged(
        figure: &'static str,
        target: Option<Target>,
        values: BTreeMap<Subject, Samples>,
        quick: bool,
    ) -> Self {
        let ours = values.get(&ServerKind::Roadstead.into()).map(|samples| samples.median);
        let ratio = |theirs: &Samples| {
            ours.filter(|_| theirs.median > 0.0).map(|ours| ours / theirs.median)
        };
        let ratios = values.iter().filter(|(subject, _)| **subject != ServerKind::Roadstead.into());
        let ratios =
            ratios.filter_map(|(subject, theirs)| Some((*subject, ratio(theirs)?))).collect();
        let verdict =
            target.map(|target| if quick { Verdict::NotJudged } else { target.judge(&values) });
        Self { figure, target, values, ratios, verdict }
    }
}

// === impl Target ===

impl Target {
    fn judge(self, values: &BTreeMap<Subject, Samples>) -> Verdict {
        let Some(ours) = values.get(&ServerKind::Roadstead.into()) else {
            return Verdict::NotJudged;
        };
        let met = match self {
            Self::AtLeastNginx => match values.get(&ServerKind::Nginx.into()) {
                Some(nginx) => ours.median >= nginx.median,
                None => return Verdict::NotJudged,
            },
            Self::AtMost(limit) => ours.median <= limit,
            Self::Always(wanted) => ours.samples.iter().all(|sample| *sample == wanted),
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
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
            schema: 1,
            plan,
            machine,
            origin: String::new(),
            servers: BTreeMap::new(),
            skipped: Vec::new(),
            sections: Vec::new(),
        }
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}
