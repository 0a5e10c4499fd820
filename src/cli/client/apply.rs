//! Merging into a client's file, and writing it: whole or not at all, the one before kept.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::plan::{File, Problem};
use super::root::Root;

/// A file as it is to be; nothing is written yet.
#[derive(Debug)]
pub(super) struct Merged {
    /// As the client sees it.
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Where it is written to; `None` where it is only printed.
    place: Option<PathBuf>,
    changed: bool,
    is_whole: bool,
    private: bool,
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    Unchanged,
    Created,
    /// What was there before is in this file.
    Changed(PathBuf),
}

// === impl Merged ===

impl Merged {
    /// Whether it would be another text than is there.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }
}

/// Reads what is there and merges.
pub(super) fn merge(file: &File, root: &Root) -> Result<Merged, Problem> {
    let place = root.place(&file.path)?;
    let before = root.read(&file.path)?;
    let shown = place.as_deref().unwrap_or(&file.path);
    let text = (file.edit)(&before).map_err(|what| Problem::about(shown, what))?;
    let changed = text != before;
    let (path, is_whole, private) = (file.path.clone(), file.is_whole, file.private);
    Ok(Merged { path, text, place, changed, is_whole, private })
}

/// Writes what has changed, which leaves `files` in the order of writing: what others name comes
/// first. Ends at the first that can't be written; what became of those before it is told.
pub(super) fn write_all(files: &mut [Merged]) -> (Vec<Done>, Result<(), Problem>) {
    files.sort_by_key(|file| !file.is_whole);
    let mut done = Vec::new();
    for file in files.iter() {
        match write(file) {
            Ok(outcome) => done.push(outcome),
            Err(problem) => return (done, Err(problem)),
        }
    }
    (done, Ok(()))
}

fn write(merged: &Merged) -> Result<Done, Problem> {
    let Some(place) = merged.place.as_deref().filter(|_| merged.changed) else {
        return Ok(Done::Unchanged);
    };
    let problem = |error: io::Error| {
        Problem::about(
            place,
            format!("can't be written: {error}; check the directory, and who you are"),
        )
    };
    let folder = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(problem)?;
    let before = match fs::metadata(place) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(problem(error)),
    };
    let backup = before.as_ref().map(|_| keep(place)).transpose().map_err(problem)?;
    let mode = match (&before, merged.private) {
        (Some(metadata), _) => metadata.mode() & 0o7777,
        (None, true) => 0o600,
        (None, false) => 0o644,
    };
    let mut file = tempfile::Builder::new()
        .prefix(".roadstead-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(problem)?;
    file.write_all(merged.text.as_bytes()).map_err(problem)?;
    if let Some(metadata) = &before {
        chown(file.path(), Some(metadata.uid()), Some(metadata.gid())).map_err(problem)?;
    }
    fs::set_permissions(file.path(), Permissions::from_mode(mode)).map_err(problem)?;
    file.as_file().sync_all().map_err(problem)?;
    file.persist(place).map_err(|error| problem(error.error))?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(problem)?;
    Ok(backup.map_or(Done::Created, Done::Changed))
}

/// Copies a file beside itself, under a name that no client reads and no backup has.
fn keep(place: &Path) -> io::Result<PathBuf> {
    let metadata = fs::metadata(place)?;
    let text = fs::read(place)?;
    for number in 1.. {
        let mut name = place.as_os_str().to_owned();
        name.push(format!(".before-roadstead-{number}"));
        let backup = PathBuf::from(name);
        let mut copy = match OpenOptions::new().write(true).create_new(true).open(&backup) {
            Ok(copy) => copy,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        copy.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
        chown(&backup, Some(metadata.uid()), Some(metadata.gid()))?;
        copy.write_all(&text)?;
        copy.sync_all()?;
        return Ok(backup);
    }
    Err(io::Error::other("too many backups"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(root: &Path, text: &'static str) -> Done {
        let file = File::whole("/etc/x/a.json", text.to_owned());
        write(&merge(&file, &Root::at(root.to_owned())).unwrap()).unwrap()
    }

    #[test]
    fn every_change_keeps_what_was_before_and_no_change_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().canonicalize().unwrap().join("etc/x/a.json");
        let backup = |n| file.with_extension(format!("json.before-roadstead-{n}"));
        assert_eq!(once(root.path(), "one"), Done::Created);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o644);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let inode = file.metadata().unwrap().ino();
        assert_eq!(once(root.path(), "one"), Done::Unchanged);
        assert_eq!(file.metadata().unwrap().ino(), inode);
        assert_eq!(once(root.path(), "two"), Done::Changed(backup(1)));
        assert_eq!(once(root.path(), "three"), Done::Changed(backup(2)));
        assert_eq!(fs::read_to_string(backup(1)).unwrap(), "one");
        assert_eq!(fs::read_to_string(backup(2)).unwrap(), "two");
        for file in [&file, &backup(1)] {
            assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
        }
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 3);
    }

    #[test]
    fn what_may_hold_passwords_is_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let file = File::whole("/a.yaml", "x".to_owned()).private();
        let merged = merge(&file, &Root::at(root.path().to_owned())).unwrap();
        assert_eq!(write(&merged).unwrap(), Done::Created);
        let mode = root.path().join("a.yaml").metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
