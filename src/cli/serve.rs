//! `roadstead serve`

use std::{io::IsTerminal, process::ExitCode};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::{FAILED, Source, WRONG_USAGE, complain, log::Log};
use crate::{
    proxy::{Format, take_access_lines},
    server::{self, StartError},
};

/// What is logged where `RUST_LOG` does not say.
const LOG_LEVELS: &str = "warn,roadstead=info,access=info";

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    source: Source,
    /// How log lines look; RUST_LOG sets their level
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

// === impl Serve ===

impl Serve {
    pub(super) fn run(&self) -> ExitCode {
        let sources = self.source.sources();
        let config = match sources.read() {
            Ok(config) => config,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        if let Err(error) = self.start_log() {
            return complain(&error, FAILED);
        }
        match server::builder(config).reloading(move || sources.read()).run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ StartError::Config(_)) => complain(&error, WRONG_USAGE),
            Err(error @ StartError::Listen { .. }) => complain(&error, FAILED),
        }
    }

    fn start_log(&self) -> std::io::Result<()> {
        let mut levels =
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_LEVELS));
        // Pingora logs through `log`, which the subscriber bridges. Below these levels it prints
        // heads as they are on the wire, credentials included.
        // Its connectors call every pooled connection that upstream has closed an error.
        let quiet = [
            "pingora_core=warn",
            "pingora_core::connectors=off",
            // It calls it an error that the other side of a hand-over takes a second.
            "pingora_core::server::transfer_fd=off",
            "pingora_proxy=warn",
            "h2=warn",
            "rustls=warn",
        ];
        for quiet in quiet {
            levels = levels.add_directive(quiet.parse().expect("a constant directive parses"));
        }
        let lines = Log::new(std::io::stderr());
        lines.keep_up()?;
        let is_terminal = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt()
            .with_env_filter(levels)
            .with_ansi(is_terminal)
            .with_writer(lines.clone());
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
        match self.log_format {
            // On a terminal they have colours.
            LogFormat::Text if is_terminal => {}
            LogFormat::Text => drop(take_access_lines(Format::Text, lines)),
            LogFormat::Json => drop(take_access_lines(Format::Json, lines)),
        }
        Ok(())
    }
}
