//! What is printed: a table per trace and capacity, and what it comes to for each policy.

use std::collections::BTreeMap;

use crate::{
    Score,
    trace::{GIB, Trace},
};

pub(crate) struct Table<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) percent: u64,
    pub(crate) capacity: u64,
    /// By policy; LRU is the first.
    pub(crate) rows: Vec<(String, Score)>,
    pub(crate) bound: Score,
    pub(crate) infinite: Score,
}

/// Ratios to LRU, by policy and trace, of all tables.
#[derive(Default)]
pub(crate) struct Summary {
    policies: Vec<String>,
    traces: Vec<&'static str>,
    /// By places in the two lists.
    ratios: BTreeMap<(usize, usize), Vec<Score>>,
}

// === impl Table ===

impl Table<'_> {
    fn lru(&self) -> Score {
        self.rows.first().map_or(self.bound, |(_, score)| *score)
    }

    pub(crate) fn print(&self) {
        let gib = |bytes: u64| bytes as f64 / GIB as f64;
        let Self { trace, percent, capacity, .. } = self;
        let (requests, distinct) = (trace.requests.len(), gib(trace.distinct_bytes));
        println!("\n{}: {requests} requests, {distinct:.0} GiB distinct", trace.name);
        let title = format!("{percent} % = {:.1} GiB", gib(*capacity));
        let columns = format!("{:>7}{:>7}", "/LRU", "/bound");
        println!("{title:<24}{:>8}{columns}  {:>8}{columns}", "bytes %", "reqs %");
        for (name, score) in &self.rows {
            self.print_row(name, *score);
        }
        self.print_row("bound", self.bound);
        self.print_row("infinite cache", self.infinite);
    }

    fn print_row(&self, name: &str, score: Score) {
        let (to_lru, to_bound) = (score.over(self.lru()), score.over(self.bound));
        let cells = |of: fn(Score) -> f64| {
            format!("{:>8.2}{:>7.3}{:>7.3}", of(score) * 100.0, of(to_lru), of(to_bound))
        };
        println!("{name:<24}{}  {}", cells(|score| score.bytes), cells(|score| score.requests));
    }
}

// === impl Summary ===

impl Summary {
    pub(crate) fn add(&mut self, table: &Table<'_>) {
        let trace = place(&mut self.traces, &table.trace.name);
        for (name, score) in &table.rows {
            let policy = place(&mut self.policies, name);
            self.ratios.entry((policy, trace)).or_default().push(score.over(table.lru()));
        }
    }

    pub(crate) fn print(&self) {
        self.print_ratios("bytes", |score| score.bytes);
        self.print_ratios("requests", |score| score.requests);
    }

    /// The mean over a trace's capacities and seeds, then that of all, and the worst and the best.
    fn print_ratios(&self, measure: &str, of: fn(&Score) -> f64) {
        let traces: String = self.traces.iter().map(|name| format!("{name:>10}")).collect();
        println!(
            "\n{:<24}{traces}{:>10}{:>8}{:>8}",
            format!("to LRU, by {measure}"),
            "mean",
            "worst",
            "best"
        );
        for (policy, name) in self.policies.iter().enumerate() {
            let row = self.ratios.range((policy, 0)..(policy + 1, 0));
            let row: Vec<Vec<f64>> = row.map(|(_, cell)| cell.iter().map(of).collect()).collect();
            let means: String = row.iter().map(|cell| format!("{:>10.3}", mean(cell))).collect();
            let all = row.concat();
            let worst = all.iter().copied().fold(f64::INFINITY, f64::min);
            let best = all.iter().copied().fold(0.0, f64::max);
            println!("{name:<24}{means}{:>10.3}{worst:>8.3}{best:>8.3}", mean(&all));
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Where `name` stands in the list, at its end if it is new.
fn place<T: PartialEq + Clone>(list: &mut Vec<T>, name: &T) -> usize {
    list.iter().position(|known| known == name).unwrap_or_else(|| {
        list.push(name.clone());
        list.len() - 1
    })
}
