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
    os::unix::fs::MetadataExt,
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

/// A file up to this size is adopted while a client waits: it is hashed in less than a second.
const ADOPT_AT_ONCE_BYTES: u64 = 256 << 20;

/// Hashed between two looks whether to go on.
const HASH_STEP_BYTES: u64 = 8 << 20;

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
pub(super) fn scan_partials(layout: &Layout, index: Option<&Index>) -> Result<Partials, Error> {
    let mut left = Vec::new();
    for entry in fs::read_dir(layout.partials())? {
        let entry = entry?;
        // One file that can't be dealt with must not keep the others from being served.
        match scan_partial(layout, index, &entry) {
            Ok(found) => left.extend(found),
            Err(error) => {
                let file = entry.path();
                tracing::warn!(file = %file.display(), %error, "an unfinished fill was passed over");
            }
        }
    }
    if !left.is_empty() {
        tracing::info!(count = left.len(), "unfinished fills found; they resume when asked for");
    }
    left.sort_by_key(|(modified, ..)| *modified);
    Ok(Partials::new(left.into_iter().map(|(_, digest, bytes)| (digest, bytes))))
}

/// Gives the file its name, if that is all that it lacks; else what is left, and since when.
fn scan_partial(
    layout: &Layout,
    index: Option<&Index>,
    entry: &fs::DirEntry,
) -> Result<Option<(SystemTime, Digest, u64)>, Error> {
    match entry.file_name().to_str().and_then(Layout::parse_partial) {
        Some(PartialName::Body(digest)) => {
            let metadata = entry.metadata()?;
            let record = index.map(|index| index.blob(&digest)).transpose()?.flatten();
            // One with holes is as long as one without.
            let is_whole = record.is_some_and(|record| record.size == metadata.len())
                && metadata.blocks() * 512 >= metadata.len();
            if layout.blob(&digest).exists() {
                // What has its name was verified; this is another try at the same.
                layout.discard(&digest)?;
                return Ok(None);
            }
            if is_whole {
                layout.publish(&digest)?;
                layout.settle(&digest)?;
                return Ok(None);
            }
            Ok(Some((metadata.modified()?, digest, disk_bytes(layout, &digest)?)))
        }
        Some(PartialName::Map(digest)) if !layout.partial(&digest).exists() => {
            remove_if_there(&entry.path())?;
            Ok(None)
        }
        Some(PartialName::Map(_)) => Ok(None),
        None => {
            tracing::warn!(file = %entry.path().display(), "not a file of ours; left alone");
            Ok(None)
        }
    }
}

/// Reads the file of `digest` and says whether it is what its name says, while `go_on` says so.
/// Blocks.
pub(super) fn check(layout: &Layout, digest: &Digest, go_on: &dyn Fn() -> bool) -> Verdict {
    match hash_file(&layout.blob(digest), digest.algorithm(), go_on) {
        Ok((size, found)) if found == *digest => Verdict::Good { size },
        Ok((size, found)) => {
            Verdict::Bad { problem: format!("its {size} bytes have the digest {found}") }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound || !go_on() => Verdict::Gone,
        Err(error) => Verdict::Bad { problem: format!("it can't be read: {error}") },
    }
}

fn hash_file(
    path: &Path,
    algorithm: Algorithm,
    go_on: &dyn Fn() -> bool,
) -> io::Result<(u64, Digest)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut hasher = Hasher::new(algorithm);
    let mut at = 0;
    while at < len {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = len.min(at + HASH_STEP_BYTES);
        hash_range(&file, ByteRange::new(at, end), &mut hasher)?;
        at = end;
    }
    Ok((len, hasher.finish()))
}

/// [`adopt`] while a client waits: a large file is left to the scrub, and one that another looks at
/// already counts as absent. Blocks.
pub(super) fn adopt_for_request(store: &Store, digest: &Digest) -> Result<Verdict, Error> {
    match fs::metadata(store.layout.blob(digest)) {
        Ok(file) if file.len() <= ADOPT_AT_ONCE_BYTES => adopt(store, digest, &|| true),
        Ok(_) | Err(_) => Ok(Verdict::Gone),
    }
}

/// Verifies a published file that the index misses, and records it; where there is no index now,
/// it is only verified. One that does not match is set aside. It gives up once `go_on` says so.
/// Blocks.
pub(super) fn adopt(
    store: &Store,
    digest: &Digest,
    go_on: &dyn Fn() -> bool,
) -> Result<Verdict, Error> {
    let Some(_claim) = Claim::take(store, *digest) else {
        return Ok(Verdict::Gone);
    };
    // An index that fails is as good as none: the file can be served all the same.
    if let Ok(Some(record)) = store.index().and_then(|index| index.blob(digest)) {
        return Ok(Verdict::Good { size: record.size });
    }
    let verdict = check(&store.layout, digest, go_on);
    match &verdict {
        Verdict::Good { size } => record(store, digest, *size),
        Verdict::Bad { problem } => {
            let size = fs::metadata(store.layout.blob(digest)).map_or(0, |file| file.len());
            store.set_aside(*digest, problem);
            store.found_stray(size);
        }
        Verdict::Gone => {}
    }
    Ok(verdict)
}

fn record(store: &Store, digest: &Digest, size: u64) {
    let Ok(index) = store.index() else { return };
    let kind = kind_of(store, digest, size);
    match index.publish(*digest, size, kind, SystemTime::now()) {
        Ok(before) => {
            store.space.publish(0, size, before.is_some());
            store.found_stray(size);
            metrics::ADOPTED.inc();
            tracing::info!(%digest, size, "a file that the index missed was verified and adopted");
        }
        Err(error) => tracing::warn!(%digest, %error, "a file could not be adopted"),
    }
}

/// The right to look at a file, for one at a time.
struct Claim<'a> {
    store: &'a Store,
    digest: Digest,
}

// === impl Claim ===

impl<'a> Claim<'a> {
    fn take(store: &'a Store, digest: Digest) -> Option<Self> {
        let mut adopting = store.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        adopting.insert(digest).then_some(Self { store, digest })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut adopting = self.store.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        adopting.remove(&self.digest);
    }
}

/// Bytes of all files in the place of published ones. Blocks.
pub(super) fn bytes_of_files(layout: &Layout) -> u64 {
    let files = |shard: &Path| -> u64 {
        let entries = fs::read_dir(shard).into_iter().flatten().flatten();
        entries.map(|entry| entry.metadata().map_or(0, |file| file.len())).sum()
    };
    layout.shards().map(|(_, shard)| files(&shard)).sum()
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
