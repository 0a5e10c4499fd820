//! The store's directory: is it there, can it be written, has it room, is it fast enough.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    disk::{self, Room, Speed},
    finding::{Check, Finding, Group, Level},
};
use crate::{cli::cache::units::size, config::Store};

/// How long it is counted what is used there already.
const COUNT_FOR: Duration = Duration::from_secs(3);

/// With less room nothing can be stored.
const NO_ROOM: u64 = 64 << 20;

/// Fewer files than this are soon made.
const FEW_FILES: u64 = 10_000;

/// A disk that writes less per second is slower than most networks.
const SLOW_BYTES: f64 = 20.0 * 1024.0 * 1024.0;

/// Each blob that is stored waits for a few syncs.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// File systems on other machines.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "virtiofs"];

const EXISTS: Check = Check(Group::Directory, "exists");
const WRITABLE: Check = Check(Group::Directory, "writable");
const SPACE: Check = Check(Group::Directory, "space");
const SPEED: Check = Check(Group::Directory, "speed");
const SYNC: Check = Check(Group::Directory, "fsync");
const KIND: Check = Check(Group::Directory, "filesystem");

/// Everything about it; `used` is what the running server says that its store takes, `again` the
/// command that checks the same once more.
pub(super) fn check(store: &Store, used: Option<u64>, again: &str) -> Vec<Finding> {
    let directory = &store.directory;
    let shown = directory.display();
    let (place, mut findings) = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {
            (directory.clone(), vec![EXISTS.ok(shown, "is there")])
        }
        Ok(_) => {
            let remedy = "name a directory as store.directory (or --data), or move the file away";
            return vec![EXISTS.fault(shown, "is no directory", remedy)];
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = "nothing: it is made at the first start, if Roadstead's user may; or make \
                          it for that user now";
            let command = format!("install -d -m 0750 -o roadstead -g roadstead {shown}");
            let finding = EXISTS.note(shown, "is not there yet", remedy).run(command);
            (nearest(directory), vec![finding])
        }
        Err(error) => {
            let remedy =
                "run this as the user that Roadstead runs as, who must be able to enter it";
            return vec![EXISTS.fault(shown, format!("can't be looked at: {error}"), remedy)];
        }
    };
    let writable = writable(&place, again);
    let may_write = writable.level == Level::Ok;
    findings.push(writable);
    findings.extend(kind(&place));
    match disk::room(&place) {
        Ok(room) => {
            findings.extend(space(store, &place, room, used));
            if may_write && room.free > NO_ROOM {
                findings.extend(speed(&place, room));
            }
        }
        Err(error) => {
            let found = format!("its room can't be told: {error}");
            findings.push(SPACE.warning(place.display(), found, "look at its file system"));
        }
    }
    findings
}

/// The first directory above that is there.
fn nearest(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let found = absolute.ancestors().find(|path| path.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn writable(place: &Path, again: &str) -> Finding {
    let shown = place.display();
    let Err(error) = tempfile::tempfile_in(place) else {
        return WRITABLE.ok(shown, "can be written");
    };
    let owner = fs::metadata(place).map(|metadata| metadata.uid()).unwrap_or_default();
    let own = rustix::process::geteuid().as_raw();
    if error.kind() == io::ErrorKind::PermissionDenied && owner != own {
        return others(place, owner, own, again);
    }
    let remedy = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it for writing; until then Roadstead passes everything on and stores nothing"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        _ => "give it to the user that Roadstead runs as",
    };
    WRITABLE.fault(shown, format!("can't be written: {error}"), remedy)
}

/// It is `owner`'s, who is to look at the same store.
fn others(place: &Path, owner: u32, own: u32, again: &str) -> Finding {
    let found = format!("is user {owner}'s, and this runs as {own}, so it was not written to");
    let remedy = "run this as the user that Roadstead runs as, to measure it";
    let command = format!("sudo -u '#{owner}' {again}");
    WRITABLE.note(place.display(), found, remedy).run(command)
}

fn kind(place: &Path) -> Option<Finding> {
    let kind = disk::kind(place)?;
    let shown = place.display();
    let is = |what: &str| format!("is on {kind}, {what}");
    Some(match kind.as_str() {
        "tmpfs" | "ramfs" => {
            let remedy = "name a directory on a disk as store.directory, unless the cache may begin \
                          anew with each boot";
            KIND.warning(shown, is("which is memory: it is empty after a reboot"), remedy)
        }
        "overlay" | "aufs" => {
            let remedy = "mount a volume there (docker run -v roadstead:/var/lib/roadstead)";
            KIND.warning(
                shown,
                is("a container's own layer: it goes when the container does"),
                remedy,
            )
        }
        remote if REMOTE.contains(&remote) || remote.starts_with("fuse") => {
            let remedy = "use a local disk: the index needs locks and syncs that hold, and hits are \
                          served from memory maps";
            KIND.warning(shown, is("which is not a disk of this machine's own"), remedy)
        }
        _ => KIND.ok(shown, format!("is on {kind}")),
    })
}

fn space(store: &Store, place: &Path, room: Room, used: Option<u64>) -> Vec<Finding> {
    let shown = place.display();
    let is_there = store.directory.is_dir();
    let (used, is_all) = match used {
        Some(used) => (used, true),
        None if is_there => disk::used(place, Instant::now() + COUNT_FOR),
        None => (0, true),
    };
    let least = if is_all { "" } else { "at least " };
    let found = format!(
        "{} of {} are free; the store uses {least}{} and may use {} (store.disk)",
        size(room.free),
        size(room.total),
        size(used),
        size(store.disk)
    );
    let can_have = used.saturating_add(room.free);
    let mut findings = vec![if room.free < NO_ROOM {
        SPACE.fault(shown, found, "make room there: new content is passed on and not stored")
    } else if is_all && can_have < store.disk {
        let fits = size(can_have.saturating_mul(95) / 100);
        let remedy = format!(
            "set store.disk to what is really there (about {fits}), or the disk is full before \
             Roadstead begins to make room itself"
        );
        SPACE.warning(shown, found, remedy)
    } else {
        SPACE.ok(shown, found)
    }];
    if let Some(files) = room.files.filter(|files| *files < FEW_FILES) {
        let found = format!("no more than {files} files can be made there");
        findings.push(Check(Group::Directory, "inodes").warning(
            place.display(),
            found,
            "make it a file system with more inodes, or remove files: each blob is one",
        ));
    }
    findings
}

fn speed(place: &Path, room: Room) -> Vec<Finding> {
    let shown = place.display();
    match disk::measure(place, room.free) {
        Ok(speed) => vec![throughput(place, speed), latency(place, speed)],
        Err(error) => {
            let remedy = "look into the kernel's log (dmesg) for what is wrong with the disk";
            vec![SPEED.fault(shown, format!("writing to it failed: {error}"), remedy)]
        }
    }
}

fn throughput(place: &Path, speed: Speed) -> Finding {
    let (rate, written) = (size(speed.bytes_per_second as u64), size(speed.written));
    let found = format!("takes {rate}/s ({written} were written and synced)");
    match speed.bytes_per_second < SLOW_BYTES {
        false => SPEED.ok(place.display(), found),
        true => SPEED.warning(
            place.display(),
            found,
            "use a faster disk: what comes faster than it can be written is passed on unstored",
        ),
    }
}

fn latency(place: &Path, speed: Speed) -> Finding {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let (middle, slowest) = (milliseconds(speed.sync), milliseconds(speed.slowest_sync));
    let found =
        format!("a small write is on disk after {middle:.1} ms (the slowest: {slowest:.1})");
    match speed.sync > SLOW_SYNC {
        false => SYNC.ok(place.display(), found),
        true => SYNC.warning(
            place.display(),
            found,
            "use another disk, or find out who else keeps it busy (iostat -x 1): each blob waits for \
             several of these",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::worst;
    use super::*;

    const AGAIN: &str = "roadstead doctor --config /etc/r.yaml";

    fn store(directory: &Path, disk: u64) -> Store {
        Store { directory: directory.to_owned(), disk, ..Store::default() }
    }

    fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn a_directory_that_is_not_there_is_measured_where_it_will_be_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        let findings = check(&store(&directory, 1 << 20), None, AGAIN);
        assert_eq!(of(&findings, "exists").level, Level::Note);
        assert_eq!(of(&findings, "writable").level, Level::Ok);
        assert_eq!(of(&findings, "space").level, Level::Ok);
        assert!(of(&findings, "fsync").found.contains(" ms"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_limit_that_the_disk_can_not_hold_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let findings = check(&store(folder.path(), u64::MAX / 2), Some(5), AGAIN);
        let space = of(&findings, "space");
        assert_eq!(space.level, Level::Warning);
        assert!(space.remedy.as_ref().unwrap().contains("set store.disk"), "{space:?}");
    }

    #[test]
    fn its_owner_is_told_to_look_at_the_same_store() {
        let commands = others(Path::new("/srv"), 7, 8, AGAIN).commands;
        assert_eq!(commands, ["sudo -u '#7' roadstead doctor --config /etc/r.yaml"]);
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let findings = check(&store(file.path(), 1), None, AGAIN);
        assert_eq!(worst(&findings), Level::Fault);
        assert_eq!(findings.len(), 1);
    }
}
