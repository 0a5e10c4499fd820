//! Pingora's listening service, watched: what it listens on, and when it accepts.
//!
//! Pingora keeps its table of listening sockets to itself and says nothing when it accepts; a
//! connection made to find out may be answered by the process before. [`Listening`] stands around a
//! service, takes note of the table that it is given, and counts the accept loops: each of them
//! holds a receiver of the shutdown signal.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions},
    server::{ListenFds, ShutdownWatch},
    services::{self, listening::Service},
};
use tokio::sync::watch;

use crate::config::{Address, Config, Listen};

/// A connection that waits holds it. Whoever reads a head or a body has a larger one and passes
/// this by.
const READ_BUFFER_BYTES: usize = 1024;

/// Large enough for the head and body of most manifests, so that they leave in one write; larger
/// bodies pass the buffer by.
const WRITE_BUFFER_BYTES: usize = 4096;

/// How often a start looks whether clients are accepted.
const STEP: Duration = Duration::from_millis(2);

/// Sockets that Pingora hands over at the most; it panics above.
const MOST_SOCKETS: usize = 32;

/// Bytes of their addresses, with a space between each two; it cuts the rest off.
const MOST_ADDRESS_BYTES: usize = 2048;

/// The sockets of all services.
pub(super) struct Listeners {
    /// Pingora's table; there once a service has started.
    table: OnceLock<ListenFds>,
    /// Services that don't accept yet.
    starting: AtomicUsize,
    /// Taken when the last of them does.
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A service whose start is watched.
pub(super) struct Listening<A> {
    service: Service<A>,
    listeners: Arc<Listeners>,
}

/// The name under which Pingora knows an address.
pub(super) fn name(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

/// Where one listener for clients is bound; what it asks of a connection is its door's business.
/// `[::]` takes IPv4 too, unless another address of `config` has that port for itself.
pub(super) fn endpoint(listen: &Listen, config: &Config) -> ListenerConfig {
    let name = name(&listen.address);
    let endpoint = match &listen.address {
        Address::Tcp(address) => {
            let mut options = TcpSocketOptions::default();
            if address.is_ipv6() {
                options.ipv6_only = Some(has_ipv4(config, address.port()));
            }
            ListenerConfig::tcp(name).tcp_socket_options(options)
        }
        Address::Unix(_) => {
            let endpoint = ListenerConfig::uds(name);
            match listen.mode {
                // Without them everybody may connect.
                Some(mode) => endpoint.permissions(Permissions::from_mode(mode)),
                None => endpoint,
            }
        }
    };
    endpoint.l4_buffer(L4BufferSettings::new(READ_BUFFER_BYTES, WRITE_BUFFER_BYTES))
}

/// Whether an IPv4 address has this port.
pub(super) fn has_ipv4(config: &Config, port: u16) -> bool {
    let is_it = |address: &SocketAddr| address.is_ipv4() && address.port() == port;
    let clients = config.listen.iter().any(|listen| match &listen.address {
        Address::Tcp(address) => is_it(address),
        Address::Unix(_) => false,
    });
    clients || is_it(&config.admin.address)
}

// === impl Listeners ===

impl Listeners {
    /// The sockets of `services` services; `then` runs when all of them accept.
    pub(super) fn new(services: usize, then: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let then = Mutex::new(Some(Box::new(then) as Box<_>));
        Arc::new(Self { table: OnceLock::new(), starting: AtomicUsize::new(services), then })
    }

    /// The names of the sockets that can be handed over, or why they can't.
    pub(super) fn names(&self) -> Result<Vec<String>, String> {
        let table = self.table.get().ok_or("it does not listen yet")?;
        let (names, _) = table.lock().serialize();
        if names.iter().any(|name| name.contains(char::is_whitespace)) {
            return Err("the path of a Unix socket under `listen` has a space in it".to_owned());
        }
        let bytes = names.iter().map(|name| name.len() + 1).sum::<usize>();
        if names.len() > MOST_SOCKETS || bytes > MOST_ADDRESS_BYTES {
            return Err(format!(
                "there are {} listeners with {bytes} bytes of addresses; at most {MOST_SOCKETS} with {MOST_ADDRESS_BYTES} can be handed over",
                names.len()
            ));
        }
        Ok(names)
    }

    /// Sends the sockets to the process that waits at `socket`. Blocks.
    pub(super) fn send(&self, socket: &Path) -> Result<(), String> {
        let table = self.table.get().ok_or("it does not listen yet")?;
        let sent = table.lock().send_to_sock(socket.display().to_string().as_str());
        sent.map(|_| ()).map_err(|error| error.to_string())
    }

    fn accepts(&self) {
        if self.starting.fetch_sub(1, Ordering::AcqRel) == 1 {
            let then = self.then.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(then) = then {
                then();
            }
        }
    }
}

// === impl Listening ===

impl<A> Listening<A> {
    pub(super) fn new(service: Service<A>, listeners: &Arc<Listeners>) -> Self {
        Self { service, listeners: Arc::clone(listeners) }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> services::Service for Listening<A> {
    async fn start_service(
        &mut self,
        table: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        tasks: usize,
    ) {
        let sockets = services::Service::listen_addresses(&self.service).map_or(0, |all| all.len());
        if let Some(table) = &table {
            // The same for each service.
            let _ = self.listeners.table.set(Arc::clone(table));
        }
        let (stop, stopping) = watch::channel(false);
        let listeners = &self.listeners;
        let watched = async move {
            // The service itself holds one.
            while stop.receiver_count() <= sockets * tasks {
                tokio::time::sleep(STEP).await;
            }
            listeners.accepts();
            // An error means that the server is gone, which is a shutdown too.
            let _ = shutdown.wait_for(|stops| *stops).await;
            stop.send_replace(true);
            // Connections that are still open see it as long as the sender lives.
            stop.closed().await;
        };
        let served = services::Service::start_service(&mut self.service, table, stopping, tasks);
        tokio::join!(served, watched);
    }

    fn name(&self) -> &str {
        services::Service::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        services::Service::listen_addresses(&self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_wildcard_leaves_ipv4_to_whoever_has_the_port() {
        let text = "{ listen: [{ address: \"[::]:5000\" }, { address: 127.0.0.1:6000 }, \
                    { address: \"unix:/run/a\" }], admin: { address: 127.0.0.1:7000 } }";
        let config = Config::parse(text, "test").unwrap();
        for (port, expected) in [(5000, false), (6000, true), (7000, true), (8000, false)] {
            assert_eq!(has_ipv4(&config, port), expected, "{port}");
        }
    }
}
