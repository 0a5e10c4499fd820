//! The store's disk as an operator sees it, and the history's place there.

use std::path::PathBuf;

use rustix::fs::statvfs;

use super::{Store, layout::remove_if_there};

/// The history may have at most one part in so many of the limit: what is cached comes first.
const HISTORY_SHARE: u64 = 1000;

/// How the disk's bytes are spent. All are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskReport {
    /// The store's folder.
    pub directory: PathBuf,
    /// The limit.
    pub capacity: u64,
    /// All that counts against it.
    pub used: u64,
    /// Published objects.
    pub published: u64,
    /// Unfinished downloads, and what is held for them.
    pub staged: u64,
    /// The index.
    pub index: u64,
    /// What was set aside because it was not what its name says.
    pub quarantine: u64,
    /// What happened lately.
    pub history: u64,
    /// What is wrong with the disk, in a sentence.
    pub trouble: Option<String>,
}

/// The file system below the store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// What is left to this user.
    pub free: u64,
    /// All of it.
    pub size: u64,
}

// === impl Store ===

impl Store {
    /// How the disk is. Waits for no disk.
    pub fn disk(&self) -> DiskReport {
        let space = &self.space;
        DiskReport {
            directory: self.layout.root().to_owned(),
            capacity: space.capacity(),
            used: space.used(),
            published: space.published(),
            staged: space.staged(),
            index: space.index(),
            quarantine: space.quarantine(),
            history: space.history(),
            trouble: self.trouble(),
        }
    }

    /// What the file system has left, and its size. Blocks.
    pub fn file_system(&self) -> Option<FileSystem> {
        let system = statvfs(self.layout.root()).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
        Some(FileSystem { free: bytes(system.f_bavail), size: bytes(system.f_blocks) })
    }

    /// Where the history is kept, with so many bytes of the limit set apart for it; `None` where the
    /// limit is too small for one. Blocks.
    pub fn place_for_history(&self, bytes: u64) -> Option<PathBuf> {
        let path = self.layout.history();
        if bytes > self.space.capacity() / HISTORY_SHARE {
            // One from when there was more room has to go.
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(path = %path.display(), %error, "it could not be removed");
            }
            self.count_history();
            return None;
        }
        self.space.set_history(bytes);
        Some(path)
    }

    /// Counts a history that lies there.
    pub(super) fn count_history(&self) {
        let found = std::fs::metadata(self.layout.history());
        self.space.set_history(found.map_or(0, |metadata| metadata.len()));
    }

    /// Whether the directory is this process' to write: another one may have taken over.
    pub fn is_ours(&self) -> bool {
        self.index().is_ok()
    }
}
