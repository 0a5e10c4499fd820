//! What `/proc` says of a server: CPU time and private memory, summed over all of its processes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::{Role, ServerKind};

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

/// Samples the memory of all servers that run, from its own thread until dropped.
pub(crate) struct MemoryWatch {
    stop: Arc<AtomicBool>,
    watched: Arc<Mutex<Watched>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watched {
    /// By process id; only of processes that are not reaped yet, so that no id is a stranger's.
    running: BTreeMap<u32, (ServerKind, Role)>,
    /// Of each kind's instances of one role, those that have ended among them, the highest sample in bytes.
    peaks: BTreeMap<(ServerKind, Role), u64>,
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

/// CPU time used so far by this process alone, and by children that it has waited for: none while work is measured.
pub(crate) fn own_cpu_time() -> Result<Duration> {
    let own = read_stat(std::process::id()).context("reading this process's own CPU time")?;
    Ok(TICK * own.ticks)
}

/// `RssAnon` of `root` and its descendants, in bytes: what the page cache can't give back.
pub(crate) fn anonymous_bytes(root: u32) -> Result<u64> {
    Ok(tree(&processes()?, root).into_iter().filter_map(rss_anon).sum())
}

/// What `root` and its descendants have read from disks, in bytes; what came from the page cache does not count.
pub(crate) fn disk_bytes_read(root: u32) -> Result<u64> {
    Ok(tree(&processes()?, root).into_iter().filter_map(disk_read).sum())
}

/// Raises the number of descriptors that this process, and every server that it starts from now on, may have open to
/// what anyone may raise it to.
pub(crate) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is refused, less is allowed, which is looked at where it matters.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
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
    pub(crate) fn start() -> Self {
        let (stop, watched) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Watched>>::default());
        let (stopped, seen) = (stop.clone(), watched.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                locked(&seen).sample();
                std::thread::sleep(MEMORY_INTERVAL);
            }
        });
        Self { stop, watched, thread: Some(thread) }
    }

    pub(crate) fn watch(&self, kind: ServerKind, role: Role, pid: u32) {
        locked(&self.watched).running.insert(pid, (kind, role));
    }

    /// Samples for the last time and leaves out what is about to end.
    pub(crate) fn forget(&self, pid: u32) {
        let mut watched = locked(&self.watched);
        watched.sample();
        watched.running.remove(&pid);
    }

    /// The highest sample of `kind` in `role` so far, in bytes.
    pub(crate) fn peak(&self, kind: ServerKind, role: Role) -> u64 {
        locked(&self.watched).peaks.get(&(kind, role)).copied().unwrap_or_default()
    }

    /// The same, in any role.
    pub(crate) fn highest_peak(&self, kind: ServerKind) -> u64 {
        let watched = locked(&self.watched);
        let peaks = watched.peaks.iter().filter(|((it, _), _)| *it == kind);
        peaks.map(|(_, peak)| *peak).max().unwrap_or_default()
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

// === impl Watched ===

impl Watched {
    fn sample(&mut self) {
        let Ok(processes) = processes() else {
            return;
        };
        for (pid, subject) in &self.running {
            let bytes = tree(&processes, *pid).into_iter().filter_map(rss_anon).sum::<u64>();
            let peak = self.peaks.entry(*subject).or_default();
            *peak = bytes.max(*peak);
        }
    }
}

fn locked(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
