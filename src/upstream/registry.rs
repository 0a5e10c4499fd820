//! What the cache asks of a registry: manifests and blobs, by HEAD and by GET.
//!
//! Bodies of manifests are verified here; those of blobs by the fill that
//! receives them.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use moka::sync::Cache;
use url::Url;

use super::{
    Body, Budget, Caller, Error, Failure,
    exchange::{Exchange, Kind, Reply},
    redirect::{Journey, follow},
    token::Tokens,
};
use crate::{
    config,
    protocol::{
        Algorithm, Digest, ErrorCode, Reference, Repository, Route,
        error::parse_errors,
        media_type::{ACCEPT_MANIFESTS, NotAManifest, inspect},
        range::parse_content_range,
        ratelimit::retry_after,
    },
};

/// An error's body is read up to here.
const ERROR_BYTES: u64 = 64 * 1024;

/// How long upstream's word on a caller's right to a repository holds.
const AUTHORISED_FOR: Duration = Duration::from_secs(60);

/// Callers and repositories remembered.
const AUTHORISED: u64 = 50_000;

/// The client of one registry.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    config: config::Upstream,
    base: Url,
    exchange: Arc<Exchange>,
    tokens: Tokens,
    budget: Budget,
    /// Callers with credentials of their own whom upstream has served lately.
    authorised: Cache<(Digest, Repository), ()>,
    max_manifest: u64,
}

/// What a HEAD said of a manifest.
#[derive(Debug, Clone)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`, if it was there and is one.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<String>,
    /// `Content-Length`.
    pub size: Option<u64>,
}

/// A manifest that is what its digest says.
#[derive(Debug, Clone)]
pub struct ManifestBody {
    /// The body's own digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, as upstream sent them.
    pub body: Bytes,
}

/// What a HEAD said of a blob.
#[derive(Debug, Clone, Copy)]
pub struct BlobHead {
    /// Its length in bytes.
    pub size: Option<u64>,
}

/// A blob's bytes, on their way and not yet verified.
#[derive(Debug)]
pub struct BlobBody {
    /// Where in the blob the body begins.
    pub start: u64,
    /// The whole blob's length, where upstream says it.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Body,
}

/// What Pingora needs to forward a request to this registry.
pub type Forward = super::exchange::Forward;

type AskResult = Result<Reply, Error>;

/// One question to the registry.
struct Ask<'a> {
    method: Method,
    route: Route,
    kind: Kind,
    caller: &'a Caller,
    range: Option<String>,
}

// === impl Upstream ===

impl Upstream {
    /// Prepares the client; reads the CA file. Manifests above `max_manifest` bytes are refused.
    pub fn new(config: config::Upstream, max_manifest: u64) -> Result<Self, String> {
        let base = Url::parse(&config.url.to_string()).map_err(|error| error.to_string())?;
        let name: Arc<str> = config.name.as_str().into();
        let account = config.credentials.accounts.first().cloned();
        let budget = Budget::new(
            Arc::clone(&name),
            account.as_ref().map(|a| a.username.as_str()),
        );
        let exchange = Exchange::new(&config, base.clone())?;
        let authorised = Cache::builder()
            .max_capacity(AUTHORISED)
            .time_to_live(AUTHORISED_FOR)
            .build();
        Ok(Self {
            authorised,
            name,
            base,
            exchange,
            tokens: Tokens::new(account),
            budget,
            max_manifest,
            config,
        })
    }

    /// The configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The configuration.
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// What the registry says is left.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// True while the registry is not asked because it failed a moment ago.
    pub fn is_held_back(&self) -> bool {
        self.exchange.is_held_back()
    }

    /// Whether upstream has answered this caller for this repository within the last minute.
    /// What is cached with our own credentials is for every client that the operator lets in.
    pub fn is_authorised(&self, caller: &Caller, repository: &Repository) -> bool {
        match caller.identity() {
            None => true,
            Some(identity) => self
                .authorised
                .contains_key(&(identity, repository.clone())),
        }
    }

    /// Upstream has just answered this caller for this repository.
    pub fn authorise(&self, caller: &Caller, repository: &Repository) {
        if let Some(identity) = caller.identity() {
            self.authorised.insert((identity, repository.clone()), ());
        }
    }

    /// HEAD of a manifest: free. `None` where the registry can't do HEAD (405, 501).
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
    ) -> Result<Option<ManifestHead>, Error> {
        let ask = Ask::manifest(Method::HEAD, repository, reference, caller);
        let reply = self.ask(&ask).await?;
        if matches!(
            reply.status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            return Ok(None);
        }
        let reply = expect_ok(reply).await?;
        let head = ManifestHead {
            digest: content_digest(&reply.headers),
            media_type: text(&reply.headers, &header::CONTENT_TYPE).map(str::to_owned),
            size: number(&reply.headers, &header::CONTENT_LENGTH),
        };
        reply.body.dismiss().await;
        Ok(Some(head))
    }

    /// GET of a manifest: counted. The body is verified against the digest asked for, or else
    /// against the one that the answer names.
    pub async fn get_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
    ) -> Result<ManifestBody, Error> {
        let ask = Ask::manifest(Method::GET, repository, reference, caller);
        let reply = expect_ok(self.ask(&ask).await?).await?;
        let named = content_digest(&reply.headers);
        let content_type = text(&reply.headers, &header::CONTENT_TYPE).map(str::to_owned);
        let limit = self.max_manifest;
        let body = reply
            .body
            .collect(limit)
            .await?
            .ok_or_else(|| Error::Unusable {
                code: ErrorCode::SizeInvalid,
                message: format!("the manifest is larger than {limit} bytes (fill.max_manifest)"),
            })?;
        let asked = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => None,
        };
        let digest = verify(&body, asked, named)?;
        let inspected = inspect(content_type.as_deref(), &body).map_err(not_a_manifest)?;
        Ok(ManifestBody {
            digest,
            media_type: inspected.media_type,
            body,
        })
    }

    /// HEAD of a blob: free, and it moves no bytes of it.
    pub async fn head_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Result<BlobHead, Error> {
        let mut ask = Ask::blob(Method::HEAD, repository, digest, caller);
        match expect_ok(self.ask(&ask).await?).await {
            Ok(reply) => {
                let size = number(&reply.headers, &header::CONTENT_LENGTH);
                reply.body.dismiss().await;
                return Ok(BlobHead { size });
            }
            // A URL signed for GET refuses HEAD in its own ways; one byte of the blob tells as much.
            Err(Error::Denied { .. } | Error::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        ask.method = Method::GET;
        ask.range = Some("bytes=0-0".to_owned());
        let reply = self.ask(&ask).await?;
        // An empty blob has no first byte.
        if reply.status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(BlobHead { size: Some(0) });
        }
        let reply = expect_ok(reply).await?;
        let ranged = content_range(&reply.headers).and_then(|(_, total)| total);
        Ok(BlobHead {
            size: ranged.or_else(|| number(&reply.headers, &header::CONTENT_LENGTH)),
        })
    }

    /// GET of a blob from the byte `from` on. An upstream that ignores the range starts at 0.
    pub async fn get_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        caller: &Caller,
    ) -> Result<BlobBody, Error> {
        let mut ask = Ask::blob(Method::GET, repository, digest, caller);
        ask.range = (from > 0).then(|| format!("bytes={from}-"));
        let reply = self.ask(&ask).await?;
        // Nothing is left behind what we have: the whole is what there is.
        if reply.status == StatusCode::RANGE_NOT_SATISFIABLE && from > 0 {
            ask.range = None;
            let reply = expect_ok(self.ask(&ask).await?).await?;
            return Ok(BlobBody {
                start: 0,
                total: reply.body.expected(),
                body: reply.body,
            });
        }
        let reply = expect_ok(reply).await?;
        if reply.status == StatusCode::PARTIAL_CONTENT {
            let (range, total) = content_range(&reply.headers)
                .filter(|(range, _)| range.start == from)
                .ok_or_else(|| Failure::invalid("a 206 with another range than was asked for"))?;
            let total = total.or(Some(range.end));
            return Ok(BlobBody {
                start: from,
                total,
                body: reply.body,
            });
        }
        Ok(BlobBody {
            start: 0,
            total: reply.body.expected(),
            body: reply.body,
        })
    }

    /// What the registry itself says to `GET /v2/`, with the caller's credentials.
    pub async fn ping(&self, caller: &Caller) -> Result<(), Error> {
        let ask = Ask {
            method: Method::GET,
            route: Route::Ping,
            kind: Kind::Ping,
            caller,
            range: None,
        };
        let reply = expect_ok(self.ask(&ask).await?).await?;
        reply.body.dismiss().await;
        Ok(())
    }

    /// Where, and with which credentials, a request for `route` is forwarded.
    pub async fn forward(&self, route: &Route, caller: &Caller) -> Result<Forward, Error> {
        let authorization = match caller {
            Caller::Client { authorization, .. } => authorization.clone(),
            Caller::Shared => {
                if !self.tokens.is_known() {
                    // The ping teaches how the registry wants to be asked; its answer does not matter.
                    if let Err(Error::Trouble(failure)) = self.ping(caller).await {
                        return Err(failure.into());
                    }
                }
                self.tokens
                    .before_asked(&self.exchange, scope(route).as_deref())
                    .await?
            }
        };
        Ok(self
            .exchange
            .forward(route.to_string(), authorization)
            .await?)
    }

    /// Asks, with a token where one is wanted, once more after a 401. Reads the budget.
    ///
    /// Boxed: a conversation with upstream is a large future, and those who may hold it while they
    /// answer from the cache are to stay small.
    fn ask<'a>(&'a self, ask: &'a Ask<'_>) -> Pin<Box<dyn Future<Output = AskResult> + Send + 'a>> {
        Box::pin(self.ask_now(ask))
    }

    async fn ask_now(&self, ask: &Ask<'_>) -> AskResult {
        let scope = scope(&ask.route);
        let mut authorization = match ask.caller {
            Caller::Client { authorization, .. } => authorization.clone(),
            Caller::Shared => {
                self.tokens
                    .before_asked(&self.exchange, scope.as_deref())
                    .await?
            }
        };
        let reply = self.send(ask, authorization.as_ref()).await?;
        if reply.status != StatusCode::UNAUTHORIZED || !matches!(ask.caller, Caller::Shared) {
            return Ok(reply);
        }
        let tokens = &self.tokens;
        let retry = tokens
            .after_refusal(
                &self.exchange,
                &reply.headers,
                scope.as_deref(),
                authorization.as_ref(),
            )
            .await?;
        if retry.is_none() {
            return Ok(reply);
        }
        reply.body.dismiss().await;
        authorization = retry;
        Ok(self.send(ask, authorization.as_ref()).await?)
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, Failure> {
        let mut url = self.base.clone();
        url.set_path(&ask.route.to_string());
        let journey = Journey {
            method: ask.method.clone(),
            url: &url,
            kind: ask.kind,
            authorization,
            headers: ask.headers(),
        };
        let (_, reply) = follow(&self.exchange, &journey).await?;
        if matches!(ask.caller, Caller::Shared) {
            self.budget.observe(&reply.headers);
        }
        Ok(reply)
    }
}

// === impl Ask ===

impl<'a> Ask<'a> {
    fn manifest(
        method: Method,
        repository: &Repository,
        reference: &Reference,
        caller: &'a Caller,
    ) -> Self {
        let route = Route::Manifest {
            repository: repository.clone(),
            reference: reference.clone(),
        };
        Self {
            method,
            route,
            kind: Kind::Manifest,
            caller,
            range: None,
        }
    }

    fn blob(method: Method, repository: &Repository, digest: &Digest, caller: &'a Caller) -> Self {
        let route = Route::Blob {
            repository: repository.clone(),
            digest: *digest,
        };
        Self {
            method,
            route,
            kind: Kind::Blob,
            caller,
            range: None,
        }
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.kind == Kind::Manifest {
            headers.push((header::ACCEPT, HeaderValue::from_static(ACCEPT_MANIFESTS)));
        }
        if let Some(range) = self.range.as_deref().and_then(|range| range.parse().ok()) {
            headers.push((header::RANGE, range));
        }
        headers
    }
}

/// The scope of a token for `route` (distribution's token specification).
fn scope(route: &Route) -> Option<String> {
    route
        .repository()
        .map(|repository| format!("repository:{repository}:pull"))
}

fn verify(body: &[u8], asked: Option<Digest>, named: Option<Digest>) -> Result<Digest, Failure> {
    let algorithm = asked.or(named).map(|digest| digest.algorithm());
    let found = Digest::of(algorithm.unwrap_or(Algorithm::Sha256), body);
    for expected in [asked, named].into_iter().flatten() {
        // A header in another algorithm than was asked for says nothing about the body asked for.
        let found = if expected.algorithm() == found.algorithm() {
            found
        } else {
            Digest::of(expected.algorithm(), body)
        };
        if found != expected {
            return Err(Failure::invalid(format!(
                "the manifest has the digest {found}, not {expected}"
            )));
        }
    }
    Ok(found)
}

fn not_a_manifest(problem: NotAManifest) -> Error {
    match problem {
        NotAManifest::Schema1 => Error::Unusable {
            code: ErrorCode::ManifestInvalid,
            message: "the image has a schema 1 manifest, which is no longer supported; push it again with a current client".to_owned(),
        },
        other => Failure::invalid(other.to_string()).into(),
    }
}

async fn expect_ok(reply: Reply) -> Result<Reply, Error> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    Err(into_error(reply).await)
}

/// What an unsuccessful answer means.
pub(super) async fn into_error(reply: Reply) -> Error {
    let (status, headers) = (reply.status, reply.headers);
    let wait = retry_after(&headers, SystemTime::now());
    let challenge = headers.get(header::WWW_AUTHENTICATE).cloned();
    let body = reply
        .body
        .collect(ERROR_BYTES)
        .await
        .ok()
        .flatten()
        .unwrap_or_default();
    let (code, message) = match parse_errors(&body).into_iter().next() {
        Some((code, message)) => (Some(code), message),
        None => (None, status.to_string()),
    };
    match status {
        StatusCode::UNAUTHORIZED => Error::Unauthorized { message, challenge },
        StatusCode::FORBIDDEN => Error::Denied { message },
        StatusCode::NOT_FOUND => Error::NotFound { code, message },
        StatusCode::TOO_MANY_REQUESTS => Failure::RateLimited {
            message,
            retry_after: wait,
        }
        .into(),
        _ if status.is_server_error() => Failure::Status {
            status,
            retry_after: wait,
        }
        .into(),
        _ if status.is_client_error() => Error::Refused { status, message },
        _ => Failure::invalid(format!("the status {status} where a body was asked for")).into(),
    }
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    let value = headers.get("docker-content-digest")?.to_str().ok()?;
    Digest::parse(value).ok()
}

fn content_range(headers: &HeaderMap) -> Option<(crate::protocol::ByteRange, Option<u64>)> {
    parse_content_range(text(headers, &header::CONTENT_RANGE)?)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_must_match_what_was_asked_and_what_was_said() {
        let (body, other) = (b"body".as_slice(), Digest::of(Algorithm::Sha256, b"other"));
        let own = Digest::of(Algorithm::Sha256, body);
        let own512 = Digest::of(Algorithm::Sha512, body);
        assert_eq!(verify(body, None, None).unwrap(), own);
        assert_eq!(verify(body, Some(own), Some(own)).unwrap(), own);
        assert_eq!(verify(body, Some(own512), Some(own)).unwrap(), own512);
        assert_eq!(verify(body, None, Some(own512)).unwrap(), own512);
        assert!(verify(body, Some(other), Some(own)).is_err());
        assert!(verify(body, Some(own), Some(other)).is_err());
        assert!(verify(body, None, Some(other)).is_err());
    }
}
