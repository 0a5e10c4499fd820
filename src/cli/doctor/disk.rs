//! What a file system is and does: its kind, its room, how fast it writes and syncs.
//!
//! What is written for that is in a file without a name, which is gone however this ends, and never
//! more than a small part of what is free.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The most that is written to measure.
const MOST_BYTES: u64 = 64 << 20;

/// A part of what is free, at most.
const SHARE: u64 = 16;

/// How long it is written, and how long it is synced.
const WRITE_FOR: Duration = Duration::from_secs(1);

/// Syncs that are timed.
const SYNCS: usize = 12;

/// What is written at once.
const PIECE: usize = 1 << 20;

/// The room of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// For users who are not root.
    pub(super) free: u64,
    pub(super) total: u64,
    /// Files that can still be made; `None` where there is no such limit.
    pub(super) files: Option<u64>,
}

/// How fast it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    pub(super) written: u64,
    pub(super) bytes_per_second: f64,
    /// Of a small write that is synced: the middle one of several.
    pub(super) sync: Duration,
    /// The slowest one.
    pub(super) slowest_sync: Duration,
}

/// The room where `path` is.
pub(super) fn room(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        files: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

/// Writes and syncs in `directory`, where so much is free. It takes a few seconds unless the disk
/// hangs.
pub(super) fn measure(directory: &Path, free: u64) -> io::Result<Speed> {
    let mut file = tempfile::tempfile_in(directory)?;
    let (written, took) = write(&mut file, MOST_BYTES.min(free / SHARE))?;
    let mut syncs = sync(&mut file)?;
    syncs.sort_unstable();
    let sync = syncs.get(syncs.len() / 2).copied().unwrap_or_default();
    let slowest_sync = syncs.last().copied().unwrap_or_default();
    let bytes_per_second = written as f64 / took.as_secs_f64().max(1e-6);
    Ok(Speed { written, bytes_per_second, sync, slowest_sync })
}

fn write(file: &mut File, most: u64) -> io::Result<(u64, Duration)> {
    // Zeros would be written by no file system that compresses.
    let piece: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(PIECE).collect();
    let (began, mut written) = (Instant::now(), 0);
    while written < most && began.elapsed() < WRITE_FOR {
        file.write_all(&piece)?;
        written += piece.len() as u64;
    }
    file.sync_data()?;
    Ok((written, began.elapsed()))
}

fn sync(file: &mut File) -> io::Result<Vec<Duration>> {
    let (began, mut took) = (Instant::now(), Vec::new());
    while took.len() < SYNCS && began.elapsed() < WRITE_FOR {
        let start = Instant::now();
        file.write_all(&[0x52; 4096])?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    Ok(took)
}

/// The bytes of all files below `directory`, as far as they are found by the deadline; true if that
/// is all of them.
pub(super) fn used(directory: &Path, deadline: Instant) -> (u64, bool) {
    let (mut folders, mut bytes) = (vec![directory.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            if Instant::now() > deadline {
                return (bytes, false);
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    (bytes, true)
}

/// The kind of file system (`ext4`, `nfs4`, `overlay`) that `path` is on, where the system tells.
pub(super) fn kind(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    kind_among(&mounts, &path)
}

/// The mount with the longest path is the one that counts, and of equals the last.
fn kind_among(mounts: &str, path: &Path) -> Option<String> {
    let fitting = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = PathBuf::from(unescaped(before.split(' ').nth(4)?));
        let kind = after.split(' ').next()?;
        path.starts_with(&point).then(|| (point.as_os_str().len(), kind.to_owned()))
    });
    fitting.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

/// proc(5) writes space, tab, line break and backslash in octal.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_says_what_kind_it_is() {
        let mounts = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                      30 22 0:45 / /var/lib/my\\040cache rw shared:7 - nfs4 host:/x rw\n\
                      31 22 0:46 / /var rw - xfs /dev/sdb rw\n\
                      32 22 0:47 / /var rw - tmpfs tmpfs rw\n";
        let kind = |path: &str| kind_among(mounts, Path::new(path)).unwrap();
        assert_eq!(kind("/srv"), "ext4");
        assert_eq!(kind("/var/lib/my cache/a"), "nfs4");
        assert_eq!(kind("/var/lib/my"), "tmpfs");
        assert_eq!(kind("/variable"), "ext4");
        assert_eq!(kind_among("", Path::new("/")), None);
    }

    #[test]
    fn what_is_measured_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let free = room(folder.path()).unwrap().free;
        let speed = measure(folder.path(), free.min(32 << 20)).unwrap();
        assert!(speed.written > 0 && speed.written <= 2 << 20, "{speed:?}");
        assert!(speed.bytes_per_second > 0.0 && speed.sync <= speed.slowest_sync, "{speed:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_are_added_up_as_long_as_there_is_time() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), [0; 10]).unwrap();
        fs::write(folder.path().join("c"), [0; 5]).unwrap();
        let soon = Instant::now() + Duration::from_secs(10);
        assert_eq!(used(folder.path(), soon), (15, true));
        assert!(!used(folder.path(), Instant::now() - Duration::from_secs(1)).1);
    }
}
