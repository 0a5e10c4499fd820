//! The composition root: configuration → store, upstreams, filters, services.
//!
//! Everything that can be wrong is found before the first connection is
//! accepted, and said in one line that names the remedy.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    apps::HttpServerOptions,
    listeners::{L4BufferSettings, ListenerConfig, tls::TlsSettings},
    proxy::HttpProxy,
    server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, configuration::ServerConf},
    services::listening::Service,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    admin::Admin,
    blob::Blobs,
    config::{Address, Config, Listen, Scheme},
    filter::{Chain, RequestFilter},
    inventory::Inventory,
    manifest::Manifests,
    metrics,
    proxy::{Connections, Proxy},
    store::Store,
    upstream::Upstream,
};

/// From the signal to the first look whether all is done: the listeners close meanwhile.
const DRAIN_START: Duration = Duration::from_millis(300);

/// Seconds that blocking work (a publish under way) may take at the end.
const LAST_WRITES_SECONDS: u64 = 10;

/// Large enough for a request's head; a connection that waits holds no more.
const READ_BUFFER_BYTES: usize = 4096;

/// Large enough for the head and body of most manifests, so that they leave in one write; larger
/// bodies pass the buffer by.
const WRITE_BUFFER_BYTES: usize = 4096;

/// How often a start looks whether clients are accepted.
const LISTEN_STEP: Duration = Duration::from_millis(5);

/// How often a drain looks whether requests are still under way.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration asks for what can't be.
    #[error("{0}")]
    Config(String),
    /// An address can't be listened on.
    #[error("{key}: {address}: {problem}; {remedy}")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// Serves until a signal ends it: SIGINT stops at once; SIGTERM stops listening, lets requests end
/// for as long as `shutdown.drain` allows, and then ends the process. `extra` filters come after
/// the built-in `policy` and before `cache`.
pub fn run(config: &Config, extra: Vec<Box<dyn RequestFilter>>) -> Result<(), StartError> {
    metrics::register_all();
    check_roots(config)?;
    check_addresses(config)?;
    let store = Store::open(&config.store)
        .map_err(|error| StartError::Config(format!("store.directory: {error}")))?;
    let store = Arc::new(store);
    store.keep().map_err(|error| StartError::Config(format!("store.directory: {error}")))?;
    let manifests = Arc::new(Manifests::new(Arc::clone(&store), config.fill.max_manifest));
    let forgetful = Arc::clone(&manifests);
    let inventory = Inventory::new(Arc::clone(&store), config);
    let inventory = Arc::new(inventory.with_forget(move |key| forgetful.forget(key)));
    let chain = chain(config, &store, manifests, extra)?;
    let proxy = Proxy::new(chain, config.downstream.clone());
    let ready = Arc::new(AtomicBool::new(false));
    let stop =
        Stop { ready: Arc::clone(&ready), active: proxy.active(), store: Arc::clone(&store) };

    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    server.add_service(proxy_service(config, &server.configuration, proxy)?);
    let admin = Admin::new(Arc::clone(&ready), inventory, Arc::clone(&store));
    let mut admin = Service::new("admin".to_owned(), admin);
    admin.threads = Some(1);
    admin.add_tcp(&config.admin.address.to_string());
    server.add_service(admin);
    announce_when_listening(config.clone(), ready);
    server.run(RunArgs { shutdown_signal: Box::new(stop) });
    store.close();
    tracing::info!("stopped");
    Ok(())
}

fn chain(
    config: &Config,
    store: &Arc<Store>,
    manifests: Arc<Manifests>,
    extra: Vec<Box<dyn RequestFilter>>,
) -> Result<Chain, StartError> {
    let max_manifest = config.fill.max_manifest;
    let mut upstreams = Vec::with_capacity(config.upstreams.len());
    for upstream in &config.upstreams {
        let client = Upstream::new(upstream.clone(), max_manifest).map_err(|problem| {
            StartError::Config(format!("upstreams: {}: {problem}", upstream.name))
        })?;
        upstreams.push(Arc::new(client));
    }
    let blobs = Arc::new(Blobs::new(Arc::clone(store), config.fill.clone()));
    Chain::standard(config, upstreams, manifests, blobs, extra).map_err(StartError::Config)
}

fn proxy_service(
    config: &Config,
    conf: &Arc<ServerConf>,
    proxy: Proxy,
) -> Result<Service<Connections>, StartError> {
    let downstream = &config.downstream;
    let mut http = HttpProxy::new(proxy, Arc::clone(conf));
    http.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(downstream.keepalive);
    http.server_options = Some(options);
    let connections = Connections::new(http, downstream);
    let mut service = Service::new("proxy".to_owned(), connections);
    for listen in &config.listen {
        service.add_listener(listener(listen)?);
    }
    Ok(service)
}

fn listener(listen: &Listen) -> Result<ListenerConfig, StartError> {
    let endpoint = match &listen.address {
        Address::Tcp(address) => ListenerConfig::tcp(address.to_string()),
        Address::Unix(path) => ListenerConfig::uds(path.display().to_string()),
    };
    let endpoint = endpoint.l4_buffer(L4BufferSettings::new(READ_BUFFER_BYTES, WRITE_BUFFER_BYTES));
    let Some(tls) = &listen.tls else { return Ok(endpoint) };
    let certificate = tls.certificate.display().to_string();
    let settings = TlsSettings::intermediate(&certificate, &tls.key.display().to_string());
    let mut settings = settings
        .map_err(|error| StartError::Config(format!("listen.tls: {certificate}: {error}")))?;
    settings.enable_h2();
    Ok(endpoint.tls(settings))
}

fn server_conf(config: &Config) -> ServerConf {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ServerConf {
        threads,
        grace_period_seconds: Some(config.shutdown.drain.as_secs().max(1)),
        graceful_shutdown_timeout_seconds: Some(LAST_WRITES_SECONDS),
        ..ServerConf::default()
    }
}

/// rustls finds no certificates in an empty container image, and says nothing.
fn check_roots(config: &Config) -> Result<(), StartError> {
    let needs = config
        .upstreams
        .iter()
        .find(|upstream| upstream.url.scheme == Scheme::Https && upstream.ca_file.is_none());
    let Some(upstream) = needs else { return Ok(()) };
    let found = rustls_native_certs::load_native_certs().is_ok_and(|certs| !certs.is_empty());
    if found {
        return Ok(());
    }
    Err(StartError::Config(format!(
        "upstreams: {}: this system has no CA certificates to check it with; install the package ca-certificates, or name a file under ca_file",
        upstream.name
    )))
}

/// Pingora panics on an address that is taken, so they are tried before it starts.
fn check_addresses(config: &Config) -> Result<(), StartError> {
    for listen in &config.listen {
        match &listen.address {
            Address::Tcp(address) => check_tcp("listen", *address)?,
            Address::Unix(path) => check_unix(path)?,
        }
    }
    check_tcp("admin.address", config.admin.address)
}

fn check_tcp(key: &'static str, address: SocketAddr) -> Result<(), StartError> {
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "end the program that listens there, or name another port",
        io::ErrorKind::PermissionDenied => "name a port above 1023, or grant CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "name an address of this machine",
        _ => "name another address",
    };
    let (address, problem) = (address.to_string(), error.to_string());
    Err(StartError::Listen { key, address, problem, remedy })
}

/// A socket that nobody answers on was left by a server that was killed.
fn check_unix(path: &Path) -> Result<(), StartError> {
    let taken = UnixStream::connect(path).is_ok();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let (problem, remedy) = if taken {
        ("another program listens there", "end it, or name another path")
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        ("its folder does not exist", "create it, or name another path")
    } else {
        return Ok(());
    };
    let (key, address) = ("listen", path.display().to_string());
    Err(StartError::Listen { key, address, problem: problem.to_owned(), remedy })
}

/// Pingora does not say when its listeners are open; a connection does.
fn announce_when_listening(config: Config, ready: Arc<AtomicBool>) {
    let listens = |listen: &Listen| match &listen.address {
        Address::Tcp(address) => TcpStream::connect(address).is_ok(),
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
    };
    let wait = move || {
        while !config.listen.iter().all(listens) {
            std::thread::sleep(LISTEN_STEP);
        }
        announce(&config);
        ready.store(true, Ordering::Release);
    };
    if let Err(error) = std::thread::Builder::new().name("ready".to_owned()).spawn(wait) {
        tracing::error!(%error, "/readyz will not say when clients are accepted");
    }
}

fn announce(config: &Config) {
    for listen in &config.listen {
        let tls = listen.tls.is_some();
        tracing::info!(address = %listen.address, tls, "serving");
    }
    for upstream in &config.upstreams {
        tracing::info!(name = %upstream.name, url = %upstream.url, "upstream");
    }
    tracing::info!(
        admin = %config.admin.address,
        directory = %config.store.directory.display(),
        "ready"
    );
}

/// What ends the server.
struct Stop {
    ready: Arc<AtomicBool>,
    active: Arc<AtomicUsize>,
    store: Arc<Store>,
}

// === impl Stop ===

impl Stop {
    /// Ends the process once no request is under way. Pingora itself waits the whole of its grace
    /// period, even when there is nothing to wait for, and then cuts what is left.
    fn end_when_idle(&self) {
        self.ready.store(false, Ordering::Release);
        let (active, store) = (Arc::clone(&self.active), Arc::clone(&self.store));
        tracing::info!(requests = active.load(Ordering::Acquire), "stopping; requests may end");
        let watch = move || {
            std::thread::sleep(DRAIN_START);
            while active.load(Ordering::Acquire) > 0 {
                std::thread::sleep(DRAIN_STEP);
            }
            store.close();
            tracing::info!("stopped");
            std::process::exit(0);
        };
        if let Err(error) = std::thread::Builder::new().name("drain".to_owned()).spawn(watch) {
            tracing::warn!(%error, "stopping takes the whole of shutdown.drain");
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let wait = |kind| async move {
            match signal(kind) {
                Ok(mut signals) => drop(signals.recv().await),
                // Without handlers the system's own reaction to signals remains.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait(SignalKind::interrupt()) => return ShutdownSignal::FastShutdown,
            () = wait(SignalKind::terminate()) => {}
            () = wait(SignalKind::quit()) => {}
        }
        self.end_when_idle();
        ShutdownSignal::GracefulTerminate
    }
}
