//! The requests of the blob side: who may have which blob, and from where.
//!
//! A digest has one copy in the store and at most one fill, whatever
//! repositories and upstreams it is asked for under.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Passing,
    fill::{Fill, Origin, Reader},
    receive,
};
use crate::{
    config,
    protocol::{Digest, Repository},
    store::{self, Lease, Link, LinkKey, SMALL_BYTES, Staging, Store},
    upstream::{self, Caller, Failure, Upstream},
};

/// Fills at the same time. Each has a thread for its hash and disk.
const MAX_FILLS: usize = 128;

/// Why a blob can't be served. Cheap to clone: one failure is told to all readers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Upstream said so, or was in trouble.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The bytes are not what their name says.
    #[error(transparent)]
    Mismatch(Box<DigestMismatch>),
    /// The disk failed.
    #[error(transparent)]
    Store(Arc<store::Error>),
    /// The fill ended without a word: the server is stopping.
    #[error("the fill was given up")]
    Lost,
}

/// Upstream sent other bytes than were asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("upstream sent bytes with the digest {found} for {expected}")]
pub struct DigestMismatch {
    /// What was asked for.
    pub expected: Digest,
    /// What came.
    pub found: Digest,
}

/// Who asks for which blob of which repository.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The registry.
    pub upstream: Arc<Upstream>,
    /// The repository there.
    pub repository: Repository,
    /// The blob.
    pub digest: Digest,
    /// On whose behalf upstream is asked.
    pub caller: Caller,
}

/// Where a blob's bytes come from.
#[derive(Debug)]
pub enum Source {
    /// A small one, in memory.
    Memory(Bytes),
    /// A stored one.
    Stored(Lease),
    /// One that is being filled.
    Filling(Reader),
    /// One that is not kept.
    Passing(Box<Passing>),
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored.
    Hit,
    /// Being fetched.
    Fetched {
        /// By another request.
        collapsed: bool,
    },
    /// Upstream's, and not kept.
    Passed,
}

/// A place at a fill.
struct Place {
    reader: Reader,
    /// The fill was there already.
    collapsed: bool,
    /// It is another repository's, upstream's or caller's.
    is_foreign: bool,
}

/// A blob to serve.
#[derive(Debug)]
pub struct Served {
    /// Its bytes.
    pub source: Source,
    /// Its length, where it is known by now.
    pub size: Option<u64>,
    /// How it came about.
    pub outcome: Outcome,
}

/// The blobs of every upstream.
#[derive(Debug)]
pub struct Blobs {
    store: Arc<Store>,
    settings: config::Fill,
    fills: Mutex<HashMap<Digest, Arc<Fill>>>,
    /// Places for fills that talk to upstream; others wait.
    places: Semaphore,
}

// === impl Blobs ===

impl Blobs {
    /// Blobs kept in `store`, filled under `settings`.
    pub fn new(store: Arc<Store>, settings: config::Fill) -> Self {
        Self { store, settings, fills: Mutex::default(), places: Semaphore::new(MAX_FILLS) }
    }

    /// The blob for a GET, with its first bytes there or none to come: whatever went wrong before
    /// is an error that can still be told. The length is waited for if it `must_be_known`.
    pub async fn open(self: &Arc<Self>, ask: &Ask, must_be_known: bool) -> Result<Served, Error> {
        self.admit(ask).await?;
        match self.stored(ask.digest).await {
            Ok(Some((source, size))) => {
                return Ok(Served { source, size: Some(size), outcome: Outcome::Hit });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, digest = %ask.digest, "the store could not be read");
                return self.pass_through(ask).await;
            }
        }
        loop {
            let place = self.join(ask);
            match started(ask, place.reader, must_be_known).await {
                Ok((source, size)) => {
                    let outcome = Outcome::Fetched { collapsed: place.collapsed };
                    return Ok(Served { source, size, outcome });
                }
                // Another repository's, upstream's or caller's fill failed for reasons of its own.
                Err(Error::Upstream(_)) if place.is_foreign => {}
                Err(Error::Store(_)) => return self.pass_through(ask).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn pass_through(&self, ask: &Ask) -> Result<Served, Error> {
        tracing::info!(digest = %ask.digest, "passed through without being stored");
        let passing = Box::new(Passing::open(ask).await?);
        let size = passing.total();
        Ok(Served { source: Source::Passing(passing), size, outcome: Outcome::Passed })
    }

    /// The blob's length for a HEAD, which never fetches it.
    pub async fn describe(self: &Arc<Self>, ask: &Ask) -> Result<(u64, Outcome), Error> {
        self.admit(ask).await?;
        if let Some((_, size)) = self.stored(ask.digest).await? {
            return Ok((size, Outcome::Hit));
        }
        let filling = self.fills().get(&ask.digest).and_then(|fill| fill.progress().total);
        if let Some(size) = filling {
            return Ok((size, Outcome::Fetched { collapsed: true }));
        }
        let head = self.head_upstream(ask).await?;
        let size = head.size.ok_or_else(|| {
            upstream::Error::from(Failure::invalid("a HEAD of a blob without its length"))
        })?;
        Ok((size, Outcome::Passed))
    }

    /// A blob known from elsewhere is served only once upstream has said, by a free HEAD, that
    /// this repository has it too, and has it for this caller.
    async fn admit(&self, ask: &Ask) -> Result<(), Error> {
        let authorised = ask.upstream.is_authorised(&ask.caller, &ask.repository);
        if authorised && self.is_linked(ask).await? {
            return Ok(());
        }
        let filling = self.fills().get(&ask.digest).cloned();
        let same_origin = filling.as_ref().is_some_and(|fill| fill.is_from(&ask.origin()));
        if authorised && same_origin {
            return Ok(());
        }
        let known = filling.is_some() || self.store.contains(ask.digest).await?;
        if known || !authorised {
            self.head_upstream(ask).await?;
            ask.upstream.authorise(&ask.caller, &ask.repository);
            self.link(ask, Link { media_type: None }).await;
        }
        Ok(())
    }

    async fn head_upstream(&self, ask: &Ask) -> Result<upstream::BlobHead, Error> {
        Ok(ask.upstream.head_blob(&ask.repository, &ask.digest, &ask.caller).await?)
    }

    async fn is_linked(&self, ask: &Ask) -> Result<bool, Error> {
        Ok(self.store.linked(ask.link_key()).await?.is_some())
    }

    async fn stored(&self, digest: Digest) -> Result<Option<(Source, u64)>, Error> {
        let small = |body: Bytes| {
            let size = body.len() as u64;
            (Source::Memory(body), size)
        };
        if let Some(body) = self.store.in_memory(&digest) {
            return Ok(Some(small(body)));
        }
        let Some(lease) = self.store.get(digest).await? else { return Ok(None) };
        if lease.len() > SMALL_BYTES {
            let size = lease.len();
            return Ok(Some((Source::Stored(lease), size)));
        }
        // Reading it checks it; a small blob that went bad on disk is absent from here on.
        Ok(self.store.read(digest, SMALL_BYTES).await?.map(small))
    }

    /// A place at the blob's fill, which is started if there is none.
    fn join(self: &Arc<Self>, ask: &Ask) -> Place {
        let mut fills = self.fills();
        if let Some(fill) = fills.get(&ask.digest) {
            let is_foreign = !fill.is_from(&ask.origin());
            return Place { reader: fill.reader(), collapsed: true, is_foreign };
        }
        let fill = Fill::new(ask.digest, ask.origin());
        let reader = fill.reader();
        fills.insert(ask.digest, Arc::clone(&fill));
        tokio::spawn(receive::run(Arc::clone(self), ask.clone(), fill));
        Place { reader, collapsed: false, is_foreign: false }
    }

    /// Removes an ended fill from the table.
    pub(super) fn forget(&self, fill: &Arc<Fill>) {
        let mut fills = self.fills();
        if fills.get(&fill.digest()).is_some_and(|present| Arc::ptr_eq(present, fill)) {
            fills.remove(&fill.digest());
        }
    }

    /// True if all readers have left a fill that is not worth going on with; it is then out of the
    /// table, so that nobody joins what is about to stop.
    pub(super) fn is_abandoned(&self, fill: &Arc<Fill>) -> bool {
        if fill.has_readers() || self.is_worth_finishing(fill) {
            return false;
        }
        let mut fills = self.fills();
        if fill.has_readers() {
            return false;
        }
        // It stands there until it ends, and ends right after this.
        fills.remove(&fill.digest());
        true
    }

    fn is_worth_finishing(&self, fill: &Fill) -> bool {
        let progress = fill.progress();
        let Some(total) = progress.total else {
            return false;
        };
        let left = total.saturating_sub(progress.written);
        let percent = u64::from(self.settings.finish_above_percent);
        left <= self.settings.finish_below
            || progress.written.saturating_mul(100) >= total.saturating_mul(percent)
    }

    /// The staged file of `digest`, once its last writer has let go of it.
    pub(super) async fn stage(&self, digest: Digest) -> Result<Staging, Error> {
        let store = Arc::clone(&self.store);
        store.unclaimed(&digest).await;
        blocking(move || store.stage(digest)).await
    }

    /// Remembers that the repository has the blob. Not remembering costs a free HEAD later.
    pub(super) async fn link(&self, ask: &Ask, link: Link) {
        if self.store.linked_in_memory(&ask.link_key()).is_some() {
            return;
        }
        if let Err(error) = self.store.link(ask.link_key(), link).await {
            tracing::warn!(%error, digest = %ask.digest, "a blob could not be linked");
        }
    }

    /// Waits for a place among the fills that run.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.places.acquire().await.map_err(|_| Error::Lost)
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn settings(&self) -> &config::Fill {
        &self.settings
    }

    fn fills(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fill>>> {
        self.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ask ===

impl Ask {
    fn origin(&self) -> Origin {
        Origin {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            identity: self.caller.identity(),
        }
    }

    fn link_key(&self) -> LinkKey {
        LinkKey {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            digest: self.digest,
        }
    }
}

// === impl Error ===

impl Error {
    pub(super) fn mismatch(expected: Digest, found: Digest) -> Self {
        Self::Mismatch(Box::new(DigestMismatch { expected, found }))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Waits for a fill's first bytes, for as long as an unseen object may take.
async fn started(
    ask: &Ask,
    mut reader: Reader,
    must_be_known: bool,
) -> Result<(Source, Option<u64>), Error> {
    let wait = async {
        match reader.start().await? {
            None if must_be_known => reader.total().await.map(Some),
            size => Ok(size),
        }
    };
    match tokio::time::timeout(ask.upstream.config().timeouts.fetch, wait).await {
        Ok(size) => Ok((Source::Filling(reader), size?)),
        Err(_) => {
            let host = Arc::clone(ask.upstream.name());
            let failure = Failure::Timeout { host, waiting_for: "the first bytes of a blob" };
            Err(upstream::Error::from(failure).into())
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Lost)?;
    Ok(done?)
}
