//! Roadstead beside nginx's `proxy_cache` and Debian's `docker-registry`, on one machine, one origin and one client.
//!
//! The servers run at the same time and are measured in turn, round after round, so that a noisy neighbour hits all of
//! them; medians are compared. Every answer's status and length is checked and every blob's digest once: a figure is
//! printed only if the work behind it was right. A failed step ends the program with an error.

mod args;
mod bare;
mod builtin_origin;
mod content;
mod drive;
mod http2;
mod images;
mod install;
mod link;
mod load;
mod origin;
mod page_cache;
mod proc;
mod process;
mod pull;
mod recipes;
mod registry_origin;
mod relay;
mod report;
mod server;
mod steps;
mod stream;
mod table;
mod target;
mod tls;
mod transport;
mod workspace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;

use args::{Args, Plan};
use content::Content;
use load::Request;
use origin::Origin;
use proc::MemoryWatch;
use report::{Machine, Report, Skipped};
use server::{Launcher, Role, Server, ServerKind};
use tls::Identity;
use workspace::Workspace;

/// As in Roadstead itself: the bare server, which is this program, must not differ from it in this.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Everything a step measures with.
struct Bench<'a> {
    plan: Plan,
    content: Content,
    /// The caches.
    servers: Vec<Server>,
    /// Knows the cached tag's answer and nothing else.
    bare: Option<Server>,
    launcher: Launcher<'a>,
    // Last, so that it is ended last: a server that loses its upstream would fill its log.
    origin: Origin,
}

impl Bench<'_> {
    /// The servers in this round's order; the order rotates, so that no server always follows the same one.
    fn in_turn(&self, round: usize) -> impl Iterator<Item = &Server> {
        let count = self.servers.len();
        self.servers.iter().cycle().skip(round % count.max(1)).take(count)
    }

    /// `in_turn`, the bare server among them.
    fn in_turn_with_bare(&self, round: usize) -> impl Iterator<Item = &Server> {
        let count = self.servers.len() + usize::from(self.bare.is_some());
        self.servers.iter().chain(&self.bare).cycle().skip(round % count.max(1)).take(count)
    }

    /// A second instance of `server`, for a step alone; the step retires it.
    async fn another(&self, server: &Server, role: Role) -> Result<Server> {
        self.launcher.start(server.kind, server.binary.clone(), role).await
    }

    /// The same, in front of another upstream.
    async fn another_before(
        &self,
        server: &Server,
        role: Role,
        upstream: SocketAddr,
    ) -> Result<Server> {
        self.launcher.start_before(server.kind, server.binary.clone(), role, upstream).await
    }

    /// Starts a measurement from a quiet disk: one server must not pay for another's writeback.
    async fn quiet_disk(&self) -> Result<()> {
        let status = tokio::process::Command::new("sync").status().await.context("running sync")?;
        anyhow::ensure!(status.success(), "sync failed: {status}");
        Ok(())
    }
}

fn main() -> ExitCode {
    if let Some(mode) = bare::Mode::from_arguments() {
        return mode.serve();
    }
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
    proc::raise_descriptor_limit();
    let workspace = Workspace::create(args.dir.as_deref())?;
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

async fn measure(args: &Args, workspace: &Workspace) -> Result<Report> {
    let plan = Plan::from(args);
    let mut report = Report::new(plan.clone(), Machine::observed());
    let bench = set_up(args, plan, workspace, &mut report.skipped).await?;
    for server in bench.servers.iter().chain(&bench.bare) {
        println!("{:<16} {} ({})", server.kind.name(), server.version, server.binary.display());
        report.servers.insert(server.kind, server.version.clone());
    }
    println!("{:<16} {}", "origin", bench.origin.description());
    report.origin = bench.origin.description().to_owned();

    let steps = args.steps();
    for step in steps.iter().copied() {
        println!("measuring: {}", step.name());
        let section = steps::run(step, &bench)
            .await
            .with_context(|| format!("step {} failed", step.name()))?;
        report.sections.push(section);
    }
    report.sections.push(steps::memory(&bench, &steps).await?);
    Ok(report)
}

/// Fills the origin and starts every server that is installed and asked for.
async fn set_up<'a>(
    args: &Args,
    plan: Plan,
    workspace: &'a Workspace,
    skipped: &mut Vec<Skipped>,
) -> Result<Bench<'a>> {
    let installed = installed(args, skipped)?;
    println!("filling the origin: {} MiB", plan.origin_bytes() >> 20);
    let (root, sizes) = (workspace.directory("origin")?, plan.clone());
    let content = tokio::task::spawn_blocking(move || Content::generate(&root, &sizes))
        .await?
        .context("filling the origin")?;
    let origin =
        Origin::start(args.origin, &content, workspace).await.context("starting the origin")?;

    let identity = Identity::generate(&workspace.directory("tls")?)?;
    let memory = Arc::new(MemoryWatch::start());
    let launcher = Launcher { workspace, identity, upstream: origin.address(), memory };
    let mut servers = Vec::new();
    for (kind, binary) in installed {
        servers.push(launcher.start(kind, binary, Role::Main).await?);
    }
    let bare = bare_server(args, &launcher, &content, &servers, skipped).await?;
    Ok(Bench { plan, content, servers, bare, launcher, origin })
}

/// The bare server, with the answer that Roadstead gives.
async fn bare_server(
    args: &Args,
    launcher: &Launcher<'_>,
    content: &Content,
    servers: &[Server],
    skipped: &mut Vec<Skipped>,
) -> Result<Option<Server>> {
    if !args.measures(ServerKind::Bare) {
        return Ok(None);
    }
    let Some(roadstead) = servers.iter().find(|server| server.kind == ServerKind::Roadstead) else {
        skipped.push(Skipped::announced(ServerKind::Bare));
        return Ok(None);
    };
    let address = roadstead.address;
    // The second answer is one from the cache.
    transport::verify(address, &content.tag).await.context("the bare server's answer")?;
    let request = Request::object(address, &content.tag);
    bare::prepare(address, &request, &launcher.bare_answer()?).await?;
    let program = std::env::current_exe().context("finding this program")?;
    launcher.start(ServerKind::Bare, program, Role::Main).await.map(Some)
}

/// The servers asked for and their binaries; what is missing is announced and noted.
fn installed(args: &Args, skipped: &mut Vec<Skipped>) -> Result<Vec<(ServerKind, PathBuf)>> {
    let mut found = Vec::new();
    for kind in ServerKind::CACHES.into_iter().filter(|kind| args.measures(*kind)) {
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
