//! `roadstead check`

use std::process::ExitCode;

use clap::Args;

use super::{Source, WRONG_USAGE, complain};
use crate::server;

const EXAMPLES: &str = "\
What is wrong is one line each, with the key and the remedy.

Examples:
  roadstead check --config /etc/roadstead/roadstead.yaml
  roadstead check --upstream ghcr.io      what serve would do with the same flags

Exit codes: 0 valid; 2 not.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    #[command(flatten)]
    source: Source,
}

// === impl Check ===

impl Check {
    /// Prints the configuration in effect, every default filled in, secrets masked.
    pub(super) fn run(&self) -> ExitCode {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        if let Err(error) = server::check(&config) {
            return complain(&error, WRONG_USAGE);
        }
        print!("{config}");
        ExitCode::SUCCESS
    }
}
