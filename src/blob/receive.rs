//! The asking half of a fill: what upstream is asked for, until all that is wanted is there.
//!
//! It runs in a task of its own; the first client is a reader like the others.
//! When all have left, a fill that is small or well advanced goes on, any other
//! stops and keeps its partial file; one that only ranges were read of waits a
//! while for the next.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::SemaphorePermit,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    Ask, Blobs, Error,
    fetch::{Claim, Fetched, Job},
    fill::Fill,
    lane::Lane,
    plan::{self, AHEAD_BYTES, Situation, Step},
};
use crate::{
    metrics,
    protocol::{ByteRange, Coverage, range::Asked},
    store::{self, DISK_PATIENCE, Link, Staging},
    upstream::{self, BlobBody, Failure},
};

/// How long a fill waits for the next range before it leaves its file.
const LINGER: Duration = Duration::from_secs(30);

/// How a fill ended, for the metrics.
#[derive(Debug)]
enum Ending {
    Committed,
    Abandoned,
    Failed(Error),
}

/// A fill under way. Whatever ends it, a panic included, its readers learn of it and the table
/// forgets it.
struct Running {
    blobs: Arc<Blobs>,
    fill: Arc<Fill>,
}

/// Counts a fill as active, and keeps its place among those that are.
struct Active<'a> {
    _place: SemaphorePermit<'a>,
}

/// What is known once upstream has answered for the first time.
struct Beginning {
    staging: Option<Staging>,
    total: Option<u64>,
    /// The answer, if it has bytes, and the part that it brings.
    first: Option<(plan::Claim, BlobBody)>,
    is_whole: bool,
}

/// The fill's own state.
struct Driver<'a> {
    blobs: &'a Arc<Blobs>,
    ask: &'a Ask,
    fill: &'a Arc<Fill>,
    lane: Arc<Lane>,
    jobs: JoinSet<(Arc<Claim>, Result<Fetched, Error>)>,
    claims: Vec<Arc<Claim>>,
    /// Upstream ignores ranges.
    whole_only: bool,
    /// Somebody has wanted the whole.
    is_whole: bool,
    /// It was put together from more than one piece: where it does not match, that may be why.
    is_assembled: bool,
}

/// What a look at the jobs came to.
enum Turn {
    /// All is there; the length where only the end of a body told it.
    Complete(u64),
    Abandoned,
    /// Nobody wants more now.
    Idle,
    /// Something changed.
    Again,
}

// === impl Beginning ===

impl Beginning {
    /// True if the answer has all of the blob: it needs nothing that is on disk.
    fn is_from_the_start(&self) -> bool {
        let first = self.first.as_ref();
        first.is_some_and(|(claim, _)| claim.is_whole && claim.range.start == 0)
    }
}

// === impl Running ===

impl Running {
    /// The table forgets first: who comes now starts anew instead of joining what has ended.
    fn end(&self, error: Error) {
        self.blobs.forget(&self.fill);
        self.fill.fail(error);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Error::Lost);
    }
}

// === impl Active ===

impl<'a> Active<'a> {
    async fn wait(blobs: &'a Blobs) -> Result<Self, Error> {
        let place = blobs.place().await?;
        metrics::FILLS_ACTIVE.inc();
        Ok(Self { _place: place })
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        metrics::FILLS_ACTIVE.dec();
    }
}

/// Runs a fill to its end and leaves the table of fills as it should be.
pub(super) async fn run(blobs: Arc<Blobs>, ask: Ask, fill: Arc<Fill>, asked: Asked) {
    let running = Running { blobs: Arc::clone(&blobs), fill: Arc::clone(&fill) };
    let ending = match receive(&blobs, &ask, &fill, asked).await {
        Ok(ending) => ending,
        Err(error) => Ending::Failed(error),
    };
    let word = match &ending {
        Ending::Committed => "committed",
        Ending::Abandoned => "abandoned",
        Ending::Failed(Error::Mismatch(_)) => "mismatch",
        Ending::Failed(_) => "failed",
    };
    metrics::FILLS.with_label_values(&[word]).inc();
    if let Ending::Failed(error) = ending {
        tracing::warn!(
            upstream = %ask.upstream.name(), repository = %ask.repository, digest = %fill.digest(),
            %error, "a fill failed"
        );
        running.end(error);
    }
}

async fn receive(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Arc<Fill>,
    asked: Asked,
) -> Result<Ending, Error> {
    let mut active = Some(Active::wait(blobs).await?);
    if let Ok(Some(lease)) = blobs.store().get(fill.digest()).await {
        // Whoever asked had looked before the last fill ended.
        fill.store(lease.map().clone(), Coverage::prefix(lease.len()));
        fill.begin(Some(lease.len()));
        fill.verified();
        return Ok(Ending::Committed);
    }
    fill.asking();
    let beginning = begin(blobs, ask, fill, asked).await?;
    let linking = link(blobs, ask);
    let mut driver = Driver::start(blobs, ask, fill, beginning);
    loop {
        if active.is_none() && fill.has_readers() {
            active = Some(Active::wait(blobs).await?);
        }
        match driver.turn().await? {
            Turn::Complete(total) => {
                driver.finish(total).await?;
                // It reports for itself; here it is only waited for.
                let _ = linking.await;
                return Ok(Ending::Committed);
            }
            Turn::Abandoned => return Ok(Ending::Abandoned),
            Turn::Idle => {
                active = None;
                if timeout(LINGER, fill.changed.notified()).await.is_err() && blobs.is_left(fill) {
                    return Ok(Ending::Abandoned);
                }
            }
            Turn::Again => {}
        }
    }
}

/// Remembers that the repository has the blob, beside the stream: the index's disk is slower than
/// the first bytes.
fn link(blobs: &Arc<Blobs>, ask: &Ask) -> JoinHandle<()> {
    let (blobs, ask) = (Arc::clone(blobs), ask.clone());
    tokio::spawn(async move { blobs.link(&ask, Link { media_type: None }).await })
}

async fn get(ask: &Ask, from: u64, until: Option<u64>) -> Result<BlobBody, Error> {
    let Ask { upstream, repository, digest, caller } = ask;
    Ok(upstream.get_blob(repository, digest, from, until, caller).await?)
}

// === beginning ===

/// Claims the staged file, asks upstream for the first time, and begins.
async fn begin(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Fill,
    asked: Asked,
) -> Result<Beginning, Error> {
    // Claimed before upstream is asked for what is missing: nobody takes the left-over away.
    let staging = stage(blobs, fill).await;
    let may_be_parts = staging.is_some() && !blobs.is_whole_only(&fill.digest());
    let asked = if may_be_parts { asked } else { Asked::Whole };
    let mut beginning = match asked {
        Asked::Whole => begin_whole(blobs, ask, fill, staging).await?,
        asked => begin_part(blobs, ask, fill, staging, asked).await?,
    };
    let (total, is_whole) = (beginning.total, beginning.is_whole);
    if let Some(staging) = beginning.staging.take() {
        match prepared(fill, staging, total, is_whole).await {
            Ok(staging) => beginning.staging = Some(staging),
            Err(error) => {
                report_unstored(fill, &error);
                if !beginning.is_from_the_start() {
                    beginning = begin_whole(blobs, ask, fill, None).await?;
                }
            }
        }
    }
    fill.begin(beginning.total);
    Ok(beginning)
}

/// The staged file of the blob, unless the disk can't have one now.
async fn stage(blobs: &Arc<Blobs>, fill: &Fill) -> Option<Staging> {
    match timeout(DISK_PATIENCE, blobs.stage(fill.digest())).await {
        Ok(Ok(staging)) => Some(staging),
        Ok(Err(error)) => {
            report_unstored(fill, &error);
            None
        }
        Err(_) => {
            blobs.store().report_slow();
            report_unstored(fill, &store::Error::Slow("open a staged file"));
            None
        }
    }
}

fn report_unstored(fill: &Fill, error: &store::Error) {
    let why = match error {
        store::Error::Full { .. } => "full",
        store::Error::Slow(_) => "slow",
        store::Error::Closed => "handover",
        _ => "disk",
    };
    metrics::FILLS_UNSTORED.with_label_values(&[why]).inc();
    tracing::info!(digest = %fill.digest(), %error, "streamed without being stored");
}

/// The whole is wanted: asks from behind what is there from the beginning.
async fn begin_whole(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Fill,
    staging: Option<Staging>,
) -> Result<Beginning, Error> {
    let mut staging = staging;
    let known = staging.as_ref().and_then(Staging::total);
    if known.is_some() {
        // A journal says all that an answer would.
        return Ok(Beginning { staging, total: known, first: None, is_whole: true });
    }
    let mut at = staging.as_ref().map_or(0, |staging| staging.present().end_of(0));
    let mut body = get(ask, at, None).await?;
    if body.total.is_some_and(|total| at > total) {
        // What lies there is longer than the blob: it can't be the beginning of it.
        if let Some(staging) = staging.take() {
            staging.discard();
        }
        staging = stage(blobs, fill).await;
        at = 0;
        body = get(ask, 0, None).await?;
    }
    let total = body.total;
    let range = ByteRange::new(at, total.unwrap_or(u64::MAX));
    let first = Some((plan::Claim { range, is_whole: true }, body));
    Ok(Beginning { staging, total, first, is_whole: true })
}

/// Part of it is wanted: asks for the chunks that it lies in, and so learns the length.
async fn begin_part(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Fill,
    staging: Option<Staging>,
    asked: Asked,
) -> Result<Beginning, Error> {
    let known = staging.as_ref().and_then(Staging::total);
    if known.is_some() {
        return Ok(Beginning { staging, total: known, first: None, is_whole: false });
    }
    let chunk = blobs.settings().chunk;
    let first = match asked {
        Asked::From(at, until) => {
            let there = staging.as_ref().map_or(0, |staging| staging.present().end_of(0));
            let start = (at - at % chunk).max(there);
            let until = until.unwrap_or(u64::MAX).max(start + 1).checked_next_multiple_of(chunk);
            let end = until.unwrap_or(u64::MAX).min(start.saturating_add(AHEAD_BYTES));
            match get(ask, start, Some(end)).await {
                Ok(body) => Some((start, end, body)),
                Err(Error::Upstream(upstream::Error::Refused { status, .. }))
                    if status == http::StatusCode::RANGE_NOT_SATISFIABLE =>
                {
                    None
                }
                Err(error) => return Err(error),
            }
        }
        Asked::Whole | Asked::Unsized => None,
    };
    match first {
        // It ignores ranges: this is the whole.
        Some((start, _, body)) if body.start != start || body.total.is_none() => {
            drop(body);
            begin_whole(blobs, ask, fill, staging).await
        }
        Some((start, end, body)) => {
            let total = body.total;
            let end = end.min(total.unwrap_or(end));
            let is_whole = body.body.expected().is_none_or(|len| start + len > end);
            let end = if is_whole { total.unwrap_or(u64::MAX) } else { end };
            let claim = plan::Claim { range: ByteRange::new(start, end), is_whole };
            Ok(Beginning { staging, total, first: Some((claim, body)), is_whole })
        }
        None => {
            let head = ask.upstream.head_blob(&ask.repository, &ask.digest, &ask.caller).await?;
            let total = head.size.ok_or_else(|| {
                upstream::Error::from(Failure::invalid("a HEAD of a blob without its length"))
            })?;
            Ok(Beginning { staging, total: Some(total), first: None, is_whole: false })
        }
    }
}

/// Makes room for the blob and maps its file, where that may block.
async fn prepared(
    fill: &Fill,
    mut staging: Staging,
    total: Option<u64>,
    is_whole: bool,
) -> Result<Staging, store::Error> {
    let present = staging.present().clone();
    // Of a blob that is only read in parts so much is held as may come next.
    let wanted = match total {
        Some(total) if is_whole => total,
        Some(total) => total.min(present.len() + AHEAD_BYTES),
        None => present.len() + AHEAD_BYTES,
    };
    let work = tokio::task::spawn_blocking(move || {
        let map = staging.prepare(total, wanted)?;
        Ok((staging, map))
    });
    match timeout(DISK_PATIENCE, work).await {
        Ok(Ok(Ok((staging, map)))) => {
            fill.store(map, present);
            Ok(staging)
        }
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => Err(store::Error::Closed),
        Err(_) => Err(store::Error::Slow("make room")),
    }
}

// === impl Driver ===

impl<'a> Driver<'a> {
    fn start(blobs: &'a Arc<Blobs>, ask: &'a Ask, fill: &'a Arc<Fill>, from: Beginning) -> Self {
        let is_assembled = from.staging.as_ref().is_some_and(|it| !it.present().is_empty());
        let lane = Lane::new(fill, blobs.store(), blobs.memory(), from.staging);
        let mut driver = Self {
            blobs,
            ask,
            fill,
            lane: Arc::new(lane),
            jobs: JoinSet::new(),
            claims: Vec::new(),
            whole_only: false,
            is_whole: from.is_whole,
            is_assembled: is_assembled || !from.is_whole,
        };
        if let Some((claim, body)) = from.first {
            driver.spawn(claim, Some(body));
        }
        driver
    }

    fn spawn(&mut self, claim: plan::Claim, body: Option<BlobBody>) {
        let claim = Claim::new(claim);
        self.claims.push(Arc::clone(&claim));
        let job = Job {
            ask: self.ask.clone(),
            fill: Arc::clone(self.fill),
            lane: Arc::clone(&self.lane),
            claim: Arc::clone(&claim),
            settings: self.blobs.settings().clone(),
        };
        self.jobs.spawn(async move { (claim, job.run(body).await) });
    }

    /// Asks for what is wanted, and waits until something changes.
    async fn turn(&mut self) -> Result<Turn, Error> {
        self.leave_if_asked().await?;
        let progress = self.fill.progress();
        if let Some(total) = progress.total {
            if progress.received.len() == total && self.jobs.is_empty() {
                return Ok(Turn::Complete(total));
            }
            let nearly = progress.is_nearly_complete();
            self.ask_for_more(total, &progress.received, nearly)?;
        }
        if !self.fill.has_readers() && self.is_to_stop() {
            return Ok(Turn::Abandoned);
        }
        if self.jobs.is_empty() && !self.fill.has_readers() {
            return Ok(Turn::Idle);
        }
        tokio::select! {
            Some(done) = self.jobs.join_next() => {
                let (claim, fetched) = done.map_err(|_| Error::Lost)?;
                self.ended(&claim, fetched?)
            }
            () = self.fill.changed.notified() => Ok(Turn::Again),
        }
    }

    fn ask_for_more(
        &mut self,
        total: u64,
        received: &Coverage,
        is_nearly_complete: bool,
    ) -> Result<(), Error> {
        let readers: Vec<_> = self.fill.window().readers().copied().collect();
        self.is_whole |= readers.iter().any(|reader| reader.is_whole);
        let is_stored = self.fill.window().is_stored();
        if !is_stored && !self.is_plain_stream(received) {
            // What is on disk can't be hashed any more: its readers begin anew.
            return Err(Error::Moved);
        }
        loop {
            let claims: Vec<_> = self.claims.iter().map(|claim| claim.describe()).collect();
            let situation = Situation {
                total,
                received,
                claims: &claims,
                readers: &readers,
                chunk: self.blobs.settings().chunk,
                finish: is_nearly_complete || (self.is_whole && readers.is_empty()),
                whole_only: self.whole_only || !is_stored,
            };
            match plan::next(&situation) {
                Some(Step::Fetch(claim)) => {
                    self.is_assembled |= claim.range != ByteRange::new(0, total);
                    self.spawn(claim, None);
                }
                Some(Step::Shorten(place, end)) => {
                    let Some(claim) = self.claims.get(place) else { return Ok(()) };
                    claim.shorten(end);
                }
                None => return Ok(()),
            }
        }
    }

    /// True if all that came and comes is one stretch from the beginning on.
    fn is_plain_stream(&self, received: &Coverage) -> bool {
        received.is_prefix() && self.claims.iter().all(|claim| claim.is_whole)
    }

    fn ended(&mut self, claim: &Arc<Claim>, fetched: Fetched) -> Result<Turn, Error> {
        self.claims.retain(|other| !Arc::ptr_eq(other, claim));
        match fetched {
            Fetched::Done => Ok(Turn::Again),
            Fetched::Ended => Ok(Turn::Complete(self.fill.progress().received.end_of(0))),
            Fetched::Ignored(body) => {
                self.whole_only = true;
                let total = self.fill.total().unwrap_or(u64::MAX);
                if body.start == 0 && !self.claims.iter().any(|claim| claim.is_whole) {
                    let range = ByteRange::new(0, total);
                    self.spawn(plan::Claim { range, is_whole: true }, Some(body));
                }
                Ok(Turn::Again)
            }
        }
    }

    /// True if nobody reads and it is not worth going on; it is then out of the table.
    fn is_to_stop(&self) -> bool {
        if self.is_whole { self.blobs.is_abandoned(self.fill) } else { false }
    }

    /// Leaves the staged file where another process is to have it.
    async fn leave_if_asked(&mut self) -> Result<(), Error> {
        if !self.fill.lets_go() || !self.fill.window().is_stored() {
            return Ok(());
        }
        if !self.is_plain_stream(&self.fill.progress().received) {
            return Err(Error::Moved);
        }
        self.lane.leave().await;
        Ok(())
    }

    async fn finish(&self, total: u64) -> Result<(), Error> {
        let outcome = self.lane.finish(total).await;
        if matches!(outcome, Err(Error::Mismatch(_))) && self.is_assembled {
            self.blobs.fetch_only_whole(self.fill.digest());
        }
        outcome
    }
}
