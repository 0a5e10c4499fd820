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
    /// What the file system has left, and its size; `None` where it does not say.
    pub file_system: Option<(u64, u64)>,
    /// What is wrong with the disk, in a sentence.
    pub trouble: Option<String>,
}

// === impl Store ===

impl Store {
    /// How the disk is. Reads no file.
    pub fn disk(&self) -> DiskReport {
        let space = &self.space;
        let file_system = statvfs(self.layout.root()).ok().map(|system| {
            let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
            (bytes(system.f_bavail), bytes(system.f_blocks))
        });
        DiskReport {
            directory: self.layout.root().to_owned(),
            capacity: space.capacity(),
            used: space.used(),
            published: space.published(),
            staged: space.staged(),
            index: space.index(),
            quarantine: space.quarantine(),
            history: space.history(),
            file_system,
            trouble: self.trouble(),
        }
    }

    /// Where the history is kept, with so many bytes of the limit set apart for it; `None` where the
    /// limit is too small for one. Blocks.
    pub fn place_for_history(&self, bytes: u64) -> Option<PathBuf> {
        let path = self.layout.history();
        if bytes > self.space.capacity() / HISTORY_SHARE {
            // One from when there was more room would lie there uncounted.
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(path = %path.display(), %error, "it could not be removed");
            }
            return None;
        }
        self.space.set_history(bytes);
        Some(path)
    }

    /// Whether the directory is this process' to write: another one may have taken over.
    pub fn is_ours(&self) -> bool {
        self.index().is_ok()
    }
}
