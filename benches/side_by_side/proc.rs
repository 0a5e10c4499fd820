//! What `/proc` says of a server: CPU time and private memory, summed over all of its processes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::server::ServerKind;

/// The unit of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Roadstead builds for.
const TICK: Duration = Duration::from_millis(10);
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    /// utime + stime + cutime + cstime: a process that its parent has waited for still counts, in the parent.
    ticks: u32,
}

/// Samples the servers' memory from its own thread until dropped.
pub(crate) struct MemoryWatch {
    stop: Arc<AtomicBool>,
    peaks: Arc<Mutex<BTreeMap<ServerKind, u64>>>,
    thread: Option<JoinHandle<()>>,
}

/// CPU time used so far by `root` and its descendants.
pub(crate) fn cpu_time(root: u32) -> Result<Duration> {
    let processes = processes()?;
    ensure!(processes.contains_key(&root), "process {root} is gone");
    let ticks = tree(&processes, root)
        .iter()
        .filter_map(|pid| processes.get(pid))
        .map(|stat| stat.ticks)
        .sum::<u32>();
    Ok(TICK * ticks)
}

/// `RssAnon` of `root` and its descendants, in bytes: what the page cache can't give back.
pub(crate) fn anonymous_bytes(root: u32) -> Result<u64> {
    Ok(tree(&processes()?, root).into_iter().filter_map(rss_anon).sum())
}

/// What `root` and its descendants have read from disks, in bytes; what came from the page cache does not count.
pub(crate) fn disk_bytes_read(root: u32) -> Result<u64> {
    Ok(tree(&processes()?, root).into_iter().filter_map(disk_read).sum())
}

pub(crate) fn has_ended(pid: u32) -> bool {
    read_stat(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
}

fn processes() -> Result<HashMap<u32, Stat>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| Some((pid, read_stat(pid)?))).collect())
}

fn tree(processes: &HashMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            processes.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name, in brackets, may itself hold blanks and brackets: the fields start after the last one.
    let (_, fields) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<u32>())
        .sum::<Result<u32, _>>()
        .ok()?;
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks,
    })
}

fn rss_anon(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn disk_read(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
}

// === impl MemoryWatch ===

impl MemoryWatch {
    pub(crate) fn start(servers: Vec<(ServerKind, u32)>) -> Self {
        let (stop, peaks) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let (stopped, seen) = (stop.clone(), peaks.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sample(&servers, &seen);
                std::thread::sleep(MEMORY_INTERVAL);
            }
        });
        Self { stop, peaks, thread: Some(thread) }
    }

    /// The highest sample of each server so far, in bytes.
    pub(crate) fn peaks(&self) -> BTreeMap<ServerKind, u64> {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sample(servers: &[(ServerKind, u32)], peaks: &Mutex<BTreeMap<ServerKind, u64>>) {
    for (kind, pid) in servers {
        let Ok(bytes) = anonymous_bytes(*pid) else {
            continue;
        };
        let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let peak = peaks.entry(*kind).or_default();
        *peak = bytes.max(*peak);
    }
}
