//! P8 over time: random faults of upstream and disk, clients that come and go, eviction all the
//! while; memory and descriptors stay flat and nothing gets stuck.
//!
//! Upstream sends no wrong bytes here: a range of a blob that is not whole yet can't be checked, and
//! these clients look at each byte.
//!
//! `ROADSTEAD_SOAK` is its length in seconds. `ROADSTEAD_BINARY` names another build of the server,
//! such as an optimised one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hub::{Action, Fault, Target};
use tokio::time::{Instant, timeout};

use crate::books::assert_accounted;
use crate::load::{Load, Tally};
use crate::mount::{Mount, missing};
use crate::pool::Pool;
use crate::pull::Puller;
use crate::roadstead::{Roadstead, Setup};
use crate::{random, setting};

/// Clients at a time; they start anew with each round.
const CLIENTS: usize = 12;

/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(3);

/// A request that takes longer is stuck: more than all of the server's patience.
const STUCK: Duration = Duration::from_secs(60);

/// Caches and allocators fill up in the first minutes; whether anything grows is told from so many
/// rounds on.
const ROUNDS_TO_TELL: usize = 80;

/// What one round left behind.
#[derive(Debug, Clone, Copy)]
struct Sample {
    anonymous_kib: u64,
    descriptors: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_descriptors_stay_flat_under_random_faults() {
    let length = Duration::from_secs(setting("ROADSTEAD_SOAK", 30));
    let mut choices = random("soak");
    let mut pool = Pool::start(choices.fork()).await;
    (0..80).for_each(|_| drop(pool.grow()));
    // On a file system of its own the disk can be filled up; elsewhere only eviction is at work.
    let mount = if missing().is_none() { Mount::tmpfs("160m").ok() } else { None };
    let mut setup = Setup::of(&pool.hub).impatient().key("store.disk", "64MiB");
    if let Some(mount) = &mount {
        setup = setup.directory(mount.point().join("data"));
    }
    if let Ok(binary) = std::env::var("ROADSTEAD_BINARY") {
        setup = setup.binary(PathBuf::from(binary));
    }
    let mut roadstead = setup.log("warn,roadstead=warn,access=off").start().await;
    let end = Instant::now() + length;
    let mut samples: Vec<Sample> = Vec::new();
    let mut tally = Tally::default();
    let mut full_rounds = 0;
    while Instant::now() < end {
        pool.grow();
        let filler = match &mount {
            Some(mount) if choices.u8(..5) == 0 => Some(mount.fill(choices.u64(..4 << 20))),
            _ => None,
        };
        full_rounds += u64::from(filler.is_some());
        for _ in 0..choices.usize(..4) {
            pool.hub.fault(any_fault(&mut choices));
        }
        tally += round(&roadstead, &mut pool, &mut choices).await;
        pool.hub.clear_faults();
        if let Some(filler) = filler {
            fs::remove_file(filler).unwrap();
        }
        assert!(roadstead.lives());
        samples.push(sample(roadstead.pid()));
        // Each round's requests are looked at only by the rounds themselves.
        pool.hub.reset_stats();
    }
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();
    assert_accounted(&roadstead, "after the soak").await;
    let evicted = roadstead.metric(&["roadstead_evictions_total"]).await;
    println!(
        "soak of {length:?}: {} rounds ({full_rounds} on a full disk), {} pulls right with {} MiB, \
        {} cut by faults, {evicted} objects evicted",
        samples.len(),
        tally.completed,
        tally.bytes >> 20,
        tally.cut
    );
    assert!(tally.completed > 0 && evicted > 0.0);
    assert_flat(&samples);
}

/// Clients pull while some leave in the middle; all must have ended soon after.
async fn round(roadstead: &Roadstead, pool: &mut Pool, choices: &mut fastrand::Rng) -> Tally {
    let load = Load::start_in_trouble(roadstead.at(), pool, CLIENTS);
    let until = Instant::now() + ROUND;
    while Instant::now() < until {
        let image = pool.any();
        let patience = Duration::from_millis(choices.u64(1..100));
        let leaving = Puller::new(roadstead.at());
        // Whether it came so far does not matter.
        let _ = timeout(patience, leaving.image(&image.name, "latest")).await;
    }
    let tally = timeout(STUCK, load.stop()).await.expect("a request is stuck");
    timeout(STUCK, roadstead.settled()).await.expect("a fill is stuck");
    tally
}

fn any_fault(choices: &mut fastrand::Rng) -> Fault {
    let at = choices.u64(..2 << 20);
    let action = match choices.u8(..8) {
        0 => Action::CutAfter(at),
        1 => Action::HangBodyAfter(at),
        2 => Action::Delay(Duration::from_millis(choices.u64(..900))),
        3 => Action::NoDigestHeader,
        4 => Action::Drip { bytes: 16 << 10, every: Duration::from_millis(choices.u64(1..20)) },
        5 => Action::IgnoreRange,
        6 => Action::Length(choices.i64(-100..100)),
        _ => Action::Throttle(choices.u64(100_000..5_000_000)),
    };
    let target = if choices.bool() { Target::blobs() } else { Target::any() };
    Fault::new(target, action).times(choices.u32(1..10))
}

fn sample(pid: u32) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    Sample {
        anonymous_kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    }
}

/// The last quarter's median is that of the second quarter, give or take what the rounds differ by.
fn assert_flat(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    if samples.len() < ROUNDS_TO_TELL {
        return println!("soak: too short to tell growth from caches that fill: {samples:?}");
    }
    let median = |from: usize, of: fn(&Sample) -> u64| {
        let mut values: Vec<_> = samples[from..from + quarter].iter().map(of).collect();
        values.sort_unstable();
        values[quarter / 2]
    };
    let kib = |sample: &Sample| sample.anonymous_kib;
    let descriptors = |sample: &Sample| sample.descriptors as u64;
    let (early, late) = (median(quarter, kib), median(samples.len() - quarter, kib));
    let (few, many) = (median(quarter, descriptors), median(samples.len() - quarter, descriptors));
    println!(
        "soak: {} MiB of anonymous memory early on, {} MiB at the end; {few} and {many} descriptors",
        early >> 10,
        late >> 10
    );
    assert!(late <= early + early / 4 + (8 << 10), "memory grows: {early} KiB, then {late} KiB");
    assert!(many <= few + few / 4 + 16, "descriptors grow: {few}, then {many}");
}
