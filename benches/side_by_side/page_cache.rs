//! Makes the kernel forget files, so that whoever reads them next reads them from the disk.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Smaller ones are the servers' own books.
const CONTENT_FROM_BYTES: u64 = 64 << 10;
/// So many of the files are looked at afterwards.
const PROBES: usize = 16;

/// Drops the files under `folder`, which must have been synced, from the page cache; where advice does not do it, with
/// everything else that is cached. False where that does not do it either.
pub(crate) fn forget(folder: &Path) -> Result<bool> {
    let files = content_files(folder)?;
    for file in &files {
        let file = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        // Refused advice shows below, where the files are still cached.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
    if !any_is_cached(&files)? {
        return Ok(true);
    }
    // For root alone; others have done what they can.
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    Ok(!any_is_cached(&files)?)
}

fn content_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let (entry, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if meta.is_dir() {
                folders.push(entry);
            } else if meta.is_file() && meta.len() >= CONTENT_FROM_BYTES {
                files.push(entry);
            }
        }
    }
    Ok(files)
}

fn any_is_cached(files: &[PathBuf]) -> Result<bool> {
    for path in files.iter().step_by(files.len().div_ceil(PROBES).max(1)) {
        if is_cached(path).with_context(|| format!("probing {}", path.display()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the middle of the file can be read without waiting for the disk.
fn is_cached(path: &Path) -> Result<bool> {
    let file = File::open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    match preadv2(&file, &mut [IoSliceMut::new(&mut byte)], middle, ReadWriteFlags::NOWAIT) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        // A file system that can't tell is taken for one in memory, as most of those are.
        Err(Errno::OPNOTSUPP) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
