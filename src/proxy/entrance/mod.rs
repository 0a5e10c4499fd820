//! What comes before HTTP on a connection: a PROXY header, TLS, the wish of a transparent client.
//!
//! Pingora's listeners are plain, so that all of this can be decided for each connection and each
//! listener by what its files and headers say at that moment. All of it must be done within
//! `downstream.head`; whoever is turned away is named in the log.

mod bounds;
mod connect;
mod hello;
mod proxy_header;
mod transparent;
mod tunnel;

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use ipnet::IpNet;
use pingora::{
    apps::ServerApp,
    listeners::tls::Acceptor,
    protocols::{
        GetSocketDigest, SocketDigest, Stream, l4::socket::SocketAddr as PeerAddress,
        l4::stream::Stream as Socket,
    },
    proxy::Session,
    server::ShutdownWatch,
};
use tokio_rustls::rustls::ServerConfig;

pub use self::{bounds::Bounds, transparent::TransparentDoor, tunnel::Tunnels};
use self::{proxy_header::Said, tunnel::Tunnel};
use super::Connections;
use crate::{filter::Destination, tls};

/// One listener's way in.
pub struct Entrance {
    door: Arc<ArcSwap<Door>>,
    connections: Arc<Connections>,
}

/// What a listener asks of a connection before HTTP begins.
#[derive(Debug, Default)]
pub struct Door {
    /// Present: a PROXY header comes first, and only from these; who has no address came through a
    /// Unix socket and is trusted.
    pub proxy_header_from: Option<Vec<IpNet>>,
    /// Present: TLS.
    pub tls: Option<Arc<tls::Server>>,
    /// Present: for clients that go to the registries themselves.
    pub transparent: Option<TransparentDoor>,
}

/// What a connection is good for.
enum Inside {
    Http(Stream),
    Tunnel(Box<Tunnel>),
}

/// Why a connection ends before HTTP has begun.
#[derive(Debug, thiserror::Error)]
enum Away {
    /// Health checks do this all day.
    #[error("it was closed before anything came")]
    Silent,
    #[error("a PROXY header is taken from trusted_proxies alone")]
    NotTrusted,
    #[error("its PROXY header is malformed: {0}")]
    ProxyHeader(&'static str),
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

// === impl Entrance ===

impl Entrance {
    /// The way in through `door`, as it is when somebody comes, to what is served on `connections`.
    pub fn new(door: Arc<ArcSwap<Door>>, connections: Arc<Connections>) -> Self {
        Self { door, connections }
    }

    async fn enter(&self, door: &Door, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // All of our listeners are sockets without TLS of Pingora's own.
        let socket = *stream.into_any().downcast::<Socket>().ok()?;
        let peer = address(&socket);
        let opened = tokio::time::timeout(self.connections.patience(), door.open(socket));
        let client = peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
        match opened.await {
            Ok(Ok(Inside::Http(stream))) => Some(stream),
            Ok(Ok(Inside::Tunnel(tunnel))) => {
                let _under_way = self.connections.under_way();
                tunnel.relay(shutdown).await;
                None
            }
            Ok(Err(Away::Silent)) => {
                tracing::debug!(client, "a connection was closed before anything came");
                None
            }
            Ok(Err(reason)) => {
                tracing::info!(client, %reason, "a connection was turned away");
                None
            }
            Err(_) => {
                let reason = "it took longer than downstream.head";
                tracing::info!(client, reason, "a connection was turned away");
                None
            }
        }
    }
}

#[async_trait]
impl ServerApp for Entrance {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let _place = self.connections.place()?;
        let door = self.door.load_full();
        let stream = match door.is_open() {
            true => stream,
            // Boxed, so that it costs nothing once it is over.
            false => Box::pin(self.enter(&door, stream, shutdown)).await?,
        };
        drop(door);
        self.connections.serve(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.connections.cleanup().await;
    }
}

// === impl Door ===

impl Door {
    /// Whether HTTP begins at once.
    fn is_open(&self) -> bool {
        self.proxy_header_from.is_none() && self.tls.is_none() && self.transparent.is_none()
    }

    async fn open(&self, mut socket: Socket) -> Result<Inside, Away> {
        if let Some(trusted) = &self.proxy_header_from {
            let is_trusted = |peer| trusted.iter().any(|net| net.contains(&peer));
            if !address(&socket).is_none_or(is_trusted) {
                return Err(Away::NotTrusted);
            }
            if let Said::Client(client) = proxy_header::read(&mut socket).await? {
                set_client(&mut socket, client);
            }
        }
        if let Some(transparent) = &self.transparent {
            return transparent.open(socket).await;
        }
        match &self.tls {
            Some(tls) => Ok(Inside::Http(handshake(socket, tls.get()).await?)),
            None => Ok(Inside::Http(Box::new(socket))),
        }
    }
}

/// Where the client of a transparent listener wanted to go, if the request came through one.
pub(super) fn destination(session: &Session) -> Option<Arc<Destination>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Destination>>().cloned()
}

async fn handshake(socket: Socket, config: Arc<ServerConfig>) -> Result<Stream, Away> {
    let acceptor = Acceptor::from_server_config(config);
    match acceptor.tls_handshake(socket).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => {
            let context = error.context.as_ref().map(|context| context.as_str().to_owned());
            Err(Away::Tls(context.unwrap_or_else(|| error.to_string())))
        }
    }
}

/// The client's address as far as it is known; `None` on a Unix socket.
fn address(socket: &Socket) -> Option<IpAddr> {
    let digest = socket.get_socket_digest()?;
    Some(digest.peer_addr()?.as_inet()?.ip().to_canonical())
}

/// From here on the connection counts as one from `client`.
fn set_client(socket: &mut Socket, client: SocketAddr) {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    // It was made this moment, so nobody has set it.
    let _ = digest.peer_addr.set(Some(PeerAddress::Inet(client)));
    socket.set_socket_digest(digest);
}
