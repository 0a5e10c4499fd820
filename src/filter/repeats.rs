//! Requests that come again, byte for byte: what they ask for is not found out anew.
//!
//! Clients repeat themselves. A head that was answered out of memory is remembered, with what it
//! asks for and with what of the answer's head does not change. Whether it may be answered is found
//! out each time, as the long way does it: a tag that is not fresh any more, a body that is not in
//! memory, a repository that lost its digest, all go the long way. What only some may see never
//! gets here.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};
use moka::sync::Cache;
use prometheus::IntCounter;

use super::{
    Access, Answer, Context, Forwarded,
    headers::{age, hit},
    pushers::takes_pushes,
};
use crate::{
    blob::{self, Blobs},
    manifest::{self, Manifests, Recent, Want},
    metrics::{self, Timing},
    protocol::{Repository, cache_status::CacheStatus},
    store::{Held, TagKey},
    traffic::{Line, Traffic},
    upstream::Caller,
};

/// A longer head is not remembered.
const LONGEST_HEAD: usize = 2048;

/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 896;

/// The requests remembered.
#[derive(Debug)]
pub struct Repeats {
    known: Cache<Arc<[u8]>, Arc<Repeat>>,
    manifests: Arc<Manifests>,
    blobs: Arc<Blobs>,
    forwarded: Arc<Forwarded>,
    access: Arc<Access>,
    traffic: Arc<Traffic>,
}

/// The other end of a connection, and what that means for all of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    address: Option<IpAddr>,
    /// Counts what is sent there.
    line: Option<Arc<Line>>,
    is_trusted: bool,
    is_allowed: bool,
}

/// A request that was answered before.
#[derive(Debug)]
pub struct Repeat {
    /// Whether it came from a proxy that is trusted to say for whom.
    from_trusted: bool,
    /// For whom, if that proxy said so.
    client: Option<IpAddr>,
    subject: Subject,
    media_type: Option<HeaderValue>,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The request's method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its `Referer`, for the log.
    pub referer: Box<[u8]>,
    /// Its `User-Agent`, for the log.
    pub agent: Box<[u8]>,
    /// What lasts of its answer's head, as it goes onto the wire.
    pub head: Vec<u8>,
    /// The kind of object.
    pub kind: &'static str,
    /// Counts what is sent of the repository.
    line: Arc<Line>,
    /// The same for the client that the proxy named.
    client_line: Option<Arc<Line>>,
    answers: IntCounter,
    /// Counts the bytes of their bodies.
    pub bytes: IntCounter,
    /// Where their times are entered.
    pub timing: Timing,
}

/// What a request is about that can be answered out of memory.
#[derive(Debug)]
pub(super) enum Subject {
    /// A tag, and what was answered with.
    Tag(manifest::Ask, TagKey, Held),
    /// A manifest by its digest.
    Manifest(manifest::Ask, Held),
    /// A small blob.
    Blob(blob::Ask, Held),
}

/// A request that is answered once more.
#[derive(Debug)]
pub struct Again {
    /// What it is a repetition of.
    pub repeat: Arc<Repeat>,
    /// Who asks.
    pub client: Option<IpAddr>,
    /// `Cache-Status`.
    pub status: CacheStatus,
    /// `Age`, in seconds.
    pub age: Option<u64>,
    /// `RateLimit-Limit` and `RateLimit-Remaining`.
    pub limits: Option<[HeaderValue; 2]>,
    /// Pulls left at the upstream, where it says so.
    pub left: Option<u64>,
    /// What is sent, or to a HEAD is not.
    pub body: Bytes,
}

// === impl Repeats ===

impl Repeats {
    /// Of requests to these, in at most `memory` bytes.
    pub(super) fn new(
        memory: u64,
        manifests: Arc<Manifests>,
        blobs: Arc<Blobs>,
        forwarded: Arc<Forwarded>,
        access: Arc<Access>,
        traffic: Arc<Traffic>,
    ) -> Self {
        let weight = |head: &Arc<[u8]>, repeat: &Arc<Repeat>| {
            let texts = repeat.path.len() + repeat.referer.len() + repeat.agent.len();
            let bytes = head.len() + repeat.head.len() + texts + ENTRY_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let known = Cache::builder().max_capacity(memory).weigher(weight).build();
        Self { known, manifests, blobs, forwarded, access, traffic }
    }

    /// Nothing was asked before.
    pub(super) fn forget_all(&self) {
        self.known.invalidate_all();
        // Only marked so far.
        self.known.run_pending_tasks();
    }

    /// The other end of a connection from `address`.
    pub fn peer(&self, address: Option<IpAddr>) -> Peer {
        let address = address.map(|address| address.to_canonical());
        let (is_trusted, is_allowed) = (self.is_trusted(address), self.access.allows(address));
        let line = address.map(|address| self.traffic.clients.line(&address));
        Peer { address, line, is_trusted, is_allowed }
    }

    fn is_trusted(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| self.forwarded.is_trusted(address))
    }

    /// Remembers a request with this head, of which `context` says what it is about, and of its
    /// answer what is `lasting`.
    pub fn remember(
        &self,
        head: &[u8],
        request: &Parts,
        context: &mut Context,
        answer: &Answer,
        lasting: fn(&Answer) -> Vec<u8>,
    ) {
        let (Some(subject), Some(target)) = (context.subject.take(), &context.target) else {
            return;
        };
        let told = context.client.address != context.client.peer;
        let from_trusted = self.is_trusted(context.client.peer);
        // Upstream alone says what it has to one who may push, whenever it can be asked.
        let is_before_push = request.method == Method::HEAD
            && takes_pushes(target)
            && !matches!(subject, Subject::Tag(..));
        if is_before_push
            || head.len() > LONGEST_HEAD
            || answer.status != StatusCode::OK
            || !is_plain(request)
            || context.destination.is_some()
            || context.user.is_some()
            || !matches!(target.caller, Caller::Shared)
            // It is told to be the proxy itself, which another proxy is not.
            || (from_trusted && !told && Forwarded::has_hops(&request.headers))
            || !self.has(&subject)
        {
            return;
        }
        let upstream = target.upstream.name();
        let labels = [upstream, context.kind(), request.method.as_str(), "200", context.cache];
        let value = |name: &HeaderName| -> Box<[u8]> {
            request.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes).into()
        };
        let client = context.client.address.filter(|_| told);
        let place = (Arc::clone(upstream), subject.repository().clone());
        let repeat = Repeat {
            from_trusted,
            client,
            subject,
            media_type: answer.headers.get(header::CONTENT_TYPE).cloned(),
            upstream: Arc::clone(upstream),
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            referer: value(&header::REFERER),
            agent: value(&header::USER_AGENT),
            head: lasting(answer),
            kind: context.kind(),
            line: self.traffic.repositories.line(&place),
            client_line: client.map(|client| self.traffic.clients.line(&client)),
            answers: metrics::REQUESTS.with_label_values(&labels),
            bytes: metrics::RESPONSE_BYTES.with_label_values(&[
                upstream,
                context.kind(),
                context.cache,
            ]),
            timing: Timing::of(context.kind(), context.cache),
        };
        self.known.insert(head.into(), Arc::new(repeat));
    }

    /// Whether it is in memory now. The manifest for a client that reads no index is not what its tag
    /// names, and is looked for in the index each time.
    fn has(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Tag(ask, key, held) => {
                self.manifests.same_tag(ask, key, held, SystemTime::now()).is_some()
            }
            Subject::Manifest(ask, held) => self.manifests.same_digest(ask, held).is_some(),
            Subject::Blob(ask, held) => self.blobs.same(ask, held).is_some(),
        }
    }

    /// The answer to a request with this head, if it came before and can be answered out of memory.
    pub fn again(&self, head: &[u8], peer: &Peer, now: SystemTime) -> Option<Again> {
        let repeat = self.known.get(head)?;
        let is_allowed = repeat.client.is_some() || peer.is_allowed;
        if repeat.from_trusted != peer.is_trusted || !is_allowed {
            return None;
        }
        let client = repeat.client.or(peer.address);
        match &repeat.subject {
            Subject::Tag(ask, key, held) => {
                // Of another digest the head would say something else.
                let recent = self.manifests.same_tag(ask, key, held, now)?;
                self.manifest(&repeat, ask, recent, client, now)
            }
            Subject::Manifest(ask, held) => {
                let recent = self.manifests.same_digest(ask, held)?;
                self.manifest(&repeat, ask, recent, client, now)
            }
            Subject::Blob(ask, held) => {
                let body = self.blobs.same(ask, held)?;
                let status = hit(None);
                Some(Again { repeat, client, status, age: None, limits: None, left: None, body })
            }
        }
    }

    /// Enters an answer to `peer` into the books of who asks for what.
    pub fn enter(&self, again: &Again, peer: &Peer, bytes: u64) {
        let repeat = &again.repeat;
        if !repeat.line.add(1, bytes) {
            // It was quiet for long, and is told apart again.
            let place = (Arc::clone(&repeat.upstream), repeat.subject.repository().clone());
            self.traffic.repositories.add(&place, 1, bytes);
        }
        let line = if repeat.client.is_some() { &repeat.client_line } else { &peer.line };
        let is_entered = line.as_ref().is_some_and(|line| line.add(1, bytes));
        if let Some(client) = again.client.filter(|_| !is_entered) {
            self.traffic.clients.add(&client, 1, bytes);
        }
    }

    fn manifest(
        &self,
        repeat: &Arc<Repeat>,
        ask: &manifest::Ask,
        Recent { manifest, left, validated }: Recent,
        client: Option<IpAddr>,
        now: SystemTime,
    ) -> Option<Again> {
        let media_type = repeat.media_type.as_ref()?;
        if media_type.as_bytes() != manifest.media_type.as_bytes() {
            return None;
        }
        if ask.want == Want::Body {
            self.manifests.saved(ask, client);
        }
        let outlook = ask.upstream.outlook();
        Some(Again {
            repeat: Arc::clone(repeat),
            client,
            status: hit(left),
            age: validated.map(|validated| age(validated, now)),
            limits: outlook.headers.clone(),
            left: outlook.left.map(|(left, _)| left),
            body: manifest.body,
        })
    }
}

// === impl Subject ===

impl Subject {
    fn repository(&self) -> &Repository {
        match self {
            Self::Tag(ask, ..) | Self::Manifest(ask, _) => &ask.repository,
            Self::Blob(ask, _) => &ask.repository,
        }
    }
}

// === impl Repeat ===

impl Repeat {
    /// Counts an answer to it: 200, or what became of that.
    pub fn count(&self, status: u16) {
        if status == 200 {
            return self.answers.inc();
        }
        let (method, status) = (self.method.as_str(), status.to_string());
        let labels = [&self.upstream, self.kind, method, &status, "hit"];
        metrics::REQUESTS.with_label_values(&labels).inc();
    }
}

/// Whether nothing in a request asks for more than the object.
fn is_plain(request: &Parts) -> bool {
    const NOT_PLAIN: [HeaderName; 5] = [
        header::AUTHORIZATION,
        header::RANGE,
        header::EXPECT,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ];
    request.version == Version::HTTP_11
        && matches!(request.method, Method::GET | Method::HEAD)
        && request.headers.get(header::CONNECTION).is_none_or(|value| value == "keep-alive")
        && NOT_PLAIN.iter().all(|name| !request.headers.contains_key(name))
}
