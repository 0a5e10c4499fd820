//! What the bench `instructions` makes of its counts: a bench has no tests of its own.

#[path = "../benches/instructions/baseline.rs"]
mod baseline;

use baseline::{Baseline, Verdict};

/// The bench's own.
const LIMIT_PERCENT: f64 = 5.0;

fn baseline() -> Baseline {
    Baseline::new("1.95.0", [("tag".to_owned(), 100_000)].into())
}

fn verdict(count: u64) -> Verdict {
    baseline().verdict("tag", count, LIMIT_PERCENT)
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
fn a_kind_without_a_baseline_is_not_accepted() {
    assert_eq!(baseline().verdict("new", 1, LIMIT_PERCENT), Verdict::Unknown);
    assert!(!Verdict::Unknown.is_accepted(true));
    assert!(Verdict::Within.is_accepted(true));
}

#[test]
fn every_verdict_but_the_good_one_has_words() {
    let words = [Verdict::Above, Verdict::Below, Verdict::Unknown].map(Verdict::as_str);
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
