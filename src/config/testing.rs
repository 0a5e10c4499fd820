//! Shorthands for this folder's tests: a text that must parse, or must be refused.
//!
//! Only compiled for tests.

use std::io::Write;

use super::{Config, Upstream};

pub(super) fn parsed(yaml: &str) -> Config {
    match Config::parse(yaml, "test.yaml") {
        Ok(config) => config,
        Err(error) => panic!("refused: {error}\n{yaml}"),
    }
}

/// The error's lines.
pub(super) fn refused(yaml: &str) -> String {
    match Config::parse(yaml, "test.yaml") {
        Ok(_) => panic!("not refused:\n{yaml}"),
        Err(error) => error.to_string(),
    }
}

pub(super) fn only_upstream(yaml: &str) -> Upstream {
    let mut upstreams = parsed(yaml).upstreams;
    assert_eq!(upstreams.len(), 1);
    upstreams.remove(0)
}

/// A file with this text, and its path; it lives as long as the first value.
pub(super) fn scratch_file(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(text.as_bytes()).expect("a temporary file can be written");
    let path = file.path().display().to_string();
    (file, path)
}
