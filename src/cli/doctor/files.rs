//! How many files a process may have open, beside what the configuration lets it have.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::process::{Resource, getrlimit};

use super::finding::{Check, Finding, Group};
use crate::config::Config;

const LIMIT: Check = Check(Group::Files, "limit");

/// Besides connections: libraries, listeners, the index, logs, what is being read.
const OTHERS: u64 = 256;

/// With fewer, nothing much works.
const TOO_FEW: u64 = 256;

/// A limit of a process; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    soft: Option<u64>,
    hard: Option<u64>,
}

/// Of the server that has the store open, if it can be found, else of this process.
pub(super) fn check(config: &Config) -> Finding {
    let running = holder(&config.store.directory.join("index.redb"));
    let limits = running.and_then(|pid| {
        Some((pid, Limit::parse(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)?))
    });
    let (whose, limit) = match limits {
        Some((pid, limit)) => (format!("the server, process {pid}"), limit),
        None => ("this shell's programs".to_owned(), Limit::own()),
    };
    judge(&whose, limit, needed(config))
}

/// A file for each connection, and for each download one more.
fn needed(config: &Config) -> u64 {
    let upstreams: usize = config.upstreams.iter().map(|upstream| upstream.max_connections).sum();
    let all = config.downstream.max_connections.saturating_add(upstreams);
    (all.saturating_add(config.fill.max_active) as u64).saturating_add(OTHERS)
}

fn judge(whose: &str, limit: Limit, needed: u64) -> Finding {
    let shown = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |most| most.to_string());
    let found = format!(
        "may have {} files open (the most that can be asked for: {}); connections and downloads at \
         their limits need {needed}",
        shown(limit.soft),
        shown(limit.hard)
    );
    let Some(soft) = limit.soft.filter(|soft| *soft < needed) else {
        return LIMIT.ok(whose, found);
    };
    let remedy = "raise it (systemd: LimitNOFILE= in the unit; docker: --ulimit; a shell: as below), \
                  or lower downstream.max_connections, at which clients wait instead of failing";
    let finding = match soft < TOO_FEW {
        true => LIMIT.fault(whose, found, remedy),
        false => LIMIT.warning(whose, found, remedy),
    };
    finding.run(format!("ulimit -n {}", needed.next_power_of_two()))
}

// === impl Limit ===

impl Limit {
    fn own() -> Self {
        let limit = getrlimit(Resource::Nofile);
        Self { soft: limit.current, hard: limit.maximum }
    }

    /// A process's `limits` of proc(5).
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let mut words = line.split_whitespace();
        let mut next = || match words.next()? {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        };
        Some(Self { soft: next()?, hard: next()? })
    }
}

/// The process that has locked this file, as proc(5) tells of locks.
fn holder(file: &Path) -> Option<u32> {
    let inode = fs::metadata(file).ok()?.ino();
    holder_among(&fs::read_to_string("/proc/locks").ok()?, inode)
}

fn holder_among(locks: &str, inode: u64) -> Option<u32> {
    let inode = format!(":{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let pid = words.by_ref().nth(4)?;
        words.next()?.ends_with(&inode).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_limit_below_what_may_be_open_is_told() {
        let limit = |soft| Limit { soft: Some(soft), hard: Some(4096) };
        let told = judge("it", limit(1024), 10_640);
        assert_eq!(told.level, Level::Warning);
        assert_eq!(told.commands, ["ulimit -n 16384"]);
        assert_eq!(judge("it", limit(100), 10_640).level, Level::Fault);
        assert_eq!(judge("it", limit(10_640), 10_640).level, Level::Ok);
        assert_eq!(judge("it", Limit { soft: None, hard: None }, 10_640).level, Level::Ok);
    }

    #[test]
    fn a_process_s_limit_and_who_holds_a_lock_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             1                    2                    processes\n\
                    Max open files            1024                 unlimited            files\n";
        assert_eq!(Limit::parse(text), Some(Limit { soft: Some(1024), hard: None }));
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 22 08:01:99 0 EOF\n";
        assert_eq!(holder_among(locks, 99), Some(22));
        assert_eq!(holder_among(locks, 9), None);
    }
}
