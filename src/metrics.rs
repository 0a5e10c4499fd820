//! Every metric family and label, once.
//!
//! Names and units follow Prometheus' conventions; label values are bounded by
//! the configuration and by enums, never by what a client sends.

use once_cell::sync::Lazy;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

static REGISTRY: Lazy<Registry> = Lazy::new(Registry::new);

/// Requests answered, by upstream, kind of object, method, status and what the cache did.
pub static REQUESTS: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_requests_total",
        "Requests answered.",
        &["upstream", "kind", "method", "status", "cache"],
    )
});

/// Answers to requests that came before, byte for byte.
pub static REPEATED_ANSWERS: Lazy<IntCounter> = Lazy::new(|| {
    let help = "Requests answered out of memory because the same head came before; they are among roadstead_requests_total.";
    counter("roadstead_repeated_answers_total", help)
});

/// Body bytes sent to clients.
pub static RESPONSE_BYTES: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_response_bytes_total",
        "Body bytes sent to clients.",
        &["upstream", "kind", "cache"],
    )
});

/// Body bytes of pushes received from clients.
pub static REQUEST_BYTES: Lazy<IntCounterVec> = Lazy::new(|| {
    let help = "Body bytes of pushes received from clients.";
    counters("roadstead_request_bytes_total", help, &["upstream", "kind"])
});

/// Time from a request's head to the end of its answer.
pub static REQUEST_SECONDS: Lazy<Histogram> = Lazy::new(|| {
    let buckets = vec![0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];
    let opts = HistogramOpts::new(
        "roadstead_request_seconds",
        "Seconds from the head of a request to the end of its answer.",
    );
    registered(Histogram::with_opts(opts.buckets(buckets)))
});

/// Requests sent upstream; `counted` says whether the registry's rate limit counts them.
pub static UPSTREAM_REQUESTS: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_upstream_requests_total",
        "Requests sent upstream; counted=\"true\" are those that a pull rate limit counts.",
        &["upstream", "kind", "method", "status", "counted"],
    )
});

/// Body bytes received from upstream.
pub static UPSTREAM_BYTES: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_upstream_bytes_total",
        "Body bytes received from upstream.",
        &["upstream", "kind"],
    )
});

/// What the registry last said is left of the budget.
pub static RATELIMIT_REMAINING: Lazy<IntGaugeVec> = Lazy::new(|| {
    gauges(
        "roadstead_ratelimit_remaining",
        "Pulls left in the present window, as the registry last said.",
        &["upstream", "account"],
    )
});

/// What the registry last said is the budget's size.
pub static RATELIMIT_LIMIT: Lazy<IntGaugeVec> = Lazy::new(|| {
    gauges(
        "roadstead_ratelimit_limit",
        "Pulls allowed per window, as the registry last said.",
        &["upstream", "account"],
    )
});

/// Counted requests that were answered, by the account that paid.
pub static PULLS_SPENT: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_pulls_spent_total",
        "Requests that the registry's rate limit counts, by the account that paid.",
        &["upstream", "account"],
    )
});

/// Whether an account is used: 0 while it stands aside because it is refused.
pub static ACCOUNT_USABLE: Lazy<IntGaugeVec> = Lazy::new(|| {
    gauges(
        "roadstead_account_usable",
        "1 while the account is used, 0 while it stands aside because it is refused or has no login.",
        &["upstream", "account"],
    )
});

/// 1 while an upstream is never asked.
pub static OFFLINE: Lazy<IntGaugeVec> = Lazy::new(|| {
    gauges(
        "roadstead_upstream_offline",
        "1 while the upstream is not asked because it is switched offline.",
        &["upstream"],
    )
});

/// Manifest GETs of clients that were answered without a counted request.
pub static PULLS_SAVED: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_pulls_saved_total",
        "Manifest requests of clients answered without a request that the registry counts.",
        &["upstream"],
    )
});

/// Answers from a copy that could not be validated.
pub static STALE_ANSWERS: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_stale_answers_total",
        "Answers with the last known manifest because upstream did not answer, was slow, or could not say whether it is gone.",
        &["upstream"],
    )
});

/// Answers with what a tag named before it moved.
pub static COOLING_ANSWERS: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_tags_cooling_answers_total",
        "Tags answered with the digest before, because the new one is younger than tags.cooldown.",
        &["upstream"],
    )
});

/// Fills that ended, by outcome.
pub static FILLS: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_fills_total",
        "Fills of blobs that ended: committed, failed, mismatch, abandoned.",
        &["outcome"],
    )
});

/// Fills under way.
pub static FILLS_ACTIVE: Lazy<IntGauge> =
    Lazy::new(|| gauge("roadstead_fills_active", "Fills of blobs under way."));

/// The store's bytes: used (published, staged, index, quarantine and history), and the capacity.
pub static STORE_BYTES: Lazy<IntGaugeVec> = Lazy::new(|| {
    gauges(
        "roadstead_store_bytes",
        "Bytes of the store: used, which is published + staged + index + quarantine + history, and its capacity.",
        &["state"],
    )
});

/// 1 while the disk takes what is written.
pub static STORE_HEALTHY: Lazy<IntGauge> = Lazy::new(|| {
    let healthy =
        gauge("roadstead_store_healthy", "1 while the disk takes what is written, else 0.");
    healthy.set(1);
    healthy
});

/// Operations of the store that the disk failed.
pub static STORE_ERRORS: Lazy<IntCounter> = Lazy::new(|| {
    counter("roadstead_store_errors_total", "Operations of the store that the disk failed.")
});

/// Bytes of published files that were read again to check them.
pub static SCRUBBED_BYTES: Lazy<IntCounter> = Lazy::new(|| {
    counter(
        "roadstead_store_scrubbed_bytes_total",
        "Bytes of stored objects that were read again to check them.",
    )
});

/// Published files that were found bad and set aside.
pub static QUARANTINED: Lazy<IntCounter> = Lazy::new(|| {
    counter(
        "roadstead_store_quarantined_total",
        "Stored objects that were not what their digest says any more, and were set aside.",
    )
});

/// Files that the index missed and that were verified and adopted.
pub static ADOPTED: Lazy<IntCounter> = Lazy::new(|| {
    counter("roadstead_store_adopted_total", "Files that the index missed, verified and adopted.")
});

/// Fills that went on without being stored.
pub static FILLS_UNSTORED: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_fills_unstored_total",
        "Fills that were streamed without being stored: full, disk, slow, handover.",
        &["why"],
    )
});

/// Bytes of fills in memory, on their way to the disk or to readers.
pub static FILL_MEMORY: Lazy<IntGauge> =
    Lazy::new(|| gauge("roadstead_fill_memory_bytes", "Bytes of fills that are in memory."));

/// Requests that found a limit reached, by what was limited.
pub static LIMITED: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_limited_total",
        "Requests that were refused with 503 because a limit was reached: fills, readers, connections, rate.",
        &["limit"],
    )
});

/// Objects evicted.
pub static EVICTIONS: Lazy<IntCounter> =
    Lazy::new(|| counter("roadstead_evictions_total", "Objects evicted from the store."));

/// Bytes evicted.
pub static EVICTED_BYTES: Lazy<IntCounter> =
    Lazy::new(|| counter("roadstead_evicted_bytes_total", "Bytes evicted from the store."));

/// 1 while requests to a host are held back because it failed.
pub static BREAKER_OPEN: Lazy<IntGaugeVec> = Lazy::new(|| {
    gauges(
        "roadstead_breaker_open",
        "1 while requests to this upstream host are held back because it failed.",
        &["host"],
    )
});

/// Client connections that are open.
pub static CONNECTIONS: Lazy<IntGauge> =
    Lazy::new(|| gauge("roadstead_connections", "Client connections that are open."));

/// Connections of clients that go to registries themselves, by what became of them.
pub static TRANSPARENT: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_transparent_connections_total",
        "Connections to transparent listeners: served, tunnelled or refused.",
        &["mode", "outcome"],
    )
});

/// Readings of certificates and authorities that have changed, or were no good, by what came of it.
pub static CERTIFICATE_READS: Lazy<IntCounterVec> = Lazy::new(|| {
    counters(
        "roadstead_certificate_reads_total",
        "Readings of the files of a certificate or authority that changed, or were no good: used or failed.",
        &["what", "outcome"],
    )
});

/// Makes every family known, so that a page shows those too that nothing has touched yet.
pub fn register_all() {
    for family in [
        &REQUESTS,
        &RESPONSE_BYTES,
        &TRANSPARENT,
        &REQUEST_BYTES,
        &CERTIFICATE_READS,
        &UPSTREAM_REQUESTS,
        &UPSTREAM_BYTES,
        &PULLS_SAVED,
        &PULLS_SPENT,
        &STALE_ANSWERS,
        &COOLING_ANSWERS,
        &FILLS,
        &FILLS_UNSTORED,
        &LIMITED,
    ] {
        Lazy::force(family);
    }
    for family in [&RATELIMIT_REMAINING, &RATELIMIT_LIMIT, &STORE_BYTES, &BREAKER_OPEN] {
        Lazy::force(family);
    }
    for family in [&ACCOUNT_USABLE, &OFFLINE] {
        Lazy::force(family);
    }
    Lazy::force(&REQUEST_SECONDS);
    Lazy::force(&REPEATED_ANSWERS);
    for family in [&FILLS_ACTIVE, &FILL_MEMORY, &CONNECTIONS, &STORE_HEALTHY] {
        Lazy::force(family);
    }
    for family in
        [&EVICTIONS, &EVICTED_BYTES, &STORE_ERRORS, &SCRUBBED_BYTES, &QUARANTINED, &ADOPTED]
    {
        Lazy::force(family);
    }
}

/// The page that Prometheus scrapes, in its text format 0.0.4.
pub fn page() -> String {
    TextEncoder::new().encode_to_string(&REGISTRY.gather()).unwrap_or_else(|error| {
        tracing::error!(%error, "the metrics could not be printed");
        String::new()
    })
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(IntGaugeVec::new(Opts::new(name, help), labels))
}

fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

fn gauge(name: &str, help: &str) -> IntGauge {
    registered(IntGauge::new(name, help))
}

fn registered<C: Collector + Clone + 'static>(family: Result<C, prometheus::Error>) -> C {
    let family = family.expect("a metric family's name and labels are constants that fit");
    REGISTRY.register(Box::new(family.clone())).expect("each family is registered once");
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_families_that_were_used() {
        register_all();
        PULLS_SAVED.with_label_values(&["docker.io"]).inc();
        let page = page();
        assert!(page.contains("roadstead_pulls_saved_total{upstream=\"docker.io\"} 1"), "{page}");
        assert!(page.contains("# TYPE roadstead_request_seconds histogram"));
    }
}
