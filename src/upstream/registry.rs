//! What the cache asks of a registry: manifests and blobs, by HEAD and by GET.
//!
//! Bodies of manifests are verified here; those of blobs by the fill that
//! receives them. Every question is answered within its patience.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use moka::sync::Cache;

use super::{
    Body, Budget, Caller, Error, Failure, Forward,
    conversation::{Ask, Conversation},
    reply::{content_digest, content_range, expect_ok, number, text},
};
use crate::{
    config,
    protocol::{
        Algorithm, ByteRange, Digest, ErrorCode, Reference, Repository, Route,
        media_type::{NotAManifest, inspect},
    },
};

/// How long upstream's word on a caller's right to a repository holds.
const AUTHORISED_FOR: Duration = Duration::from_secs(60);

/// Callers and repositories remembered.
const AUTHORISED: u64 = 50_000;

/// The client of one registry.
#[derive(Debug)]
pub struct Upstream {
    config: config::Upstream,
    talk: Arc<Conversation>,
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

// === impl Upstream ===

impl Upstream {
    /// Prepares the client; reads the CA file. Manifests above `max_manifest` bytes are refused.
    pub fn new(config: config::Upstream, max_manifest: u64) -> Result<Self, String> {
        let talk = Conversation::new(&config)?;
        let authorised =
            Cache::builder().max_capacity(AUTHORISED).time_to_live(AUTHORISED_FOR).build();
        Ok(Self { config, talk, authorised, max_manifest })
    }

    /// The configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.talk.name
    }

    /// The configuration.
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// What the registry says is left.
    pub fn budget(&self) -> &Budget {
        &self.talk.budget
    }

    /// True while the registry is not asked because it failed a moment ago.
    pub fn is_held_back(&self) -> bool {
        self.talk.is_held_back()
    }

    /// Whether upstream has answered this caller for this repository within the last minute.
    /// What is cached with our own credentials is for every client that the operator lets in.
    pub fn is_authorised(&self, caller: &Caller, repository: &Repository) -> bool {
        match caller.identity() {
            None => true,
            Some(identity) => self.authorised.contains_key(&(identity, repository.clone())),
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
        patience: Duration,
    ) -> Result<Option<ManifestHead>, Error> {
        let ask = Ask::manifest(Method::HEAD, repository, reference, caller);
        let talk = Arc::clone(&self.talk);
        let work = async move {
            let reply = talk.ask(&ask).await?;
            let no_head = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
            if no_head.contains(&reply.status) {
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
        };
        self.talk.detached(patience, work).await
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
        let asked = reference.digest().copied();
        let (talk, limit) = (Arc::clone(&self.talk), self.max_manifest);
        let work = async move {
            let reply = expect_ok(talk.ask(&ask).await?).await?;
            let named = content_digest(&reply.headers);
            let content_type = text(&reply.headers, &header::CONTENT_TYPE).map(str::to_owned);
            let body = reply.body.collect(limit).await?.ok_or_else(|| too_large(limit))?;
            let digest = verify(&body, asked, named)?;
            let inspected = inspect(content_type.as_deref(), &body).map_err(not_a_manifest)?;
            Ok(ManifestBody { digest, media_type: inspected.media_type, body })
        };
        self.talk.detached(self.config.timeouts.fetch, work).await
    }

    /// HEAD of a blob: free, and it moves no bytes of it.
    pub async fn head_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Result<BlobHead, Error> {
        let mut ask = Ask::blob(Method::HEAD, repository, digest, caller);
        let talk = Arc::clone(&self.talk);
        let work = async move {
            match expect_ok(talk.ask(&ask).await?).await {
                Ok(reply) => {
                    let size = number(&reply.headers, &header::CONTENT_LENGTH);
                    reply.body.dismiss().await;
                    return Ok(BlobHead { size });
                }
                // A URL signed for GET refuses HEAD in its own ways; one byte of the blob tells as
                // much.
                Err(Error::Denied { .. } | Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
            ask.method = Method::GET;
            ask.range = Some("bytes=0-0".to_owned());
            let reply = talk.ask(&ask).await?;
            // An empty blob has no first byte.
            if reply.status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(BlobHead { size: Some(0) });
            }
            let reply = expect_ok(reply).await?;
            let ranged = content_range(&reply.headers).and_then(|(_, total)| total);
            let size = ranged.or_else(|| number(&reply.headers, &header::CONTENT_LENGTH));
            Ok(BlobHead { size })
        };
        self.talk.detached(self.config.timeouts.fetch, work).await
    }

    /// GET of a blob from the byte `from` on, up to and not including `until`, or to its end. An
    /// upstream that ignores the range starts at 0. A range that begins behind the blob's end is
    /// [`Error::Refused`] with 416.
    pub async fn get_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        until: Option<u64>,
        caller: &Caller,
    ) -> Result<BlobBody, Error> {
        let mut ask = Ask::blob(Method::GET, repository, digest, caller);
        ask.range = match until {
            Some(until) => ByteRange::new(from, until).header(),
            None => (from > 0).then(|| format!("bytes={from}-")),
        };
        let talk = Arc::clone(&self.talk);
        let work = async move {
            let reply = expect_ok(talk.ask(&ask).await?).await?;
            if reply.status != StatusCode::PARTIAL_CONTENT {
                let total = reply.body.expected();
                return Ok(BlobBody { start: 0, total, body: reply.body });
            }
            let (range, total) = content_range(&reply.headers)
                .filter(|(range, _)| range.start == from)
                .ok_or_else(|| Failure::invalid("a 206 with another range than was asked for"))?;
            // Where the whole rest was asked for, its end is the blob's.
            let total = total.or(if until.is_none() { Some(range.end) } else { None });
            let mut body = reply.body;
            body.expect(range.len());
            Ok(BlobBody { start: from, total, body })
        };
        self.talk.detached(self.config.timeouts.fetch, work).await
    }

    /// What the registry itself says to `GET /v2/`, with the caller's credentials.
    pub async fn ping(&self, caller: &Caller) -> Result<(), Error> {
        let (talk, ask) = (Arc::clone(&self.talk), Ask::ping(caller));
        let work = async move {
            let reply = expect_ok(talk.ask(&ask).await?).await?;
            reply.body.dismiss().await;
            Ok(())
        };
        self.talk.detached(self.config.timeouts.fetch, work).await
    }

    /// Where, and with which credentials, a request for `route` is forwarded.
    pub async fn forward(&self, route: &Route, caller: &Caller) -> Result<Forward, Error> {
        let (talk, route, caller) = (Arc::clone(&self.talk), route.clone(), caller.clone());
        let work = async move { talk.forward(&route, &caller).await };
        self.talk.detached(self.config.timeouts.fetch, work).await
    }
}

fn too_large(limit: u64) -> Error {
    Error::Unusable {
        code: ErrorCode::SizeInvalid,
        message: format!("the manifest is larger than {limit} bytes (fill.max_manifest)"),
    }
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
