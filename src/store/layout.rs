//! Where things lie on disk, described once.
//!
//! `<directory>/{FORMAT, index.redb, blobs/<algorithm>/<2 hex>/<hex>,
//! partial/<algorithm>-<hex>, quarantine/}`. A file below `blobs/` is complete
//! and never changes; one below `partial/` only grows.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::Error;
use crate::protocol::{Algorithm, Digest};

/// The version of this layout. A store with a higher one is refused.
const FORMAT: u32 = 1;

/// The store's folder and the names in it.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// Creates what is missing below `root` and checks the format's version.
    pub(super) fn prepare(root: &Path) -> Result<Self, Error> {
        let layout = Self { root: root.to_owned() };
        for folder in [layout.partials(), layout.quarantine()] {
            make_folder(&folder)?;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            make_folder(&layout.blobs(algorithm))?;
        }
        layout.check_format()?;
        Ok(layout)
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.redb")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let shard = hex.get(..2).unwrap_or_default();
        self.blobs(digest.algorithm()).join(shard).join(&hex)
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()))
    }

    /// The digest that a file name below `partial/` stands for.
    pub(super) fn partial_digest(name: &str) -> Option<Digest> {
        let (algorithm, hex) = name.split_once('-')?;
        Digest::parse(&format!("{algorithm}:{hex}")).ok()
    }

    /// Moves a staged file into place and makes both folders' entries durable.
    pub(super) fn publish(&self, digest: &Digest) -> io::Result<()> {
        let target = self.blob(digest);
        let folder = target.parent().unwrap_or(&self.root);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.blobs(digest.algorithm()))?;
        }
        fs::rename(self.partial(digest), &target)?;
        sync_folder(folder)?;
        sync_folder(&self.partials())
    }

    /// Moves a published file that went bad out of the way, for the operator to look at.
    pub(super) fn set_aside(&self, digest: &Digest) -> io::Result<()> {
        let target =
            self.quarantine().join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()));
        match fs::rename(self.blob(digest), target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn check_format(&self) -> Result<(), Error> {
        let path = self.root.join("FORMAT");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return write_format(&self.root, &path).map_err(|error| unusable(&path, &error));
            }
            Err(error) => return Err(unusable(&path, &error)),
            Ok(text) => text,
        };
        match text.trim().parse::<u32>() {
            Ok(FORMAT) => Ok(()),
            Ok(other) => Err(Error::Unusable {
                path,
                problem: format!("the store has format {other}, this program reads {FORMAT}"),
                remedy: "run the version that wrote it, or name an empty directory",
            }),
            Err(_) => Err(Error::Unusable {
                path,
                problem: "it does not hold a format number".to_owned(),
                remedy: "name an empty directory; this one is not a store of roadstead",
            }),
        }
    }
}

fn write_format(root: &Path, path: &Path) -> io::Result<()> {
    let staged = root.join("FORMAT.new");
    fs::write(&staged, format!("{FORMAT}\n"))?;
    File::open(&staged)?.sync_all()?;
    fs::rename(&staged, path)?;
    sync_folder(root)
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::Unusable {
        path: path.to_owned(),
        problem: error.to_string(),
        remedy: "store.directory must be a directory that this user may write",
    }
}

/// A rename is durable once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Layout::prepare(folder.path()).unwrap();
        Layout::prepare(folder.path()).unwrap();
        fs::write(folder.path().join("FORMAT"), "2\n").unwrap();
        let error = Layout::prepare(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 2"), "{error}");
    }

    #[test]
    fn partial_names_are_read_back() {
        let layout = Layout { root: PathBuf::from("/x") };
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let path = layout.partial(&digest);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Layout::partial_digest(name), Some(digest));
        assert_eq!(Layout::partial_digest("sha256-zz"), None);
    }
}
