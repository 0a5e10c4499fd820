//! What a start finds: the partial files of an earlier life.
//!
//! A file whose record is in the index was verified and synced, and had only
//! its name to get: it gets it now. The others are counted against the limit
//! and resumed by the next fill of their digest. Names that are not ours are
//! reported and left alone.

use std::fs;

use super::{Error, disk::Partials, index::Index, layout::Layout};

/// Reads the folder of partial files. Blocks.
pub(super) fn scan_partials(layout: &Layout, index: &Index) -> Result<Partials, Error> {
    let mut left = Vec::new();
    for entry in fs::read_dir(layout.partials())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(digest) = name.to_str().and_then(Layout::partial_digest) else {
            tracing::warn!(file = %entry.path().display(), "not a file of ours; left alone");
            continue;
        };
        let len = entry.metadata()?.len();
        match index.blob(&digest)? {
            Some(record) if record.size == len => layout.publish(&digest)?,
            _ => left.push((digest, len)),
        }
    }
    if !left.is_empty() {
        tracing::info!(count = left.len(), "unfinished fills found; they resume when asked for");
    }
    Ok(Partials::new(left))
}
