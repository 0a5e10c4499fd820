//! Running totals since the start, read from what is counted anyway.

use std::sync::Arc;

use prometheus::{IntCounterVec, core::Collector, proto::Metric};

use crate::{
    history::Counts,
    metrics,
    upstream::{Tally, Upstream},
};

/// What the cache did where it answered from what it keeps.
const HITS: [&str; 3] = ["hit", "validated", "stale"];

/// All since the start, with these pulls.
pub(super) fn totals(pulls: Tally) -> Counts {
    let (requests, bytes) = (&*metrics::REQUESTS, &*metrics::RESPONSE_BYTES);
    let is_hit = |metric: &Metric| label(metric, "cache").is_some_and(|it| HITS.contains(&it));
    let is_miss = |metric: &Metric| label(metric, "cache") == Some("miss");
    let is_error = |metric: &Metric| label(metric, "status").is_some_and(is_failure);
    let all = |_: &Metric| true;
    let [answered, hits, misses, errors] = sums(requests, [&all, &is_hit, &is_miss, &is_error]);
    let is_neither = |metric: &Metric| !is_hit(metric) && !is_miss(metric);
    let [bytes, bytes_from_cache, bytes_uncacheable] = sums(bytes, [&all, &is_hit, &is_neither]);
    let [upstream_bytes] = sums(&metrics::UPSTREAM_BYTES, [&all]);
    let [stale] = sums(&metrics::STALE_ANSWERS, [&all]);
    let [fills] = sums(&metrics::FILLS, [&all]);
    Counts {
        requests: answered,
        hits,
        misses,
        bytes,
        bytes_from_cache,
        bytes_uncacheable,
        upstream_bytes,
        spent: pulls.spent,
        saved: pulls.saved,
        errors,
        stale,
        fills,
    }
}

/// Pulls left to all upstreams that say so.
pub(super) fn left(upstreams: &[Arc<Upstream>]) -> Option<u64> {
    let left = |upstream: &Arc<Upstream>| upstream.outlook().left.map(|(left, _)| left);
    upstreams.iter().filter_map(left).reduce(u64::saturating_add)
}

/// For each of the conditions, the sum of the family's counters that meet it.
fn sums<const N: usize>(
    family: &IntCounterVec,
    conditions: [&dyn Fn(&Metric) -> bool; N],
) -> [u64; N] {
    let mut sums = [0_u64; N];
    let families = family.collect();
    for metric in families.iter().flat_map(|family| family.get_metric()) {
        // Whole numbers; exact up to 2^53.
        let value = metric.get_counter().get_value() as u64;
        for (sum, is_met) in sums.iter_mut().zip(conditions) {
            if is_met(metric) {
                *sum = sum.saturating_add(value);
            }
        }
    }
    sums
}

fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    let label = metric.get_label().iter().find(|label| label.get_name() == name);
    label.map(|label| label.get_value())
}

/// What a client has to take as a failure.
fn is_failure(status: &str) -> bool {
    status == "429" || status.starts_with('5')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_what_the_metrics_say() {
        let before = totals(Tally::default());
        let answered = [("hit", "200"), ("validated", "200"), ("miss", "200"), ("none", "503")];
        for (cache, status) in answered {
            let labels = ["docker.io", "manifest", "GET", status, cache];
            metrics::REQUESTS.with_label_values(&labels).inc();
            metrics::RESPONSE_BYTES.with_label_values(&["docker.io", "manifest", cache]).inc_by(10);
        }
        let counts = totals(Tally::default()).since(&before);
        assert_eq!((counts.requests, counts.hits, counts.misses, counts.errors), (4, 2, 1, 1));
        assert_eq!((counts.bytes, counts.bytes_from_cache), (40, 20));
        // What was refused could be no hit.
        assert_eq!(counts.byte_hit_ratio(), Some(20.0 / 30.0));
        assert!(is_failure("429") && !is_failure("404"));
    }
}
