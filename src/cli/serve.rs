//! `roadstead serve`

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

use super::{FAILED, Source, WRONG_USAGE, complain, log::Log};
use crate::{
    admin::{LogLevels, take_log_levels},
    events,
    proxy::{Format, take_access_lines},
    server::{self, StartError},
};

/// What is logged where `RUST_LOG` does not say.
const LOG_LEVELS: &str = "warn,roadstead=info,access=info";

const EXAMPLES: &str = "\
Examples:
  roadstead serve
      Docker Hub on port 5000, cached in ./roadstead-data
  roadstead serve --upstream docker.io --upstream ghcr.io --data /var/cache/roadstead
      two registries: /v2/ghcr.io/org/app is the second's
  roadstead serve --config /etc/roadstead/roadstead.yaml --log-format json
      all that can be said, said in a file
  roadstead serve --access-log combined > access.log
      for GoAccess and its like; the log itself stays on standard error

Flags win over variables (ROADSTEAD_..., see `roadstead check --variables`), variables over the
file. RUST_LOG sets what is logged: RUST_LOG=debug, or
RUST_LOG=warn,roadstead=info,access=off for no lines about requests.

Signals: SIGTERM stops accepting, lets requests end (shutdown.drain) and exits; SIGQUIT hands
over to a new process without a failed request; SIGHUP reads the configuration again; SIGINT
stops at once.";

/// Targets that are not the API's to change.
const OTHERS: [&str; 4] = ["pingora", "h2", "rustls", "ureq"];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    #[command(flatten)]
    source: Source,
    /// How log lines look; RUST_LOG sets their level
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// How the lines about requests look, if not as the others
    #[arg(long, value_name = "FORMAT")]
    access_log: Option<AccessFormat>,
}

/// The log's levels, as they were said last.
struct Levels<S> {
    said: Mutex<String>,
    handle: reload::Handle<EnvFilter, S>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people: key=value
    Text,
    /// For programs: one object each
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AccessFormat {
    /// For people: key=value
    Text,
    /// For programs: one object each
    Json,
    /// As Apache's combined log, on standard output
    Combined,
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
        let said = std::env::var(EnvFilter::DEFAULT_ENV).ok();
        let said = said.filter(|said| EnvFilter::try_new(said).is_ok());
        let said = said.unwrap_or_else(|| LOG_LEVELS.to_owned());
        let levels = quiet(EnvFilter::new(&said));
        let lines = Log::new(std::io::stderr());
        lines.keep_up()?;
        let is_terminal = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt()
            .with_env_filter(levels)
            .with_ansi(is_terminal)
            .with_writer(lines.clone());
        match self.log_format {
            LogFormat::Text => {
                let log = log.with_filter_reloading();
                Levels::give(said, log.reload_handle());
                log.finish().with(events::layer()).init();
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(true).with_filter_reloading();
                Levels::give(said, log.reload_handle());
                log.finish().with(events::layer()).init();
            }
        }
        match self.access_format() {
            // On a terminal they have colours.
            AccessFormat::Text if is_terminal && matches!(self.log_format, LogFormat::Text) => {}
            AccessFormat::Text => drop(take_access_lines(Format::Text, lines)),
            AccessFormat::Json => drop(take_access_lines(Format::Json, lines)),
            AccessFormat::Combined => {
                let lines = Log::of_other_lines(std::io::stdout());
                lines.keep_up()?;
                take_access_lines(Format::Combined, lines);
            }
        }
        Ok(())
    }

    fn access_format(&self) -> AccessFormat {
        self.access_log.unwrap_or(match self.log_format {
            LogFormat::Text => AccessFormat::Text,
            LogFormat::Json => AccessFormat::Json,
        })
    }
}

/// The levels, with what is never logged.
fn quiet(mut levels: EnvFilter) -> EnvFilter {
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
    levels
}

// === impl Levels ===

impl<S: Send + Sync + 'static> Levels<S> {
    fn give(said: String, handle: reload::Handle<EnvFilter, S>) {
        take_log_levels(Self { said: Mutex::new(said), handle });
    }
}

impl<S: Send + Sync> LogLevels for Levels<S> {
    fn levels(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, levels: &str) -> Result<(), String> {
        let example = "write levels like warn,roadstead=debug,access=info";
        let mut targets = levels.split(',').map(str::trim);
        if targets.any(|target| OTHERS.iter().any(|other| target.starts_with(other))) {
            return Err(format!("what others log may show credentials; {example}"));
        }
        if levels.trim().is_empty() || levels.contains('[') {
            return Err(format!("{levels:?} are no levels; {example}"));
        }
        let filter = EnvFilter::try_new(levels);
        let filter = filter.map_err(|error| format!("{levels:?}: {error}; {example}"))?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(quiet(filter)).map_err(|error| error.to_string())?;
        *said = levels.to_owned();
        Ok(())
    }
}
