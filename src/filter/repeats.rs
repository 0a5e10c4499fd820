//! Requests that come again, byte for byte: what they ask for is not found out anew.
//!
//! Clients repeat themselves. A head that was answered out of memory is remembered, with what it
//! asks for and with what of the answer's head does not change. Whether it may be answered is looked
//! up each time, as the long way does it: a tag that is not fresh any more, a body that is not in
//! memory, a repository that lost its digest, all go the long way. What only some may see never
//! gets here.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};
use ipnet::IpNet;
use moka::sync::Cache;
use prometheus::IntCounter;

use super::{
    Answer, Body, Context,
    cache::{CACHE_STATUS, LIMIT, REMAINING},
    pushers::takes_pushes,
};
use crate::{
    blob::{self, Blobs},
    config::Config,
    manifest::{self, Found, Manifests, Outcome, Want},
    metrics,
    protocol::{Digest, cache_status::CacheStatus},
    store::{LinkKey, TagKey},
    upstream::Caller,
};

/// A longer head is not remembered.
const LONGEST_HEAD: usize = 2048;

/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 768;

/// The share of `store.memory` that remembered heads may take besides it.
const SHARE: u64 = 16;

/// Headers that tell whom a proxy asks for.
const HOPS: [&str; 3] = ["forwarded", "x-forwarded-for", "x-forwarded-host"];

/// The requests remembered.
#[derive(Debug)]
pub struct Repeats {
    known: Cache<Arc<[u8]>, Arc<Repeat>>,
    manifests: Arc<Manifests>,
    blobs: Arc<Blobs>,
    allow: Vec<IpNet>,
    trusted: Vec<IpNet>,
    is_off: bool,
}

/// The other end of a connection, and what that means for all of its requests.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    peer: Option<IpAddr>,
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
    /// What the answer was about; of another one, its head would say something else.
    digest: Digest,
    media_type: Option<HeaderValue>,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The request's method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// The headers of its answer that stay, as HTTP/1.1 has them.
    pub headers: Vec<u8>,
    kind: &'static str,
    answers: IntCounter,
    /// Counts the bytes of their bodies.
    pub bytes: IntCounter,
}

/// What a request is about that can be answered out of memory.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A tag that names the digest.
    Tag(manifest::Ask, TagKey, Digest),
    /// A manifest by its digest.
    Manifest(manifest::Ask, LinkKey),
    /// A small blob.
    Blob(blob::Ask, LinkKey),
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
    /// Of requests to these. `is_off`: what stands before the cache must see each request.
    pub(super) fn new(
        config: &Config,
        manifests: Arc<Manifests>,
        blobs: Arc<Blobs>,
        is_off: bool,
    ) -> Self {
        let weight = |head: &Arc<[u8]>, repeat: &Arc<Repeat>| {
            let bytes = head.len() + repeat.headers.len() + repeat.path.len() + ENTRY_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self {
            known: Cache::builder()
                .max_capacity(config.store.memory / SHARE)
                .weigher(weight)
                .build(),
            manifests,
            blobs,
            allow: config.access.allow.clone(),
            trusted: config.trusted_proxies.clone(),
            // Who has a password is found out by each request.
            is_off: is_off || config.access.htpasswd.is_some(),
        }
    }

    /// A connection from `peer`; `None` if each of its requests goes the long way.
    pub fn origin(&self, peer: Option<IpAddr>) -> Option<Origin> {
        let peer = peer.map(|peer| peer.to_canonical());
        let is_in =
            |nets: &[IpNet]| peer.is_some_and(|peer| nets.iter().any(|net| net.contains(&peer)));
        let (is_trusted, is_allowed) = (is_in(&self.trusted), peer.is_none() || is_in(&self.allow));
        (!self.is_off).then_some(Origin { peer, is_trusted, is_allowed })
    }

    /// Remembers a request with this head, of which `context` says what it is about, and its answer.
    pub fn remember(&self, head: &[u8], request: &Parts, context: &Context, answer: &Answer) {
        let (Some(subject), Some(target)) = (&context.subject, &context.target) else { return };
        let told = context.client.address != context.client.peer;
        let from_trusted = context
            .client
            .peer
            .is_some_and(|peer| self.trusted.iter().any(|net| net.contains(&peer)));
        let has_hops = HOPS.iter().any(|name| request.headers.contains_key(*name));
        // Upstream alone says what it has to one who may push, whenever it can be asked.
        let is_before_push = request.method == Method::HEAD
            && takes_pushes(target)
            && !matches!(subject, Subject::Tag(..));
        if self.is_off
            || is_before_push
            || head.len() > LONGEST_HEAD
            || answer.status != StatusCode::OK
            || !is_plain(request)
            || context.destination.is_some()
            || context.user.is_some()
            || !matches!(target.caller, Caller::Shared)
            // It is told to be the proxy itself, which another proxy is not.
            || (from_trusted && has_hops && !told)
        {
            return;
        }
        let upstream = target.upstream.name();
        let labels = [upstream, context.kind(), request.method.as_str(), "200", context.cache];
        let repeat = Repeat {
            from_trusted,
            client: context.client.address.filter(|_| told),
            subject: subject.clone(),
            digest: subject.digest(),
            media_type: answer.headers.get(header::CONTENT_TYPE).cloned(),
            upstream: Arc::clone(upstream),
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            headers: staying(answer),
            kind: context.kind(),
            answers: metrics::REQUESTS.with_label_values(&labels),
            bytes: metrics::RESPONSE_BYTES.with_label_values(&[upstream, context.kind()]),
        };
        self.known.insert(head.into(), Arc::new(repeat));
    }

    /// The answer to a request with this head, if it came before and can be answered out of memory.
    pub fn again(&self, head: &[u8], origin: &Origin, now: SystemTime) -> Option<Again> {
        let repeat = self.known.get(head)?;
        if repeat.from_trusted != origin.is_trusted
            || (repeat.client.is_none() && !origin.is_allowed)
        {
            return None;
        }
        let client = repeat.client.or(origin.peer);
        match &repeat.subject {
            Subject::Tag(ask, key, _) => {
                let served = self.manifests.recent_tag(ask, key, now)?;
                self.manifest(&repeat, ask, served, client, now)
            }
            Subject::Manifest(ask, key) => {
                let served = self.manifests.recent_digest(ask, key)?;
                self.manifest(&repeat, ask, served, client, now)
            }
            Subject::Blob(ask, key) => {
                let body = self.blobs.recent(ask, key)?;
                let status = CacheStatus::hit();
                Some(Again { repeat, client, status, age: None, limits: None, left: None, body })
            }
        }
    }

    fn manifest(
        &self,
        repeat: &Arc<Repeat>,
        ask: &manifest::Ask,
        served: manifest::Served,
        client: Option<IpAddr>,
        now: SystemTime,
    ) -> Option<Again> {
        let (Found::Whole(manifest), Outcome::Hit { left }) = (served.found, served.outcome) else {
            return None;
        };
        let is_same_type = |value: &HeaderValue| value.as_bytes() == manifest.media_type.as_bytes();
        if manifest.digest != repeat.digest || !repeat.media_type.as_ref().is_some_and(is_same_type)
        {
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
            age: served.validated.map(|validated| age(validated, now)),
            limits: outlook.headers.clone(),
            left: outlook.left.map(|(left, _)| left),
            body: manifest.body,
        })
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

// === impl Subject ===

impl Subject {
    fn digest(&self) -> Digest {
        match self {
            Self::Tag(_, _, digest) => *digest,
            Self::Manifest(_, key) | Self::Blob(_, key) => key.digest,
        }
    }
}

/// `Age` of what was validated then.
pub(super) fn age(validated: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(validated).unwrap_or_default().as_secs()
}

/// `Cache-Status` of a hit that holds so much longer.
pub(super) fn hit(left: Option<Duration>) -> CacheStatus {
    match left.and_then(|left| i64::try_from(left.as_secs()).ok()) {
        Some(seconds) => CacheStatus::hit().ttl(seconds),
        None => CacheStatus::hit(),
    }
}

/// The headers of an answer that are the same each time.
fn staying(answer: &Answer) -> Vec<u8> {
    let mut lines = Vec::new();
    let varying = [&CACHE_STATUS, &LIMIT, &REMAINING, &header::AGE];
    for (name, value) in answer.headers.iter().filter(|(name, _)| !varying.contains(name)) {
        line(&mut lines, name, value.as_bytes());
    }
    let length = match &answer.body {
        _ if answer.headers.contains_key(header::CONTENT_LENGTH) => None,
        Body::Empty => Some(0),
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Blob(_, length) => *length,
    };
    if let Some(length) = length {
        line(&mut lines, &header::CONTENT_LENGTH, length.to_string().as_bytes());
    }
    lines
}

/// Writes a header's line, its name as HTTP/1.1 is used to it.
fn line(lines: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let mut begins = true;
    lines.extend(name.as_str().bytes().map(|byte| {
        let byte = if begins { byte.to_ascii_uppercase() } else { byte };
        begins = byte == b'-';
        byte
    }));
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
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
