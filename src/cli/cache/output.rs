//! Where a command's output goes: tables for people, JSON for programs.

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use super::table::Table;

/// Standard output. A reader that went away is an error here, and no panic.
pub(in crate::cli) struct Output {
    is_json: bool,
    stdout: BufWriter<Stdout>,
}

// === impl Output ===

impl Output {
    pub(in crate::cli) fn new(is_json: bool) -> Self {
        Self { is_json, stdout: BufWriter::new(io::stdout()) }
    }

    pub(in crate::cli) fn is_json(&self) -> bool {
        self.is_json
    }

    /// One document on one line.
    pub(in crate::cli) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, value)?;
        self.line("")
    }

    pub(in crate::cli) fn table(&mut self, table: &Table) -> io::Result<()> {
        write!(self.stdout, "{table}")
    }

    pub(in crate::cli) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.stdout, "{text}")
    }

    pub(in crate::cli) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}
