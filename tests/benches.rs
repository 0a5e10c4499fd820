//! What the benches reckon: the slow link of `side_by_side`, and what `instructions` makes of its counts. A bench has no
//! test harness, so its tests stand here.

#[path = "../benches/instructions/baseline.rs"]
mod baseline;
#[path = "../benches/side_by_side/link.rs"]
mod link;

use std::time::{Duration, Instant};

use baseline::{Baseline, Limit, Verdict};
use link::{Lane, Link};

// --- the slow link ---

const PIECE_BYTES: u64 = 16 << 10;
/// 100 Mbit/s are 12 500 bytes a millisecond.
const LINK: Link =
    Link { bits_per_second: Some(100_000_000), round_trip: Duration::from_millis(40) };

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn an_image_of_60_mib_takes_five_seconds_of_wire() {
    assert_eq!(LINK.transmission(60 << 20), Duration::from_nanos(5_033_164_800));
}

#[test]
fn a_piece_arrives_after_its_transmission_and_half_a_round_trip() {
    let now = Instant::now();
    let passage = Lane::new(LINK, now).pass(now, 12_500);
    assert_eq!(passage.arrives_at, now + ms(1) + ms(20));
}

#[test]
fn pieces_of_all_connections_share_one_rate() {
    let now = Instant::now();
    let mut lane = Lane::new(LINK, now);
    let arrivals = (0..1000).map(|_| lane.pass(now, PIECE_BYTES).arrives_at);
    let last = arrivals.last().expect("a thousand arrivals");
    let wire = LINK.transmission(1000 * PIECE_BYTES);
    // Each piece's time is rounded down to a nanosecond.
    let early = (now + wire + ms(20)).duration_since(last);
    assert!(early <= Duration::from_nanos(1000), "{early:?}");
}

#[test]
fn an_idle_lane_saves_up_no_burst() {
    let start = Instant::now();
    let mut lane = Lane::new(LINK, start);
    lane.pass(start, PIECE_BYTES);
    let later = start + ms(5000);
    assert_eq!(lane.pass(later, 12_500).arrives_at, later + ms(21));
    assert_eq!(lane.pass(later, 12_500).arrives_at, later + ms(22));
}

#[test]
fn a_sender_may_run_ahead_by_the_queue_and_no_further() {
    let now = Instant::now();
    let mut lane = Lane::new(LINK, now);
    // 20 ms of link fit into the queue; the millisecond after that has to be waited for.
    assert_eq!(lane.pass(now, 20 * 12_500).next_from, now);
    assert_eq!(lane.pass(now, 12_500).next_from, now + ms(1));
}

#[test]
fn a_sender_late_by_less_than_the_queue_costs_the_lane_nothing() {
    let start = Instant::now();
    let mut lane = Lane::new(LINK, start);
    let (mut now, mut sent_at) = (start, start);
    for _ in 0..1000 {
        let passage = lane.pass(now, 12_500);
        sent_at = passage.arrives_at - ms(20);
        if passage.next_from > now {
            now = passage.next_from + ms(15);
        }
    }
    assert_eq!(sent_at, start + ms(1000));
}

#[test]
fn without_a_rate_only_the_delay_remains() {
    let link = Link { bits_per_second: None, round_trip: ms(5) };
    let now = Instant::now();
    let mut lane = Lane::new(link, now);
    for _ in 0..3 {
        let passage = lane.pass(now, 1 << 30);
        assert_eq!((passage.next_from, passage.arrives_at), (now, now + ms(5) / 2));
    }
}

#[test]
fn a_handshake_costs_a_round_trip() {
    let asked_at = Instant::now();
    assert_eq!(LINK.established_at(asked_at), asked_at + ms(40));
}

// --- instructions ---

fn baseline() -> Baseline {
    Baseline::new("1.95.0", [("tag".to_owned(), 100_000)].into())
}

fn verdict(count: u64) -> Verdict {
    baseline().verdict("tag", count, Limit::USUAL)
}

#[test]
fn more_than_five_percent_above_is_a_regression_on_any_compiler() {
    assert_eq!([verdict(100_000), verdict(105_000)], [Verdict::Within, Verdict::Within]);
    assert_eq!([verdict(105_001), verdict(1_000_000)], [Verdict::Above, Verdict::Above]);
    assert!(!Verdict::Above.is_accepted(true));
    assert!(!Verdict::Above.is_accepted(false));
}

#[test]
fn a_baseline_that_is_too_high_is_to_be_lowered_if_the_compiler_is_the_same() {
    assert_eq!([verdict(95_000), verdict(94_999)], [Verdict::Within, Verdict::Below]);
    assert!(!Verdict::Below.is_accepted(true));
    assert!(Verdict::Below.is_accepted(false));
}

#[test]
fn a_count_that_varies_is_judged_upwards_only() {
    let verdict = |count| baseline().verdict("tag", count, Limit::Upwards(30.0));
    assert_eq!([verdict(130_000), verdict(130_001)], [Verdict::Within, Verdict::Above]);
    assert_eq!([verdict(70_000), verdict(69_999)], [Verdict::Within, Verdict::Lower]);
    assert!(Verdict::Lower.is_accepted(true) && Verdict::Lower.is_within());
}

#[test]
fn a_kind_without_a_baseline_is_not_accepted() {
    assert_eq!(baseline().verdict("new", 1, Limit::USUAL), Verdict::Unknown);
    assert!(!Verdict::Unknown.is_accepted(true));
    assert!(Verdict::Within.is_accepted(true));
}

#[test]
fn a_kind_of_the_baseline_that_was_not_measured_is_found() {
    let found = Baseline::new("1.95.0", [("new".to_owned(), 1)].into());
    assert_eq!(baseline().unmeasured(&found).collect::<Vec<_>>(), ["tag"]);
    assert_eq!(baseline().unmeasured(&baseline()).count(), 0);
}

#[test]
fn every_verdict_but_the_good_one_has_words() {
    let words =
        [Verdict::Above, Verdict::Below, Verdict::Lower, Verdict::Unknown].map(Verdict::as_str);
    assert!(words.iter().all(|words| !words.is_empty()));
    assert_eq!(Verdict::Within.as_str(), "");
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("baseline.json");
    baseline().write(&file).unwrap();
    assert_eq!(Baseline::read(&file).unwrap(), baseline());
    assert!(Baseline::read(&folder.path().join("none")).is_err());
}

#[test]
fn the_baseline_in_the_repository_is_readable_and_has_no_empty_counts() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/baseline.json");
    let baseline = Baseline::read(file.as_ref()).unwrap();
    assert!(baseline.instructions.values().all(|count| *count > 0));
    assert!(baseline.instructions.contains_key("tag"));
}
