//! What the process uses of the machine, as the system tells it.

use std::{fs, time::Duration};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::Process;
use crate::metrics;

/// What the system says at this moment; a system without `/proc` says less.
pub(super) fn process() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Process {
        memory_bytes: kibibytes(&status, "RssAnon:"),
        resident_bytes: kibibytes(&status, "VmRSS:"),
        fill_memory_bytes: u64::try_from(metrics::FILL_MEMORY.get()).unwrap_or_default(),
        open_files: open_files(),
        open_files_limit: getrlimit(Resource::Nofile).current,
        cpu_seconds: Some(cpu_time().as_secs_f64()),
        cpu_load: None,
    }
}

/// Processor time since the start.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// A line of `/proc/self/status`.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

fn open_files() -> Option<u64> {
    let folder = "/proc/self/fd";
    // Since Linux 6.2 its length is their number, and tens of thousands need not be listed.
    match fs::metadata(folder).map(|metadata| metadata.len()) {
        Ok(count) if count > 0 => Some(count),
        _ => Some(fs::read_dir(folder).ok()?.count() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let process = process();
        assert!(process.memory_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.open_files.is_some_and(|count| (3..10_000).contains(&count)));
        assert!(process.cpu_seconds.is_some_and(|seconds| seconds > 0.0));
        assert_eq!(kibibytes("VmRSS:\t   12 kB\nRssAnon: x kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kibibytes("RssAnon: x kB\n", "RssAnon:"), None);
    }
}
