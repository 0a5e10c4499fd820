//! Through a proxy: a connection to it, TLS with it where its URL says so, and CONNECT.
//!
//! RFC 9110 §9.3.6: what follows the head of a 2xx is the target's. The proxy's own words are in no
//! error, only its status: they are a stranger's, and may quote what we sent.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, copy, copy_buf,
        split,
    },
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};

use super::{
    dial::Socket,
    race::{order, race},
    wire,
};
use crate::{
    config::{self, ProxyServer, Scheme},
    upstream::address::Resolver,
};

/// The head of a proxy's answer to CONNECT is not longer.
const HEAD_BYTES: usize = 16 << 10;

/// Read ahead for us.
const PIECE_BYTES: usize = 64 << 10;

/// How proxies are spoken to.
pub(super) struct Gateway {
    /// There where a proxy of the upstream is spoken to by TLS.
    tls: Option<TlsConnector>,
    patience: Duration,
}

/// `Proxy-Authorization` for a proxy that wants one.
pub(super) fn proxy_authorization(proxy: &ProxyServer) -> Option<HeaderValue> {
    let login = proxy.login.as_ref()?;
    let pair = STANDARD.encode(format!("{}:{}", login.username, login.password.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {pair}"))
        .expect("Base64 is made of letters that a header may have");
    value.set_sensitive(true);
    Some(value)
}

/// What a proxy that wants another login is said to have done.
pub(super) fn refused(proxy: &ProxyServer, what: &str, status: StatusCode) -> String {
    format!("the proxy {} refused {what}: {status}", proxy.authority())
}

// === impl Gateway ===

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Gateway {
    pub(super) fn new(config: &config::Upstream) -> Result<Self, String> {
        let over_tls = config.proxy.servers().iter().any(|proxy| proxy.scheme == Scheme::Https);
        let tls = over_tls.then(|| tls(config)).transpose()?;
        Ok(Self { tls, patience: config.timeouts.connect })
    }

    /// A connection to `proxy`, or through it to `target`; the error goes on after "the proxy X".
    pub(super) async fn open(
        &self,
        resolver: &Resolver,
        proxy: &ProxyServer,
        target: Option<&str>,
    ) -> Result<Socket, String> {
        let mut tcp = self.reach(resolver, proxy).await.map_err(|error| error.to_string())?;
        // As Pingora does for connections of its own.
        let _ = tcp.set_nodelay(true);
        if proxy.scheme == Scheme::Http {
            if let Some(target) = target {
                connect(&mut tcp, proxy, target).await?;
            }
            return Ok(Socket::Tcp(tcp));
        }
        let mut tls = self.speak_tls(proxy, tcp).await?;
        if let Some(target) = target {
            connect(&mut tls, proxy, target).await?;
        }
        pump(tls).map(Socket::Local).map_err(|error| format!("has no socket: {error}"))
    }

    async fn reach(&self, resolver: &Resolver, proxy: &ProxyServer) -> io::Result<TcpStream> {
        let attempt = async {
            let found = resolver.resolve(&proxy.host, proxy.port).await?;
            let addresses = order(&found, resolver.last_winner(&proxy.host));
            let (tcp, winner) = race(&addresses, self.patience, TcpStream::connect).await?;
            if addresses.first() != Some(&winner) {
                resolver.remember_winner(&proxy.host, winner.ip());
            }
            Ok(tcp)
        };
        let outcome: io::Result<TcpStream> = attempt.await;
        if outcome.is_err() {
            resolver.forget(&proxy.host, proxy.port).await;
        }
        outcome.map_err(|error| io::Error::new(error.kind(), format!("is not there: {error}")))
    }

    async fn speak_tls(
        &self,
        proxy: &ProxyServer,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let tls = self.tls.as_ref().ok_or("speaks TLS, and no certificates were read")?;
        let name = ServerName::try_from(proxy.host.clone());
        let name = name.map_err(|_| "has a name that no certificate can have")?;
        tls.connect(name, tcp).await.map_err(|error| format!("failed in TLS: {error}"))
    }
}

/// The system's authorities, and those of `ca_file`.
fn tls(config: &config::Upstream) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs().map_err(|error| error.to_string())?;
    roots.add_parsable_certificates(system);
    if let Some(path) = &config.ca_file {
        let own: Vec<CertificateDer<'static>> = wire::certificates_of(path)?;
        roots.add_parsable_certificates(own);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Asks for a tunnel to `target` (`host:port`), whose name the proxy resolves.
async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &ProxyServer,
    target: &str,
) -> Result<(), String> {
    let broken = |error: io::Error| format!("broke off: {error}");
    let mut head = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {}\r\n",
        wire::USER_AGENT
    )
    .into_bytes();
    if let Some(authorization) = proxy_authorization(proxy) {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let answer = read_head(stream).await?;
    match status(&answer) {
        Some(status) if status.is_success() => Ok(()),
        Some(status) => Err(format!("refused the tunnel: {status}")),
        None => Err("does not speak HTTP".to_owned()),
    }
}

/// The last head of an answer. Nothing may follow it: the target waits for us to begin.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, String> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = head.split_off(end + 4);
            match status(&head) {
                Some(status) if status.is_informational() => head = rest,
                Some(status) if status.is_success() && !rest.is_empty() => {
                    return Err("sent more than the tunnel".to_owned());
                }
                _ => return Ok(head),
            }
            continue;
        }
        if head.len() > HEAD_BYTES {
            return Err("sent a head without an end".to_owned());
        }
        let read = stream.read_buf(&mut head).await;
        if read.map_err(|error| format!("broke off: {error}"))? == 0 {
            return Err("closed the connection instead of opening a tunnel".to_owned());
        }
    }
}

fn status(head: &[u8]) -> Option<StatusCode> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let code = rest.get(2..5)?;
    StatusCode::from_bytes(code).ok()
}

/// Gives TLS with the proxy the form of a socket.
///
/// Pingora's pool knows connections by their descriptors, so a stream without one would never be
/// used twice. The task ends with either side: when the socket is dropped, or the proxy closes.
fn pump(tls: TlsStream<TcpStream>) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        let (from_proxy, mut to_proxy) = split(tls);
        let (mut from_us, mut to_us) = theirs.into_split();
        let mut from_proxy = BufReader::with_capacity(PIECE_BYTES, from_proxy);
        let ended = tokio::select! {
            // Not `copy_buf`: that leaves in TLS what the socket did not take at once.
            ended = copy(&mut from_us, &mut to_proxy) => ended,
            ended = copy_buf(&mut from_proxy, &mut to_us) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection with a proxy broke");
        }
        let _ = to_proxy.shutdown().await;
    });
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(answer: &[u8]) -> Result<Vec<u8>, String> {
        let (mut ours, mut theirs) = duplex(64 << 10);
        theirs.write_all(answer).await.unwrap();
        drop(theirs);
        read_head(&mut ours).await
    }

    #[tokio::test]
    async fn a_tunnel_begins_where_the_head_ends() {
        let head = b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n";
        assert_eq!(answered(head).await.unwrap(), head);
        let two = [b"HTTP/1.1 100 Continue\r\n\r\n".as_slice(), head].concat();
        assert_eq!(answered(&two).await.unwrap(), head);
        let more = [head.as_slice(), b"x"].concat();
        assert_eq!(answered(&more).await.unwrap_err(), "sent more than the tunnel");
        let refused = b"HTTP/1.0 403 Filtered\r\n\r\n<html>";
        assert_eq!(status(&answered(refused).await.unwrap()), Some(StatusCode::FORBIDDEN));
    }

    #[tokio::test]
    async fn what_is_no_head_is_an_error() {
        let closed = "closed the connection instead of opening a tunnel";
        for cut in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r"] {
            assert_eq!(answered(cut).await.unwrap_err(), closed);
        }
        let endless = vec![b'x'; HEAD_BYTES + 2];
        assert_eq!(answered(&endless).await.unwrap_err(), "sent a head without an end");
        for line in [b"SSH-2.0-OpenSSH\r\n".as_slice(), b"HTTP/1.1\r\n", b"HTTP/1.1 2\r\n", b""] {
            assert_eq!(status(line), None);
        }
    }
}
