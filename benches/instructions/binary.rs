//! The program that is measured, and what its file tells of how it was built.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

/// rustc leaves its version in the section `.comment`.
const RUSTC: &[u8] = b"rustc version ";

/// Only builds with debug assertions carry this message.
const UNOPTIMISED: &[u8] = b"unsafe precondition(s) violated";

pub(crate) struct Binary {
    path: PathBuf,
    rustc: String,
    is_optimised: bool,
}

// === impl Binary ===

impl Binary {
    /// `ROADSTEAD_BIN`, else what cargo built along with this bench.
    pub(crate) fn find() -> Result<Self> {
        let named = env::var_os("ROADSTEAD_BIN");
        let path = named.map_or_else(|| env!("CARGO_BIN_EXE_roadstead").into(), PathBuf::from);
        ensure!(path.is_file(), "{} is no file", path.display());
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let is_optimised = after(&bytes, UNOPTIMISED).is_none();
        let rustc = after(&bytes, RUSTC).unwrap_or_default();
        let rustc = rustc.split(|byte| *byte == 0 || *byte == b' ').next().unwrap_or_default();
        Ok(Self { path, rustc: String::from_utf8_lossy(rustc).into_owned(), is_optimised })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The compiler's version, empty in a file that was stripped of it.
    pub(crate) fn rustc(&self) -> &str {
        &self.rustc
    }

    /// Why it is not worth measuring.
    pub(crate) fn unfit(&self) -> Option<String> {
        let why =
            "is not optimised (use `cargo bench`, ROADSTEAD_BIN, or --quick to only see it work)";
        (!self.is_optimised).then(|| format!("{} {why}", self.path.display()))
    }
}

/// What comes after the first `mark`.
fn after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    bytes.get(at + mark.len()..)
}
