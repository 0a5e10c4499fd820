//! A value that is read from files, and read again when they change.
//!
//! What can't be read is told once and changes nothing: the value before stays. Files are replaced
//! one after the other, so what is wrong is told only once it has stayed as it is for a moment.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::SystemTime,
};

/// Something that follows its files.
pub trait Watched: Send + Sync {
    /// Looks whether they have changed, and reads them if so. May block.
    fn look(&self);
}

/// Reads the files; the error says what is wrong with which of them, and what to do.
type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// The value of some files, as of when they were last whole.
pub struct Kept<T> {
    /// What it is, for the log.
    what: &'static str,
    files: Vec<PathBuf>,
    load: Load<T>,
    value: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

/// The files as they were last looked at.
#[derive(Debug)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    /// What is wrong with them, if that has not been told yet.
    untold: Option<String>,
    /// Whether what is wrong has been told since they were last whole.
    is_told: bool,
}

/// Tells one state of a file from another; links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
    device: u64,
}

// === impl Kept ===

impl<T> Kept<T> {
    /// Reads `files` for the first time.
    pub(super) fn open(
        what: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = stamps(&files);
        let value = RwLock::new(Arc::new(load()?));
        let seen = Mutex::new(Seen { stamps, untold: None, is_told: false });
        Ok(Self { what, files, load: Box::new(load), value, seen })
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, seen: &mut Seen) {
        if let Some(problem) = seen.untold.take() {
            tracing::error!(%problem, "a changed {} can't be used; the one before stays", self.what);
            seen.is_told = true;
        }
    }
}

impl<T: Send + Sync> Watched for Kept<T> {
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before they are read: what changes meanwhile is a change the next time.
        let stamps = stamps(&self.files);
        if stamps == seen.stamps {
            self.tell(&mut seen);
            return;
        }
        seen.stamps = stamps;
        match (self.load)() {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                let files: Vec<_> = self.files.iter().map(|file| file.display()).collect();
                tracing::info!(?files, "a changed {} is used from now on", self.what);
                (seen.untold, seen.is_told) = (None, false);
            }
            Err(_) if seen.is_told => {}
            Err(problem) => seen.untold = Some(problem),
        }
    }
}

impl<T> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| -> io::Result<Stamp> {
        let file = fs::metadata(path)?;
        Ok(Stamp {
            modified: file.modified().ok(),
            len: file.len(),
            inode: file.ino(),
            device: file.dev(),
        })
    };
    files.iter().map(|path| stamp(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(path: PathBuf) -> Kept<String> {
        let load = {
            let path = path.clone();
            move || match fs::read_to_string(&path) {
                Ok(text) if text.starts_with("good") => Ok(text),
                Ok(text) => Err(format!("{text} is not good")),
                Err(error) => Err(error.to_string()),
            }
        };
        Kept::open("test", vec![path], load).unwrap()
    }

    #[test]
    fn a_change_is_seen_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "good 1").unwrap();
        let kept = kept(path.clone());
        assert_eq!(*kept.get(), "good 1");
        fs::write(&path, "good two").unwrap();
        kept.look();
        assert_eq!(*kept.get(), "good two");
        for bad in ["", "half"] {
            fs::write(&path, bad).unwrap();
            kept.look();
            kept.look();
        }
        fs::remove_file(&path).unwrap();
        kept.look();
        assert_eq!(*kept.get(), "good two");
        fs::write(&path, "good three").unwrap();
        kept.look();
        assert_eq!(*kept.get(), "good three");
    }

    #[test]
    fn what_is_wrong_is_told_once_and_only_when_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "good").unwrap();
        let kept = kept(path.clone());
        let state = || {
            let seen = kept.seen.lock().unwrap();
            (seen.untold.is_some(), seen.is_told)
        };
        fs::write(&path, "bad").unwrap();
        kept.look();
        assert_eq!(state(), (true, false));
        kept.look();
        assert_eq!(state(), (false, true));
        fs::write(&path, "still bad").unwrap();
        kept.look();
        assert_eq!(state(), (false, true));
        fs::write(&path, "good again").unwrap();
        kept.look();
        assert_eq!(state(), (false, false));
    }
}
