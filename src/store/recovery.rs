//! What a start finds: the partial files of an earlier life.
//!
//! They are counted against the limit and resumed by the next fill of their
//! digest. Names that are not ours are reported and left alone.

use std::fs;

use super::{Error, disk::Partials, layout::Layout};

/// Reads the folder of partial files. Blocks.
pub(super) fn scan_partials(layout: &Layout) -> Result<Partials, Error> {
    let mut left = Vec::new();
    for entry in fs::read_dir(layout.partials())? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str().and_then(Layout::partial_digest) {
            Some(digest) => left.push((digest, entry.metadata()?.len())),
            None => {
                tracing::warn!(file = %entry.path().display(), "not a file of ours; left alone")
            }
        }
    }
    if !left.is_empty() {
        tracing::info!(count = left.len(), "unfinished fills found; they resume when asked for");
    }
    Ok(Partials::new(left))
}
