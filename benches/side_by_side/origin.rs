//! The registry that every server caches: fast enough not to be what is measured, and counting its requests.
//!
//! nginx serves the content as static files where it is installed; else `builtin_origin` does. On request it is a real
//! registry instead.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::OriginKind;
use crate::builtin_origin::BuiltinOrigin;
use crate::content::Content;
use crate::process::Process;
use crate::recipes;
use crate::registry_origin;
use crate::server::{ServerKind, free_addresses, nginx, registry};
use crate::workspace::Workspace;

/// Quiet for this long, the log is taken to be complete.
const QUIET: Duration = Duration::from_millis(300);
const QUIET_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Origin {
    address: SocketAddr,
    backend: Backend,
}

enum Backend {
    Nginx { process: Process, access_log: PathBuf },
    Registry { process: Process, access_log: PathBuf },
    Builtin(BuiltinOrigin),
}

/// How often a path was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) gets: u32,
    pub(crate) heads: u32,
}

// === impl Origin ===

impl Origin {
    pub(crate) async fn start(
        kind: OriginKind,
        content: &Content,
        workspace: &Workspace,
    ) -> Result<Self> {
        match (kind, ServerKind::Nginx.binary()?) {
            (OriginKind::Registry, _) => Self::start_registry(content, workspace).await,
            (OriginKind::Static, Some(nginx)) => {
                Self::start_nginx(&nginx, content, workspace).await
            }
            (OriginKind::Static, None) => {
                let builtin = BuiltinOrigin::start(content).await?;
                Ok(Self { address: builtin.address(), backend: Backend::Builtin(builtin) })
            }
        }
    }

    async fn start_nginx(binary: &Path, content: &Content, workspace: &Workspace) -> Result<Self> {
        let [address] = free_addresses()?;
        let (root, home) = (workspace.directory("origin")?, workspace.directory("origin-nginx")?);
        let access_log = workspace.logs().join("origin-requests.log");
        let configuration =
            recipes::nginx_origin(address, &root, &home, &access_log, &content.objects);
        let process = Process::spawn(
            "origin",
            nginx(binary, &home, &configuration)?,
            workspace.logs().join("origin.log"),
        )?;
        process.ready(address).await?;
        Ok(Self { address, backend: Backend::Nginx { process, access_log } })
    }

    async fn start_registry(content: &Content, workspace: &Workspace) -> Result<Self> {
        let binary =
            ServerKind::DockerRegistry.binary()?.context("docker-registry is not installed")?;
        let [address] = free_addresses()?;
        let home = workspace.directory("origin-registry")?;
        registry_origin::lay_out(&home, &content.objects)?;
        let command = registry(&binary, &home, &registry_origin::configuration(address, &home))?;
        let access_log = workspace.logs().join("origin.log");
        let process = Process::spawn("origin", command, access_log.clone())?;
        process.ready(address).await?;
        Ok(Self { address, backend: Backend::Registry { process, access_log } })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn description(&self) -> &'static str {
        match self.backend {
            Backend::Nginx { .. } => "nginx, static files",
            Backend::Registry { .. } => "docker-registry",
            Backend::Builtin(_) => {
                "built in (nginx is not installed): slower than the servers expect"
            }
        }
    }

    /// All requests for `path` so far, once no more of them come in.
    pub(crate) async fn tally(&self, path: &str) -> Result<Tally> {
        self.settled(&format!("{path} ")).await
    }

    /// The same for all paths that start with `prefix`.
    pub(crate) async fn tally_below(&self, prefix: &str) -> Result<Tally> {
        self.settled(prefix).await
    }

    async fn settled(&self, target: &str) -> Result<Tally> {
        let deadline = Instant::now() + QUIET_WITHIN;
        let mut last = self.tally_now(target)?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.tally_now(target)?;
            if now == last {
                return Ok(now);
            }
            if Instant::now() > deadline {
                bail!(
                    "requests for {target} still reach the origin after {} s",
                    QUIET_WITHIN.as_secs()
                );
            }
            last = now;
        }
    }

    fn tally_now(&self, target: &str) -> Result<Tally> {
        let log = match &self.backend {
            Backend::Nginx { process, access_log } => read_log(process, access_log)?,
            Backend::Registry { process, access_log } => {
                registry_origin::requests(&read_log(process, access_log)?)
            }
            Backend::Builtin(builtin) => builtin.log(),
        };
        let count = |method: &str| {
            let wanted = format!("{method} {target}");
            log.lines().filter(|line| line.starts_with(&wanted)).count() as u32
        };
        Ok(Tally { gets: count("GET"), heads: count("HEAD") })
    }
}

// === impl Tally ===

impl Tally {
    /// What came in since `earlier`.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self { gets: self.gets - earlier.gets, heads: self.heads - earlier.heads }
    }
}

fn read_log(process: &Process, log: &Path) -> Result<String> {
    process.still_runs()?;
    fs::read_to_string(log)
        .with_context(|| format!("reading the origin's requests from {}", log.display()))
}
