//! Every metric family and label, once.
//!
//! Names and units follow Prometheus' conventions; label values are bounded by
//! the configuration and by enums, never by what a client sends. The README has
//! them in one table, which a test compares with [`families`].

mod fills;
mod process;
mod requests;
mod store;
mod upstream;

use std::sync::{Mutex, MutexGuard, PoisonError};

use once_cell::sync::Lazy;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

pub use fills::*;
pub use requests::*;
pub use store::*;
pub use upstream::*;

/// Declares families, and `register`, which makes all of them known.
macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident: $family:ty = $make:expr;)*) => {
        $($(#[$doc])* pub static $name: once_cell::sync::Lazy<$family> =
            once_cell::sync::Lazy::new(|| $make);)*

        pub(super) fn register() {
            $(once_cell::sync::Lazy::force(&$name);)*
        }
    };
}
use declare;

static REGISTRY: Lazy<Registry> = Lazy::new(Registry::new);

static FAMILIES: Mutex<Vec<Family>> = Mutex::new(Vec::new());

/// From a look into memory to a download over a slow line.
const LATENCIES: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// What the page says of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its name, without the `_bucket`, `_sum` and `_count` of a histogram.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels of each sample.
    pub labels: Vec<String>,
}

/// Makes every family known, so that a page shows those too that nothing has touched yet.
pub fn register_all() {
    requests::register();
    upstream::register();
    fills::register();
    store::register();
    process::register();
}

/// All families that are known.
pub fn families() -> Vec<Family> {
    known().clone()
}

/// The page that Prometheus scrapes, in its text format 0.0.4.
pub fn page() -> String {
    TextEncoder::new().encode_to_string(&REGISTRY.gather()).unwrap_or_else(|error| {
        tracing::error!(%error, "the metrics could not be printed");
        String::new()
    })
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered("counter", IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered("gauge", IntGaugeVec::new(Opts::new(name, help), labels))
}

fn latencies(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(LATENCIES.to_vec());
    registered("histogram", HistogramVec::new(options, labels))
}

fn counter(name: &str, help: &str) -> IntCounter {
    registered("counter", IntCounter::new(name, help))
}

fn gauge(name: &str, help: &str) -> IntGauge {
    registered("gauge", IntGauge::new(name, help))
}

fn latency(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(LATENCIES.to_vec());
    registered("histogram", Histogram::with_opts(options))
}

fn registered<C: Collector + Clone + 'static>(
    kind: &'static str,
    family: Result<C, prometheus::Error>,
) -> C {
    let family = family.expect("a metric family's name and labels are constants that fit");
    note(kind, &family);
    REGISTRY.register(Box::new(family.clone())).expect("each family is registered once");
    family
}

fn note(kind: &'static str, family: &impl Collector) {
    known().extend(family.desc().into_iter().map(|described| Family {
        name: described.fq_name.clone(),
        kind,
        labels: described.variable_labels.clone(),
    }));
}

fn known() -> MutexGuard<'static, Vec<Family>> {
    FAMILIES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_families_that_were_used() {
        register_all();
        PULLS_SAVED.with_label_values(&["docker.io"]).inc();
        Timing::of("manifest", "hit").observe(None, std::time::Duration::from_millis(2));
        let page = page();
        assert!(page.contains("roadstead_pulls_saved_total{upstream=\"docker.io\"} 1"), "{page}");
        assert!(page.contains("# TYPE roadstead_request_seconds histogram"));
        let version = env!("CARGO_PKG_VERSION");
        assert!(page.contains(&format!("roadstead_build_info{{version=\"{version}\"}} 1")));
    }
}
