//! Files that a configuration names: found and opened once while it is read.
//!
//! A missing certificate shows at start, with its key in the configuration, and not at the
//! first connection. Relative paths count from the working directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::{Refusal, Scope, quoted};

// === impl Scope ===

impl Scope<'_> {
    /// The file named here, which must be named and can be opened.
    pub(super) fn required_file(&self, raw: Option<String>) -> Option<PathBuf> {
        if raw.is_none() {
            self.refuse("is missing", "write the path of the file");
        }
        self.file(raw)
    }

    /// The file named here, if one is; it can be opened.
    pub(super) fn file(&self, raw: Option<String>) -> Option<PathBuf> {
        let path = PathBuf::from(raw?);
        self.check(openable(&path))?;
        Some(path)
    }
}

fn openable(path: &Path) -> Result<(), Refusal> {
    let opened = File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(found) if found.is_dir() => Err(Refusal::new(
            format!("{} is a directory", quoted(&path.display().to_string())),
            "name a file in it",
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(unopenable(Some(path), &error)),
    }
}

/// The line for a named file that the system refuses to open or read; `None` keeps its name out.
pub(super) fn unopenable(path: Option<&Path>, error: &io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "create the file or correct the path",
        io::ErrorKind::PermissionDenied => "let Roadstead's user read it",
        io::ErrorKind::InvalidData => "save it as UTF-8 text",
        _ => "name a readable file",
    };
    let path =
        path.map_or("the file named here".to_owned(), |path| quoted(&path.display().to_string()));
    Refusal::new(format!("{path} can't be opened: {error}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};

    #[test]
    fn a_ca_file_must_exist_and_be_a_file() {
        let line = refused("upstreams: [{ name: docker.io, ca_file: /nowhere/ca.pem }]");
        assert!(
            line.starts_with("test.yaml: upstreams[0].ca_file: `/nowhere/ca.pem` can't be opened"),
            "{line}"
        );
        assert!(line.ends_with("; create the file or correct the path"), "{line}");
        assert!(refused("upstreams: [{ name: docker.io, ca_file: / }]").contains("is a directory"));
        let (_kept, file) = scratch_file("pem");
        parsed(&format!("upstreams: [{{ name: docker.io, ca_file: {file} }}]"));
    }
}
