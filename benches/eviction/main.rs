//! Which order of eviction keeps the right blobs: policies against each other on made-up traces.
//!
//! `cargo bench --bench eviction`, with `-- --quick` for seconds and `-- --seed N` for other traces.
//! Tables give the share of bytes and of requests that were hits, beside LRU and beside a bound that
//! no policy can pass. Traces are models, not recordings: trust orders and ratios, not figures.

mod offline;
mod policy;
mod report;
mod trace;

use std::{env, time::Instant};

use offline::{Belady, ByteBelady, bound};
use policy::{Cost, Gate, Gdsf, Ghost, Lru, Policy, S3Fifo, Segmented};
use report::{Summary, Table};
use trace::{MAKERS, Scale, Trace};

/// The capacities tried, as percents of a trace's distinct bytes.
const CAPACITIES: [u64; 3] = [5, 10, 25];

/// The index writes a blob's recency down at most this often.
const RESOLUTION_S: u64 = 60;

/// Digests that size-aware admission remembers.
const REMEMBERED: u64 = 20_000;

/// The summary is over traces of this many seeds; tables are printed for the first.
const SEEDS: u64 = 3;

/// Hits, by both measures.
#[derive(Clone, Copy)]
struct Score {
    bytes: f64,
    requests: f64,
}

fn main() {
    // Cargo passes `--bench`; what isn't known is ignored.
    let arguments: Vec<String> = env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let seed = arguments.iter().skip_while(|argument| *argument != "--seed").nth(1);
    let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (scale, seeds) = if quick { (Scale::QUICK, 1) } else { (Scale::FULL, SEEDS) };
    let start = Instant::now();
    check_by_hand();
    let mut summary = Summary::default();
    for seed_now in seed..seed.saturating_add(seeds) {
        for make in MAKERS {
            let trace = make(scale, seed_now);
            for percent in CAPACITIES {
                let table = compare(&trace, percent);
                summary.add(&table);
                if seed_now == seed {
                    table.print();
                }
            }
        }
    }
    summary.print();
    println!("\nseeds from {seed} on: {seeds}; {:.1} s", start.elapsed().as_secs_f64());
}

/// The policies of a table. The first is what the others are measured by.
fn contenders(capacity: u64) -> Vec<(String, Box<dyn Policy>)> {
    let mut list: Vec<(String, Box<dyn Policy>)> = vec![
        ("LRU".into(), Box::new(Lru::new(capacity, 0, None))),
        ("LRU to 60 s, as built".into(), Box::new(Lru::new(capacity, RESOLUTION_S, None))),
    ];
    for percent in [5, 10, 20, 30] {
        let policy = Segmented::new(capacity, percent, None);
        list.push((format!("segmented {percent} %"), Box::new(policy)));
    }
    for percent in [5, 20] {
        let policy = Segmented::new(capacity, percent, Some(Ghost::new(capacity)));
        list.push((format!("segmented {percent} % + ghost"), Box::new(policy)));
    }
    for share in [4, 8, 64, 512] {
        let gate = Gate { free_below: capacity / share, asked: Ghost::new(REMEMBERED) };
        let policy = Lru::new(capacity, 0, Some(gate));
        list.push((format!("LRU, 2nd time > 1/{share}"), Box::new(policy)));
    }
    list.push(("GDSF, cost 1".into(), Box::new(Gdsf::new(capacity, Cost::Request))));
    list.push(("GDSF, cost = size".into(), Box::new(Gdsf::new(capacity, Cost::Byte))));
    list.push(("S3-FIFO".into(), Box::new(S3Fifo::new(capacity))));
    list.push(("offline: Belady".into(), Box::new(Belady::new(capacity))));
    list
}

fn compare(trace: &Trace, percent: u64) -> Table<'_> {
    let capacity = trace.distinct_bytes * percent / 100;
    let bound = bound(trace, capacity);
    let mut rows = Vec::new();
    for (name, mut policy) in contenders(capacity) {
        let score = replay(policy.as_mut(), trace, capacity);
        assert!(score.bytes <= bound.bytes, "{name} passed the bound by bytes");
        assert!(score.requests <= bound.requests, "{name} passed the bound by requests");
        rows.push((name, score));
    }
    let infinite = replay(&mut Lru::new(u64::MAX, 0, None), trace, u64::MAX);
    assert!(bound.bytes <= infinite.bytes, "the bound is no bound");
    Table { trace, percent, capacity, rows, bound, infinite }
}

fn replay(policy: &mut dyn Policy, trace: &Trace, capacity: u64) -> Score {
    let (mut hit_bytes, mut all_bytes, mut hits, mut all) = (0, 0, 0u64, 0u64);
    for request in &trace.requests {
        let found = policy.request(request);
        assert!(policy.bytes() <= capacity, "a policy took more than the capacity");
        if request.counted {
            hit_bytes += found;
            all_bytes += request.bytes;
            hits += u64::from(found == request.bytes);
            all += 1;
        }
    }
    Score { bytes: hit_bytes as f64 / all_bytes as f64, requests: hits as f64 / all as f64 }
}

/// A trace short enough to know its hits: 1 2 1 3 4 1 2, two minutes apart, in room for two.
fn check_by_hand() {
    let trace = Trace::of_units(&[1, 2, 1, 3, 4, 1, 2], 2 * RESOLUTION_S);
    let hits = |policy: &mut dyn Policy| (replay(policy, &trace, 2).bytes * 7.0).round() as u32;
    assert_eq!(hits(&mut Lru::new(2, 0, None)), 1, "only the second 1");
    assert_eq!(hits(&mut Segmented::new(2, 0, None)), 2, "1 is protected from 3 and 4");
    assert_eq!(hits(&mut Belady::new(2)), 3, "3 and 4 are never stored");
    assert_eq!(hits(&mut ByteBelady::new(2)), 3, "as Belady, where all sizes are 1");
}

// === impl Score ===

impl Score {
    fn over(self, other: Self) -> Self {
        Self { bytes: self.bytes / other.bytes, requests: self.requests / other.requests }
    }
}
