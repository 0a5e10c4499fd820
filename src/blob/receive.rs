//! The asking half of a fill: what upstream is asked for, until all that is wanted is there.
//!
//! It runs in a task of its own; the first client is a reader like the others.
//! When all have left, a fill that is small or well advanced goes on, any other
//! stops and keeps its partial file; one that only ranges were read of waits a
//! while for the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::SemaphorePermit,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    Ask, Blobs, Error,
    begin::{Beginning, begin},
    fetch::{Claim, Fetched, Job},
    fill::{Fill, Progress},
    lane::Lane,
    plan::{self, Situation, Step},
};
use crate::{
    metrics,
    protocol::{ByteRange, Coverage, range::Asked},
    store::Link,
    trace,
    upstream::BlobBody,
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

/// Runs a fill to its end and leaves the table of fills as it should be. The blob was not stored
/// when there were `absent_at` publications.
pub(super) async fn run(
    blobs: Arc<Blobs>,
    ask: Ask,
    fill: Arc<Fill>,
    asked: Asked,
    absent_at: Option<u64>,
) {
    let running = Running { blobs: Arc::clone(&blobs), fill: Arc::clone(&fill) };
    let begun = Instant::now();
    let ending = match receive(&blobs, &ask, &fill, asked, absent_at).await {
        Ok(ending) => ending,
        Err(error) => Ending::Failed(error),
    };
    let word = match &ending {
        Ending::Committed => "committed",
        Ending::Abandoned => "abandoned",
        Ending::Failed(Error::Mismatch(_)) => "mismatch",
        Ending::Failed(_) => "failed",
    };
    metrics::fill_ended(word, begun.elapsed(), fill.progress().received.len());
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
    absent_at: Option<u64>,
) -> Result<Ending, Error> {
    let mut active = Some(Active::wait(blobs).await?);
    if blobs.is_left(fill) {
        // All who wanted it have left while it waited for its turn.
        return Ok(Ending::Abandoned);
    }
    // Whoever asked may have looked before the last fill ended.
    let is_absent = absent_at == Some(blobs.store().publications());
    if !is_absent && let Ok(Some(lease)) = blobs.store().get(fill.digest()).await {
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

/// What is under way, and then what is there. In this order: what a request brought is there before
/// its claim moves on, so that the two together miss nothing.
fn look(claims: &[Arc<Claim>], fill: &Fill) -> (Vec<plan::Claim>, Progress) {
    let claims = claims.iter().map(|claim| claim.describe()).collect();
    (claims, fill.progress())
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
            whole_only: from.whole_only || blobs.is_whole_only(&fill.digest()),
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
            settings: (*self.blobs.settings()).clone(),
        };
        self.jobs.spawn(trace::inherit(async move { (claim, job.run(body).await) }));
    }

    /// Asks for what is wanted, and waits until something changes.
    async fn turn(&mut self) -> Result<Turn, Error> {
        self.leave_if_asked().await?;
        let (claims, progress) = look(&self.claims, self.fill);
        if let Some(total) = progress.total {
            if progress.received.len() == total && self.jobs.is_empty() {
                return Ok(Turn::Complete(total));
            }
            self.ask_for_more(total, claims, progress)?;
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
                match fetched {
                    Err(error) => self.failed(&claim, error),
                    Ok(fetched) => self.ended(&claim, fetched),
                }
            }
            () = self.fill.changed.notified() => Ok(Turn::Again),
        }
    }

    fn ask_for_more(
        &mut self,
        total: u64,
        mut claims: Vec<plan::Claim>,
        mut progress: Progress,
    ) -> Result<(), Error> {
        let finish = progress.is_nearly_complete();
        let readers: Vec<_> = self.fill.window().readers().copied().collect();
        self.is_whole |= readers.iter().any(|reader| reader.is_whole);
        let is_stored = self.fill.window().is_stored();
        if !is_stored && !self.is_plain_stream(&progress.received) {
            // What is on disk can't be hashed any more: its readers begin anew.
            return Err(Error::Moved);
        }
        loop {
            let situation = Situation {
                total,
                received: &progress.received,
                claims: &claims,
                readers: &readers,
                chunk: self.blobs.settings().chunk,
                finish: finish || (self.is_whole && readers.is_empty()),
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
            (claims, progress) = look(&self.claims, self.fill);
        }
    }

    /// True if all that came and comes is one stretch from the beginning on.
    fn is_plain_stream(&self, received: &Coverage) -> bool {
        received.is_prefix() && self.claims.iter().all(|claim| claim.is_whole)
    }

    /// A part that can't be had by itself comes with the whole, if that is under way.
    fn failed(&mut self, claim: &Arc<Claim>, error: Error) -> Result<Turn, Error> {
        self.claims.retain(|other| !Arc::ptr_eq(other, claim));
        let has_whole = self.claims.iter().any(|other| other.is_whole);
        if claim.is_whole || !has_whole || matches!(error, Error::Moved) {
            return Err(error);
        }
        tracing::debug!(digest = %self.fill.digest(), %error, "a part could not be had by itself");
        self.whole_only = true;
        Ok(Turn::Again)
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
        if !self.is_whole && !self.whole_only {
            return false;
        }
        // What is not stored is of use to nobody who comes later.
        if self.fill.window().is_stored() {
            self.blobs.is_abandoned(self.fill)
        } else {
            self.blobs.is_left(self.fill)
        }
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

#[cfg(test)]
mod tests {
    use std::thread;

    use bytes::Bytes;

    use super::*;
    use crate::{
        blob::{fill::Origin, window::Interest},
        config::Config,
        protocol::{Algorithm, Digest, Repository},
        store::{Kind, Store},
        upstream::{Caller, Upstream},
    };

    /// Upstream can't be asked: what was published between the look and the fill is found.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_published_after_the_look_is_not_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            Config::parse("upstreams: [{name: r, url: 'http://127.0.0.1:1'}]", "test").unwrap();
        config.store.directory = folder.path().to_owned();
        let store = Arc::new(Store::open(&config.store).unwrap());
        let blobs = Arc::new(Blobs::new(Arc::clone(&store), config.fill.clone()));
        let upstream = Arc::new(Upstream::new(config.upstreams.remove(0), 1 << 22).unwrap());
        let body = Bytes::from(vec![1; 100_000]);
        let digest = Digest::of(Algorithm::Sha256, &body);
        let repository = Repository::parse("library/a").unwrap();
        let ask = Ask { upstream, repository, digest, caller: Caller::Shared };
        let before = store.publications();
        store.put(digest, body, Kind::Blob).await.unwrap();
        let ready = async |absent_at| {
            let fill = Fill::new(digest, ask.origin());
            let interest = Interest { at: 0, until: None, is_whole: true };
            let mut reader = fill.reader(interest, 1).unwrap();
            let filling = run(Arc::clone(&blobs), ask.clone(), fill, Asked::Whole, absent_at);
            tokio::join!(reader.ready(0, None), filling).0
        };
        assert_eq!(ready(Some(before)).await.unwrap(), Some(100_000));
        assert_eq!(ready(None).await.unwrap(), Some(100_000));
        // It would be there if it had been published since.
        assert!(ready(Some(store.publications())).await.is_err());
    }

    /// What a look misses is asked for a second time.
    #[test]
    fn a_look_misses_nothing_that_comes_meanwhile() {
        let whole = ByteRange::new(0, 8_000);
        let digest = Digest::of(Algorithm::Sha256, b"never read");
        let repository = Repository::parse("library/a").unwrap();
        let origin = Origin { upstream: "docker.io".into(), epoch: 0, repository, identity: None };
        let fill = Fill::new(digest, origin);
        let claims = [Claim::new(plan::Claim { range: whole, is_whole: true })];
        thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..whole.end {
                    fill.receive(at, Bytes::from_static(b"x"), None);
                    claims[0].advance(at + 1);
                }
            });
            loop {
                let (under_way, progress) = look(&claims, &fill);
                let mut known = progress.received;
                under_way.iter().for_each(|claim| known.add(claim.range));
                assert_eq!(known.gap(whole), None);
                if under_way[0].range.start == whole.end {
                    break;
                }
            }
        });
    }
}
