//! What lies on the disk, and how the disk does.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{counter, counters, declare, gauge, gauges, latency};

declare! {
    /// The store's bytes: used (published, staged, index, quarantine and history), and the capacity.
    STORE_BYTES: IntGaugeVec = gauges(
        "roadstead_store_bytes",
        "Bytes of the store: used, which is published + staged + index + quarantine + history, and its capacity.",
        &["state"],
    );

    /// Objects that are published.
    STORE_OBJECTS: IntGauge =
        gauge("roadstead_store_objects", "Objects in the store: blobs and manifests.");

    /// 1 while the disk takes what is written.
    STORE_HEALTHY: IntGauge = {
        let healthy =
            gauge("roadstead_store_healthy", "1 while the disk takes what is written, else 0.");
        healthy.set(1);
        healthy
    };

    /// Operations of the store that the disk failed.
    STORE_ERRORS: IntCounterVec = counters(
        "roadstead_store_errors_total",
        "Operations of the store that the disk failed, by what was tried.",
        &["operation"],
    );

    /// Published files that could not be opened.
    STORE_OPEN_ERRORS: IntCounter = counter(
        "roadstead_store_open_errors_total",
        "Stored objects that could not be opened, and were streamed from upstream instead.",
    );

    /// How long the disk took to make a staged file durable.
    STORE_SYNC_SECONDS: Histogram = latency(
        "roadstead_store_sync_seconds",
        "Seconds that the disk took to sync a downloaded file before it was published.",
    );

    /// Bytes of published files that were read again to check them.
    SCRUBBED_BYTES: IntCounter = counter(
        "roadstead_store_scrubbed_bytes_total",
        "Bytes of stored objects that were read again to check them.",
    );

    /// Published files that were found bad and set aside.
    QUARANTINED: IntCounter = counter(
        "roadstead_store_quarantined_total",
        "Stored objects that were not what their digest says any more, and were set aside.",
    );

    /// Files that the index missed and that were verified and adopted.
    ADOPTED: IntCounter = counter(
        "roadstead_store_adopted_total",
        "Files that the index missed, verified and adopted.",
    );

    /// Objects evicted.
    EVICTIONS: IntCounter =
        counter("roadstead_evictions_total", "Objects evicted from the store.");

    /// Bytes evicted.
    EVICTED_BYTES: IntCounter =
        counter("roadstead_evicted_bytes_total", "Bytes evicted from the store.");
}
