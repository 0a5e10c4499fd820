//! The asking half of a fill: one upstream body, resumed where it was cut.
//!
//! It runs in a task of its own; the first client is a reader like the others.
//! When all have left, a fill that is small or well advanced goes on, any other
//! stops and keeps its partial file.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::task::JoinHandle;

use super::{
    Ask, Blobs, Error,
    fill::Fill,
    writer::{Pipe, WriterGone},
};
use crate::{
    metrics,
    store::{Link, Staging},
    upstream::{self, BlobBody, Body, Failure},
};

/// Bytes read from upstream at the most before they are handed on; one read brings up to 64 KiB.
const PIECE_BYTES: usize = 512 * 1024;

/// What a buffer begins with; it grows with what is there.
const FIRST_BYTES: usize = 64 * 1024;

/// How a fill ended, for the metrics.
#[derive(Debug)]
enum Ending {
    Committed,
    Abandoned,
    Failed(Error),
}

/// What a body's reception came to.
enum Received {
    /// All of it.
    Whole,
    /// It broke off.
    Cut(Failure),
    /// Nobody wants it any more.
    Abandoned,
}

/// A fill under way. Whatever ends it, a panic included, its readers learn of it and the table
/// forgets it.
struct Running {
    blobs: Arc<Blobs>,
    fill: Arc<Fill>,
}

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
        metrics::FILLS_ACTIVE.dec();
    }
}

/// Runs a fill to its end and leaves the table of fills as it should be.
pub(super) async fn run(blobs: Arc<Blobs>, ask: Ask, fill: Arc<Fill>) {
    metrics::FILLS_ACTIVE.inc();
    let running = Running { blobs: Arc::clone(&blobs), fill: Arc::clone(&fill) };
    let ending = match receive(&blobs, &ask, &fill).await {
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

async fn receive(blobs: &Arc<Blobs>, ask: &Ask, fill: &Arc<Fill>) -> Result<Ending, Error> {
    let digest = fill.digest();
    let _place = blobs.place().await?;
    if let Some(lease) = blobs.store().get(digest).await? {
        // Whoever asked had looked before the last fill ended.
        fill.begin(lease.staged(), Some(lease.len()), lease.len());
        fill.verified();
        return Ok(Ending::Committed);
    }
    // Claimed before upstream is asked for what is missing: nobody takes the left-over away.
    let mut staging = blobs.stage(digest).await?;
    let mut body = get(ask, staging.len()).await?;
    if body.total.is_some_and(|total| staging.len() > total) {
        // What lies there is longer than the blob: it can't be the beginning of it.
        staging.discard();
        staging = blobs.stage(digest).await?;
        body = get(ask, 0).await?;
    }
    let linking = link(blobs, ask);
    let total = body.total;
    let staging = prepared(staging, total).await?;
    let mut sent = staging.len();
    fill.begin(staging.staged()?, total, sent);
    let pipe = Pipe::start(Arc::clone(fill), Arc::clone(blobs.store()), staging);
    let mut attempt = 0;
    loop {
        let before = sent;
        let outcome = take(blobs, fill, &pipe, body, &mut sent).await;
        match outcome.map_err(|WriterGone| fill.failure())? {
            Received::Whole if total.is_none_or(|total| total == sent) => break,
            Received::Whole => {
                let problem = format!("the blob ended after {sent} bytes, not where upstream said");
                pipe.discard().await;
                return Err(upstream::Error::from(Failure::invalid(problem)).into());
            }
            Received::Abandoned => return Ok(Ending::Abandoned),
            Received::Cut(failure) => {
                attempt = if sent > before { 1 } else { attempt + 1 };
                match resume(blobs, ask, fill, sent, total, &mut attempt, failure).await? {
                    Some(next) => body = next,
                    None => return Ok(Ending::Abandoned),
                }
            }
        }
    }
    pipe.finish().await.map_err(|WriterGone| fill.failure())??;
    // It reports for itself; here it is only waited for.
    let _ = linking.await;
    Ok(Ending::Committed)
}

/// Remembers that the repository has the blob, beside the stream: the index's disk is slower than
/// the first bytes.
fn link(blobs: &Arc<Blobs>, ask: &Ask) -> JoinHandle<()> {
    let (blobs, ask) = (Arc::clone(blobs), ask.clone());
    tokio::spawn(async move { blobs.link(&ask, Link { media_type: None }).await })
}

async fn get(ask: &Ask, from: u64) -> Result<BlobBody, Error> {
    Ok(ask.upstream.get_blob(&ask.repository, &ask.digest, from, &ask.caller).await?)
}

/// Makes room for the blob and maps its file, where that may block.
async fn prepared(mut staging: Staging, total: Option<u64>) -> Result<Staging, Error> {
    let prepare = move || staging.prepare(total).map(|()| staging);
    Ok(tokio::task::spawn_blocking(prepare).await.map_err(|_| Error::Lost)??)
}

/// Hands a body on to the writer, from the byte `sent` of the blob on.
async fn take(
    blobs: &Blobs,
    fill: &Arc<Fill>,
    pipe: &Pipe,
    body: BlobBody,
    sent: &mut u64,
) -> Result<Received, WriterGone> {
    let BlobBody { start, mut body, .. } = body;
    if start > *sent {
        return Ok(Received::Cut(Failure::invalid("the body begins behind what was asked for")));
    }
    // An upstream that ignores the range starts at 0: what is there already is passed over.
    let mut pass_over = sent.saturating_sub(start);
    loop {
        let mut buffer = BytesMut::with_capacity(FIRST_BYTES);
        let cut = gather(&mut body, &mut buffer).await.err();
        let is_end = buffer.is_empty() && cut.is_none();
        let skip = pass_over.min(buffer.len() as u64);
        pass_over -= skip;
        let piece = buffer.split_off(usize::try_from(skip).unwrap_or(usize::MAX)).freeze();
        if !piece.is_empty() {
            *sent += piece.len() as u64;
            pipe.write(piece).await?;
        }
        match cut {
            Some(failure) => return Ok(Received::Cut(failure)),
            None if is_end && pass_over > 0 => {
                return Ok(Received::Cut(Failure::invalid("the body is shorter than before")));
            }
            None if is_end => return Ok(Received::Whole),
            None if blobs.is_abandoned(fill) => return Ok(Received::Abandoned),
            None => {}
        }
    }
}

/// Waits for the next bytes and takes what else is there already: fewer, larger pieces wake writer
/// and readers less often. An empty buffer is the end; bytes may come with a failure.
async fn gather(body: &mut Body, buffer: &mut BytesMut) -> Result<(), Failure> {
    let mut count = body.append_to(buffer).await?;
    while count > 0 && buffer.len() < PIECE_BYTES {
        count = tokio::select! {
            biased;
            count = body.append_to(buffer) => count?,
            () = std::future::ready(()) => return Ok(()),
        };
    }
    Ok(())
}

/// Asks again from where the body was cut, with patience that ends; `None` if nobody waits for it
/// any more.
async fn resume(
    blobs: &Blobs,
    ask: &Ask,
    fill: &Arc<Fill>,
    sent: u64,
    total: Option<u64>,
    attempt: &mut u32,
    mut failure: Failure,
) -> Result<Option<BlobBody>, Error> {
    let settings = blobs.settings();
    loop {
        if blobs.is_abandoned(fill) {
            return Ok(None);
        }
        if *attempt > settings.retries {
            return Err(upstream::Error::from(failure).into());
        }
        tracing::debug!(digest = %fill.digest(), sent, %failure, "a body was cut; resuming");
        tokio::time::sleep(backoff(settings.retry_backoff, *attempt)).await;
        match get(ask, sent).await {
            Ok(body) if total.is_none() || body.total.is_none() || body.total == total => {
                return Ok(Some(body));
            }
            Ok(_) => failure = Failure::invalid("the blob's length changed"),
            Err(Error::Upstream(upstream::Error::Trouble(next))) => failure = next,
            Err(error) => return Err(error),
        }
        *attempt += 1;
    }
}

/// Doubles with each attempt, up to 10 s, and is jittered fully (half to whole).
fn backoff(first: Duration, attempt: u32) -> Duration {
    let longest = Duration::from_secs(10);
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(0.5 + fastrand::f64() / 2.0)
}
