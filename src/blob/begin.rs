//! How a fill begins: the staged file is claimed, upstream asked for the first time.
//!
//! The first answer tells the blob's length. Where the disk can't have the blob,
//! the fill begins without it.

use std::sync::Arc;

use tokio::time::timeout;

use super::{
    Ask, Blobs, Error,
    fill::Fill,
    plan::{self, AHEAD_BYTES},
};
use crate::{
    metrics,
    protocol::{ByteRange, range::Asked},
    store::{self, DISK_PATIENCE, Staging},
    upstream::{self, BlobBody, Failure},
};

/// What is known once upstream has answered for the first time.
pub(super) struct Beginning {
    pub(super) staging: Option<Staging>,
    pub(super) total: Option<u64>,
    /// The answer, if it has bytes, and the part that it brings.
    pub(super) first: Option<(plan::Claim, BlobBody)>,
    pub(super) is_whole: bool,
    /// Upstream ignores ranges.
    pub(super) whole_only: bool,
}

// === impl Beginning ===

impl Beginning {
    /// With an answer that has all from the byte `at` on.
    fn whole(staging: Option<Staging>, at: u64, body: BlobBody) -> Self {
        let total = body.total;
        let range = ByteRange::new(at, total.unwrap_or(u64::MAX));
        let first = Some((plan::Claim { range, is_whole: true }, body));
        Self { staging, total, first, is_whole: true, whole_only: false }
    }

    /// True if the answer has all of the blob: it needs nothing that is on disk.
    fn is_from_the_start(&self) -> bool {
        let first = self.first.as_ref();
        first.is_some_and(|(claim, _)| claim.is_whole && claim.range.start == 0)
    }
}

/// Claims the staged file, asks upstream for the first time, and begins.
pub(super) async fn begin(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Fill,
    asked: Asked,
) -> Result<Beginning, Error> {
    let (mut staging, early) = if asked == Asked::Whole && !blobs.store().is_staged(&fill.digest())
    {
        // Nothing lies there: what upstream is asked does not depend on the disk.
        let (staging, body) = tokio::join!(stage(blobs, fill), get(ask, 0, None));
        (staging, Some(body))
    } else {
        // Claimed before upstream is asked for what is missing: nobody takes the left-over away.
        (stage(blobs, fill).await, None)
    };
    // Another fill may have left something there at that moment; then it is begun with that.
    let mut early = early.filter(|_| {
        let is_new = |it: &Staging| it.present().is_empty() && it.total().is_none();
        staging.as_ref().is_none_or(is_new)
    });
    if early.is_none() {
        staging = confirmed(blobs, ask, fill, staging).await?;
    }
    let may_be_parts = staging.is_some() && !blobs.is_whole_only(&fill.digest());
    let asked = if may_be_parts { asked } else { Asked::Whole };
    let mut beginning = match asked {
        Asked::Whole if let Some(body) = early.take() => Beginning::whole(staging, 0, body?),
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

/// A left-over with a journal needs no answer of upstream to be served from; so upstream is asked
/// for leave first, by a free HEAD. One of another length is worth nothing.
async fn confirmed(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Fill,
    staging: Option<Staging>,
) -> Result<Option<Staging>, Error> {
    let Some(before) = staging.as_ref().and_then(Staging::total) else {
        return Ok(staging);
    };
    if size(ask).await? == before {
        return Ok(staging);
    }
    if let Some(staging) = staging {
        staging.discard();
    }
    Ok(stage(blobs, fill).await)
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
    let total = staging.as_ref().and_then(Staging::total);
    if total.is_some() {
        return Ok(Beginning { staging, total, first: None, is_whole: true, whole_only: false });
    }
    let at = staging.as_ref().map_or(0, |staging| staging.present().end_of(0));
    let first = match get(ask, at, None).await {
        Err(error) if is_behind_the_end(&error) => None,
        body => Some(body?),
    };
    let total = match &first {
        Some(body) => body.total,
        None => Some(size(ask).await?),
    };
    if total.is_some_and(|total| at > total) {
        // What lies there is longer than the blob: it can't be the beginning of it.
        if let Some(staging) = staging.take() {
            staging.discard();
        }
        staging = stage(blobs, fill).await;
        let body = get(ask, 0, None).await?;
        return Ok(Beginning::whole(staging, 0, body));
    }
    Ok(match first {
        Some(body) => Beginning::whole(staging, at, body),
        // All of it lies there already, and only has to be verified.
        None => Beginning { staging, total, first: None, is_whole: true, whole_only: false },
    })
}

fn is_behind_the_end(error: &Error) -> bool {
    let Error::Upstream(upstream::Error::Refused { status, .. }) = error else { return false };
    *status == http::StatusCode::RANGE_NOT_SATISFIABLE
}

/// What upstream says that the blob's length is.
async fn size(ask: &Ask) -> Result<u64, Error> {
    let head = ask.upstream.head_blob(&ask.repository, &ask.digest, &ask.caller).await?;
    let unsaid = || Failure::invalid("a HEAD of a blob without its length");
    Ok(head.size.ok_or_else(unsaid).map_err(upstream::Error::from)?)
}

/// Part of it is wanted: asks for the chunks that it lies in, and so learns the length.
async fn begin_part(
    blobs: &Arc<Blobs>,
    ask: &Ask,
    fill: &Fill,
    staging: Option<Staging>,
    asked: Asked,
) -> Result<Beginning, Error> {
    let total = staging.as_ref().and_then(Staging::total);
    if total.is_some() {
        return Ok(Beginning { staging, total, first: None, is_whole: false, whole_only: false });
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
                Err(error) if is_behind_the_end(&error) => None,
                Err(error) => return Err(error),
            }
        }
        Asked::Whole | Asked::Unsized => None,
    };
    match first {
        Some((start, end, body)) => {
            let total = body.total;
            let end = end.min(total.unwrap_or(end));
            let is_part =
                body.start == start && body.body.expected().is_some_and(|len| start + len <= end);
            if !is_part || total.is_none() {
                let at = body.start;
                return Ok(Beginning { whole_only: true, ..Beginning::whole(staging, at, body) });
            }
            let claim = plan::Claim { range: ByteRange::new(start, end), is_whole: false };
            let first = Some((claim, body));
            Ok(Beginning { staging, total, first, is_whole: false, whole_only: false })
        }
        None => {
            let total = Some(size(ask).await?);
            let end = staging.as_ref().and_then(|it| it.present().ranges().last().copied());
            if end.is_some_and(|range| Some(range.end) > total) {
                // What lies there is longer than the blob: it is fetched whole.
                return begin_whole(blobs, ask, fill, staging).await;
            }
            Ok(Beginning { staging, total, first: None, is_whole: false, whole_only: false })
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

async fn get(ask: &Ask, from: u64, until: Option<u64>) -> Result<BlobBody, Error> {
    let Ask { upstream, repository, digest, caller } = ask;
    Ok(upstream.get_blob(repository, digest, from, until, caller).await?)
}
