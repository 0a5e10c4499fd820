//! The measured servers: found, configured and started, each as a cache of the same origin.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::bare;
use crate::proc::MemoryWatch;
use crate::process::Process;
use crate::recipes::{self, Places};
use crate::tls::Identity;
use crate::workspace::{self, Workspace};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServerKind {
    Roadstead,
    Nginx,
    DockerRegistry,
    /// No cache: a plain `request_filter` answer by Pingora, prepared once, without a log.
    Bare,
}

/// What an instance is for: a step whose work others would blur has instances of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Runs from the first step to the last.
    Main,
    /// Holds thousands of connections.
    IdleConnections,
    /// Serves what the page cache does not hold.
    DiskReads,
    /// Has never been asked for anything, and its upstream is far away.
    ShapedLink,
    Zipf,
}

/// What every server of the run is given.
pub(crate) struct Launcher<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) identity: Identity,
    pub(crate) upstream: SocketAddr,
    pub(crate) memory: Arc<MemoryWatch>,
}

pub(crate) struct Server {
    pub(crate) kind: ServerKind,
    pub(crate) binary: PathBuf,
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    /// Roadstead and nginx speak TLS too, with the run's certificate.
    pub(crate) tls_address: Option<SocketAddr>,
    /// Its configuration and its cache.
    pub(crate) home: PathBuf,
    /// Watches it until it is retired.
    memory: Arc<MemoryWatch>,
    process: Process,
}

// === impl ServerKind ===

impl ServerKind {
    pub(crate) const CACHES: [Self; 3] = [Self::Roadstead, Self::Nginx, Self::DockerRegistry];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Roadstead => "roadstead",
            Self::Nginx => "nginx",
            Self::DockerRegistry => "docker-registry",
            Self::Bare => "bare",
        }
    }

    /// Why there is nothing to measure when `binary` finds none.
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::Roadstead => "no binary: set ROADSTEAD_BIN, or cargo build --release",
            Self::Nginx => "not installed: --install, or apt-get install nginx-light",
            Self::DockerRegistry => "not installed: --install, or apt-get install docker-registry",
            Self::Bare => "answers what Roadstead answered, which is not measured",
        }
    }

    /// Where it is installed, if it is.
    pub(crate) fn binary(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Roadstead => roadstead_binary(),
            Self::Nginx => Ok(in_path(&["nginx"])),
            Self::DockerRegistry => Ok(in_path(&["docker-registry", "registry"])),
            Self::Bare => Ok(Some(std::env::current_exe()?)),
        }
    }
}

// === impl Role ===

impl Role {
    /// The instance's name: of its directory and its log.
    fn instance(self, kind: ServerKind) -> String {
        let step = match self {
            Self::Main => return kind.name().to_owned(),
            Self::IdleConnections => "idle-connections",
            Self::DiskReads => "disk-reads",
            Self::ShapedLink => "shaped-link",
            Self::Zipf => "zipf",
        };
        format!("{}-{step}", kind.name())
    }
}

// === impl Launcher ===

impl Launcher<'_> {
    /// Starts the server with an empty cache and waits until it answers.
    pub(crate) async fn start(
        &self,
        kind: ServerKind,
        binary: PathBuf,
        role: Role,
    ) -> Result<Server> {
        self.start_before(kind, binary, role, self.upstream).await
    }

    /// The same, in front of another upstream than the run's.
    pub(crate) async fn start_before(
        &self,
        kind: ServerKind,
        binary: PathBuf,
        role: Role,
        upstream: SocketAddr,
    ) -> Result<Server> {
        let instance = role.instance(kind);
        let home = self.workspace.directory(&instance)?;
        let [address, tls, admin] = free_addresses()?;
        let places = Places { address, tls, admin, home: &home };
        let command = self.command(kind, &binary, role, upstream, &places)?;
        let log = self.workspace.logs().join(format!("{instance}.log"));
        let process = Process::spawn(kind.name(), command, log)?;
        let memory = self.memory.clone();
        memory.watch(kind, role, process.pid());
        process.ready(address).await?;
        let has_tls = matches!(kind, ServerKind::Roadstead | ServerKind::Nginx);
        let (version, tls_address) = (version(kind, &binary), has_tls.then_some(tls));
        Ok(Server { kind, binary, version, address, tls_address, home, memory, process })
    }

    /// Where the answer of the bare servers is kept; there must be one before the first of them starts.
    pub(crate) fn bare_answer(&self) -> Result<PathBuf> {
        self.workspace.directory("bare-answer")
    }

    fn command(
        &self,
        kind: ServerKind,
        binary: &Path,
        role: Role,
        upstream: SocketAddr,
        places: &Places<'_>,
    ) -> Result<Command> {
        let home = places.home;
        match kind {
            ServerKind::Roadstead => {
                let text = recipes::roadstead(places, role, &self.identity);
                roadstead(binary, upstream, home, &text)
            }
            ServerKind::Nginx => {
                nginx(binary, home, &recipes::nginx_cache(places, role, &self.identity, upstream))
            }
            ServerKind::DockerRegistry => {
                registry(binary, home, &recipes::registry_proxy(places.address, upstream, home))
            }
            ServerKind::Bare => Ok(bare::command(binary, places.address, &self.bare_answer()?)),
        }
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn still_runs(&self) -> Result<()> {
        self.process.still_runs()
    }

    /// Ends it and removes its cache.
    pub(crate) fn retire(self) -> Result<()> {
        let Self { process, home, memory, .. } = self;
        memory.forget(process.pid());
        drop(process);
        fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))
    }
}

/// nginx in the foreground, with `configuration` written into `home`.
pub(crate) fn nginx(binary: &Path, home: &Path, configuration: &str) -> Result<Command> {
    let file = write_configuration(home, "nginx.conf", configuration)?;
    let mut command = Command::new(binary);
    // -e: else a build's default log, perhaps not ours to write, is opened before the configuration is read.
    command.arg("-p").arg(home).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(command)
}

/// Loopback addresses that were free a moment ago; held together while they are picked, so that they differ.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).context("finding a free port")?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(addresses)
}

/// Roadstead, with `configuration` written into `home`.
fn roadstead(
    binary: &Path,
    upstream: SocketAddr,
    home: &Path,
    configuration: &str,
) -> Result<Command> {
    let file = write_configuration(home, "roadstead.yaml", configuration)?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--config")
        .arg(file)
        .args(["--upstream", &format!("http://{upstream}")])
        .arg("--data")
        .arg(home.join("data"))
        .current_dir(home);
    Ok(command)
}

/// docker-registry, with `configuration` written into `home`.
pub(crate) fn registry(binary: &Path, home: &Path, configuration: &str) -> Result<Command> {
    let file = write_configuration(home, "config.yml", configuration)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg(file);
    Ok(command)
}

fn write_configuration(home: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = home.join(name);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// `ROADSTEAD_BIN`, else the binary that cargo built along with this bench, else the one beside it.
fn roadstead_binary() -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os("ROADSTEAD_BIN") {
        // Absolute, because it is started in another directory.
        let named = std::path::absolute(named)?;
        // Another binary in its place, or none, would be a surprise.
        ensure!(named.is_file(), "ROADSTEAD_BIN is {}, which is no file", named.display());
        return Ok(Some(named));
    }
    let built = option_env!("CARGO_BIN_EXE_roadstead").map(PathBuf::from);
    let beside = workspace::profile_directory().map(|profile| profile.join("roadstead"));
    Ok(built.into_iter().chain(beside).find(|path| path.is_file()))
}

fn in_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The sbin folders hold nginx, but are not in every user's PATH.
    let folders =
        std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    let mut candidates = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    candidates.find(|candidate| candidate.is_file())
}

/// The line of its version output that carries a digit; "version unknown" is no reason to stop.
fn version(kind: ServerKind, binary: &Path) -> String {
    if kind == ServerKind::Bare {
        return "Pingora with one prepared answer".to_owned();
    }
    let flag = if kind == ServerKind::Nginx { "-v" } else { "--version" };
    let Ok(output) = Command::new(binary).arg(flag).output() else {
        return "version unknown".to_owned();
    };
    // nginx prints it as an error.
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    line.unwrap_or("version unknown").trim().to_owned()
}
