//! One request to upstream for a part of a blob, resumed where it was cut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;

use super::{Ask, Error, fill::Fill, lane::Lane, plan};
use crate::{
    config,
    protocol::ByteRange,
    upstream::{self, BlobBody, Body, Failure},
};

/// Bytes read from upstream at the most before they are handed on; one read brings up to 64 KiB.
const PIECE_BYTES: usize = 512 * 1024;

/// What a buffer begins with; it grows with what is there. The first bytes of a body are handed on
/// when there are as many, at the latest.
const FIRST_BYTES: usize = 64 * 1024;

/// A part of a blob that a request brings.
#[derive(Debug)]
pub(super) struct Claim {
    /// Where it is by now.
    at: AtomicU64,
    /// Where it ends: `u64::MAX` where only upstream knows.
    end: AtomicU64,
    pub(super) is_whole: bool,
}

/// A request and where its bytes go.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) ask: Ask,
    pub(super) fill: Arc<Fill>,
    pub(super) lane: Arc<Lane>,
    pub(super) claim: Arc<Claim>,
    pub(super) settings: config::Fill,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Fetched {
    /// All of its part is there.
    Done,
    /// The body ended, and with it a blob of unknown length.
    Ended,
    /// Upstream sends the whole instead of the part; here it is.
    Ignored(BlobBody),
}

/// What a body's reception came to.
enum Received {
    /// All that it had.
    Whole,
    /// All that was wanted of it.
    Enough,
    /// It broke off.
    Cut(Failure),
}

// === impl Claim ===

impl Claim {
    pub(super) fn new(claim: plan::Claim) -> Arc<Self> {
        Arc::new(Self {
            at: AtomicU64::new(claim.range.start),
            end: AtomicU64::new(claim.range.end),
            is_whole: claim.is_whole,
        })
    }

    pub(super) fn describe(&self) -> plan::Claim {
        let range = ByteRange::new(self.at(), self.end());
        plan::Claim { range, is_whole: self.is_whole }
    }

    /// Ends it earlier.
    pub(super) fn shorten(&self, end: u64) {
        self.end.fetch_min(end, Ordering::AcqRel);
    }

    fn at(&self) -> u64 {
        self.at.load(Ordering::Acquire)
    }

    fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, at: u64) {
        self.at.fetch_max(at, Ordering::AcqRel);
    }
}

// === impl Job ===

impl Job {
    /// Brings the claim's bytes, beginning with `body` if the request was sent already.
    pub(super) async fn run(self, body: Option<BlobBody>) -> Result<Fetched, Error> {
        let mut next = body;
        let mut attempt = 0;
        loop {
            if next.is_none() && self.claim.at() >= self.claim.end() {
                return Ok(Fetched::Done);
            }
            let body = match next.take() {
                Some(body) => body,
                None => match self.ask_upstream().await {
                    Ok(body) => body,
                    Err(Error::Upstream(upstream::Error::Trouble(failure))) => {
                        attempt += 1;
                        self.pause(attempt, &failure).await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            if !self.claim.is_whole && self.is_more_than_asked(&body) {
                return Ok(Fetched::Ignored(body));
            }
            let before = self.claim.at();
            match self.take(body).await? {
                Received::Enough => return Ok(Fetched::Done),
                Received::Whole if self.has_ended() => {
                    let is_known = self.fill.total().is_some();
                    return Ok(if is_known { Fetched::Done } else { Fetched::Ended });
                }
                // It may send less than was asked for (RFC 9110 §15.3.7), and the rest when it is
                // asked again.
                Received::Whole if self.claim.at() > before => attempt = 0,
                Received::Whole => {
                    self.lane.discard();
                    let at = self.claim.at();
                    let problem =
                        format!("the blob ended after {at} bytes, not where upstream said");
                    return Err(upstream::Error::from(Failure::invalid(problem)).into());
                }
                Received::Cut(failure) => {
                    attempt = if self.claim.at() > before { 1 } else { attempt + 1 };
                    self.pause(attempt, &failure).await?;
                }
            }
        }
    }

    async fn ask_upstream(&self) -> Result<BlobBody, Error> {
        let (at, end) = (self.claim.at(), self.claim.end());
        let total = self.fill.total();
        // To the end is asked for as to the end: one request, whatever becomes of it.
        let until = (Some(end) != total && end != u64::MAX || !self.claim.is_whole).then_some(end);
        let Ask { upstream, repository, digest, caller } = &self.ask;
        let body = upstream.get_blob(repository, digest, at, until, caller).await?;
        match (body.total, total) {
            (Some(now), Some(before)) if now != before => {
                self.lane.discard();
                let changed = Failure::invalid("the blob's length changed");
                Err(upstream::Error::from(changed).into())
            }
            _ => Ok(body),
        }
    }

    fn is_more_than_asked(&self, body: &BlobBody) -> bool {
        let (at, end) = (self.claim.at(), self.claim.end());
        body.start != at || body.body.expected().is_none_or(|len| at + len > end)
    }

    /// Waits before the next attempt; an error if there were enough.
    async fn pause(&self, attempt: u32, failure: &Failure) -> Result<(), Error> {
        if attempt > self.settings.retries {
            return Err(upstream::Error::from(failure.clone()).into());
        }
        let (digest, at) = (self.fill.digest(), self.claim.at());
        tracing::debug!(%digest, at, %failure, "a body was cut; resuming");
        tokio::time::sleep(backoff(self.settings.retry_backoff, attempt)).await;
        Ok(())
    }

    /// True if a body that came to its end has brought all of the claim.
    fn has_ended(&self) -> bool {
        let at = self.claim.at();
        self.fill.total().is_none_or(|total| at == total) || at >= self.claim.end()
    }

    /// Hands a body on, as far as the claim goes.
    async fn take(&self, body: BlobBody) -> Result<Received, Error> {
        let BlobBody { start, mut body, .. } = body;
        if start > self.claim.at() {
            let problem = "the body begins behind what was asked for";
            return Ok(Received::Cut(Failure::invalid(problem)));
        }
        // An upstream that ignores the range starts at 0: what is there already is passed over.
        let mut at = start;
        let (mut limit, mut room) = (FIRST_BYTES, FIRST_BYTES);
        loop {
            let mut buffer = BytesMut::with_capacity(room);
            let cut = gather(&mut body, &mut buffer, limit).await.err();
            let is_full = buffer.len() >= limit;
            limit = (limit * 2).min(PIECE_BYTES);
            // An upstream that fills them gets large buffers at once; of others these would be held
            // for little.
            room = if is_full { limit } else { FIRST_BYTES };
            let is_end = buffer.is_empty() && cut.is_none();
            let mut piece = buffer.freeze();
            let left = self.claim.end().saturating_sub(at);
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.check_length(at, piece.len() as u64)?;
            self.lane.take(at, &piece).await?;
            at += piece.len() as u64;
            self.claim.advance(at);
            match cut {
                Some(failure) => return Ok(Received::Cut(failure)),
                None if is_end && at < self.claim.at() => {
                    let problem = "the body is shorter than before";
                    return Ok(Received::Cut(Failure::invalid(problem)));
                }
                None if is_end => return Ok(Received::Whole),
                // A body that ends here is read to its end, and its connection can be used again.
                None if at >= self.claim.end() && self.claim.is_whole => {
                    return Ok(Received::Enough);
                }
                // A reader that this woke is next on this very thread, where no other can take it:
                // it would wait for as long as upstream has more.
                None => tokio::task::yield_now().await,
            }
        }
    }

    fn check_length(&self, at: u64, len: u64) -> Result<(), Error> {
        if self.fill.total().is_none_or(|total| at + len <= total) {
            return Ok(());
        }
        self.lane.discard();
        let problem = "the blob is longer than upstream said";
        Err(upstream::Error::from(Failure::invalid(problem)).into())
    }
}

/// Waits for the next bytes and takes what else is there already, up to `limit`: fewer, larger pieces wake writer
/// and readers less often. An empty buffer is the end; bytes may come with a failure.
async fn gather(body: &mut Body, buffer: &mut BytesMut, limit: usize) -> Result<(), Failure> {
    let mut count = body.append_to(buffer).await?;
    while count > 0 && buffer.len() < limit {
        count = tokio::select! {
            biased;
            count = body.append_to(buffer) => count?,
            () = std::future::ready(()) => return Ok(()),
        };
    }
    Ok(())
}

/// Doubles with each attempt, up to 10 s, and is jittered fully (half to whole).
fn backoff(first: Duration, attempt: u32) -> Duration {
    let longest = Duration::from_secs(10);
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(0.5 + fastrand::f64() / 2.0)
}
