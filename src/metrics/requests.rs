//! What clients ask, and what they get.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::{counter, counters, declare, gauge, latencies};

declare! {
    /// Requests answered, by upstream, kind of object, method, status and what the cache did.
    REQUESTS: IntCounterVec = counters(
        "roadstead_requests_total",
        "Requests answered.",
        &["upstream", "kind", "method", "status", "cache"],
    );

    /// Answers to requests that came before, byte for byte.
    REPEATED_ANSWERS: IntCounter = counter(
        "roadstead_repeated_answers_total",
        "Requests answered out of memory because the same head came before; they are among roadstead_requests_total.",
    );

    /// Body bytes sent to clients.
    RESPONSE_BYTES: IntCounterVec = counters(
        "roadstead_response_bytes_total",
        "Body bytes sent to clients.",
        &["upstream", "kind", "cache"],
    );

    /// Body bytes of pushes received from clients.
    REQUEST_BYTES: IntCounterVec = counters(
        "roadstead_request_bytes_total",
        "Body bytes of pushes received from clients.",
        &["upstream", "kind"],
    );

    /// Time from a request's head to the end of its answer.
    REQUEST_SECONDS: HistogramVec = latencies(
        "roadstead_request_seconds",
        "Seconds from the head of a request to the end of its answer.",
        &["kind", "cache"],
    );

    /// Time from a request's head until its answer begins.
    FIRST_BYTE_SECONDS: HistogramVec = latencies(
        "roadstead_first_byte_seconds",
        "Seconds from the head of a request until the first bytes of its answer's body can be sent.",
        &["kind", "cache"],
    );

    /// Answers from a copy that could not be validated.
    STALE_ANSWERS: IntCounterVec = counters(
        "roadstead_stale_answers_total",
        "Answers with the last known manifest because upstream did not answer, was slow, or could not say whether it is gone.",
        &["upstream"],
    );

    /// Answers with what a tag named before it moved.
    COOLING_ANSWERS: IntCounterVec = counters(
        "roadstead_tags_cooling_answers_total",
        "Tags answered with the digest before, because the new one is younger than tags.cooldown.",
        &["upstream"],
    );

    /// Requests that found a limit reached, by what was limited.
    LIMITED: IntCounterVec = counters(
        "roadstead_limited_total",
        "Requests that were refused with 503 because a limit was reached: fills, readers, connections, rate.",
        &["limit"],
    );

    /// Client connections that are open.
    CONNECTIONS: IntGauge = gauge("roadstead_connections", "Client connections that are open.");

    /// Connections of clients that go to registries themselves, by what became of them.
    TRANSPARENT: IntCounterVec = counters(
        "roadstead_transparent_connections_total",
        "Connections to transparent listeners: served, tunnelled or refused.",
        &["mode", "outcome"],
    );

    /// Readings of certificates and authorities that have changed, or were no good, by what came of it.
    CERTIFICATE_READS: IntCounterVec = counters(
        "roadstead_certificate_reads_total",
        "Readings of the files of a certificate or authority that changed, or were no good: used or failed.",
        &["what", "outcome"],
    );

    /// Deliveries of spans to the collector, by what came of it.
    TRACE_EXPORTS: IntCounterVec = counters(
        "roadstead_trace_exports_total",
        "Batches of spans that were sent to the OTLP collector: delivered or failed.",
        &["outcome"],
    );
}

/// Where the times of like answers are entered; looked up once, it costs no look-up any more.
#[derive(Debug, Clone)]
pub struct Timing {
    first: Histogram,
    total: Histogram,
}

// === impl Timing ===

impl Timing {
    /// For answers about this kind of object, to which the cache did that.
    pub fn of(kind: &str, cache: &str) -> Self {
        let labels = [kind, cache];
        Self {
            first: FIRST_BYTE_SECONDS.with_label_values(&labels),
            total: REQUEST_SECONDS.with_label_values(&labels),
        }
    }

    /// An answer whose body began after `first`, if it did, and that ended after `total`.
    pub fn observe(&self, first: Option<Duration>, total: Duration) {
        if let Some(first) = first {
            self.first.observe(first.as_secs_f64());
        }
        self.total.observe(total.as_secs_f64());
    }
}
