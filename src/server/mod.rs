//! The composition root: configuration → store, upstreams, filters, services.
//!
//! Everything that can be wrong is found before the first connection is
//! accepted, and said in one line that names the remedy.

mod checks;
mod doors;
mod handover;
mod listening;
mod reload;
mod standing;
mod stop;
mod telemetry;
mod warming;
mod watch;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use pingora::{
    apps::HttpServerOptions,
    protocols::http::v2::server::{H2Options, default_h2_options},
    proxy::HttpProxy,
    server::{RunArgs, Server, configuration::ServerConf},
    services::{background::background_service, listening::Service},
};

use self::{
    doors::{Certificates, Doors},
    handover::{Handover, Heir},
    listening::{Listeners, Listening},
    reload::{Parts, Reloader},
    stop::{Ending, Stop},
    telemetry::Spans,
    warming::Warming,
    watch::{Looking, Watch},
};
use crate::{
    admin::{self, Admin, Operators, Viewers},
    blob::Blobs,
    config::{self, Config, ConfigError, Listen, Reload},
    filter::{Access, Chain, RequestFilter},
    inventory::Inventory,
    manifest::Manifests,
    metrics,
    proxy::{Bounds, Connections, Door, Drain, Entrance, Live, Proxy, Rules},
    status::{Monitor, Sources},
    store::{self, Store},
    upstream::{Roster, Upstream},
    warm::Warmer,
};

/// What a client may send of pushes over one HTTP/2 connection before upstream has taken it. At
/// HTTP/2's own 64 KiB a client 100 ms away would be kept to 0.6 MiB/s; it is memory, so not more.
const PUSH_WINDOW_BYTES: u32 = 1 << 20;

/// Seconds that blocking work (a publish under way) may take at the end.
const LAST_WRITES_SECONDS: u64 = 10;

/// Reads the configuration anew.
type Source = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// A server to be.
pub struct Builder {
    config: Config,
    filters: Vec<Arc<dyn RequestFilter>>,
    source: Option<Source>,
}

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

// === impl Builder ===

/// A server under this configuration.
///
/// ```no_run
/// use roadstead::{config::Config, server};
///
/// let read = || Config::load("/etc/roadstead/roadstead.yaml".as_ref());
/// server::builder(read()?).reloading(read).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn builder(config: Config) -> Builder {
    Builder { config, filters: Vec::new(), source: None }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Builder {
    /// With a filter of one's own: they come in the order in which they are added, after the
    /// built-in `policy` and before anything is answered from the cache.
    #[must_use]
    pub fn filter(mut self, filter: impl RequestFilter) -> Self {
        self.filters.push(Arc::new(filter));
        self
    }

    /// Where the configuration is read anew on SIGHUP and by `POST /api/v1/reload`. Without it, both
    /// are told that there is nothing to read.
    #[must_use]
    pub fn reloading(
        self,
        source: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    /// Serves until a signal ends it: SIGINT stops at once; SIGTERM stops listening, lets requests
    /// end for as long as `shutdown.drain` allows, and then ends the process; SIGQUIT starts the
    /// program anew, hands listeners and store over to it, and ends like SIGTERM.
    pub fn run(self) -> Result<(), StartError> {
        run(self)
    }
}

fn run(Builder { config, filters, source }: Builder) -> Result<(), StartError> {
    // First of all: who is told to read its configuration again must not end of it.
    let hangups = stop::hangups();
    metrics::register_all();
    let heir = Heir::from_environment()?;
    checks::roots(&config)?;
    let nothing = HashSet::new();
    checks::addresses(&config, heir.as_ref().map_or(&nothing, Heir::names))?;
    let bounds = Bounds::new(config.downstream.max_connections);
    let Doors { doors, admin: admin_tls, certificates } = Doors::prepare(&config, &bounds)?;
    let doors: Vec<_> =
        doors.into_iter().map(|door| Arc::new(ArcSwap::from_pointee(door))).collect();
    let certificates = Arc::new(ArcSwap::from_pointee(certificates));
    let spans = Spans::start(&config.telemetry)?;
    let store = open_store(&config, heir.as_ref())?;
    standing::settle(&config.upstreams, &store).map_err(|error| unsettled(&error))?;
    let blobs = Arc::new(Blobs::new(Arc::clone(&store), config.fill.clone()));
    let manifests = Arc::new(Manifests::new(Arc::clone(&store), config.fill.max_manifest));
    let inventory = inventory(&config, &store, &manifests);
    let upstreams = upstreams(&config)?;
    let (kept, filled) = (Arc::clone(&manifests), Arc::clone(&blobs));
    let chain = Chain::standard(&config, upstreams.clone(), kept, filled, filters);
    let chain = chain.map_err(StartError::Config)?;
    let roster = Arc::new(Roster::new(upstreams));
    let (warmed, fills) = (Arc::clone(&manifests), Arc::clone(&blobs));
    let warmer = Warmer::new(&config, Arc::clone(&roster), warmed, fills);
    let warmer = Arc::new(warmer.map_err(StartError::Config)?);
    let rules = Rules { chain, downstream: config.downstream.clone() };
    let live = Arc::new(Live::from_pointee(rules));
    let drain = Arc::new(Drain::new(config.shutdown.drain));
    let operators = Operators::load(&config.admin).map_err(StartError::Config)?;
    let operators = Arc::new(operators);
    let parts = Parts {
        roster: Arc::clone(&roster),
        live: Arc::clone(&live),
        doors: doors.clone(),
        certificates: Arc::clone(&certificates),
        store: Arc::clone(&store),
        blobs: Arc::clone(&blobs),
        manifests: Arc::clone(&manifests),
        inventory: Arc::clone(&inventory),
        warmer: Arc::clone(&warmer),
        operators: Arc::clone(&operators),
    };
    let reloader = Arc::new(Reloader::new(config.clone(), source, parts, bounds));

    let mut conf = server_conf(&config);
    let options = heir.as_ref().map(|heir| heir.receive(&mut conf));
    let mut server = Server::new_with_opt_and_conf(options, conf);
    let traffic = Arc::clone(live.load().chain.traffic());
    let clients = client_services(&config, doors, &server.configuration, live, &drain);
    server.bootstrap();

    // What the process before accepts is accepted here.
    let ready = Arc::new(AtomicBool::new(heir.is_some()));
    let monitor = Monitor::new(Sources {
        ready: Arc::clone(&ready),
        upstreams: Arc::clone(&roster),
        store: Arc::clone(&store),
        blobs: Arc::clone(&blobs),
        traffic,
    });
    let reload = Arc::clone(&reloader);
    let admin = Admin {
        ready: Arc::clone(&ready),
        inventory,
        manifests,
        upstreams: Arc::clone(&roster),
        store: Arc::clone(&store),
        monitor: Arc::clone(&monitor),
        viewers: Viewers::default(),
        warmer: Arc::clone(&warmer),
        listen: config.listen.clone(),
        reload: Reload::new(move || reload.reload()),
    };
    let certificates = Certificates { admin: admin_tls.clone(), doors: certificates };
    let admin = admin::Service::new(admin, &config.admin, operators, admin_tls);
    let admin = admin_service(&config, admin);
    // The operator's is one more.
    let services = clients.len() + 1;
    let listeners = Listeners::new(services, announce(config, Arc::clone(&ready), heir));
    for service in clients {
        server.add_service(Listening::new(service, &listeners));
    }
    server.add_service(Listening::new(admin, &listeners));
    server.add_service(background_service("upstreams", Watch(roster)));
    server.add_service(background_service("status", Looking(monitor)));
    server.add_service(background_service("certificates", certificates));
    server.add_service(background_service("warming", Warming(warmer)));
    let handover = Handover::prepare(listeners, Arc::clone(&store), blobs);
    let ending = Ending { store, spans };
    let (hangups, rest) = (Mutex::new(hangups.ok()), ending.clone());
    let stop = Stop { hangups, ready, drain, ending: rest, handover, reloader };
    server.run(RunArgs { shutdown_signal: Box::new(stop) });
    ending.run();
    Ok(())
}

/// What a start would find wrong with the images that `config` names, and in the files of users and
/// certificates; nothing else.
pub fn check(config: &Config) -> Result<(), StartError> {
    Warmer::check(config).map_err(StartError::Config)?;
    Access::new(&config.access).map_err(StartError::Config)?;
    Operators::load(&config.admin).map_err(StartError::Config)?;
    Doors::prepare(config, &Bounds::new(config.downstream.max_connections)).map(|_| ())
}

fn unsettled(error: &store::Error) -> StartError {
    StartError::Config(format!(
        "upstreams: whom they were asked as before can't be looked up or forgotten: {error}; see that \
         store.directory can be written"
    ))
}

fn open_store(config: &Config, heir: Option<&Heir>) -> Result<Arc<Store>, StartError> {
    let opened = match heir {
        Some(heir) => heir.open_store(&config.store),
        None => Store::open(&config.store),
    };
    let problem = |error: store::Error| StartError::Config(format!("store.directory: {error}"));
    let store = Arc::new(opened.map_err(problem)?);
    store.keep().map_err(|error| problem(error.into()))?;
    Ok(store)
}

fn inventory(config: &Config, store: &Arc<Store>, manifests: &Arc<Manifests>) -> Arc<Inventory> {
    let forgetful = Arc::clone(manifests);
    let inventory = Inventory::new(Arc::clone(store), config);
    Arc::new(inventory.with_forget(move |key| forgetful.forget(key)))
}

fn upstreams(config: &Config) -> Result<Vec<Arc<Upstream>>, StartError> {
    let max_manifest = config.fill.max_manifest;
    let client = |upstream: &config::Upstream| {
        let client = Upstream::new(upstream.clone(), max_manifest);
        client.map(Arc::new).map_err(|problem| unusable(upstream, &problem))
    };
    config.upstreams.iter().map(client).collect()
}

fn unusable(upstream: &config::Upstream, problem: &str) -> StartError {
    StartError::Config(format!("upstreams: {}: {problem}", upstream.name))
}

/// One service for each listener, since Pingora does not tell through which one a connection came.
fn client_services(
    config: &Config,
    doors: Vec<Arc<ArcSwap<Door>>>,
    conf: &Arc<ServerConf>,
    live: Arc<Live>,
    drain: &Arc<Drain>,
) -> Vec<Service<Entrance>> {
    let proxy = Proxy::new(Arc::clone(&live), Arc::clone(drain));
    let mut http = HttpProxy::new(proxy, Arc::clone(conf));
    http.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(config.downstream.keepalive);
    http.server_options = Some(options);
    http.h2_options = Some(http2_options(config));
    let connections = Arc::new(Connections::new(http, live, Arc::clone(drain)));
    let service = |(listen, door): (&Listen, Arc<ArcSwap<Door>>)| {
        let entrance = Entrance::new(door, Arc::clone(&connections));
        let mut service = Service::new(format!("proxy at {}", listen.address), entrance);
        service.add_listener(listening::endpoint(listen, config));
        service
    };
    config.listen.iter().zip(doors).map(service).collect()
}

fn http2_options(config: &Config) -> H2Options {
    let mut options = default_h2_options();
    let takes_pushes = |upstream: &config::Upstream| upstream.writes == config::Writes::Forward;
    if config.upstreams.iter().any(takes_pushes) {
        options.initial_window_size(PUSH_WINDOW_BYTES);
        options.initial_connection_window_size(PUSH_WINDOW_BYTES);
    }
    options
}

fn admin_service(
    config: &Config,
    admin: admin::Service,
) -> Service<impl pingora::apps::ServerApp + Send + Sync + 'static> {
    let mut admin = Service::new("admin".to_owned(), admin);
    admin.threads = Some(1);
    admin.add_tcp(&config.admin.address.to_string());
    admin
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

/// Says, when clients are accepted, that they are: in the log, at `/readyz`, and to the process
/// that hands over.
fn announce(config: Config, ready: Arc<AtomicBool>, heir: Option<Heir>) -> impl FnOnce() + Send {
    move || {
        for listen in &config.listen {
            let tls = listen.tls.is_some();
            let transparent = listen.transparent.as_ref().map(|transparent| transparent.mode);
            tracing::info!(address = %listen.address, tls, ?transparent, "serving");
        }
        for upstream in &config.upstreams {
            let proxy = upstream.proxy_server().map(ToString::to_string);
            tracing::info!(name = %upstream.name, url = %upstream.url, proxy, "upstream");
        }
        tracing::info!(
            pid = std::process::id(),
            admin = %config.admin.address,
            directory = %config.store.directory.display(),
            "ready"
        );
        ready.store(true, Ordering::Release);
        if let Some(Err(error)) = heir.map(|heir| heir.serves()) {
            tracing::error!(%error, "the process that hands over can't be told; it will end this one");
        }
    }
}
