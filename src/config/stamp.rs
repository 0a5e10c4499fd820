//! What tells one state of a file from another, for whoever reads it again when it changes.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// The state of a file, or of the one that a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    /// Its owner, mode or contents; no program can set it back.
    changed: (i64, i64),
    len: u64,
    inode: u64,
    device: u64,
}

// === impl Stamp ===

impl Stamp {
    /// The present one; `None` where there is no such file. May block.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            len: found.len(),
            inode: found.ino(),
            device: found.dev(),
        })
    }
}
