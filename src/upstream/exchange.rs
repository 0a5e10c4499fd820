//! One hop: a request to one host over Pingora's connector, and its answer.
//!
//! It resolves names, keeps to the address rules, sets every timeout, and
//! reports each outcome to the host's breaker. Redirects and credentials are
//! its callers' business.

mod body;
mod connect;
mod forward;
mod pace;
mod places;
mod probe;
mod wire;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    protocols::tls::CaType,
    upstreams::peer::HttpPeer,
};
use tokio::sync::OnceCell;
use url::Url;

pub use body::Body;
pub use forward::Forward;
use pace::Pace;
use places::Places;
use wire::{authority, broken, certificates, content_length, port, request_header, unreachable};

use super::{
    Failure,
    address::{Class, Resolver},
    breaker::Breakers,
    trust::Trust,
};
use crate::{config, metrics};

/// Addresses of one name that are tried in turn.
const ADDRESSES: usize = 3;

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

/// The means to exchange requests with the hosts of one upstream.
pub(super) struct Exchange {
    /// For the probes, which outlive the request that started them.
    this: Weak<Self>,
    upstream: Arc<str>,
    connector: Arc<Connector>,
    resolver: Resolver,
    breakers: Breakers,
    places: Places,
    /// `max_requests_per_second`
    turns: Option<Pace>,
    /// `max_bandwidth`
    bandwidth: Option<Arc<Pace>>,
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

/// Why one address gave no answer.
enum Hop {
    /// Nothing was sent: another address may be asked.
    NotConnected(Failure),
    /// The request was on its way.
    Failed(Failure),
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

// === impl Exchange ===

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("upstream", &self.upstream).finish_non_exhaustive()
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
            places: Places::new(config.max_connections),
            turns: config.max_requests_per_second.map(Pace::of_requests),
            bandwidth: config.max_bandwidth.map(|limit| Arc::new(Pace::of_bytes(limit))),
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
        self.breakers.held_back(&authority(&self.registry)).is_some()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let host = authority(request.url);
        let waited = self.turn(&host).await?;
        let patience = self.timeouts.response.saturating_sub(waited);
        let place = self.places.wait(&host, patience).await?;
        let attempt = self.breakers.admit(&host, request.url, self)?;
        let mut result = self.attempt(request, &host).await;
        if let Ok(reply) = &mut result {
            reply.body.place = Some(place);
        }
        match &result {
            Err(failure @ (Failure::Timeout { .. } | Failure::Unreachable { .. })) => {
                attempt.failed(failure);
            }
            Ok(reply) if is_gateway_trouble(reply.status) => {
                attempt.failed(&Failure::Status { status: reply.status, retry_after: None });
            }
            _ => attempt.answered(),
        }
        self.count(request, &result);
        result
    }

    /// Waits until another request may be sent, and says how long it took. No breaker hears of it:
    /// the host has not been asked yet.
    async fn turn(&self, host: &Arc<str>) -> Result<Duration, Failure> {
        match &self.turns {
            Some(turns) => turns.turn(host, self.timeouts.response).await,
            None => Ok(Duration::ZERO),
        }
    }

    async fn attempt(&self, request: &Request<'_>, host: &Arc<str>) -> Result<Reply, Failure> {
        let addresses = self.addresses(request.url, host).await?;
        let mut last = unreachable(host, "no address");
        let tried = addresses.len().clamp(1, ADDRESSES);
        // A name's first address may be one that swallows packets (IPv6 that is not routed): each
        // gets its share of the time.
        let patience = self.timeouts.connect / u32::try_from(tried).unwrap_or(1);
        for address in addresses.iter().take(tried) {
            let mut peer = self.peer(request.url, *address);
            peer.options.connection_timeout = Some(patience);
            peer.options.total_connection_timeout = Some(patience);
            match self.hop(request, &peer, host).await {
                Err(Hop::NotConnected(failure)) => last = failure,
                Err(Hop::Failed(failure)) => return Err(failure),
                Ok(reply) => return Ok(reply),
            }
        }
        if let Some(name) = request.url.host_str() {
            self.resolver.forget(name, port(request.url)).await;
        }
        Err(last)
    }

    /// One request on one connection. A pooled connection that upstream has closed meanwhile is no
    /// failure: the request goes out once more on a new one.
    async fn hop(
        &self,
        request: &Request<'_>,
        peer: &HttpPeer,
        host: &Arc<str>,
    ) -> Result<Reply, Hop> {
        for _ in 0..=POOL {
            let connected = Box::pin(self.connector.get_http_session(peer)).await;
            let (session, reused) = connected
                .map_err(|error| Hop::NotConnected(broken(host, &error, "a connection")))?;
            let mut session = Box::new(session);
            match self.talk(&mut session, request, host).await {
                Ok((status, headers)) => {
                    return Ok(self.reply(session, peer, request, host, status, headers));
                }
                Err(Failure::Unreachable { .. }) if reused => {}
                Err(failure) => return Err(Hop::Failed(failure)),
            }
        }
        Err(Hop::Failed(unreachable(host, "every pooled connection was closed")))
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
            let head = session.response_header().ok_or_else(|| unreachable(host, "no head"))?;
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
            place: None,
            bandwidth: self.bandwidth.clone(),
            next_read: None,
        };
        Reply { status, headers, body }
    }

    fn count(&self, request: &Request<'_>, result: &Result<Reply, Failure>) {
        let status =
            result.as_ref().map_or("none".to_owned(), |reply| reply.status.as_u16().to_string());
        let counted = result.as_ref().is_ok_and(|reply| is_counted(request, reply.status));
        let labels = [
            &*self.upstream,
            request.kind.as_str(),
            request.method.as_str(),
            &status,
            if counted { "true" } else { "false" },
        ];
        metrics::UPSTREAM_REQUESTS.with_label_values(&labels).inc();
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
