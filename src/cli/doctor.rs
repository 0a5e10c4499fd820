//! `roadstead doctor`: is everything as it must be, and what is to be done where it isn't.
//!
//! All checks run at the same time, and each has its deadline. None costs a pull, none changes the
//! store, and nothing secret is shown.

mod certificates;
mod checks;
mod client;
mod configuration;
mod directory;
mod disk;
mod files;
mod finding;
mod http;
mod listeners;
mod names;
mod print;
mod server;
mod state;
mod upstreams;

use std::{io, process::ExitCode};

use clap::{Args, Subcommand};

use super::{FAILED, Source, complain};
use finding::{Finding, Level, worst};

const ABOUT: &str = "\
Nothing that it asks is counted by a registry, and nothing is written but to a nameless file in the \
store's directory, for a moment. Run it as the user that Roadstead runs as.

With --json it prints one document: `outcome` is the worst `level` of its `findings`; each of \
these has `group` and `check` (names that do not change), `level` (ok, note, warning, fault), `about`, `found`, \
`remedy` (null where all is well) and `commands`.

Exit codes: 0 nothing is wrong (there may be warnings); 1 there is a fault; 2 wrong usage.";

/// Find out what is wrong, and what to do about it
#[derive(Debug, Args)]
#[command(after_help = ABOUT, args_conflicts_with_subcommands = true)]
pub(super) struct Doctor {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    source: Source,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find out whether this host's clients really go through Roadstead
    Client(client::Client),
}

// === impl Doctor ===

impl Doctor {
    pub(super) fn run(&self) -> ExitCode {
        if let Some(Command::Client(client)) = &self.command {
            return client.run();
        }
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => return told(&configuration::invalid(&error), self.json),
        };
        let mut findings = configuration::check(&config, self.source.config.as_deref());
        match checks::run(config, format!("roadstead doctor{}", self.source.same_store())) {
            Ok(others) => findings.extend(others),
            Err(error) => return complain(&format!("no check can be started: {error}"), FAILED),
        }
        told(&findings, self.json)
    }
}

/// Prints them; their worst is the exit code.
fn told(findings: &[Finding], json: bool) -> ExitCode {
    match print::print(findings, json) {
        Ok(()) => {}
        // Who read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            return complain(
                &format!("the output can't be written: {error}; where does it go?"),
                FAILED,
            );
        }
    }
    match worst(findings) {
        Level::Fault => ExitCode::from(FAILED),
        _ => ExitCode::SUCCESS,
    }
}
