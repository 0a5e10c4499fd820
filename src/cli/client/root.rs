//! Where a client's files are: below a directory, out of which no symbolic link leads.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::plan::Problem;

/// The directory that stands for `/`.
#[derive(Debug)]
pub(super) struct Root {
    /// Nothing: no file is looked at.
    at: Option<PathBuf>,
}

// === impl Root ===

impl Root {
    pub(super) fn at(directory: PathBuf) -> Self {
        Self { at: Some(directory) }
    }

    /// Every file seems to be missing.
    pub(super) fn unseen() -> Self {
        Self { at: None }
    }

    /// The text at `path`, which a client sees as absolute; empty if there is none.
    pub(super) fn read(&self, path: &Path) -> Result<String, Problem> {
        let Some(place) = self.place(path)? else { return Ok(String::new()) };
        match fs::read(&place) {
            Ok(bytes) => String::from_utf8(bytes)
                .map_err(|_| Problem::about(&place, "is not UTF-8 text; mend or remove it")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Problem::about(&place, format!("can't be read: {error}; check it"))),
        }
    }

    /// The files in a directory with this extension, by name.
    pub(super) fn files(&self, directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Problem> {
        let Some(place) = self.place(directory)? else { return Ok(Vec::new()) };
        let Ok(entries) = fs::read_dir(place) else { return Ok(Vec::new()) };
        let names = entries.filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())));
        let mut names: Vec<_> =
            names.filter(|name| name.extension().is_some_and(|found| found == extension)).collect();
        names.sort();
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }

    /// Where `path` really is, links followed; `None` where nothing is looked at.
    pub(super) fn place(&self, path: &Path) -> Result<Option<PathBuf>, Problem> {
        let Some(root) = &self.at else { return Ok(None) };
        let place = root.join(path.strip_prefix("/").unwrap_or(path));
        // What is not there yet can't lead anywhere.
        let mut there = place.as_path();
        while there != root && there.symlink_metadata().is_err() {
            there = there.parent().unwrap_or(root);
        }
        if there.symlink_metadata().is_err() {
            return Ok(Some(place));
        }
        let real = |path: &Path| {
            let unreadable = |error| format!("can't be followed: {error}; check where it leads");
            path.canonicalize().map_err(|error| Problem::about(path, unreadable(error)))
        };
        let (real_root, real_there) = (real(root)?, real(there)?);
        if !real_there.starts_with(&real_root) {
            let what = format!("leads out of {}; write that file by hand", root.display());
            return Err(Problem::about(there, what));
        }
        let rest = place.strip_prefix(there).unwrap_or(Path::new(""));
        Ok(Some(match rest.as_os_str().is_empty() {
            true => real_there,
            false => real_there.join(rest),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out_of_the_root() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), root.path().join("etc")).unwrap();
        let at = Root::at(root.path().to_owned());
        let said = at.read(Path::new("/etc/docker/daemon.json")).unwrap_err().to_string();
        assert!(said.contains("leads out of"), "{said}");
    }

    #[test]
    fn a_link_inside_is_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("real")).unwrap();
        fs::write(root.path().join("real/a.conf"), "text").unwrap();
        symlink("real", root.path().join("etc")).unwrap();
        let at = Root::at(root.path().to_owned());
        assert_eq!(at.read(Path::new("/etc/a.conf")).unwrap(), "text");
        assert_eq!(at.files(Path::new("/etc"), "conf").unwrap(), [PathBuf::from("/etc/a.conf")]);
        assert_eq!(at.read(Path::new("/etc/b/c.conf")).unwrap(), "");
        let place = at.place(Path::new("/etc/a.conf")).unwrap().unwrap();
        assert_eq!(place, root.path().canonicalize().unwrap().join("real/a.conf"));
    }

    #[test]
    fn what_is_not_looked_at_seems_missing() {
        assert_eq!(Root::unseen().read(Path::new("/etc/passwd")).unwrap(), "");
    }
}
