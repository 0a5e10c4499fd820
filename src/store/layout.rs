//! Where things lie on disk, described once.
//!
//! `<directory>/{FORMAT, index.redb, blobs/<algorithm>/<2 hex>/<hex>,
//! partial/<algorithm>-<hex>[.map], quarantine/, history.ring}`. A file below
//! `blobs/` is complete and never changes. In one below `partial/` each byte is written
//! once; its `.map` says which are there, and without one it grows from the front.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::Error;
use crate::protocol::{Algorithm, Digest};

/// The version of this layout. A store with a higher one is refused.
const FORMAT: u32 = 1;

/// What the name of a staged file's journal ends with.
const MAP: &str = ".map";

/// Folders of each algorithm below `blobs/`: one for each first byte of a digest.
const SHARDS: u32 = 256;

/// The store's folder and the names in it.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// What a name below `partial/` stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PartialName {
    /// A staged file.
    Body(Digest),
    /// The journal of one.
    Map(Digest),
}

// === impl Layout ===

impl Layout {
    /// Creates what is missing below `root` and checks the format's version.
    pub(super) fn prepare(root: &Path) -> Result<Self, Error> {
        let layout = Self { root: root.to_owned() };
        layout.make_folders()?;
        layout.check_format()?;
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
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
        self.partials().join(flat_name(digest))
    }

    /// The journal beside a staged file.
    pub(super) fn map(&self, digest: &Digest) -> PathBuf {
        self.partials().join(flat_name(digest) + MAP)
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// What happened lately: a file of fixed length, which `history` reads and writes. Anew, it is
    /// made as `history.new`.
    pub(super) fn history(&self) -> PathBuf {
        self.root.join("history.ring")
    }

    /// A file that shows whether the disk takes writes.
    pub(super) fn probe(&self) -> PathBuf {
        self.root.join("probe")
    }

    /// What a name below `partial/` stands for; `None` if it is none of ours.
    pub(super) fn parse_partial(name: &str) -> Option<PartialName> {
        match name.strip_suffix(MAP) {
            Some(name) => parse_flat(name).map(PartialName::Map),
            None => parse_flat(name).map(PartialName::Body),
        }
    }

    /// The folders below `blobs/` in which published files lie, whether they are there or not.
    pub(super) fn shards(&self) -> impl Iterator<Item = (Algorithm, PathBuf)> {
        [Algorithm::Sha256, Algorithm::Sha512].into_iter().flat_map(|algorithm| {
            let folder = self.blobs(algorithm);
            (0..SHARDS).map(move |shard| (algorithm, folder.join(format!("{shard:02x}"))))
        })
    }

    /// Moves a staged file into place.
    pub(super) fn publish(&self, digest: &Digest) -> io::Result<()> {
        let target = self.blob(digest);
        let folder = target.parent().unwrap_or(&self.root);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.blobs(digest.algorithm()))?;
        }
        fs::rename(self.partial(digest), &target)
    }

    /// Ends what [`Layout::publish`] began: the journal goes, and both folders' entries are made
    /// durable. Where that fails, a power cut may take the new name back, and a start finds the
    /// file where it was.
    pub(super) fn settle(&self, digest: &Digest) -> io::Result<()> {
        remove_if_there(&self.map(digest))?;
        let target = self.blob(digest);
        sync_folder(target.parent().unwrap_or(&self.root))?;
        sync_folder(&self.partials())
    }

    /// Removes a staged file and its journal.
    pub(super) fn discard(&self, digest: &Digest) -> io::Result<()> {
        // The journal goes last: a staged file without one would read as a beginning.
        remove_if_there(&self.partial(digest))?;
        remove_if_there(&self.map(digest))
    }

    /// Moves a published file that went bad out of the way, for the operator to look at; answers
    /// its length.
    pub(super) fn set_aside(&self, digest: &Digest) -> io::Result<u64> {
        self.set_aside_as(&self.blob(digest), &flat_name(digest))
    }

    /// The same of any file.
    pub(super) fn set_aside_as(&self, path: &Path, name: &str) -> io::Result<u64> {
        let target = self.quarantine().join(name);
        let len = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            found => found?.len(),
        };
        fs::rename(path, target)?;
        Ok(len)
    }

    /// Makes the folders that are missing.
    pub(super) fn make_folders(&self) -> Result<(), Error> {
        for folder in [self.partials(), self.quarantine()] {
            make_folder(&folder)?;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            make_folder(&self.blobs(algorithm))?;
        }
        Ok(())
    }

    /// Refuses a store of another version; writes ours where there is none.
    pub(super) fn check_format(&self) -> Result<(), Error> {
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

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }
}

/// A digest as a name of one folder.
fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn parse_flat(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
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

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
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
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let body = Layout::parse_partial(&name(layout.partial(&digest)));
        assert_eq!(body, Some(PartialName::Body(digest)));
        let map = Layout::parse_partial(&name(layout.map(&digest)));
        assert_eq!(map, Some(PartialName::Map(digest)));
        assert_eq!(Layout::parse_partial("sha256-zz"), None);
    }
}
