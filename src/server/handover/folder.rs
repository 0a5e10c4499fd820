//! The private folder in which a process and its successor meet.
//!
//! The old process makes it, names it to the new one in the environment, and removes it. The new
//! one leaves a word there for each step that it has made.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The longest path that fits `sockaddr_un` with its final NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// The folder, as either process sees it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Made by this process, and removed with this value.
    is_ours: bool,
}

/// What the new process has to say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    /// Its configuration is good; it waits for the store.
    Waiting,
    /// It accepts clients.
    Serving,
}

// === impl Folder ===

impl Folder {
    /// Makes a new one that nobody else may enter, with the names of the listening sockets in it.
    pub(super) fn make(names: &[String]) -> io::Result<Self> {
        let random = fastrand::Rng::new().u32(..);
        let path = env::temp_dir().join(format!("roadstead-{}-{random:08x}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self { path, is_ours: true };
        if folder.socket().as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        fs::write(folder.names_file(), names.join("\n"))?;
        Ok(folder)
    }

    /// The one that another process has made, and the names in it.
    pub(super) fn open(path: PathBuf) -> io::Result<(Self, Vec<String>)> {
        let folder = Self { path, is_ours: false };
        let names = fs::read_to_string(folder.names_file())?;
        Ok((folder, names.lines().map(str::to_owned).collect()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the new process receives the listening sockets.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("listeners.sock")
    }

    pub(super) fn say(&self, word: Word) -> io::Result<()> {
        fs::write(self.word_file(word), [])
    }

    pub(super) fn said(&self, word: Word) -> bool {
        self.word_file(word).exists()
    }

    fn names_file(&self) -> PathBuf {
        self.path.join("listeners")
    }

    fn word_file(&self, word: Word) -> PathBuf {
        self.path.join(match word {
            Word::Waiting => "waiting",
            Word::Serving => "serving",
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %error, "a folder could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_one_process_leaves_the_other_finds_and_nothing_stays() {
        let names = ["0.0.0.0:5000".to_owned(), "/run/roadstead.sock".to_owned()];
        let made = Folder::make(&names).unwrap();
        let mode = fs::metadata(made.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let (opened, found) = Folder::open(made.path().to_owned()).unwrap();
        assert_eq!(found, names);
        assert!(!made.said(Word::Waiting));
        opened.say(Word::Waiting).unwrap();
        assert!(made.said(Word::Waiting) && !made.said(Word::Serving));
        drop(opened);
        let path = made.path().to_owned();
        assert!(path.exists());
        drop(made);
        assert!(!path.exists());
    }
}
