//! The history's file: opened once, written in place, made anew where it is none of ours.
//!
//! It is written without syncing: what the process wrote outlives the process,
//! and a power cut costs the last seconds. A disk that does not take it costs
//! what happens from then on to the next start, and nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{record, ring::Ring};

/// Where the history is kept.
#[derive(Debug)]
pub(super) struct Keeping {
    path: PathBuf,
    /// The file, as long as it is there and takes what is written.
    file: Option<File>,
    /// The log has said that it can't be written.
    is_told: bool,
}

// === impl Keeping ===

impl Keeping {
    /// The file at `path`, and fills `rings` from it. Blocks.
    pub(super) fn open(path: PathBuf, rings: &mut [Ring]) -> Self {
        // Of a process that was killed while it wrote all of it. Mostly there is none.
        let _ = fs::remove_file(staged(&path));
        let file = match read(&path, rings) {
            Ok(Some(file)) => Some(file),
            Ok(None) => {
                let path = path.display();
                tracing::warn!(%path, "the history's file is damaged, or of another version; it is begun anew");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the history can't be read; it is begun anew");
                None
            }
        };
        Self { path, file, is_told: false }
    }

    /// Writes what has changed; all of it where there is no file yet. Blocks.
    pub(super) fn save(&mut self, rings: &mut [Ring]) {
        let changed: Vec<_> = rings.iter_mut().map(Ring::take_changed).collect();
        let saved = match self.file.take().filter(is_in_place) {
            Some(file) => write_changed(&file, rings, &changed).map(|()| file),
            None => write_all(&self.path, rings),
        };
        match saved {
            Ok(file) => {
                self.file = Some(file);
                self.is_told = false;
            }
            // All of it is written the next time.
            Err(error) => self.tell(&error),
        }
    }

    /// Another process may write the file: what is there is not known any more.
    pub(super) fn let_go(&mut self) {
        self.file = None;
    }

    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                path = %self.path.display(), %error,
                remedy = "free space in store.directory and see that this user may write there",
                "the history can't be written; until it can, it is kept in memory"
            );
        }
    }
}

/// The file, if it is one of ours.
fn read(path: &Path, rings: &mut [Ring]) -> io::Result<Option<File>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    // Whatever lies there may be of any length.
    let longest = record::file_bytes(rings) as u64 + 1;
    (&mut file).take(longest).read_to_end(&mut bytes)?;
    Ok(record::decode(&bytes, rings).then_some(file))
}

/// False if the file's name is gone: somebody emptied the directory.
fn is_in_place(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

fn write_changed(
    file: &File,
    rings: &[Ring],
    changed: &[Vec<(usize, super::ring::Slot)>],
) -> io::Result<()> {
    for (ring, slots) in changed.iter().enumerate() {
        for (place, slot) in slots {
            file.write_all_at(&record::record(slot), record::offset(rings, ring, *place))?;
        }
    }
    Ok(())
}

fn staged(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Under another name first: what is there is whole, or it is what was there before.
fn write_all(path: &Path, rings: &[Ring]) -> io::Result<File> {
    let staged = staged(path);
    let written = (|| {
        let mut file = File::create(&staged)?;
        file.write_all(&record::encode(rings))?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        Ok(file)
    })();
    if written.is_err() {
        // What it holds is worth nothing, and may be what fills the disk.
        let _ = fs::remove_file(&staged);
    }
    written
}
