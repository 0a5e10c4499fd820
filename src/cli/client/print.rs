//! Telling what must be where, or what was done: as text whose own lines are comments, or as JSON.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::apply::{Done, Merged};
use super::plan::Plan;
use super::reach::Reach;

/// Everything, for programs.
#[derive(Debug, Serialize)]
struct Document<'a> {
    address: String,
    files: Vec<FileEntry<'a>>,
    then: &'a [String],
    notes: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct FileEntry<'a> {
    path: &'a Path,
    content: &'a str,
    /// `unchanged`, `created` or `changed`; absent where nothing was to be, or could be, written.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<&'a PathBuf>,
}

/// What must be where.
pub(super) fn planned(reach: &Reach, plan: &Plan, files: &[Merged], json: bool) -> io::Result<()> {
    if json {
        return document(reach, plan, files, &[]);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "# Roadstead is reached at {}", reach.base)?;
    comments(&mut out, reach.notes.iter())?;
    for file in files {
        writeln!(out, "\n# --- {}", file.path.display())?;
        block(&mut out, &file.text)?;
    }
    for snippet in &plan.snippets {
        writeln!(out, "\n# --- {}", snippet.title)?;
        block(&mut out, &snippet.text)?;
    }
    writeln!(out)?;
    comments(&mut out, plan.then.iter().map(|then| format!("Then: {then}")))?;
    comments(&mut out, plan.notes.iter())
}

/// What was done; `done` is shorter than `files` where one could not be written.
pub(super) fn applied(
    reach: &Reach,
    plan: &Plan,
    files: &[Merged],
    done: &[Done],
    json: bool,
) -> io::Result<()> {
    if json {
        return document(reach, plan, files, done);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "# Roadstead is reached at {}", reach.base)?;
    comments(&mut out, reach.notes.iter())?;
    for (file, done) in files.iter().zip(done) {
        let path = file.path.display();
        match done {
            Done::Unchanged => writeln!(out, "unchanged {path}")?,
            Done::Created => writeln!(out, "created   {path}")?,
            Done::Changed(backup) => {
                writeln!(out, "changed   {path} (as it was: {})", backup.display())?;
            }
        }
    }
    let has_changed = done.iter().any(|done| *done != Done::Unchanged);
    if !has_changed && done.len() == files.len() {
        writeln!(out, "# All of it was there already: nothing was changed.")?;
    }
    if has_changed {
        comments(&mut out, plan.then.iter().map(|then| format!("Then: {then}")))?;
    }
    comments(&mut out, plan.notes.iter())
}

fn block(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    write!(out, "{text}{end}")
}

fn comments(
    out: &mut impl io::Write,
    lines: impl Iterator<Item = impl std::fmt::Display>,
) -> io::Result<()> {
    for line in lines {
        writeln!(out, "# {line}")?;
    }
    Ok(())
}

fn document(reach: &Reach, plan: &Plan, files: &[Merged], done: &[Done]) -> io::Result<()> {
    let outcomes = done.iter().map(Some).chain(std::iter::repeat(None));
    let document = Document {
        address: reach.base.to_string(),
        files: files.iter().zip(outcomes).map(|(file, done)| entry(file, done)).collect(),
        then: &plan.then,
        notes: reach.notes.iter().chain(&plan.notes).map(String::as_str).collect(),
    };
    let text = serde_json::to_string_pretty(&document)?;
    writeln!(io::stdout().lock(), "{text}")
}

fn entry<'a>(file: &'a Merged, done: Option<&'a Done>) -> FileEntry<'a> {
    let (outcome, backup) = match done {
        None => (None, None),
        Some(Done::Unchanged) => (Some("unchanged"), None),
        Some(Done::Created) => (Some("created"), None),
        Some(Done::Changed(backup)) => (Some("changed"), Some(backup)),
    };
    FileEntry { path: &file.path, content: &file.text, outcome, backup }
}
