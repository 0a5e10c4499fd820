//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod cache;
mod check;
mod client;
mod doctor;
mod log;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides};

/// It did not work out.
const FAILED: u8 = 1;

/// It was asked for wrongly.
const WRONG_USAGE: u8 = 2;

/// A pull-through caching proxy for OCI registries.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, about, long_about = None)]
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
    /// Print or write what docker, containerd, podman, BuildKit, k3s and kubeadm must be told
    Client(client::Client),
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct Source {
    /// The configuration file (YAML); conf/roadstead.yaml shows every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where health, metrics and the API are answered: HOST:PORT, on loopback unless admin.htpasswd or admin.tls.client_ca is configured
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A registry to cache; several may be given, the first is the default
    #[arg(long = "upstream", value_name = "[NAME=]URL")]
    upstreams: Vec<String>,
    /// Where cached content is kept
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

// === impl Source ===

impl Source {
    /// Flags win over the file; with neither, Docker Hub.
    fn load(&self) -> Result<Config, ConfigError> {
        let overrides = Overrides {
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            upstreams: self.upstreams.clone(),
            data: self.data.clone(),
        };
        Config::from_sources(self.config.as_deref(), &overrides)
    }
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Cache(cache) => cache.run(),
        Command::Client(client) => client.run(),
    }
}

/// Says what is wrong, in one line each, and answers the exit code.
fn complain(problem: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("roadstead: {problem}");
    ExitCode::from(code)
}
