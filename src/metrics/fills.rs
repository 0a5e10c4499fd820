//! Blobs on their way from upstream.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::{counters, declare, gauge, latencies};

declare! {
    /// Fills that ended, by outcome.
    FILLS: IntCounterVec = counters(
        "roadstead_fills_total",
        "Fills of blobs that ended: committed, failed, mismatch, abandoned.",
        &["outcome"],
    );

    /// How long fills took, waiting for their turn included.
    FILL_SECONDS: HistogramVec = latencies(
        "roadstead_fill_seconds",
        "Seconds that fills took, from the first client's request to their end.",
        &["outcome"],
    );

    /// What ended fills had of their blobs.
    FILL_BYTES: IntCounterVec = counters(
        "roadstead_fill_bytes_total",
        "Bytes that fills had when they ended, those of an earlier attempt included.",
        &["outcome"],
    );

    /// Fills under way.
    FILLS_ACTIVE: IntGauge = gauge("roadstead_fills_active", "Fills of blobs under way.");

    /// Clients that read from fills.
    FILL_READERS: IntGauge =
        gauge("roadstead_fill_readers", "Clients that read blobs while they are being filled.");

    /// Fills that went on without being stored.
    FILLS_UNSTORED: IntCounterVec = counters(
        "roadstead_fills_unstored_total",
        "Fills that were streamed without being stored: full, disk, slow, handover.",
        &["why"],
    );

    /// Bytes of fills in memory, on their way to the disk or to readers.
    FILL_MEMORY: IntGauge =
        gauge("roadstead_fill_memory_bytes", "Bytes of fills that are in memory.");
}

/// A fill has ended like that, with so many bytes of its blob.
pub fn fill_ended(outcome: &str, took: Duration, bytes: u64) {
    let labels = [outcome];
    FILLS.with_label_values(&labels).inc();
    FILL_SECONDS.with_label_values(&labels).observe(took.as_secs_f64());
    FILL_BYTES.with_label_values(&labels).inc_by(bytes);
}
