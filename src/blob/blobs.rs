//! The requests of the blob side: who may have which blob, and from where.
//!
//! A digest has one copy in the store and at most one fill, whatever
//! repositories and upstreams it is asked for under.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use moka::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Ask, Error, Feed, Outcome, Served, Source,
    fill::Fill,
    lane::PERMIT_BYTES,
    reader::Reader,
    receive,
    started::{busy, started},
    table::{Shared, Table},
    window::Interest,
};
use crate::{
    config,
    permits::resize,
    protocol::{
        Digest,
        range::{Asked, asked},
    },
    store::{self, Link, LinkKey, Staging, Store},
    trace,
    upstream::{self, Failure},
};

/// How long a digest whose chunks did not match is only fetched whole.
const WHOLE_ONLY_FOR: Duration = Duration::from_secs(600);

/// How many such digests are remembered.
const WHOLE_ONLY: u64 = 10_000;

/// How often a request begins anew where a fill can't go on.
const ATTEMPTS: u32 = 4;

/// How long a hand-over waits for staged files to be let go of.
const LET_GO: Duration = Duration::from_secs(5);

/// A place at a fill.
struct Place {
    reader: Reader,
    /// The fill was there already.
    collapsed: bool,
    /// It is another repository's, upstream's or caller's.
    is_foreign: bool,
}

/// The blobs of every upstream.
#[derive(Debug)]
pub struct Blobs {
    pub(super) store: Arc<Store>,
    settings: ArcSwap<config::Fill>,
    pub(super) fills: Table<Digest, Arc<Fill>>,
    /// Places for fills that talk to upstream; others wait.
    places: Arc<Semaphore>,
    /// Memory for all fills together.
    memory: Arc<Semaphore>,
    /// Digests whose chunks, put together, did not match.
    whole_only: Cache<Digest, ()>,
    /// Another process is to have the store: nothing is staged.
    lets_go: AtomicBool,
}

// === impl Blobs ===

impl Blobs {
    /// Blobs kept in `store`, filled under `settings`.
    pub fn new(store: Arc<Store>, settings: config::Fill) -> Self {
        Self {
            store,
            fills: Table::default(),
            places: Arc::new(Semaphore::new(places_of(&settings))),
            memory: Arc::new(Semaphore::new(memory_of(&settings))),
            whole_only: Cache::builder()
                .max_capacity(WHOLE_ONLY)
                .time_to_live(WHOLE_ONLY_FOR)
                .build(),
            lets_go: AtomicBool::new(false),
            settings: ArcSwap::from_pointee(settings),
        }
    }

    /// From now on under other settings; what is above a lower limit goes as fills end. Within a
    /// runtime.
    pub fn reconfigure(&self, settings: config::Fill) {
        let before = self.settings.swap(Arc::new(settings.clone()));
        resize(&self.places, places_of(&before), places_of(&settings));
        resize(&self.memory, memory_of(&before), memory_of(&settings));
    }

    /// The blob for a GET with this `Range` header, with the first of its bytes there or none to
    /// come: whatever went wrong before is an error that can still be told. The length is waited
    /// for if it `must_be_known`.
    pub async fn open(
        self: &Arc<Self>,
        ask: &Ask,
        range: Option<&str>,
        must_be_known: bool,
    ) -> Result<Served, Error> {
        let before = self.store.publications();
        let may_be_stored = self.admit(ask).await?;
        let stored = if may_be_stored { self.stored(ask.digest).await } else { Ok(None) };
        let absent_at = stored.is_ok().then_some(before);
        if let Ok(Some((source, size))) = stored {
            let feed = self.feed(ask, source);
            return Ok(Served { feed, size: Some(size), outcome: Outcome::Hit });
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let place = self.join(ask, asked(range), absent_at.filter(|_| attempts == 1))?;
            let (is_foreign, collapsed) = (place.is_foreign, place.collapsed);
            match started(ask, place.reader, range, must_be_known).await {
                Ok((source, size)) => {
                    let outcome = Outcome::Fetched { collapsed };
                    return Ok(Served { feed: self.feed(ask, source), size, outcome });
                }
                // Another repository's, upstream's or caller's fill failed for reasons of its own.
                Err(Error::Upstream(_)) if is_foreign => {}
                // What did not match was put together from pieces; now it is fetched whole.
                Err(Error::Moved) if attempts < ATTEMPTS => {}
                Err(Error::Mismatch(_))
                    if attempts == 1 && self.whole_only.contains_key(&ask.digest) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn feed(self: &Arc<Self>, ask: &Ask, source: Source) -> Feed {
        Feed { source, blobs: Arc::clone(self), ask: ask.clone(), replaced: 0 }
    }

    /// Another source for an answer that has begun.
    pub(super) async fn source(
        self: &Arc<Self>,
        ask: &Ask,
        interest: Interest,
    ) -> Result<Source, Error> {
        if let Ok(Some((source, _))) = self.stored(ask.digest).await {
            return Ok(source);
        }
        let asked = match interest {
            Interest { is_whole: true, .. } => Asked::Whole,
            Interest { at, until, .. } => Asked::From(at, until),
        };
        Ok(Source::Filling(self.join(ask, asked, None)?.reader))
    }

    /// The blob's length for a HEAD, which never fetches it.
    pub async fn describe(self: &Arc<Self>, ask: &Ask) -> Result<(u64, Outcome), Error> {
        self.admit(ask).await?;
        if let Ok(Some((_, size))) = self.stored(ask.digest).await {
            return Ok((size, Outcome::Hit));
        }
        let filling = self.fills.get(&ask.digest).and_then(|fill| fill.total());
        if let Some(size) = filling {
            return Ok((size, Outcome::Fetched { collapsed: true }));
        }
        let head = self.head_upstream(ask).await?;
        let size = head.size.ok_or_else(|| {
            upstream::Error::from(Failure::invalid("a HEAD of a blob without its length"))
        })?;
        Ok((size, Outcome::Passed))
    }

    /// A place at the blob's fill, which is started if there is none. `absent_at`: it was looked for
    /// in the store after so many publications, and not found.
    fn join(
        self: &Arc<Self>,
        ask: &Ask,
        asked: Asked,
        absent_at: Option<u64>,
    ) -> Result<Place, Error> {
        let interest = match asked {
            Asked::Whole => Interest { at: 0, until: None, is_whole: true },
            Asked::From(at, until) => Interest { at, until, is_whole: false },
            // Until it is known what is wanted, nothing is.
            Asked::Unsized => Interest { at: 0, until: Some(0), is_whole: false },
        };
        let limit = self.settings.load().max_readers;
        let join = |fill: &Arc<Fill>| {
            // A late reader of a fill that is not stored would be alone; together with those who
            // come now it is not.
            if !fill.can_serve(interest.at) {
                return Err(());
            }
            let is_foreign = !fill.is_from(&ask.origin());
            Ok((fill.reader(interest, limit), is_foreign))
        };
        let make = || {
            let fill = Fill::new(ask.digest, ask.origin());
            let reader = fill.reader(interest, limit);
            let (blobs, ask) = (Arc::clone(self), ask.clone());
            let run = receive::run(blobs, ask, Arc::clone(&fill), asked, absent_at);
            tokio::spawn(trace::inherit(run));
            (fill, (reader, false))
        };
        let ((reader, is_foreign), collapsed) = self.fills.join_or_make(ask.digest, join, make);
        let Some(reader) = reader else {
            return Err(busy("readers", "clients of one blob"));
        };
        Ok(Place { reader, collapsed, is_foreign })
    }

    /// Removes an ended fill from the table.
    pub(super) fn forget(&self, fill: &Arc<Fill>) {
        self.fills.forget(&fill.digest(), fill);
    }

    /// True if all readers have left a fill that is not worth going on with; it is then out of the
    /// table, so that nobody joins what is about to stop.
    pub(super) fn is_abandoned(&self, fill: &Arc<Fill>) -> bool {
        !fill.has_readers() && !self.is_worth_finishing(fill) && self.is_left(fill)
    }

    /// True if all readers have left; nobody joins it from then on.
    pub(super) fn is_left(&self, fill: &Arc<Fill>) -> bool {
        self.fills.forget_unused(&fill.digest(), fill)
    }

    fn is_worth_finishing(&self, fill: &Fill) -> bool {
        let progress = fill.progress();
        let Some(total) = progress.total else {
            return false;
        };
        let received = progress.received.len();
        let settings = self.settings.load();
        let percent = u64::from(settings.finish_above_percent);
        total.saturating_sub(received) <= settings.finish_below
            || received.saturating_mul(100) >= total.saturating_mul(percent)
    }

    /// Has every fill leave its staged file to another process, and waits until they have. What is
    /// under way goes on in memory.
    pub async fn let_go(&self) {
        self.lets_go.store(true, Ordering::Release);
        let deadline = Instant::now() + LET_GO;
        while self.store.has_writers() && Instant::now() < deadline {
            // Those too that have begun to store only now.
            self.fills.all().iter().for_each(|fill| fill.let_go());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What comes is stored again.
    pub fn take_back(&self) {
        self.lets_go.store(false, Ordering::Release);
    }

    /// The staged file of `digest`, once its last writer has let go of it.
    pub(super) async fn stage(&self, digest: Digest) -> Result<Staging, store::Error> {
        if self.lets_go.load(Ordering::Acquire) {
            return Err(store::Error::Closed);
        }
        let store = Arc::clone(&self.store);
        store.unclaimed(&digest).await;
        blocking(move || store.stage(digest)).await
    }

    /// Remembers that the repository has the blob. Not remembering costs a free HEAD later.
    pub(super) async fn link(&self, ask: &Ask, link: Link) {
        let is_known = self.store.linked_in_memory(&ask.link_key()).is_some();
        if is_known || ask.upstream.is_superseded() {
            return;
        }
        if let Err(error) = self.store.link(ask.link_key(), link).await {
            tracing::warn!(%error, digest = %ask.digest, "a blob could not be linked");
        }
    }

    /// Upstream took it into the repository.
    pub fn pushed(&self, key: &LinkKey) {
        self.store.relink(key);
    }

    /// Upstream deleted it from the repository: whoever asks for it there next asks upstream.
    pub async fn deleted(&self, key: LinkKey) {
        if let Err(error) = self.store.unlink(key).await {
            tracing::warn!(%error, "a deleted blob could not be forgotten");
        }
    }

    /// Waits for a place among the fills that run.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.places.acquire().await.map_err(|_| Error::Lost)
    }

    pub(super) fn memory(&self) -> &Arc<Semaphore> {
        &self.memory
    }

    /// True if the chunks of `digest` did not match a while ago.
    pub(super) fn is_whole_only(&self, digest: &Digest) -> bool {
        self.whole_only.contains_key(digest)
    }

    pub(super) fn fetch_only_whole(&self, digest: Digest) {
        self.whole_only.insert(digest, ());
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn settings(&self) -> Arc<config::Fill> {
        self.settings.load_full()
    }
}

impl Shared for Arc<Fill> {
    fn is_in_use(&self) -> bool {
        self.has_readers()
    }

    fn is_same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

fn places_of(settings: &config::Fill) -> usize {
    settings.max_active.min(Semaphore::MAX_PERMITS)
}

fn memory_of(settings: &config::Fill) -> usize {
    let permits = usize::try_from(settings.memory / PERMIT_BYTES).unwrap_or(usize::MAX);
    permits.min(Semaphore::MAX_PERMITS)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
) -> Result<T, store::Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| store::Error::Closed)?
}
