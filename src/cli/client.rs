//! `roadstead client`: what clients must be told.

mod ca;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Print or write what container clients must be told
#[derive(Debug, Args)]
pub(super) struct Client {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the authority of a transparent listener, and say where each system wants it
    Ca(ca::Ca),
}

// === impl Client ===

impl Client {
    pub(super) fn run(&self) -> ExitCode {
        match &self.command {
            Command::Ca(ca) => ca.run(),
        }
    }
}
