//! What one client must be told: files with the change to each, and what to do and know besides.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything one client must be told.
#[derive(Default)]
pub(super) struct Plan {
    /// In the order in which they are best read.
    pub(super) files: Vec<File>,
    /// What may stand in a file of the operator's own; never written.
    pub(super) snippets: Vec<Snippet>,
    /// What must be run once a file has changed.
    pub(super) then: Vec<String>,
    /// Sentences.
    pub(super) notes: Vec<String>,
}

/// One file of a client's, and what must become of it.
pub(super) struct File {
    /// Absolute, as the client sees it.
    pub(super) path: PathBuf,
    /// From the text that is there (none: empty) to the one that must be.
    pub(super) edit: Edit,
    /// All of it is ours, and other files may name it: it is written before those.
    pub(super) is_whole: bool,
    /// It may hold passwords, now or later: a new one is for its owner alone.
    pub(super) private: bool,
}

/// Answers the same text where nothing is to be changed; the error says what is wrong and what to
/// do about it.
pub(super) type Edit = Box<dyn Fn(&str) -> Result<String, String>>;

/// Text for a file of the operator's own.
pub(super) struct Snippet {
    pub(super) title: String,
    pub(super) text: String,
}

/// Why nothing can be told, or written: one line, with the file it is about.
#[derive(Debug)]
pub(super) struct Problem {
    about: Option<PathBuf>,
    what: String,
}

// === impl File ===

impl File {
    pub(super) fn new(
        path: impl Into<PathBuf>,
        edit: impl Fn(&str) -> Result<String, String> + 'static,
    ) -> Self {
        Self { path: path.into(), edit: Box::new(edit), is_whole: false, private: false }
    }

    /// One whose content is ours alone.
    pub(super) fn whole(path: impl Into<PathBuf>, text: String) -> Self {
        Self { is_whole: true, ..Self::new(path, move |_| Ok(text.clone())) }
    }

    pub(super) fn private(self) -> Self {
        Self { private: true, ..self }
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { about: None, what: what.into() }
    }

    pub(super) fn about(path: &Path, what: impl fmt::Display) -> Self {
        Self { about: Some(path.to_owned()), what: what.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.about {
            write!(out, "{}: ", path.display())?;
        }
        out.write_str(&self.what)
    }
}
