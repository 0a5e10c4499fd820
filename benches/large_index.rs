//! A store of a million objects: how long a start takes, what it costs in memory, and how long an
//! eviction decides.
//!
//! The records are real, the files are not: nothing of this reads one. `--quick` takes fifty
//! thousand.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use roadstead::{
    config,
    protocol::{Algorithm, Digest},
    store::Store,
};

const OBJECTS: u64 = 1_000_000;
const QUICK_OBJECTS: u64 = 50_000;

/// Objects recorded in one commit.
const BATCH: u64 = 20_000;

/// What each pretends to have.
const SIZE: u64 = 1 << 20;

/// Starts, and evictions, of which the median and the worst are printed.
const ROUNDS: usize = 5;
const EVICTIONS: usize = 200;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let objects = if quick { QUICK_OBJECTS } else { OBJECTS };
    let folder = tempfile::tempdir().unwrap();
    let config = config::Store {
        directory: folder.path().to_owned(),
        disk: u64::MAX / 2,
        ..config::Store::default()
    };
    let began = Instant::now();
    let store = Store::open(&config).unwrap();
    generate(&store, objects);
    store.close();
    drop(store);
    let index = fs::metadata(folder.path().join("index.redb")).unwrap().len();
    println!(
        "{objects} objects: index of {} MiB ({} bytes each), generated in {:.1?}",
        index >> 20,
        index / objects,
        began.elapsed()
    );
    starts(folder.path(), objects);
    evictions(&config, objects);
}

fn generate(store: &Store, objects: u64) {
    for start in (0..objects).step_by(usize::try_from(BATCH).unwrap()) {
        let numbers = start..(start + BATCH).min(objects);
        let digest = |number: u64| Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        store.pretend(numbers.map(|number| (digest(number), SIZE))).unwrap();
    }
}

fn starts(directory: &Path, objects: u64) {
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut server = Server::start(directory);
        server.wait_until_ready();
        times.push(began.elapsed());
        memory.push(server.anonymous_kib());
        // As a crash would: the next start finds no clean end.
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }
    times.sort();
    memory.sort_unstable();
    let (median, worst) = (times.get(ROUNDS / 2).unwrap(), times.last().unwrap());
    println!("start after kill -9, to /readyz: {median:.0?} in the median, {worst:.0?} at worst");
    let kib = memory.last().unwrap();
    println!(
        "memory once ready (RssAnon): {:.1} MiB, {} bytes an object",
        *kib as f64 / 1024.0,
        kib * 1024 / objects
    );
}

fn evictions(config: &config::Store, objects: u64) {
    let store = Store::open(config).unwrap();
    let mut chosen = Vec::new();
    let mut evicted = Vec::new();
    for _ in 0..EVICTIONS {
        let began = Instant::now();
        assert!(store.choose_victims(32 * SIZE).unwrap() > 0);
        chosen.push(began.elapsed());
        let began = Instant::now();
        store.evict_bytes(32 * SIZE).unwrap();
        evicted.push(began.elapsed());
    }
    for (what, mut times) in [("deciding", chosen), ("deciding, removing, recording", evicted)] {
        times.sort();
        println!(
            "eviction of 32 of {objects} objects, {what}: {:.1?} in the median, {:.1?} at the 99th of 100",
            times.get(EVICTIONS / 2).unwrap(),
            times.get(EVICTIONS * 99 / 100).unwrap()
        );
    }
    store.close();
}

struct Server {
    child: Child,
    admin: SocketAddr,
}

// === impl Server ===

impl Server {
    fn start(directory: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (listen, admin) = (free(), free());
        let child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["serve", "--upstream", "http://127.0.0.1:9", "--data"])
            .arg(directory)
            .args(["--listen", &listen.to_string(), "--admin", &admin.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, admin }
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(self.child.try_wait().unwrap().is_none(), "the server has ended");
            assert!(Instant::now() < deadline, "the server is not ready");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_ready(&self) -> bool {
        let ask = || {
            let mut socket = TcpStream::connect(self.admin)?;
            socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn anonymous_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
