//! One hop: a request to one host over Pingora's connector, and its answer.
//!
//! It resolves names, keeps to the address rules, sets every timeout, and
//! reports each outcome to the host's breaker. Redirects and credentials are
//! its callers' business.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::{
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    protocols::http::client::HttpSession,
    protocols::tls::CaType,
    upstreams::peer::HttpPeer,
    utils::tls::{WrappedX509, parse_x509},
};
use tokio::sync::OnceCell;
use url::Url;

use super::{
    Failure,
    address::{Class, Resolver},
    breaker::{Breakers, Probing},
    trust::Trust,
};
use crate::{config, metrics};

/// Addresses of one name that are tried in turn.
const ADDRESSES: usize = 3;

/// An answer's body up to this size is read so that the connection can be used again.
const DRAIN_BYTES: u64 = 64 * 1024;

/// Idle connections kept per upstream.
const POOL: usize = 128;

/// What a request is about, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Blob,
    Ping,
    Token,
    Probe,
}

/// A request for one hop.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) kind: Kind,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
}

/// The head of an answer, and its body still to be read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// A body that is being received. Dropped unfinished, it closes the connection.
pub struct Body {
    /// Boxed, like its peer: a body is moved often and both are large.
    session: Option<Box<HttpSession>>,
    peer: Box<HttpPeer>,
    connector: Arc<Connector>,
    idle: Duration,
    host: Arc<str>,
    upstream: Arc<str>,
    kind: Kind,
    /// `Content-Length`, where the answer has a body and says how long.
    expected: Option<u64>,
    received: u64,
}

/// What Pingora needs to forward a request to the registry.
pub struct Forward {
    /// The registry's address, with all timeouts set.
    pub peer: HttpPeer,
    /// The path as the registry knows it.
    pub path: String,
    /// What `Host` says.
    pub host: String,
    /// The credentials that go along.
    pub authorization: Option<HeaderValue>,
}

/// The means to exchange requests with the hosts of one upstream.
pub(super) struct Exchange {
    /// For the probes, which outlive the request that started them.
    this: Weak<Exchange>,
    upstream: Arc<str>,
    connector: Arc<Connector>,
    resolver: Resolver,
    breakers: Breakers,
    trust: Trust,
    timeouts: config::Timeouts,
    probe_every: Duration,
    ca: Option<Arc<CaType>>,
    /// Keeps connections made with one upstream's certificates from another's requests.
    group_key: u64,
    registry: Url,
    /// How far the configured registry itself is; asked for once.
    home: OnceCell<Class>,
}

// === impl Kind ===

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Ping => "ping",
            Self::Token => "token",
            Self::Probe => "probe",
        }
    }
}

// === impl Forward ===

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward")
            .field("host", &self.host)
            .field("path", &self.path)
            .finish()
    }
}

// === impl Exchange ===

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Reads the CA file, if there is one; its error names it.
    pub(super) fn new(config: &config::Upstream, registry: Url) -> Result<Arc<Self>, String> {
        let ca = config.ca_file.as_deref().map(certificates).transpose()?;
        let mut hasher = DefaultHasher::new();
        config.name.hash(&mut hasher);
        let connector = Connector::new(Some(ConnectorOptions::new(POOL)));
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            upstream: config.name.as_str().into(),
            connector: Arc::new(connector),
            resolver: Resolver::new(),
            breakers: Breakers::new(config.breaker.clone()),
            trust: Trust::new(config),
            timeouts: config.timeouts.clone(),
            probe_every: config.breaker.open_for,
            ca,
            group_key: hasher.finish(),
            registry,
            home: OnceCell::new(),
        }))
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// True while requests to the registry itself are held back.
    pub(super) fn is_held_back(&self) -> bool {
        self.breakers
            .held_back(&authority(&self.registry))
            .is_some()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let host = authority(request.url);
        let attempt = self.breakers.admit(&host, request.url, self)?;
        let result = self.attempt(request, &host).await;
        match &result {
            Err(failure @ (Failure::Timeout { .. } | Failure::Unreachable { .. })) => {
                attempt.failed(failure);
            }
            Ok(reply) if is_gateway_trouble(reply.status) => {
                attempt.failed(&Failure::Status {
                    status: reply.status,
                    retry_after: None,
                });
            }
            _ => attempt.answered(),
        }
        self.count(request, &result);
        result
    }

    /// Where Pingora itself forwards a request for `path` to.
    pub(super) async fn forward(
        &self,
        path: String,
        authorization: Option<HeaderValue>,
    ) -> Result<Forward, Failure> {
        let host = authority(&self.registry);
        if let Some(held_back) = self.breakers.held_back(&host) {
            return Err(held_back);
        }
        let addresses = self.addresses(&self.registry, &host).await?;
        let address = addresses
            .first()
            .ok_or_else(|| unreachable(&host, "no address"))?;
        let peer = self.peer(&self.registry, *address);
        Ok(Forward {
            peer,
            path,
            host: authority_header(&self.registry),
            authorization,
        })
    }

    async fn attempt(&self, request: &Request<'_>, host: &Arc<str>) -> Result<Reply, Failure> {
        let addresses = self.addresses(request.url, host).await?;
        let mut last = unreachable(host, "no address");
        for address in addresses.iter().take(ADDRESSES) {
            let peer = self.peer(request.url, *address);
            match self.hop(request, &peer, host).await {
                Err(failure @ Failure::Unreachable { .. }) => last = failure,
                result => return result,
            }
        }
        if let Some(name) = request.url.host_str() {
            self.resolver.forget(name, port(request.url)).await;
        }
        Err(last)
    }

    /// Resolves, and drops what may not be connected to.
    async fn addresses(&self, url: &Url, host: &Arc<str>) -> Result<Vec<SocketAddr>, Failure> {
        let name = url.host_str().unwrap_or_default();
        let lookup = self.resolver.resolve(name, port(url));
        let found = match tokio::time::timeout(self.timeouts.connect, lookup).await {
            Ok(found) => found.map_err(|error| unreachable(host, &error.to_string()))?,
            Err(_) => return Err(timeout(host, "the resolver")),
        };
        if authority(url) == authority(&self.registry) {
            return Ok(found.to_vec());
        }
        let home = self.home().await;
        let mut refused = None;
        let allowed: Vec<_> = found
            .iter()
            .filter(
                |address| match self.trust.address(url, address.ip(), home) {
                    Ok(()) => true,
                    Err(problem) => {
                        refused = Some(problem);
                        false
                    }
                },
            )
            .copied()
            .collect();
        match refused {
            Some(problem) if allowed.is_empty() => Err(Failure::Untrusted { problem }),
            _ => Ok(allowed),
        }
    }

    /// An upstream that can't be resolved counts as public: the strict rule.
    async fn home(&self) -> Class {
        let name = self.registry.host_str().unwrap_or_default();
        let class = self.home.get_or_try_init(|| async {
            let found = self.resolver.resolve(name, port(&self.registry)).await?;
            Ok::<_, std::io::Error>(found.first().map_or(Class::Public, |a| Class::of(a.ip())))
        });
        class.await.copied().unwrap_or(Class::Public)
    }

    fn peer(&self, url: &Url, address: SocketAddr) -> HttpPeer {
        let tls = url.scheme() == "https";
        let name = url.host_str().unwrap_or_default();
        let mut peer = HttpPeer::new(address, tls, name.trim_matches(['[', ']']).to_owned());
        peer.group_key = self.group_key;
        let options = &mut peer.options;
        options.connection_timeout = Some(self.timeouts.connect);
        options.total_connection_timeout = Some(self.timeouts.connect);
        options.read_timeout = Some(self.timeouts.response);
        options.write_timeout = Some(self.timeouts.response);
        options.idle_timeout = Some(self.timeouts.idle);
        options.ca = self.ca.clone();
        peer
    }

    /// One request on one connection. A pooled connection that upstream has closed meanwhile is no
    /// failure: the request goes out once more on a new one.
    async fn hop(
        &self,
        request: &Request<'_>,
        peer: &HttpPeer,
        host: &Arc<str>,
    ) -> Result<Reply, Failure> {
        for _ in 0..=POOL {
            let connected = Box::pin(self.connector.get_http_session(peer)).await;
            let (session, reused) =
                connected.map_err(|error| broken(host, &error, "a connection"))?;
            let mut session = Box::new(session);
            match self.talk(&mut session, request, host).await {
                Ok((status, headers)) => {
                    return Ok(self.reply(session, peer, request, host, status, headers));
                }
                Err(Failure::Unreachable { .. }) if reused => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(unreachable(host, "every pooled connection was closed"))
    }

    async fn talk(
        &self,
        session: &mut HttpSession,
        request: &Request<'_>,
        host: &Arc<str>,
    ) -> Result<(StatusCode, HeaderMap), Failure> {
        let head =
            request_header(request).map_err(|error| unreachable(host, &error.to_string()))?;
        session.set_read_timeout(Some(self.timeouts.response));
        session.set_write_timeout(Some(self.timeouts.response));
        let sent = session.write_request_header(Box::new(head)).await;
        sent.map_err(|error| broken(host, &error, "the request to be taken"))?;
        let sent = session.finish_request_body().await;
        sent.map_err(|error| broken(host, &error, "the request to be taken"))?;
        loop {
            let read = session.read_response_header().await;
            read.map_err(|error| broken(host, &error, "the head of an answer"))?;
            let head = session
                .response_header()
                .ok_or_else(|| unreachable(host, "no head"))?;
            if !head.status.is_informational() {
                let parts = (head.status, head.headers.clone());
                session.set_read_timeout(Some(self.timeouts.read));
                return Ok(parts);
            }
        }
    }

    fn reply(
        &self,
        session: Box<HttpSession>,
        peer: &HttpPeer,
        request: &Request<'_>,
        host: &Arc<str>,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Reply {
        let has_body = request.method != Method::HEAD
            && status != StatusCode::NO_CONTENT
            && status != StatusCode::NOT_MODIFIED;
        let expected = has_body.then(|| content_length(&headers)).flatten();
        let body = Body {
            session: Some(session),
            peer: Box::new(peer.clone()),
            connector: Arc::clone(&self.connector),
            idle: self.timeouts.idle,
            host: Arc::clone(host),
            upstream: Arc::clone(&self.upstream),
            kind: request.kind,
            expected: if has_body { expected } else { Some(0) },
            received: 0,
        };
        Reply {
            status,
            headers,
            body,
        }
    }

    fn count(&self, request: &Request<'_>, result: &Result<Reply, Failure>) {
        let status = result
            .as_ref()
            .map_or("none".to_owned(), |reply| reply.status.as_u16().to_string());
        let counted = result
            .as_ref()
            .is_ok_and(|reply| is_counted(request, reply.status));
        let labels = [
            &*self.upstream,
            request.kind.as_str(),
            request.method.as_str(),
            &status,
            if counted { "true" } else { "false" },
        ];
        metrics::UPSTREAM_REQUESTS.with_label_values(&labels).inc();
    }

    async fn probe(&self, host: &Arc<str>, url: &Url) -> bool {
        let request = Request {
            method: Method::HEAD,
            url,
            kind: Kind::Probe,
            headers: &[],
        };
        let answer = self.attempt(&request, host);
        let result = match tokio::time::timeout(self.timeouts.response, answer).await {
            Ok(result) => result,
            Err(_) => Err(timeout(host, "a probe")),
        };
        self.count(&request, &result);
        result.is_ok_and(|reply| !is_gateway_trouble(reply.status))
    }
}

impl Probing for Exchange {
    fn start_probing(&self, host: Arc<str>, url: Url) {
        let (this, every) = (self.this.clone(), self.probe_every);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(jittered(every)).await;
                let Some(exchange) = this.upgrade() else {
                    return;
                };
                if exchange.probe(&host, &url).await {
                    exchange.breakers.close(&host);
                    return;
                }
            }
        });
    }
}

/// What Docker Hub counts: manifest GETs that were answered, conditional ones too.
fn is_counted(request: &Request<'_>, status: StatusCode) -> bool {
    request.kind == Kind::Manifest
        && request.method == Method::GET
        && (status.is_success() || status.is_redirection())
}

/// Trouble of the whole host rather than of one request to it.
fn is_gateway_trouble(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Between 0.75 and 1.25 of `duration`.
pub(super) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.75 + fastrand::f64() / 2.0)
}

fn request_header(request: &Request<'_>) -> pingora::Result<RequestHeader> {
    let path = &request.url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut head = RequestHeader::build(request.method.clone(), path.as_bytes(), None)?;
    head.insert_header(header::HOST, authority_header(request.url))?;
    head.insert_header(
        header::USER_AGENT,
        concat!("roadstead/", env!("CARGO_PKG_VERSION")),
    )?;
    // Bodies pass as stored: a compressed one would not have its digest.
    head.insert_header(header::ACCEPT_ENCODING, "identity")?;
    for (name, value) in request.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

fn certificates(path: &Path) -> Result<Arc<CaType>, String> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};

    let problem = |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", path.display());
    let mut ders = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))? {
        ders.push(certificate.map_err(|error| problem(&error))?);
    }
    if ders.is_empty() {
        return Err(problem(&"it holds no PEM certificate"));
    }
    // The file adds to the system's certificates; it does not replace them.
    ders.extend(rustls_native_certs::load_native_certs().map_err(|error| problem(&error))?);
    let mut parsed = Vec::with_capacity(ders.len());
    for der in &ders {
        // Pingora panics on what it can't parse.
        x509_parser::parse_x509_certificate(der).map_err(|error| problem(&error))?;
        parsed.push(WrappedX509::new(der.to_vec(), parse_x509));
    }
    Ok(parsed.into())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// `host:port`, the name of a breaker.
pub(super) fn authority(url: &Url) -> Arc<str> {
    format!("{}:{}", url.host_str().unwrap_or_default(), port(url)).into()
}

/// What `Host` says: the port only where it isn't the scheme's own.
pub(super) fn authority_header(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

fn unreachable(host: &Arc<str>, problem: &str) -> Failure {
    Failure::Unreachable {
        host: Arc::clone(host),
        problem: problem.to_owned(),
    }
}

fn timeout(host: &Arc<str>, waiting_for: &'static str) -> Failure {
    Failure::Timeout {
        host: Arc::clone(host),
        waiting_for,
    }
}

fn broken(host: &Arc<str>, error: &pingora::Error, waiting_for: &'static str) -> Failure {
    use pingora::ErrorType::{ConnectTimedout, ReadTimedout, TLSHandshakeTimedout, WriteTimedout};
    match error.etype() {
        ConnectTimedout | ReadTimedout | TLSHandshakeTimedout | WriteTimedout => {
            timeout(host, waiting_for)
        }
        _ => unreachable(host, &error.to_string()),
    }
}

// === impl Body ===

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("host", &self.host)
            .field("received", &self.received)
            .finish()
    }
}

impl Body {
    /// The length that the answer promised.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Appends the next bytes to `buffer` and says how many; 0 at the end that the answer promised.
    /// A body that is shorter or longer than its `Content-Length` is an error.
    pub async fn append_to(&mut self, buffer: &mut BytesMut) -> Result<usize, Failure> {
        let Some(session) = self.session.as_mut() else {
            return Ok(0);
        };
        if self.expected == Some(self.received) {
            self.release().await;
            return Ok(0);
        }
        let before = buffer.len();
        let read = match &mut **session {
            HttpSession::H1(h1) => h1
                .read_body_ref()
                .await
                .map(|part| part.map(|part| buffer.extend_from_slice(part))),
            other => other
                .read_response_body()
                .await
                .map(|part| part.map(|part| buffer.extend(part))),
        };
        let more = read.map_err(|error| broken(&self.host, &error, "more of a body"))?;
        if more.is_none() {
            if self.expected.is_some() {
                return Err(unreachable(&self.host, "the body ended early"));
            }
            self.release().await;
            return Ok(0);
        }
        let count = buffer.len() - before;
        self.received += count as u64;
        let labels = [&*self.upstream, self.kind.as_str()];
        metrics::UPSTREAM_BYTES
            .with_label_values(&labels)
            .inc_by(count as u64);
        Ok(count)
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(super) async fn collect(mut self, limit: u64) -> Result<Option<Bytes>, Failure> {
        let mut whole = BytesMut::new();
        if self.expected.is_some_and(|expected| expected > limit) {
            return Ok(None);
        }
        while self.append_to(&mut whole).await? > 0 {
            if whole.len() as u64 > limit {
                return Ok(None);
            }
        }
        Ok(Some(whole.freeze()))
    }

    /// Ends with a body that nobody wants: a short one is read, so that its connection stays usable.
    pub(super) async fn dismiss(mut self) {
        if self
            .expected
            .is_some_and(|expected| expected <= DRAIN_BYTES)
        {
            let mut unwanted = BytesMut::new();
            while self
                .append_to(&mut unwanted)
                .await
                .is_ok_and(|count| count > 0)
            {}
        }
    }

    async fn release(&mut self) {
        if let Some(mut session) = self.session.take()
            && session.response_done()
        {
            let idle = Some(self.idle);
            self.connector
                .release_http_session(*session, &*self.peer, idle)
                .await;
        }
    }
}
