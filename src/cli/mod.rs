//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod cache;
mod check;
mod client;
mod completions;
mod doctor;
mod interrupt;
mod log;
mod man;
mod serve;
mod warm;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides, Sources};

/// It did not work out.
const FAILED: u8 = 1;

/// It was asked for wrongly.
const WRONG_USAGE: u8 = 2;

/// Lines are no longer than this, however wide the terminal is.
const WIDTH: usize = 100;

const START: &str = "\
To begin with:
  roadstead serve            serves Docker Hub on port 5000, cached in ./roadstead-data
  roadstead client docker    says what the docker daemon must be told to use it
  roadstead doctor           says what is wrong, if anything is, and what to do about it
  roadstead cache ls         lists what is cached by now
  curl -s localhost:5001/metrics | grep pulls_
                             tells how many pulls were spent, and how many saved

`roadstead COMMAND --help` has examples for each command; `roadstead man` prints a man page.

Exit codes: 0 done; 1 failed; 2 wrong usage or configuration.";

/// A pull-through caching proxy for OCI registries.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, about, long_about = None)]
#[command(max_term_width = WIDTH, after_help = START)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: without a configuration, Docker Hub on 0.0.0.0:5000
    Serve(serve::Serve),
    /// Validate a configuration and print what is in effect
    Check(check::Check),
    /// Find out what is wrong: configuration, disk, network, accounts, budget, clients
    Doctor(doctor::Doctor),
    /// See and tidy what is cached, on a running server or a stopped one
    Cache(cache::Cache),
    /// Fetch images before a client asks for them
    Warm(warm::Warm),
    /// Print or write what docker, containerd, podman, BuildKit, k3s and kubeadm must be told
    Client(client::Client),
    /// Print what a shell needs to complete commands and flags
    Completions(completions::Completions),
    /// Print the man page, or write those of all commands
    Man(man::Man),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct Source {
    /// The configuration file (YAML); conf/roadstead.yaml shows every key. Without it: Docker Hub
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect: ADDRESS:PORT or unix:/path; 0.0.0.0:5000 without it
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where health, metrics and API are answered: ADDRESS:PORT, on loopback unless the configuration
    /// says who may; 127.0.0.1:5001 without it
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A registry to cache, such as ghcr.io or corp=https://registry.corp.example; may be repeated,
    /// and the first is the default one
    #[arg(long = "upstream", value_name = "[NAME=]URL")]
    upstreams: Vec<String>,
    /// Where cached content is kept; ./roadstead-data without it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

// === impl Source ===

impl Source {
    /// Flags win over `ROADSTEAD_*`, these over the file; without any of them, Docker Hub.
    fn load(&self) -> Result<Config, ConfigError> {
        self.sources().read()
    }

    /// Whether it leads to a server, and says nothing of its store.
    fn names_only_a_server(&self) -> bool {
        self.admin.is_some() && self.data.is_none() && self.config.is_none()
    }

    /// The flags that lead to the same store, as a shell reads them; each after a blank.
    fn same_store(&self) -> String {
        let given = [("--config", &self.config), ("--data", &self.data)];
        let given = given.into_iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
        given.map(|(flag, path)| format!(" {flag} {}", shell_word(path))).collect()
    }

    fn sources(&self) -> Sources {
        let flags = Overrides {
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            upstreams: self.upstreams.clone(),
            data: self.data.clone(),
        };
        Sources::new(self.config.clone(), flags).with_variables(std::env::vars_os())
    }
}

/// A path as a shell reads it back.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Cache(cache) => cache.run(),
        Command::Warm(warm) => warm.run(),
        Command::Client(client) => client.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

/// Prints a whole text.
fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Who read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("the output can't be written: {error}"), FAILED),
    }
}

/// Says what is wrong, in one line each, and answers the exit code.
fn complain(problem: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("roadstead: {problem}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_a_store_are_printed_for_a_shell() {
        let mut source =
            Source { config: None, listen: None, admin: None, upstreams: vec![], data: None };
        assert_eq!(source.same_store(), "");
        source.config = Some("/etc/roadstead.yaml".into());
        source.data = Some("/srv/it's here".into());
        assert_eq!(
            source.same_store(),
            r" --config /etc/roadstead.yaml --data '/srv/it'\''s here'"
        );
    }
}
