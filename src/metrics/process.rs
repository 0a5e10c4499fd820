//! The process itself: which build it is, and what it takes of the machine.
//!
//! The names are those that Prometheus' own client libraries use. What the
//! system does not tell (it does on Linux) is left out.

use super::gauges;

/// Makes these known; they are read whenever the page is.
pub(super) fn register() {
    static BUILD: once_cell::sync::Lazy<prometheus::IntGaugeVec> =
        once_cell::sync::Lazy::new(|| {
            gauges("roadstead_build_info", "1, with the version that runs.", &["version"])
        });
    BUILD.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    #[cfg(target_os = "linux")]
    linux::register();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    };

    use procfs::{
        ProcResult,
        process::{LimitValue, Process},
    };
    use prometheus::{
        Counter, IntGauge,
        core::{Collector, Desc},
        proto::MetricFamily,
    };

    use super::super::{REGISTRY, note};

    /// What `/proc` says of us.
    struct Usage {
        cpu: Counter,
        resident: IntGauge,
        anonymous: IntGauge,
        open_files: IntGauge,
        max_files: IntGauge,
        threads: IntGauge,
        started: IntGauge,
        /// One reading at a time: the counter grows by what is new.
        reading: Mutex<()>,
        /// Seconds since 1970, once it is known.
        since: AtomicU64,
    }

    pub(super) fn register() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let usage = Usage::new().expect("the names of the process's metrics are constants");
            note("counter", &usage.cpu);
            usage.gauges().into_iter().for_each(|gauge| note("gauge", gauge));
            REGISTRY.register(Box::new(usage)).expect("each family is registered once");
        });
    }

    // === impl Usage ===

    impl Usage {
        fn new() -> Result<Self, prometheus::Error> {
            Ok(Self {
                cpu: Counter::new(
                    "process_cpu_seconds_total",
                    "Seconds of CPU time, user and system, that the process has taken.",
                )?,
                resident: IntGauge::new(
                    "process_resident_memory_bytes",
                    "Bytes of memory that the process holds, pages of mapped files included.",
                )?,
                anonymous: IntGauge::new(
                    "process_anonymous_memory_bytes",
                    "Bytes of memory that the process holds, without pages of files: its own.",
                )?,
                open_files: IntGauge::new("process_open_fds", "File descriptors that are open.")?,
                max_files: IntGauge::new(
                    "process_max_fds",
                    "File descriptors that may be open at a time.",
                )?,
                threads: IntGauge::new("process_threads", "Threads of the process.")?,
                started: IntGauge::new(
                    "process_start_time_seconds",
                    "When the process started, in seconds since 1970.",
                )?,
                reading: Mutex::default(),
                since: AtomicU64::new(0),
            })
        }

        fn gauges(&self) -> [&IntGauge; 6] {
            let Self { resident, anonymous, open_files, max_files, threads, started, .. } = self;
            [resident, anonymous, open_files, max_files, threads, started]
        }

        fn read(&self) -> ProcResult<()> {
            let process = Process::myself()?;
            let (stat, status) = (process.stat()?, process.status()?);
            #[expect(clippy::cast_precision_loss, reason = "ticks of years fit")]
            let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
            let kib = |kib: Option<u64>| signed(kib.unwrap_or_default().saturating_mul(1024));
            self.resident.set(kib(status.vmrss));
            self.anonymous.set(kib(status.rssanon));
            self.threads.set(signed(status.threads));
            self.open_files.set(signed(process.fd_count()? as u64));
            let most = match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(most) => signed(most),
                LimitValue::Unlimited => i64::MAX,
            };
            self.max_files.set(most);
            if self.since.load(Ordering::Relaxed) == 0 {
                let since = procfs::boot_time_secs()? + stat.starttime / procfs::ticks_per_second();
                self.since.store(since, Ordering::Relaxed);
                self.started.set(signed(since));
            }
            Ok(())
        }
    }

    impl Collector for Usage {
        fn desc(&self) -> Vec<&Desc> {
            let mut all = self.cpu.desc();
            all.extend(self.gauges().into_iter().flat_map(Collector::desc));
            all
        }

        fn collect(&self) -> Vec<MetricFamily> {
            let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.read() {
                tracing::debug!(%error, "the system does not tell what the process takes");
            }
            let mut all = self.cpu.collect();
            all.extend(self.gauges().into_iter().flat_map(Collector::collect));
            all
        }
    }

    fn signed(number: u64) -> i64 {
        i64::try_from(number).unwrap_or(i64::MAX)
    }
}
