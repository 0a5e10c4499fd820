//! A value that is read from files, and read again when they change.
//!
//! What can't be read is told once and changes nothing: the value before stays, and it is tried
//! again at each look, since not all that can be wrong shows on the files themselves. They are
//! replaced one after the other, so what is wrong is told only once it has stayed as it is for a
//! moment.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use crate::{config::Stamp, metrics::CERTIFICATE_READS};

/// Something that follows its files.
pub trait Watched: Send + Sync {
    /// Looks whether they have changed, and reads them if so or if they were no good. May block.
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
    state: State,
}

/// What the last attempt to read them came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// Something is wrong, which may be a change that is under way.
    Doubtful,
    /// Something is wrong, and has been told.
    Bad,
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
        let seen = Mutex::new(Seen { stamps, state: State::Good });
        Ok(Self { what, files, load: Box::new(load), value, seen })
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state after `before`, of files that are as they were at the last look, or not.
    fn failed(&self, problem: &str, before: State, is_same: bool) -> State {
        match (before, is_same) {
            (State::Good, _) | (State::Doubtful, false) => State::Doubtful,
            (State::Doubtful, true) => {
                tracing::error!(
                    %problem,
                    remedy = "put certificate and key that belong together in their place; they are read again by themselves",
                    "a changed {} can't be used; the one before stays", self.what
                );
                State::Bad
            }
            (State::Bad, _) => State::Bad,
        }
    }
}

impl<T: Send + Sync> Watched for Kept<T> {
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before they are read: what changes meanwhile is a change the next time.
        let stamps = stamps(&self.files);
        let is_same = stamps == seen.stamps;
        if is_same && seen.state == State::Good {
            return;
        }
        seen.stamps = stamps;
        let (state, outcome) = match (self.load)() {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                let files: Vec<_> = self.files.iter().map(|file| file.display()).collect();
                tracing::info!(?files, "a changed {} is used from now on", self.what);
                (State::Good, "used")
            }
            Err(problem) => (self.failed(&problem, seen.state, is_same), "failed"),
        };
        seen.state = state;
        CERTIFICATE_READS.with_label_values(&[self.what, outcome]).inc();
    }
}

impl<T> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|path| Stamp::of(path)).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicBool, Ordering},
    };

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
        let state = || kept.seen.lock().unwrap().state;
        fs::write(&path, "bad").unwrap();
        kept.look();
        assert_eq!(state(), State::Doubtful);
        kept.look();
        assert_eq!(state(), State::Bad);
        fs::write(&path, "still bad").unwrap();
        kept.look();
        assert_eq!(state(), State::Bad);
        fs::write(&path, "good again").unwrap();
        kept.look();
        assert_eq!(state(), State::Good);
    }

    #[test]
    fn what_was_no_good_is_tried_again_though_the_files_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (path, is_good) = (folder.path().join("file"), Arc::new(AtomicBool::new(true)));
        fs::write(&path, "one").unwrap();
        let load = {
            let (path, is_good) = (path.clone(), Arc::clone(&is_good));
            move || match is_good.load(Ordering::Acquire) {
                true => fs::read_to_string(&path).map_err(|error| error.to_string()),
                false => Err("it is not the time".to_owned()),
            }
        };
        let kept = Kept::open("test", vec![path.clone()], load).unwrap();
        is_good.store(false, Ordering::Release);
        fs::write(&path, "two").unwrap();
        kept.look();
        kept.look();
        assert_eq!(*kept.get(), "one");
        is_good.store(true, Ordering::Release);
        kept.look();
        assert_eq!(*kept.get(), "two");
    }

    #[test]
    fn a_changed_mode_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "good").unwrap();
        let kept = kept(path.clone());
        let before = kept.get();
        // The clock of files may take ten milliseconds for a step.
        for _ in 0..1000 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            kept.look();
            if !Arc::ptr_eq(&before, &kept.get()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("it is not seen");
    }
}
