//! One hop: a request to one host over Pingora's connector, and its answer.
//!
//! It sets every timeout, keeps to the limits on requests and bytes, and
//! reports each outcome to the host's breaker. Redirects and credentials are
//! its callers' business.

mod body;
mod books;
mod connect;
mod dial;
mod forward;
mod pace;
mod places;
mod probe;
mod race;
mod tunnel;
mod wire;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::{
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    protocols::http::client::HttpSession,
    protocols::tls::CaType,
    upstreams::peer::HttpPeer,
    utils::tls::CertKey,
};
use url::Url;

pub use body::Body;
use books::UnderWay;
use dial::{Dialer, Way};
pub use forward::Forward;
use pace::Pace;
use places::Places;
use tunnel::refused;
use wire::{
    authority, broken, certificates, client_certificate, content_length, request_header,
    unreachable,
};

use super::{Failure, address::Resolver, breaker::Breakers, trust::Trust};
use crate::config;

/// Idle connections kept per upstream.
const POOL: usize = 128;

/// What a request is about, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Blob,
    List,
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
    /// It has just failed, and is sent once more.
    pub(super) is_retry: bool,
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
    dialer: Arc<Dialer>,
    breakers: Breakers,
    places: Places,
    /// `max_requests_per_second`
    turns: Option<Pace>,
    /// `max_bandwidth`
    bandwidth: Option<Arc<Pace>>,
    timeouts: config::Timeouts,
    probe_every: Duration,
    ca: Option<Arc<CaType>>,
    /// For the registry alone.
    client_certificate: Option<Arc<CertKey>>,
    /// Keeps connections made with one upstream's certificates from another's requests.
    group_key: u64,
    registry: Url,
    /// The operator's switch: nothing is sent.
    offline: Arc<AtomicBool>,
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
            Self::List => "list",
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
    /// Reads the files that the configuration names; an error says which is wrong.
    pub(super) fn new(
        config: &config::Upstream,
        registry: Url,
        offline: &Arc<AtomicBool>,
    ) -> Result<Arc<Self>, String> {
        let ca = config.ca_file.as_deref().map(certificates).transpose()?;
        let client_certificate =
            config.client_certificate.as_ref().map(client_certificate).transpose()?;
        let dialer = Dialer::new(config, registry.clone(), Resolver::new())?;
        let mut hasher = DefaultHasher::new();
        config.name.hash(&mut hasher);
        config.url.hash(&mut hasher);
        let connector = Connector::new(Some(ConnectorOptions::new(POOL)));
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            upstream: config.name.as_str().into(),
            connector: Arc::new(connector),
            dialer,
            breakers: Breakers::new(config.breaker.clone(), probe::fair_wait(&config.timeouts)),
            places: Places::new(config.max_connections),
            turns: config.max_requests_per_second.map(Pace::of_requests),
            bandwidth: config.max_bandwidth.map(|limit| Arc::new(Pace::of_bytes(limit))),
            timeouts: config.timeouts.clone(),
            probe_every: config.breaker.open_for,
            ca,
            client_certificate,
            group_key: hasher.finish(),
            registry,
            offline: Arc::clone(offline),
        }))
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.dialer.trust
    }

    /// Whether `host` is the registry's own.
    pub(super) fn is_registry(&self, host: &str) -> bool {
        *host == *authority(&self.registry)
    }

    /// Why requests to the registry itself are held back, if they are.
    pub(super) fn held_back(&self) -> Option<Failure> {
        if self.is_offline() {
            return Some(Failure::Offline);
        }
        self.breakers.held_back(&authority(&self.registry))
    }

    fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        if self.is_offline() {
            return Err(Failure::Offline);
        }
        let host = authority(request.url);
        // Who is not asked is not queued for either.
        if let Some(held_back) = self.breakers.held_back(&host) {
            return Err(held_back);
        }
        let waited = self.turn(&host).await?;
        let patience = self.timeouts.response.saturating_sub(waited);
        let place = self.places.wait(&host, patience).await?;
        let attempt = self.breakers.admit(&host, request.url, self)?;
        let under_way = UnderWay::begin(self, request, &host);
        let mut result = self.attempt(request, &host).await;
        under_way.ended(&mut result);
        if let Ok(reply) = &mut result {
            reply.body.place = Some(place);
        }
        match &result {
            // However often one request is sent, it is one failure.
            Err(Failure::Unreachable { .. }) if request.is_retry => attempt.says_nothing(),
            Ok(reply) if is_gateway_trouble(reply.status) && request.is_retry => {
                attempt.says_nothing();
            }
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
        let dial = self.dialer.dial(request.url, host);
        let peer = self.peer(request.url, Arc::clone(&dial));
        loop {
            match self.hop(request, &peer, host).await {
                Err(Hop::NotConnected(failure)) if dial.turns_elsewhere(&failure) => {
                    tracing::debug!(%host, %failure, "another of its addresses is tried");
                }
                Err(Hop::NotConnected(failure) | Hop::Failed(failure)) => return Err(failure),
                Ok(reply) => return Ok(reply),
            }
        }
    }

    /// One request on one connection. A pooled connection that upstream has closed meanwhile is no
    /// failure: the request goes out once more on a new one.
    async fn hop(
        &self,
        request: &Request<'_>,
        peer: &HttpPeer,
        host: &Arc<str>,
    ) -> Result<Reply, Hop> {
        if request.headers.iter().any(|(name, _)| name == header::AUTHORIZATION) {
            self.dialer.may_see_credentials(request.url).map_err(Hop::Failed)?;
        }
        let relay = match self.dialer.way(request.url) {
            Way::Relayed(proxy) => Some(proxy),
            Way::Direct | Way::Tunnelled(_) => None,
        };
        let head = || {
            let head = request_header(request, relay);
            head.map_err(|error| Hop::Failed(unreachable(host, &error.to_string())))
        };
        for _ in 0..=POOL {
            let connected = Box::pin(self.connector.get_http_session(peer)).await;
            let (session, reused) = connected
                .map_err(|error| Hop::NotConnected(broken(host, &error, "a connection")))?;
            let mut session = Box::new(session);
            match (self.talk(&mut session, head()?, host).await, relay) {
                // Its own word, and not the registry's.
                (Ok((status @ StatusCode::PROXY_AUTHENTICATION_REQUIRED, _)), Some(proxy)) => {
                    let problem = refused(proxy, "the request", status);
                    return Err(Hop::Failed(unreachable(host, &problem)));
                }
                (Ok((status, headers)), _) => {
                    return Ok(self.reply(session, peer, request, host, status, headers));
                }
                (Err(Failure::Unreachable { .. }), _) if reused => {}
                (Err(failure), _) => return Err(Hop::Failed(failure)),
            }
        }
        Err(Hop::Failed(unreachable(host, "every pooled connection was closed")))
    }

    async fn talk(
        &self,
        session: &mut HttpSession,
        head: RequestHeader,
        host: &Arc<str>,
    ) -> Result<(StatusCode, HeaderMap), Failure> {
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
            span: None,
        };
        Reply { status, headers, body }
    }
}

/// Trouble of the whole host rather than of one request to it.
fn is_gateway_trouble(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
