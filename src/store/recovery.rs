//! What a start finds, and what makes the store whole again.
//!
//! A staged file whose record is in the index was verified and synced, and had
//! only its name to get: it gets it now. The others are counted against the
//! limit and resumed by the next fill of their digest. A published file that
//! the index misses is verified and adopted; one that does not match is set
//! aside. Names that are not ours are reported and left alone.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::PoisonError,
    time::SystemTime,
};

use super::{
    Error, Kind, Store,
    index::Index,
    layout::{Layout, PartialName, remove_if_there},
    partials::Partials,
    staging::{disk_bytes, hash_range},
};
use crate::{
    metrics,
    protocol::{Algorithm, ByteRange, Digest, Hasher, media_type::inspect},
};

/// A file up to this size may be a manifest.
const MANIFEST_BYTES: u64 = 4 << 20;

/// What a look at a published file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is what its name says.
    Good {
        /// Its length in bytes.
        size: u64,
    },
    /// It is not, or can't be read.
    Bad {
        /// What is wrong.
        problem: String,
    },
    /// There is no such file.
    Gone,
}

/// Reads the folder of partial files. Blocks.
pub(super) fn scan_partials(layout: &Layout, index: &Index) -> Result<Partials, Error> {
    let mut left = Vec::new();
    for entry in fs::read_dir(layout.partials())? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str().and_then(Layout::parse_partial) {
            Some(PartialName::Body(digest)) => {
                let modified = entry.metadata()?.modified()?;
                match index.blob(&digest)? {
                    Some(record) if record.size == entry.metadata()?.len() => {
                        layout.publish(&digest)?;
                        layout.settle(&digest)?;
                    }
                    _ => left.push((modified, digest, disk_bytes(layout, &digest)?)),
                }
            }
            Some(PartialName::Map(digest)) if !layout.partial(&digest).exists() => {
                remove_if_there(&entry.path())?;
            }
            Some(PartialName::Map(_)) => {}
            None => {
                tracing::warn!(file = %entry.path().display(), "not a file of ours; left alone");
            }
        }
    }
    if !left.is_empty() {
        tracing::info!(count = left.len(), "unfinished fills found; they resume when asked for");
    }
    left.sort_by_key(|(modified, ..)| *modified);
    Ok(Partials::new(left.into_iter().map(|(_, digest, bytes)| (digest, bytes))))
}

/// Reads the file of `digest` and says whether it is what its name says. Blocks.
pub(super) fn check(layout: &Layout, digest: &Digest) -> Verdict {
    match hash_file(&layout.blob(digest), digest.algorithm()) {
        Ok((size, found)) if found == *digest => Verdict::Good { size },
        Ok((size, found)) => {
            Verdict::Bad { problem: format!("its {size} bytes have the digest {found}") }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Gone,
        Err(error) => Verdict::Bad { problem: format!("it can't be read: {error}") },
    }
}

fn hash_file(path: &Path, algorithm: Algorithm) -> io::Result<(u64, Digest)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut hasher = Hasher::new(algorithm);
    hash_range(&file, ByteRange::new(0, len), &mut hasher)?;
    Ok((len, hasher.finish()))
}

/// Verifies a published file that the index misses, and records it; where there is no index now,
/// it is only verified. One that does not match is set aside. Blocks.
pub(super) fn adopt(store: &Store, digest: &Digest) -> Result<Verdict, Error> {
    if !store.layout.blob(digest).exists() {
        return Ok(Verdict::Gone);
    }
    let _one = store.adopting.lock().unwrap_or_else(PoisonError::into_inner);
    // An index that fails is as good as none: the file can be served all the same.
    let index = store.index().ok().and_then(|index| match index.blob(digest) {
        Ok(record) => Some((index, record)),
        Err(_) => None,
    });
    if let Some((_, Some(record))) = &index {
        return Ok(Verdict::Good { size: record.size });
    }
    let verdict = check(&store.layout, digest);
    match (&verdict, index) {
        (Verdict::Good { size }, Some((index, _))) => {
            let kind = kind_of(store, digest, *size);
            match index.publish(*digest, *size, kind, SystemTime::now()) {
                Ok(before) => {
                    store.space.publish(0, *size, before.is_some());
                    metrics::ADOPTED.inc();
                    tracing::info!(%digest, size, "a file that the index missed was adopted");
                }
                Err(error) => tracing::warn!(%digest, %error, "a file could not be adopted"),
            }
        }
        (Verdict::Bad { problem }, Some(_)) => store.set_aside(*digest, problem),
        (Verdict::Good { .. } | Verdict::Bad { .. } | Verdict::Gone, _) => {}
    }
    Ok(verdict)
}

/// What a verified file is, by its content.
fn kind_of(store: &Store, digest: &Digest, size: u64) -> Kind {
    if size > MANIFEST_BYTES {
        return Kind::Blob;
    }
    let body = fs::read(store.layout.blob(digest));
    match body.map(|body| inspect(None, &body)) {
        Ok(Ok(_)) => Kind::Manifest,
        _ => Kind::Blob,
    }
}

/// The published files of one folder that the index misses. Blocks.
pub(super) fn unrecorded(
    store: &Store,
    algorithm: Algorithm,
    shard: &Path,
) -> Result<Vec<Digest>, Error> {
    let entries = match fs::read_dir(shard) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let index = store.index()?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let digest = name
            .to_str()
            .and_then(|hex| Digest::parse(&format!("{}:{hex}", algorithm.as_str())).ok());
        match digest {
            Some(digest) if index.blob(&digest)?.is_none() => found.push(digest),
            Some(_) => {}
            None => {
                let path = shard.join(name);
                tracing::warn!(file = %path.display(), "not a file of ours; left alone");
            }
        }
    }
    Ok(found)
}
