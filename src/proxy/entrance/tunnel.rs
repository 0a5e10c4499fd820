//! Tunnels to hosts that are no upstream's: which there may be, and the passing on of bytes.
//!
//! A tunnel is a hole in a network's wall. Without being listed a host is reached by its name, at
//! port 443 and at public addresses alone; never ourselves.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::StatusCode;
use pingora::{protocols::l4::stream::Stream as Socket, server::ShutdownWatch};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Instant,
};

use super::{
    address,
    bounds::{Bounds, Busy, Passing},
    connect::No,
};
use crate::{config::Others, upstream};

/// The port that is meant where none is listed.
const HTTPS: u16 = 443;

/// How long a name may take to be found.
const LOOKUP: Duration = Duration::from_secs(5);

/// How long one address may take to answer, and how many are tried.
const CONNECT: Duration = Duration::from_secs(4);
const MOST_ADDRESSES: usize = 4;

/// A tunnel through which nothing goes for this long is closed.
const IDLE: Duration = Duration::from_secs(600);

/// The same while the process ends.
const IDLE_AT_END: Duration = Duration::from_secs(1);

/// How often that is looked at.
const STEP: Duration = Duration::from_millis(250);

/// Which tunnels there may be.
#[derive(Debug)]
pub struct Tunnels {
    /// Hosts that are not listed.
    pub others: Others,
    /// `host` or `host:port`: reached wherever they are.
    pub listed: Vec<String>,
    /// Where we listen ourselves.
    pub own_ports: Vec<u16>,
    /// How many there may be at all listeners.
    pub bounds: Arc<Bounds>,
}

/// A far end, which counts as a tunnel from here on.
#[derive(Debug)]
pub(super) struct Far {
    stream: TcpStream,
    place: OwnedSemaphorePermit,
}

/// Where a host may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Anywhere,
    Public,
}

/// Two ends that are there.
pub(super) struct Tunnel {
    near: Active,
    far: Far,
    host: String,
    /// The ClientHello that goes through it first, where that is known.
    passing: Option<Passing>,
}

/// The client's end, which knows what has gone either way, and when.
struct Active {
    inner: Socket,
    begun: Instant,
    /// Of the last byte, in milliseconds after that.
    last: Arc<AtomicU64>,
    /// Bytes from the client.
    sent: u64,
    /// Bytes to the client.
    received: u64,
}

// === impl Tunnels ===

impl Tunnels {
    /// Connects to a host; or what to tell the client.
    pub(super) async fn open(&self, host: &str, port: u16) -> Result<Far, No> {
        let Some(reach) = self.reach(host, port) else {
            let why = format!("{host}:{port} is no registry that is cached here");
            return Err(No::new(StatusCode::FORBIDDEN, why));
        };
        let place = self.bounds.tunnel().map_err(|Busy| busy("too many tunnels are open"))?;
        let to = self.addresses(host, port, reach).await?;
        let stream = self.connect(host, port, &to).await?;
        let _ = stream.set_nodelay(true);
        Ok(Far { stream, place })
    }

    /// Where a host may be connected to; never empty.
    async fn addresses(&self, host: &str, port: u16, reach: Reach) -> Result<Vec<SocketAddr>, No> {
        let failed = |why: &str| unreachable(host, port, why);
        let found = tokio::time::timeout(LOOKUP, self.bounds.look_up(host, port)).await;
        let found = found.map_err(|_| failed("its name takes too long to be found"))?;
        let found = found.map_err(|Busy| busy("too many names are being looked up"))?;
        let found = found.map_err(|error| failed(&error.to_string()))?;
        if found.is_empty() {
            return Err(failed("it has no address"));
        }
        let may = |to: &SocketAddr| reach == Reach::Anywhere || upstream::is_public(to.ip());
        let usable: Vec<_> = found.into_iter().filter(may).take(MOST_ADDRESSES).collect();
        if usable.is_empty() {
            let why = "has no public address; list it under tunnel_hosts to reach it all the same";
            return Err(No::new(StatusCode::FORBIDDEN, format!("{host}:{port} {why}")));
        }
        Ok(usable)
    }

    /// A connection to the first of these addresses that answers.
    async fn connect(&self, host: &str, port: u16, to: &[SocketAddr]) -> Result<TcpStream, No> {
        let mut last = String::new();
        for to in to {
            match tokio::time::timeout(CONNECT, TcpStream::connect(to)).await {
                Ok(Ok(far)) if self.is_ourselves(&far) => {
                    let why = format!("{host}:{port} leads back to this proxy");
                    return Err(No::new(StatusCode::FORBIDDEN, why));
                }
                Ok(Ok(far)) => return Ok(far),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => "it does not answer".clone_into(&mut last),
            }
        }
        Err(unreachable(host, port, &last))
    }

    /// The port of a host whose client did not say it: the one listed, or that of HTTPS.
    pub(super) fn port_of(&self, host: &str) -> u16 {
        let listed = self.listed.iter().filter_map(|listed| listed.rsplit_once(':'));
        let mut ports = listed.filter(|(name, _)| *name == host);
        ports.find_map(|(_, port)| port.parse().ok()).unwrap_or(HTTPS)
    }

    fn reach(&self, host: &str, port: u16) -> Option<Reach> {
        let with_port = format!("{host}:{port}");
        let is_listed =
            |listed: &String| *listed == with_port || (port == HTTPS && listed.as_str() == host);
        if self.listed.iter().any(is_listed) {
            return Some(Reach::Anywhere);
        }
        let is_name = host.parse::<IpAddr>().is_err();
        (self.others == Others::Tunnel && port == HTTPS && is_name).then_some(Reach::Public)
    }

    /// Both ends on this machine, and the far one where we listen.
    fn is_ourselves(&self, far: &TcpStream) -> bool {
        let (Ok(local), Ok(peer)) = (far.local_addr(), far.peer_addr()) else { return true };
        local.ip() == peer.ip() && self.own_ports.contains(&peer.port())
    }
}

fn unreachable(host: &str, port: u16, why: &str) -> No {
    No::new(StatusCode::BAD_GATEWAY, format!("{host}:{port} can't be reached: {why}"))
}

fn busy(why: &str) -> No {
    No::new(StatusCode::SERVICE_UNAVAILABLE, format!("{why}; try again later"))
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(near: Socket, far: Far, host: String, passing: Option<Passing>) -> Self {
        let (begun, last) = (Instant::now(), Arc::default());
        let near = Active { inner: near, begun, last, sent: 0, received: 0 };
        Self { near, far, host, passing }
    }

    /// Passes bytes on until both ends have closed, or nothing goes through any more.
    pub(super) async fn relay(self, shutdown: &ShutdownWatch) {
        let Self { mut near, far, host, passing: _passing } = self;
        let Far { stream: mut far, place: _place } = far;
        let client = address(&near.inner).map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let (begun, last) = (near.begun, Arc::clone(&near.last));
        let idle = async {
            loop {
                tokio::time::sleep(STEP).await;
                let limit = if *shutdown.borrow() { IDLE_AT_END } else { IDLE };
                if begun.elapsed() > Duration::from_millis(last.load(Ordering::Relaxed)) + limit {
                    return;
                }
            }
        };
        let error = tokio::select! {
            biased;
            done = tokio::io::copy_bidirectional(&mut near, &mut far) => done.err(),
            () = idle => Some(io::ErrorKind::TimedOut.into()),
        };
        let (sent, received) = (near.sent, near.received);
        let error = error.map(|error| error.to_string());
        let ms = super::super::millis(begun.elapsed());
        tracing::info!(target: "access", client, method = "TUNNEL", host, sent, received, ms, error);
    }
}

// === impl Active ===

impl Active {
    fn touch(&self) {
        self.last.store(super::super::millis(self.begun.elapsed()), Ordering::Relaxed);
    }
}

impl AsyncRead for Active {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.sent += (buffer.filled().len() - before) as u64;
        this.touch();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Active {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        this.received += written as u64;
        this.touch();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnels(others: Others) -> Tunnels {
        let listed = vec!["git.corp".to_owned(), "build.corp:8443".to_owned()];
        Tunnels { others, listed, own_ports: Vec::new(), bounds: Bounds::new(10) }
    }

    #[test]
    fn only_names_at_port_443_and_what_is_listed_are_reached() {
        use Reach::{Anywhere, Public};
        for (host, port, refusing, tunnelling) in [
            ("example.com", 443, None, Some(Public)),
            ("example.com", 22, None, None),
            ("example.com", 80, None, None),
            ("93.184.216.34", 443, None, None),
            ("::1", 443, None, None),
            ("git.corp", 443, Some(Anywhere), Some(Anywhere)),
            ("git.corp", 22, None, None),
            ("build.corp", 8443, Some(Anywhere), Some(Anywhere)),
            ("build.corp", 443, None, Some(Public)),
        ] {
            assert_eq!(tunnels(Others::Refuse).reach(host, port), refusing, "{host}:{port}");
            assert_eq!(tunnels(Others::Tunnel).reach(host, port), tunnelling, "{host}:{port}");
        }
    }

    #[test]
    fn a_client_that_says_no_port_means_the_one_that_is_listed() {
        let tunnels = tunnels(Others::Tunnel);
        assert_eq!(tunnels.port_of("build.corp"), 8443);
        assert_eq!(tunnels.port_of("git.corp"), HTTPS);
        assert_eq!(tunnels.port_of("example.com"), HTTPS);
    }

    #[tokio::test]
    async fn a_name_of_the_own_network_is_not_reached() {
        let no = tunnels(Others::Tunnel).open("localhost", 443).await.unwrap_err();
        assert_eq!(no.status, StatusCode::FORBIDDEN);
        assert!(no.why.contains("has no public address; list it"), "{}", no.why);
    }
}
