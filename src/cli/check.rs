//! `roadstead check`

use std::process::ExitCode;

use clap::Args;

use super::{Source, WRONG_USAGE, complain};

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    source: Source,
}

// === impl Check ===

impl Check {
    /// Prints the configuration in effect, every default filled in, secrets masked.
    pub(super) fn run(&self) -> ExitCode {
        match self.source.load() {
            Ok(config) => {
                print!("{config}");
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error, WRONG_USAGE),
        }
    }
}
