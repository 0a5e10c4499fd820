//! What an outage costs those who pull what is cached: their slowest hundredth, before and during it.
//!
//! Fifty clients with kept connections pull a tag, a manifest and a small blob, with a pause between
//! pulls, so that the figures are the server's and no queue's. The registry is the simulator; each
//! kind of trouble lasts for some seconds. The first moments, in which the trouble is found out, are
//! told apart from the rest. `--quick` takes one kind and less time.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hub::{Action, Fault, Hub, ImageSpec, Options, Target};

const CLIENTS: usize = 50;

/// Between two pulls of a client.
const PAUSE: Duration = Duration::from_millis(20);

/// The trouble is found out within this: a tag's check has 4 s.
const FOUND_OUT: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(30);

const NAME: &str = "library/known";

/// When a pull began, and how long it took.
type Sample = (Instant, Duration);

/// A server that is killed at the end.
struct Server {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// The clients.
struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<Sample>>>,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let lasts = if quick { FOUND_OUT * 2 } else { Duration::from_secs(30) };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let options = Options { limit: None, ..Options::default() };
    let hub = runtime.block_on(Hub::start_with(options)).unwrap();
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single().layer_size(8 << 10));
    let server = Server::start(&hub);
    let paths: Arc<[String]> = [
        format!("/v2/{NAME}/manifests/latest"),
        format!("/v2/{NAME}/manifests/{}", image.digest),
        format!("/v2/{NAME}/blobs/{}", image.layers[0].digest),
    ]
    .into();
    let troubles = [
        ("drops connections", Target::any(), Action::Drop),
        ("hangs", Target::any(), Action::Hang),
        ("is slow (3 s)", Target::any(), Action::Delay(Duration::from_secs(3))),
        ("answers 500", Target::any(), Action::Status(500)),
        ("answers 503", Target::any(), Action::Status(503)),
        ("has no budget left", Target::any(), Action::RateLimited),
        ("is asked too much", Target::any(), Action::Abuse),
        ("has no token server", Target::token(), Action::Drop),
        ("has no CDN", Target::cdn(), Action::Drop),
    ];
    let load = Load::start(server.address, &paths);
    thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    thread::sleep(lasts);
    let mut phases = vec![("is well", began, Instant::now())];
    for (what, target, action) in troubles.into_iter().take(if quick { 1 } else { usize::MAX }) {
        if target == Target::token() {
            hub.expire_tokens();
        }
        let fault = hub.fault(Fault::new(target, action));
        let began = Instant::now();
        thread::sleep(lasts);
        phases.push((what, began, Instant::now()));
        hub.remove_fault(fault);
        // A probe finds that it is well again.
        thread::sleep(Duration::from_secs(8));
    }
    let failed = Arc::clone(&load.failed);
    let samples = load.stop();
    report(&phases, &samples);
    println!("{} pulls, {} failed", samples.len(), failed.load(Ordering::Relaxed));
    assert_eq!(failed.load(Ordering::Relaxed), 0, "a cached pull failed");
}

fn report(phases: &[(&str, Instant, Instant)], samples: &[Sample]) {
    let within = |from: Instant, to: Instant| {
        let times = samples.iter().filter(|(began, _)| from <= *began && *began < to);
        let mut times: Vec<_> = times.map(|(_, took)| *took).collect();
        times.sort_unstable();
        times
    };
    let at = |times: &[Duration], share: usize| {
        times.get(times.len() * share / 100).copied().unwrap_or_default()
    };
    println!("the registry …         pulls     p50     p99   ÷ well   p99 of the first 5 s");
    let mut well = Duration::ZERO;
    for (what, from, to) in phases {
        let is_well = well.is_zero();
        let known = within(if is_well { *from } else { *from + FOUND_OUT }, *to);
        let first = within(*from, *from + FOUND_OUT);
        let p99 = at(&known, 99);
        if is_well {
            well = p99;
        }
        println!(
            "{what:20} {:7} {:6.2}ms {:6.2}ms {:6.2} {:9.2}ms",
            known.len(),
            millis(at(&known, 50)),
            millis(p99),
            p99.as_secs_f64() / well.as_secs_f64(),
            millis(at(&first, 99)),
        );
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

// === impl Load ===

impl Load {
    fn start(address: SocketAddr, paths: &Arc<[String]>) -> Self {
        let (stop, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |number: usize| {
            let (stop, failed, paths) = (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(paths));
            thread::spawn(move || client(address, number, &paths, &stop, &failed))
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { stop, failed, threads }
    }

    fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn client(
    address: SocketAddr,
    number: usize,
    paths: &[String],
    stop: &AtomicBool,
    failed: &AtomicU64,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut stream = None;
    for path in paths.iter().cycle().skip(number) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let connection = stream.take().unwrap_or_else(|| TcpStream::connect(address).unwrap());
        match get(connection, address, path) {
            Ok(connection) => stream = Some(connection),
            Err(problem) => {
                eprintln!("{path}: {problem}");
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        samples.push((began, began.elapsed()));
        thread::sleep(PAUSE);
    }
    samples
}

/// One GET on a kept connection; anything but a whole 200 is an error.
fn get(mut stream: TcpStream, host: SocketAddr, path: &str) -> Result<TcpStream, String> {
    let accept =
        "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*";
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n");
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let count = stream.read(&mut piece).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("the connection was cut".to_owned());
        }
        answer.extend_from_slice(&piece[..count]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200 ") {
            return Err(head);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).ok_or("no length")?;
        if answer.len() >= end + 4 + length {
            return Ok(stream);
        }
    }
}

// === impl Server ===

impl Server {
    fn start(hub: &Hub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, admin) = (free(), free());
        let config = format!(
            "listen: [{{ address: '{address}' }}]\nadmin: {{ address: '{admin}' }}\n\
             store: {{ directory: '{}' }}\n\
             upstreams:\n  - name: docker.io\n    url: {}\n    token_realms: ['{}']\n    \
             tags: {{ fresh_for: 1s }}\n    budget: {{ probe: none }}\n",
            folder.path().join("data").display(),
            hub.registry_url(),
            hub.token_realm(),
        );
        let file = folder.path().join("roadstead.yaml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command.arg("serve").arg("--config").arg(&file).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, address, _folder: folder };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < PATIENCE, "the server does not start");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
