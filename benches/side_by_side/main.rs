//! Roadstead beside nginx's `proxy_cache` and Debian's `docker-registry`, on one machine, one origin and one client.
//!
//! The servers run at the same time and are measured in turn, round after round, so that a noisy neighbour hits all of
//! them; medians are compared. Every answer's status and length is checked and every blob's digest once: a figure is
//! printed only if the work behind it was right. A failed step ends the program with an error.

mod args;
mod builtin_origin;
mod content;
mod images;
mod install;
mod link;
mod load;
mod origin;
mod proc;
mod process;
mod pull;
mod recipes;
mod registry_origin;
mod relay;
mod report;
mod server;
mod steps;
mod table;
mod target;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;

use args::{Args, Plan};
use content::Content;
use origin::Origin;
use proc::MemoryWatch;
use report::{Machine, Report, Skipped};
use server::{Server, ServerKind};
use workspace::Workspace;

/// Everything a step measures with.
struct Bench {
    workspace: Arc<Workspace>,
    plan: Plan,
    content: Content,
    servers: Vec<Server>,
    // Last, so that it is ended last: a server that loses its upstream would fill its log.
    origin: Origin,
}

impl Bench {
    /// The servers in this round's order; the order rotates, so that no server always follows the same one.
    fn in_turn(&self, round: usize) -> impl Iterator<Item = &Server> {
        let count = self.servers.len();
        self.servers.iter().cycle().skip(round % count.max(1)).take(count)
    }

    /// Starts a measurement from a quiet disk: one server must not pay for another's writeback.
    async fn quiet_disk(&self) -> Result<()> {
        let status = tokio::process::Command::new("sync").status().await.context("running sync")?;
        anyhow::ensure!(status.success(), "sync failed: {status}");
        Ok(())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if cfg!(debug_assertions) && !args.quick {
        // `cargo test --all-targets` runs bench targets too, unoptimised: figures would mean nothing.
        println!(
            "side_by_side: skipped in an unoptimised build (use `cargo bench`, or --quick to only see it work)"
        );
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.install {
        install::missing_peers()?;
    }
    let workspace = Arc::new(Workspace::create(args.dir.as_deref())?);
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let outcome = runtime.block_on(async {
        // Losing the race drops the measurement, and with it every process that it started.
        tokio::select! {
            outcome = measure(args, &workspace) => outcome,
            signal = interrupted() => bail!("interrupted by {}", signal?),
        }
    });
    match outcome {
        Ok(report) => {
            workspace.discard();
            let json = args.json.clone().unwrap_or_else(workspace::default_json);
            report.write_json(&json)?;
            table::print(&report);
            println!("\nwritten: {}", json.display());
            Ok(())
        }
        Err(error) => Err(error.context(format!(
            "nothing is reported; the servers' logs: {}",
            workspace.logs().display()
        ))),
    }
}

async fn measure(args: &Args, workspace: &Arc<Workspace>) -> Result<Report> {
    let plan = Plan::from(args);
    let mut report = Report::new(plan.clone(), Machine::observed());
    let bench = set_up(args, plan, workspace, &mut report.skipped).await?;
    for server in &bench.servers {
        println!("{:<16} {} ({})", server.kind.name(), server.version, server.binary.display());
        report.servers.insert(server.kind, server.version.clone());
    }
    println!("{:<16} {}", "origin", bench.origin.description());
    report.origin = bench.origin.description().to_owned();

    let memory = MemoryWatch::start(
        bench.servers.iter().map(|server| (server.kind, server.pid())).collect(),
    );
    for step in args.steps() {
        println!("measuring: {}", step.name());
        let section = steps::run(step, &bench)
            .await
            .with_context(|| format!("step {} failed", step.name()))?;
        report.sections.push(section);
    }
    report.sections.push(steps::memory(&bench, memory).await?);
    Ok(report)
}

/// Fills the origin and starts every server that is installed and asked for.
async fn set_up(
    args: &Args,
    plan: Plan,
    workspace: &Arc<Workspace>,
    skipped: &mut Vec<Skipped>,
) -> Result<Bench> {
    let installed = installed(args, skipped)?;
    println!("filling the origin: {} MiB", plan.origin_bytes() >> 20);
    let (root, sizes) = (workspace.directory("origin")?, plan.clone());
    let content = tokio::task::spawn_blocking(move || Content::generate(&root, &sizes))
        .await?
        .context("filling the origin")?;
    let origin =
        Origin::start(args.origin, &content, workspace).await.context("starting the origin")?;

    let mut servers = Vec::new();
    for (kind, binary) in installed {
        servers.push(Server::start(kind, binary, origin.address(), workspace).await?);
    }
    Ok(Bench { workspace: workspace.clone(), plan, content, servers, origin })
}

/// The servers asked for and their binaries; what is missing is announced and noted.
fn installed(args: &Args, skipped: &mut Vec<Skipped>) -> Result<Vec<(ServerKind, PathBuf)>> {
    let mut found = Vec::new();
    for kind in ServerKind::CACHES
        .into_iter()
        .filter(|kind| args.servers.is_empty() || args.servers.contains(kind))
    {
        match kind.binary()? {
            Some(binary) => found.push((kind, binary)),
            None => skipped.push(Skipped::announced(kind)),
        }
    }
    if found.is_empty() {
        bail!("no server to measure: none is installed");
    }
    Ok(found)
}

async fn interrupted() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map(|()| "SIGINT").context("waiting for SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
