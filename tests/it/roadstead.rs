//! The server under test: its configuration, its process, its directory and its log.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hub::Hub;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client;

/// The program.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_roadstead");

/// How long a start or a stop may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of the log, where a test failed.
const LAST_LINES: usize = 40;

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// A configuration, to be changed before the start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    config: Value,
    levels: String,
    /// The program and what stands before `--config`.
    program: (PathBuf, &'static [&'static str]),
    /// `store.directory`; if not set, one that goes with the server.
    directory: Option<PathBuf>,
    /// Of the environment, besides what the test has.
    variables: Vec<(&'static str, String)>,
}

/// A running server; ended when dropped, its log printed if the test failed.
#[derive(Debug)]
pub(crate) struct Roadstead {
    folder: TempDir,
    setup: Setup,
    child: Child,
    at: SocketAddr,
    admin: SocketAddr,
}

/// A start that did not come to be.
#[derive(Debug)]
pub(crate) struct NotReady {
    /// How it ended by itself, if it did.
    pub(crate) ended: Option<ExitStatus>,
    pub(crate) log: String,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "roadstead is not ready ({:?}):\n{}", self.ended, self.log)
    }
}

/// Waits until `condition` holds; panics with `what` after `patience`.
pub(crate) async fn eventually(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> bool,
) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting after {patience:?}: {what}");
        sleep(STEP).await;
    }
}

/// Runs cases side by side; each of them mostly waits.
pub(crate) async fn together<F>(cases: impl IntoIterator<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    cases.into_iter().collect::<JoinSet<()>>().join_all().await;
}

/// A loopback address that nobody listens on. It lies below the ports that outgoing connections
/// take, so that none of these gets in between.
pub(crate) fn free_address() -> SocketAddr {
    // Each of the processes that run side by side has a range of its own: nextest numbers them.
    const RANGES: u16 = 20;
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 1000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse().ok());
    let range = slot.unwrap_or(0_u16) % RANGES;
    let _ = NEXT.compare_exchange(0, fastrand::u16(1..COUNT), Ordering::AcqRel, Ordering::Acquire);
    loop {
        let port = FIRST + range * COUNT + NEXT.fetch_add(1, Ordering::AcqRel) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

// === impl Setup ===

impl Setup {
    /// Roadstead in front of `hub`, which it knows as docker.io; every tag is checked each time.
    pub(crate) fn of(hub: &Hub) -> Self {
        Self::upstream(&hub.registry_url(), &hub.token_realm())
    }

    /// Roadstead in front of any registry.
    pub(crate) fn upstream(url: &str, realm: &str) -> Self {
        let config = json!({
            "upstreams": [{
                "name": "docker.io",
                "url": url,
                "token_realms": [realm],
                "redirect_hosts": [],
                "tags": { "fresh_for": "0s" },
                "timeouts": {},
                "breaker": {},
                "budget": { "probe": "none" },
                "credentials": {},
            }],
            "store": { "disk": "1GiB", "memory": "16MiB" },
            "fill": {},
            "downstream": {},
            "shutdown": { "drain": "5s" },
            "admin": {},
        });
        let levels = "warn,roadstead=debug,access=info".to_owned();
        let program: (PathBuf, &[&str]) = (BINARY.into(), &["serve"]);
        Self { config, levels, program, directory: None, variables: Vec::new() }
    }

    /// Sets a key of the only upstream, such as `tags.fresh_for`.
    pub(crate) fn with(self, key: &str, value: impl Into<Value>) -> Self {
        self.key(&format!("upstreams.0.{key}"), value)
    }

    /// Sets any key, such as `store.disk`.
    pub(crate) fn key(mut self, key: &str, value: impl Into<Value>) -> Self {
        let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
        let pointer = match parent {
            "" => String::new(),
            parent => format!("/{}", parent.replace('.', "/")),
        };
        let parent = self.config.pointer_mut(&pointer).unwrap();
        parent[last] = value.into();
        self
    }

    /// A key as it is set.
    #[allow(dead_code, reason = "the torture tests don't need it")]
    pub(crate) fn value(&self, key: &str) -> Value {
        self.config[key].clone()
    }

    /// A further upstream, with what `keys` says of it.
    #[allow(dead_code, reason = "the torture tests have one")]
    pub(crate) fn also(mut self, name: &str, hub: &Hub, keys: Value) -> Self {
        let mut upstream = json!({
            "name": name,
            "url": hub.registry_url(),
            "token_realms": [hub.token_realm()],
            "tags": { "fresh_for": "0s" },
        });
        for (key, value) in keys.as_object().into_iter().flatten() {
            upstream[key] = value.clone();
        }
        self.config["upstreams"].as_array_mut().unwrap().push(upstream);
        self
    }

    /// Another program that serves with `--config FILE`.
    pub(crate) fn program(mut self, program: PathBuf) -> Self {
        self.program = (program, &[]);
        self
    }

    /// A store that outlives the server, or lies on a file system of its own.
    #[allow(dead_code, reason = "for the torture tests")]
    pub(crate) fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Roadstead itself, at another path.
    #[allow(dead_code, reason = "the torture tests don't need it")]
    pub(crate) fn binary(mut self, path: PathBuf) -> Self {
        self.program = (path, &["serve"]);
        self
    }

    /// What stands before `--config`, if not `serve` alone.
    #[allow(dead_code, reason = "the torture tests don't need it")]
    pub(crate) fn arguments(mut self, arguments: &'static [&'static str]) -> Self {
        self.program.1 = arguments;
        self
    }

    /// A variable of its environment.
    #[allow(dead_code, reason = "the torture tests don't need it")]
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// `RUST_LOG`.
    pub(crate) fn log(mut self, levels: &str) -> Self {
        self.levels = levels.to_owned();
        self
    }

    /// Times short enough for tests in which upstream does not answer; their proportions are those
    /// of the defaults.
    pub(crate) fn impatient(self) -> Self {
        self.with("timeouts.connect", "300ms")
            .with("timeouts.response", "600ms")
            .with("timeouts.validate", "500ms")
            .with("timeouts.fetch", "1s")
            .with("timeouts.read", "1s")
            .with("breaker.open_for", "1s")
            .key("fill.retries", 2)
            .key("fill.retry_backoff", "20ms")
    }

    /// Starts it in a directory of its own, and waits until it is ready.
    pub(crate) async fn start(self) -> Roadstead {
        let roadstead = self.start_until_it_says_ready().await;
        accepts(roadstead.at).await;
        roadstead
    }

    /// Starts it, and takes `/readyz` at its word.
    pub(crate) async fn start_until_it_says_ready(self) -> Roadstead {
        self.try_start().await.unwrap_or_else(|failed| panic!("{failed}"))
    }

    /// Starts it; the error is its log, where it ended or is not ready in time.
    pub(crate) async fn try_start(self) -> Result<Roadstead, NotReady> {
        let folder = tempfile::tempdir().unwrap();
        let (child, at, admin) = launch(folder.path(), &self);
        let mut roadstead = Roadstead { folder, setup: self, child, at, admin };
        roadstead.ready(0).await?;
        Ok(roadstead)
    }

    fn data(&self, folder: &Path) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| folder.join("data"))
    }

    fn write(&self, folder: &Path, at: SocketAddr, admin: SocketAddr) -> PathBuf {
        let mut config = self.config.clone();
        let mut listen = vec![json!({ "address": at.to_string() })];
        listen.extend(self.config["listen"].as_array().cloned().unwrap_or_default());
        config["listen"] = json!(listen);
        config["admin"]["address"] = json!(admin.to_string());
        config["store"]["directory"] = json!(self.data(folder));
        let file = folder.join("roadstead.yaml");
        // YAML contains JSON.
        fs::write(&file, config.to_string()).unwrap();
        file
    }
}

fn launch(folder: &Path, setup: &Setup) -> (Child, SocketAddr, SocketAddr) {
    let (at, admin) = (free_address(), free_address());
    let config = setup.write(folder, at, admin);
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let (program, arguments) = &setup.program;
    let child = Command::new(program)
        .args(*arguments)
        .arg("--config")
        .arg(config)
        .env("RUST_LOG", &setup.levels)
        .env("NO_COLOR", "1")
        .envs(setup.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (child, at, admin)
}

/// Sends a signal to a process that must be there.
pub(crate) fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(done.success(), "no SIG{name} for {pid}");
}

async fn accepts(at: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(at).await.is_err() {
        assert!(Instant::now() < deadline, "{at} does not listen");
        sleep(STEP).await;
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    matches!(client::get(admin, "/readyz").try_send().await, Ok(reply) if reply.status == 200)
}

// === impl Roadstead: its life ===

impl Roadstead {
    /// In front of `hub`, with the usual configuration.
    pub(crate) async fn start(hub: &Hub) -> Self {
        Setup::of(hub).start().await
    }

    /// Where clients connect.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Where its operator connects.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Whether the process runs.
    #[allow(dead_code, reason = "for the torture tests")]
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its configuration file, as of the last start.
    #[allow(dead_code, reason = "the torture tests don't read it")]
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("roadstead.yaml")
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut ends a process: at once.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, without waiting.
    pub(crate) fn signal_term(&self) {
        signal(self.pid(), "TERM");
    }

    /// Asks it to end, and waits.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal_term();
        self.ended().await
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "roadstead does not end");
            sleep(STEP).await;
        }
    }

    /// Starts it again, in the same directory, after it has ended.
    pub(crate) async fn restart(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "it still runs");
        let logged = self.log().len();
        self.launch_again();
        self.ready(logged).await.unwrap_or_else(|failed| panic!("{failed}"));
        accepts(self.at).await;
    }

    fn launch_again(&mut self) {
        (self.child, self.at, self.admin) = launch(self.folder.path(), &self.setup);
    }

    /// Waits until it is; another process may take its ports first, then it gets others.
    /// What it says is in the log from `logged` on.
    async fn ready(&mut self, logged: usize) -> Result<(), NotReady> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready(logged).await {
            let ended = self.child.try_wait().unwrap();
            if ended.is_none() && Instant::now() < deadline {
                sleep(STEP).await;
                continue;
            }
            let log = self.log().split_off(logged);
            if !log.contains("Address already in use") || Instant::now() > deadline {
                return Err(NotReady { ended, log });
            }
            self.launch_again();
        }
        Ok(())
    }

    /// Writes another configuration while it runs; its addresses stay.
    #[allow(dead_code, reason = "the torture tests change nothing")]
    pub(crate) fn rewrite(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
        self.setup.write(self.folder.path(), self.at, self.admin);
    }

    /// Has it read its configuration again; answers what it says.
    #[allow(dead_code, reason = "the torture tests change nothing")]
    pub(crate) async fn reload(&self) -> client::Reply {
        client::request(self.admin, "POST", "/api/v1/reload")
            .header("X-Roadstead", "1")
            .send()
            .await
    }

    /// Whether it says so: where a probe must speak TLS, in its log.
    async fn is_ready(&self, logged: usize) -> bool {
        match self.setup.config["admin"]["tls"].is_object() {
            true => self.log().split_off(logged).contains("roadstead::server: ready"),
            false => is_ready(self.admin).await,
        }
    }

    /// The same, with another configuration.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
        self.restart().await;
    }
}

impl Drop for Roadstead {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!("=== the end of roadstead's log ===\n{}\n===", last.join("\n"));
        }
    }
}

// === impl Roadstead: what it leaves behind ===

impl Roadstead {
    /// All it has logged, of every life.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What it has logged, the lines included that waited: access lines go out in batches.
    pub(crate) async fn whole_log(&self) -> String {
        let mark = format!("/mark-{}", self.log().len());
        crate::client::get(self.at(), &mark).send().await;
        eventually("the mark's line", PATIENCE, || self.log().contains(&mark)).await;
        self.log()
    }

    /// `store.directory`.
    pub(crate) fn data(&self) -> PathBuf {
        self.setup.data(self.folder.path())
    }

    /// The blob files, by digest, with their sizes.
    pub(crate) fn stored(&self) -> BTreeMap<String, u64> {
        files(&self.data().join("blobs"))
            .into_iter()
            .map(|file| (digest_of(&file), file.metadata().map_or(0, |meta| meta.len())))
            .collect()
    }

    /// The unfinished files, with their sizes.
    pub(crate) fn partial(&self) -> Vec<(PathBuf, u64)> {
        files(&self.data().join("partial"))
            .into_iter()
            .map(|file| {
                let len = file.metadata().map_or(0, |meta| meta.len());
                (file, len)
            })
            .collect()
    }

    /// P8: every byte below the directory is counted, as what it is.
    #[allow(dead_code, reason = "the torture tests have books of their own")]
    pub(crate) async fn assert_books_are_right(&self) {
        // A file has its name a moment before it is counted under it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(wrong) = self.books().await {
            assert!(Instant::now() < deadline, "{wrong}");
            sleep(STEP).await;
        }
    }

    #[allow(dead_code, reason = "the torture tests have books of their own")]
    async fn books(&self) -> Result<(), String> {
        let sum = |folder: &str| -> u64 {
            let files = files(&self.data().join(folder));
            files.iter().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum()
        };
        let index = fs::metadata(self.data().join("index.redb")).unwrap().len();
        let history = fs::metadata(self.data().join("history.ring"));
        let history = history.map_or(0, |meta| meta.len());
        let there = [
            ("published", sum("blobs")),
            ("staged", sum("partial")),
            ("quarantine", sum("quarantine")),
            ("index", index),
            ("history", history),
        ];
        for (state, bytes) in there {
            let counted = self.metric(&["roadstead_store_bytes", &format!("\"{state}\"")]).await;
            if counted as u64 != bytes {
                return Err(format!("{bytes} bytes are {state}, {counted} are counted"));
            }
        }
        let used = self.metric(&["roadstead_store_bytes", "\"used\""]).await as u64;
        let all: u64 = there.iter().map(|(_, bytes)| bytes).sum();
        if used == all { Ok(()) } else { Err(format!("{all} bytes are there, {used} are used")) }
    }

    /// P2: every file under `blobs/` is what its name says.
    pub(crate) fn assert_all_stored_is_right(&self) {
        for file in files(&self.data().join("blobs")) {
            let Ok(body) = fs::read(&file) else { continue };
            let digest = digest_of(&file);
            let found = match digest.split_once(':').unwrap().0 {
                "sha512" => format!("sha512:{}", hex(&Sha512::digest(&body))),
                _ => format!("sha256:{}", hex(&Sha256::digest(&body))),
            };
            assert_eq!(found, digest, "{} holds other bytes", file.display());
        }
    }

    /// `/metrics`, sample by sample.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let page = client::get(self.admin, "/metrics").send().await;
        assert_eq!(page.status, 200);
        page.text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// Waits until no fill is under way: a client has the last byte of a blob a moment before it
    /// is stored.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(&["roadstead_fills_active"]).await > 0.0 {
            assert!(Instant::now() < deadline, "a fill does not end");
            sleep(STEP).await;
        }
    }

    /// The sum of the samples whose name and labels contain all of these, the name first. A family
    /// that nothing has touched sums up to nothing; one that there is not panics.
    pub(crate) async fn metric(&self, parts: &[&str]) -> f64 {
        let metrics = self.metrics().await;
        let is_shown = metrics.keys().any(|name| name.split('{').next() == parts.first().copied());
        assert!(is_shown || is_in_readme(parts[0]), "there is no metric {}", parts[0]);
        let matching =
            metrics.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        matching.map(|(_, value)| value).sum()
    }
}

/// Whether the README's table has the family of a sample.
fn is_in_readme(sample: &str) -> bool {
    let suffixes = ["_count", "_sum", "_bucket"];
    let family = suffixes.iter().find_map(|suffix| sample.strip_suffix(suffix)).unwrap_or(sample);
    let row = format!("| `{family}` |");
    include_str!("../../README.md").lines().any(|line| line.starts_with(&row))
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// `blobs/<algorithm>/<2 hex>/<hex>` as a digest.
fn digest_of(file: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let algorithm = file.parent().unwrap().parent().unwrap();
    format!("{}:{}", name(algorithm), name(file))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
