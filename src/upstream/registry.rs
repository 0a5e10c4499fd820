//! What the cache asks of a registry: manifests, by HEAD and by GET.
//!
//! Their bodies are verified here. Every question is answered within its patience.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use moka::sync::Cache;

use super::{
    Caller, Error, Failure, Forward,
    accounts::Outlook,
    answered::Answered,
    ask::Ask,
    conversation::Conversation,
    ledger::Ledger,
    registries::Registries,
    reply::{content_digest, expect_ok, number, text},
    uploads::Uploads,
    writes::Greeting,
};
use crate::{
    config::{self, Order},
    protocol::{
        Algorithm, Digest, ErrorCode, Reference, Repository, Route,
        media_type::{NotAManifest, inspect},
    },
};

/// DESIGN: a 404 is remembered for at most 10 s.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// Absent blobs remembered.
const ABSENT: u64 = 10_000;

/// A check of a tag that takes longer keeps clients waiting.
const SLOW: Duration = Duration::from_secs(1);

/// How long an upstream counts as slow after such a check, unless a faster one follows.
const SLOW_FOR: Duration = Duration::from_secs(60);

/// The numbers given so far.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

/// The client of one registry.
#[derive(Debug)]
pub struct Upstream {
    pub(super) config: config::Upstream,
    pub(super) registries: Arc<Registries>,
    /// The same for all who ask the same registries with the same credentials.
    pub(super) epoch: u64,
    /// Others may see less than it does: what its requests find out is not recorded any more.
    pub(super) superseded: Arc<AtomicBool>,
    pub(super) offline: Arc<AtomicBool>,
    pub(super) ledger: Arc<Ledger>,
    /// Who may pull.
    pub(super) authorised: Arc<Answered>,
    /// Who may list, which need not be who may pull.
    pub(super) listed: Arc<Answered>,
    /// Blobs that upstream did not have a moment ago, by repository and caller.
    pub(super) absent: Cache<(Repository, Digest, Option<Digest>), Error>,
    pub(super) max_manifest: u64,
    /// When the last check of a tag ended, if it was slow.
    pub(super) slow: Arc<Mutex<Option<Instant>>>,
    /// Writes that the registry took; what was asked before one may be outdated.
    pub(super) writes: Arc<AtomicU64>,
    pub(super) uploads: Arc<Uploads>,
    pub(super) greeting: Arc<Greeting>,
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
    /// How many writes the registry had taken through us when it was asked.
    pub writes: u64,
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

// === impl Upstream ===

impl Upstream {
    /// Prepares the client; reads the CA file. Manifests above `max_manifest` bytes are refused.
    pub fn new(config: config::Upstream, max_manifest: u64) -> Result<Self, String> {
        let (offline, ledger) =
            (Arc::new(AtomicBool::new(config.offline)), Arc::<Ledger>::default());
        let registries = Registries::new(&config, &offline, &ledger, None)?;
        Ok(Self {
            config,
            registries: Arc::new(registries),
            epoch: next_epoch(),
            superseded: Arc::default(),
            offline,
            ledger,
            authorised: Arc::default(),
            listed: Arc::default(),
            absent: absent(),
            max_manifest,
            slow: Arc::default(),
            writes: Arc::default(),
            uploads: Arc::default(),
            greeting: Arc::default(),
        })
    }

    /// What was asked under another number was asked of other registries, or with other credentials.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.talk().name
    }

    /// The registry itself, without its mirrors.
    pub(super) fn talk(&self) -> &Arc<Conversation> {
        &self.registries.upstream
    }

    /// The configuration.
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Who spent and who saved.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is left to all accounts together, as of upstream's last answer.
    pub fn outlook(&self) -> Arc<Outlook> {
        self.talk().accounts.outlook()
    }

    /// By how much the freshness of tags is multiplied now: a tag that is checked less often moves
    /// less often, and each move costs a pull.
    pub fn stretch(&self) -> u32 {
        if self.talk().accounts.spares() { self.config.budget.stretch } else { 1 }
    }

    /// Why upstream is not asked now, if it isn't.
    pub fn held_back(&self) -> Option<Failure> {
        self.registries.held_back()
    }

    /// True if it has kept those waiting who checked a tag last. What is known is served first then.
    pub fn is_slow(&self) -> bool {
        let slow = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.is_some_and(|since| since.elapsed() < SLOW_FOR)
    }

    /// A check of a tag has ended, with `error` if it failed. What is no answer, and no lack of one,
    /// says nothing about how fast upstream is.
    pub fn tag_check_took(&self, time: Duration, error: Option<&Error>) {
        if error.and_then(Error::trouble).is_some_and(|failure| !failure.is_timeout()) {
            return;
        }
        let slow = (time >= SLOW).then(Instant::now);
        *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = slow;
    }

    /// True while nothing is asked of it.
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// Stops asking it, or begins again; the roster tells the metrics.
    pub(super) fn set_offline(&self, offline: bool) {
        if self.offline.swap(offline, Ordering::Relaxed) != offline {
            tracing::warn!(upstream = %self.name(), offline, "switched by the operator");
        }
    }

    /// Whether upstream has answered this caller for this repository within the last minute.
    /// What is cached with our own credentials is for every client that the operator lets in.
    pub fn is_authorised(&self, caller: &Caller, repository: &Repository) -> bool {
        self.authorised.knows(caller, repository)
    }

    /// Upstream has just answered this caller for this repository.
    pub fn authorise(&self, caller: &Caller, repository: &Repository) {
        self.authorised.remember(caller, repository);
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
        let writes = self.writes();
        let work = |talk: Arc<Conversation>| head_manifest(talk, ask.clone(), writes);
        self.registries.ask(caller, patience, work).await
    }

    /// GET of a manifest, caused by `client`: counted. The body is verified against the digest asked
    /// for, or else against the one that the answer names.
    pub async fn get_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
        client: Option<IpAddr>,
    ) -> Result<ManifestBody, Error> {
        let ask = Ask { client, ..Ask::manifest(Method::GET, repository, reference, caller) };
        let asked = reference.digest().copied();
        let limit = self.max_manifest;
        let work = |talk: Arc<Conversation>| {
            let ask = ask.clone();
            async move {
                let reply = expect_ok(talk.ask(&ask).await?).await?;
                let named = content_digest(&reply.headers);
                let content_type = text(&reply.headers, &header::CONTENT_TYPE).map(str::to_owned);
                let body = reply.body.collect(limit).await?.ok_or_else(|| too_large(limit))?;
                let digest = verify(&body, asked, named)?;
                let inspected = inspect(content_type.as_deref(), &body).map_err(not_a_manifest)?;
                Ok(ManifestBody { digest, media_type: inspected.media_type, body })
            }
        };
        self.registries.ask(caller, self.config.timeouts.fetch, work).await
    }

    /// What the registry itself says to `GET /v2/`, with the caller's credentials.
    pub async fn ping(&self, caller: &Caller) -> Result<(), Error> {
        let (talk, ask) = (Arc::clone(self.talk()), Ask::ping(caller));
        let work = async move {
            let reply = expect_ok(talk.ask(&ask).await?).await?;
            reply.body.dismiss().await;
            Ok(())
        };
        self.talk().detached(self.config.timeouts.fetch, work).await
    }

    /// Where, and with which credentials, a request for `route` is forwarded.
    pub async fn forward(&self, route: &Route, caller: &Caller) -> Result<Forward, Error> {
        let (talk, route, caller) = (Arc::clone(self.talk()), route.clone(), caller.clone());
        let work = async move { talk.forward(&route, &caller).await };
        self.talk().detached(self.config.timeouts.fetch, work).await
    }
}

/// One that nobody has.
pub(super) fn next_epoch() -> u64 {
    EPOCHS.fetch_add(1, Ordering::Relaxed)
}

pub(super) fn absent() -> Cache<(Repository, Digest, Option<Digest>), Error> {
    Cache::builder().max_capacity(ABSENT).time_to_live(ABSENT_FOR).build()
}

pub(super) async fn head_manifest(
    talk: Arc<Conversation>,
    ask: Ask,
    writes: u64,
) -> Result<Option<ManifestHead>, Error> {
    let reply = talk.ask(&ask).await?;
    let no_head = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    let can_tell = !no_head.contains(&reply.status);
    let has_digest = reply.headers.contains_key("docker-content-digest");
    // The one that is asked next can tell, and a GET there may be counted.
    if talk.mirror == Some(Order::Before) && !(can_tell && has_digest) {
        let reply = expect_ok(reply).await?;
        reply.body.dismiss().await;
        return Err(Failure::invalid("its HEAD does not tell the digest").into());
    }
    if !can_tell {
        return Ok(None);
    }
    let reply = expect_ok(reply).await?;
    let head = ManifestHead {
        digest: content_digest(&reply.headers),
        media_type: text(&reply.headers, &header::CONTENT_TYPE).map(str::to_owned),
        size: number(&reply.headers, &header::CONTENT_LENGTH),
        writes,
    };
    reply.body.dismiss().await;
    Ok(Some(head))
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
