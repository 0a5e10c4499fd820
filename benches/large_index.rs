//! A store of a million objects: how long a start takes, what it costs in memory, and how long an
//! eviction decides.
//!
//! The records are real, the files are not: nothing of this reads one. `--quick` takes fifty
//! thousand.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

#[path = "shared/server.rs"]
mod server;

use std::{fs, path::Path, time::Instant};

use roadstead::{
    config,
    protocol::{Algorithm, Digest},
    store::Store,
};
use server::Server;

const OBJECTS: u64 = 1_000_000;
const QUICK_OBJECTS: u64 = 50_000;

/// Objects recorded in one commit.
const BATCH: u64 = 20_000;

/// What each pretends to have.
const SIZE: u64 = 1 << 20;

/// Starts, and evictions, of which the median and the worst are printed.
const ROUNDS: usize = 5;
const EVICTIONS: usize = 200;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let objects = if quick { QUICK_OBJECTS } else { OBJECTS };
    let folder = tempfile::tempdir().unwrap();
    let config = config::Store {
        directory: folder.path().to_owned(),
        disk: u64::MAX / 2,
        ..config::Store::default()
    };
    let began = Instant::now();
    let store = Store::open(&config).unwrap();
    generate(&store, objects);
    store.close();
    drop(store);
    let index = fs::metadata(folder.path().join("index.redb")).unwrap().len();
    println!(
        "{objects} objects: index of {} MiB ({} bytes each), generated in {:.1?}",
        index >> 20,
        index / objects,
        began.elapsed()
    );
    starts(folder.path(), objects);
    evictions(&config, objects);
}

fn generate(store: &Store, objects: u64) {
    for start in (0..objects).step_by(usize::try_from(BATCH).unwrap()) {
        let numbers = start..(start + BATCH).min(objects);
        let digest = |number: u64| Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        store.pretend(numbers.map(|number| (digest(number), SIZE))).unwrap();
    }
}

fn starts(directory: &Path, objects: u64) {
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let server = Server::start(directory);
        times.push(began.elapsed());
        memory.push(anonymous_kib(&server));
        // Killed, as by a crash: the next start finds no clean end.
        drop(server);
    }
    times.sort();
    memory.sort_unstable();
    let (median, worst) = (times.get(ROUNDS / 2).unwrap(), times.last().unwrap());
    println!("start after kill -9, to /readyz: {median:.0?} in the median, {worst:.0?} at worst");
    let kib = memory.last().unwrap();
    println!(
        "memory once ready (RssAnon): {:.1} MiB, {} bytes an object",
        *kib as f64 / 1024.0,
        kib * 1024 / objects
    );
}

fn evictions(config: &config::Store, objects: u64) {
    let store = Store::open(config).unwrap();
    let mut chosen = Vec::new();
    let mut evicted = Vec::new();
    for _ in 0..EVICTIONS {
        let began = Instant::now();
        assert!(store.choose_victims(32 * SIZE).unwrap() > 0);
        chosen.push(began.elapsed());
        let began = Instant::now();
        store.evict_bytes(32 * SIZE).unwrap();
        evicted.push(began.elapsed());
    }
    for (what, mut times) in [("deciding", chosen), ("deciding, removing, recording", evicted)] {
        times.sort();
        println!(
            "eviction of 32 of {objects} objects, {what}: {:.1?} in the median, {:.1?} at the 99th of 100",
            times.get(EVICTIONS / 2).unwrap(),
            times.get(EVICTIONS * 99 / 100).unwrap()
        );
    }
    store.close();
}

fn anonymous_kib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
