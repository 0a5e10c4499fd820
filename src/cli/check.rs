//! `roadstead check`

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, Source, WRONG_USAGE, complain};
use crate::{config, server};

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
    /// Behind each value where it comes from: default, FILE:LINE, variable or flag
    #[arg(long)]
    explain: bool,
    /// Print the JSON Schema of the configuration, for editors, and check nothing
    #[arg(long, conflicts_with_all = ["explain", "variables"])]
    schema: bool,
    /// Print the environment variables of all keys, and check nothing; N is an entry's number
    #[arg(long, conflicts_with = "explain")]
    variables: bool,
}

// === impl Check ===

impl Check {
    /// Prints the configuration in effect, every default filled in, secrets masked.
    pub(super) fn run(&self) -> ExitCode {
        if self.schema {
            return print(&format!("{:#}\n", config::schema()));
        }
        if self.variables {
            return print(&format!("{}\n", config::variables().join("\n")));
        }
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        if let Err(error) = server::check(&config) {
            return complain(&error, WRONG_USAGE);
        }
        if !self.explain {
            return print(&config.to_yaml());
        }
        match self.source.sources().explain(is_colourful()) {
            Ok(explained) => print(&explained),
            Err(error) => complain(&error, WRONG_USAGE),
        }
    }
}

fn is_colourful() -> bool {
    std::io::stdout().is_terminal() && console::colors_enabled()
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Who read the output has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("the output can't be written: {error}"), FAILED),
    }
}
