//! The cache: answers manifests and blobs, and lets all the rest pass upstream.
//!
//! It adds HTTP to what `manifest` and `blob` know: conditions, ranges, and the
//! headers that tell a client what it got and where from.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts, response,
};

use super::{
    Answer, Body, Context, Flow, Refusal, RequestFilter, Target,
    headers::{CACHE_STATUS, DIGEST, LIMIT, NAMESPACE, REMAINING, age, hit},
    pushers::{self, There, own_credentials, takes_pushes},
    ranged::{OCTETS, range_header, ranged},
    repeats::Subject,
    written::Written,
};
use crate::{
    blob::{self, Blobs},
    manifest::{self, Found, Manifests, Outcome, Served, Want},
    protocol::{
        Digest, Reference, Repository, Route,
        accept::Accept,
        cache_status::{CacheStatus, Forward},
        conditional::{etag, if_none_match},
    },
    store::{Held, LinkKey, SMALL_BYTES},
    upstream::{self, Caller},
};

/// What a digest names never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The same, for what only some may see.
const IMMUTABLE_PRIVATE: &str = "private, max-age=31536000, immutable";

/// `detail` of an answer with what a tag named before it moved.
const COOLDOWN: &str = "cooldown";

/// The filter.
#[derive(Debug)]
pub struct Cache {
    manifests: Arc<Manifests>,
    blobs: Arc<Blobs>,
}

// === impl Cache ===

impl Cache {
    /// Answers from these.
    pub fn new(manifests: Arc<Manifests>, blobs: Arc<Blobs>) -> Self {
        Self { manifests, blobs }
    }

    async fn ping(
        &self,
        request: &Parts,
        context: &Context,
        target: &Target,
    ) -> Result<Answer, Refusal> {
        if takes_pushes(target) && context.user.is_none() {
            // docker, skopeo and crane look for a challenge here and nowhere else. Without one, and
            // while upstream is in trouble, whoever only pulls needs no login.
            let said = target.upstream.greet(own_credentials(request, context)).await;
            if let Err(error @ upstream::Error::Unauthorized { .. }) = said {
                return Err(error.into());
            }
        } else if matches!(target.caller, Caller::Client { .. }) {
            // Only upstream can say whether a client's own credentials will do.
            target.upstream.ping(&target.caller).await?;
        }
        let json = HeaderValue::from_static("application/json");
        let body = Body::Bytes(Bytes::from_static(b"{}"));
        Ok(Answer::new(StatusCode::OK).with(header::CONTENT_TYPE, json).body(body))
    }

    async fn manifest(
        &self,
        request: &Parts,
        context: &mut Context,
        target: &Target,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Answer, Refusal> {
        let want = if request.method == Method::HEAD { Want::Head } else { Want::Body };
        let ask = manifest::Ask {
            upstream: Arc::clone(&target.upstream),
            repository: repository.clone(),
            want,
            caller: target.caller.clone(),
            client: context.client.address,
        };
        let served = match reference {
            Reference::Digest(digest) => self.manifests.by_digest(&ask, *digest).await,
            Reference::Tag(tag) => {
                let accept = Accept::parse(lines(request, &header::ACCEPT));
                self.manifests.by_tag(&ask, tag, &accept).await
            }
        };
        let served = served.map_err(Refusal::Manifest)?;
        let (word, status) = manifest_status(&served);
        context.cache = word;
        context.may_repeat(|| subject(&ask, reference, &served));
        let (digest, media_type, size, body) = match served.found {
            Found::Whole(manifest) => {
                let size = manifest.body.len() as u64;
                (manifest.digest, manifest.media_type, size, Body::Bytes(manifest.body))
            }
            Found::Described { digest, media_type, size } => {
                (digest, media_type.into(), size, Body::Empty)
            }
        };
        let mut answer = self.object(context, target, digest, &status);
        if matches!(reference, Reference::Tag(_)) {
            // A tag may move: what fronts us checks with us, and that is cheap.
            answer.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let outlook = target.upstream.outlook();
        context.left = outlook.left.map(|(left, _)| left);
        // As upstream says it, so that a cache behind this one knows too.
        if let Some([limit, remaining]) = outlook.headers.clone() {
            answer.headers.insert(LIMIT.clone(), limit);
            answer.headers.insert(REMAINING.clone(), remaining);
        }
        context.is_counted = served.outcome == Outcome::Fetched { collapsed: false };
        if let Some(validated) = served.validated {
            let age = age(validated, SystemTime::now());
            answer.headers.insert(header::AGE, HeaderValue::from(age));
        }
        if if_none_match(lines(request, &header::IF_NONE_MATCH), &digest) {
            answer.status = StatusCode::NOT_MODIFIED;
            return Ok(answer);
        }
        let answer = answer
            .with_text(header::CONTENT_TYPE, &media_type)
            .with(header::CONTENT_LENGTH, HeaderValue::from(size))
            .body(body);
        Ok(answer)
    }

    async fn blob(
        &self,
        request: &Parts,
        context: &mut Context,
        target: &Target,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Answer, Refusal> {
        let ask = blob::Ask {
            upstream: Arc::clone(&target.upstream),
            repository: repository.clone(),
            digest,
            caller: target.caller.clone(),
        };
        if request.method == Method::HEAD {
            let (size, outcome) = self.blobs.describe(&ask).await?;
            let (word, status) = blob_status(outcome);
            context.cache = word;
            context.may_repeat(|| small_blob(&ask, outcome, Some(size)));
            return Ok(self.described(request, context, target, digest, &status, size));
        }
        if if_none_match(lines(request, &header::IF_NONE_MATCH), &digest) {
            // Whether the repository has it is asked; its bytes are not.
            let (_, outcome) = self.blobs.describe(&ask).await?;
            let (word, status) = blob_status(outcome);
            context.cache = word;
            let answer = self.object(context, target, digest, &status);
            return Ok(Answer { status: StatusCode::NOT_MODIFIED, ..answer });
        }
        let wanted = range_header(request, &digest);
        // A client that knows no chunks can't tell a body of unknown length from one that was cut.
        let must_be_known = wanted.is_some() || request.version < Version::HTTP_11;
        let served = self.blobs.open(&ask, wanted, must_be_known).await?;
        let (word, status) = blob_status(served.outcome);
        context.cache = word;
        context.may_repeat(|| small_blob(&ask, served.outcome, served.size));
        let answer =
            self.object(context, target, digest, &status).with(header::ACCEPT_RANGES, BYTES);
        Ok(ranged(wanted, answer, served.feed, served.size))
    }

    fn described(
        &self,
        request: &Parts,
        context: &Context,
        target: &Target,
        digest: Digest,
        status: &CacheStatus,
        size: u64,
    ) -> Answer {
        let answer =
            self.object(context, target, digest, status).with(header::ACCEPT_RANGES, BYTES);
        if if_none_match(lines(request, &header::IF_NONE_MATCH), &digest) {
            return Answer { status: StatusCode::NOT_MODIFIED, ..answer };
        }
        answer
            .with(header::CONTENT_TYPE, OCTETS)
            .with(header::CONTENT_LENGTH, HeaderValue::from(size))
    }

    /// What upstream has just said that it has.
    fn there(&self, context: &mut Context, target: &Target, there: There) -> Answer {
        context.cache = "pass";
        let status = CacheStatus::fwd(Forward::Request).fwd_status(StatusCode::OK);
        let (digest, size) = match there {
            There::Manifest(digest, _, size) | There::Blob(digest, size) => (digest, size),
        };
        let answer = self.object(context, target, digest, &status);
        let answer = answer.with(header::CONTENT_LENGTH, HeaderValue::from(size));
        match there {
            There::Blob(..) => {
                answer.with(header::CONTENT_TYPE, OCTETS).with(header::ACCEPT_RANGES, BYTES)
            }
            There::Manifest(_, media_type, _) => {
                let answer = answer.with_text(header::CONTENT_TYPE, &media_type);
                answer.with(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            }
        }
    }

    /// What every answer says of the object that a digest names.
    fn object(
        &self,
        context: &Context,
        target: &Target,
        digest: Digest,
        status: &CacheStatus,
    ) -> Answer {
        // What fronts us must not give it to those whom we would not.
        let is_private = matches!(target.caller, Caller::Client { .. })
            || !target.upstream.config().credentials.accounts.is_empty()
            || context.user.is_some();
        let cache_control = if is_private { IMMUTABLE_PRIVATE } else { IMMUTABLE };
        Answer::new(StatusCode::OK)
            .with_text(DIGEST.clone(), &digest.to_string())
            .with_text(header::ETAG, &etag(&digest))
            .with(header::CACHE_CONTROL, HeaderValue::from_static(cache_control))
            .with_text(CACHE_STATUS.clone(), &status.to_string())
    }
}

#[async_trait]
impl RequestFilter for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Ok(Flow::Forward);
        }
        let Some(target) = context.target.clone() else {
            return Ok(Flow::Forward);
        };
        if let Some(there) = pushers::ask(request, context, &target).await? {
            return Ok(Flow::Respond(self.there(context, &target, there)));
        }
        let answer = match &target.route {
            Route::Ping => self.ping(request, context, &target).await?,
            Route::Manifest { repository, reference } => {
                self.manifest(request, context, &target, repository, reference).await?
            }
            Route::Blob { repository, digest } => {
                self.blob(request, context, &target, repository, *digest).await?
            }
            _ => return Ok(Flow::Forward),
        };
        Ok(Flow::Respond(match &context.namespace {
            Some(namespace) => answer.with_text(NAMESPACE.clone(), namespace),
            None => answer,
        }))
    }

    async fn answered(&self, request: &Parts, context: &Context, answer: &response::Parts) {
        let Some((target, written)) = Written::of(request, context, answer) else { return };
        let upstream = &target.upstream;
        match written {
            Written::Manifest(repository, reference, digest) => {
                self.manifests.pushed(upstream, repository, reference, digest).await;
            }
            Written::ManifestGone(repository, reference) => {
                self.manifests.deleted(upstream, repository, reference).await;
            }
            Written::Unsure(repository, reference) => {
                self.manifests.unsure(upstream, repository, reference).await;
            }
            Written::Blob(repository, digest) => {
                upstream.has_now(repository, &digest);
                self.blobs.pushed(&link_key(target, repository, digest));
            }
            Written::BlobGone(repository, digest) => {
                self.blobs.deleted(link_key(target, repository, digest)).await;
            }
        }
    }
}

/// What the answer to a request for a manifest may be repeated by.
fn subject(ask: &manifest::Ask, reference: &Reference, served: &Served) -> Option<Subject> {
    let (Found::Whole(manifest), Outcome::Hit { .. }, false) =
        (&served.found, &served.outcome, served.cooling)
    else {
        return None;
    };
    let held = |digest| Held::new(ask.link_key(digest));
    Some(match reference {
        Reference::Tag(tag) => Subject::Tag(ask.clone(), ask.tag_key(tag), held(manifest.digest)),
        Reference::Digest(digest) => Subject::Manifest(ask.clone(), held(*digest)),
    })
}

/// The same for a blob that memory may hold.
fn small_blob(ask: &blob::Ask, outcome: blob::Outcome, size: Option<u64>) -> Option<Subject> {
    let is_small = size.is_some_and(|size| size <= SMALL_BYTES);
    let is_hit = outcome == blob::Outcome::Hit;
    (is_small && is_hit).then(|| Subject::Blob(ask.clone(), Held::new(ask.link_key())))
}

const BYTES: HeaderValue = HeaderValue::from_static("bytes");

fn link_key(target: &Target, repository: &Repository, digest: Digest) -> LinkKey {
    let upstream = Arc::clone(target.upstream.name());
    LinkKey { upstream, repository: repository.clone(), digest }
}

fn lines<'a>(request: &'a Parts, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// The log's word, and what the client is told. Cooling changes the second alone: the word says
/// what a request cost.
fn manifest_status(served: &Served) -> (&'static str, CacheStatus) {
    let (word, status) = outcome_status(&served.outcome);
    match (&served.outcome, served.cooling) {
        // There is one detail, and `+` keeps it a token.
        (Outcome::Stale { why }, true) => (word, status.detail(&format!("{why}+{COOLDOWN}"))),
        (_, true) => (word, status.detail(COOLDOWN)),
        (_, false) => (word, status),
    }
}

fn outcome_status(outcome: &Outcome) -> (&'static str, CacheStatus) {
    match outcome {
        Outcome::Hit { left } => ("hit", hit(*left)),
        // RFC 9211 §2.2: it went forward because what is stored was stale; a HEAD came back with 200.
        Outcome::Validated { collapsed } => {
            let status = CacheStatus::fwd(Forward::Stale).fwd_status(StatusCode::OK);
            ("validated", if *collapsed { status.collapsed() } else { status })
        }
        Outcome::Fetched { collapsed } => ("miss", fetched(*collapsed)),
        Outcome::Stale { why } => ("stale", CacheStatus::hit().detail(why)),
    }
}

fn blob_status(outcome: blob::Outcome) -> (&'static str, CacheStatus) {
    match outcome {
        blob::Outcome::Hit => ("hit", CacheStatus::hit()),
        blob::Outcome::Fetched { collapsed } => ("miss", fetched(collapsed)),
        blob::Outcome::Passed => ("pass", CacheStatus::fwd(Forward::UriMiss)),
    }
}

fn fetched(collapsed: bool) -> CacheStatus {
    let status = CacheStatus::fwd(Forward::UriMiss);
    if collapsed { status.collapsed() } else { status.stored() }
}
