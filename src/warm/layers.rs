//! One layer: found in the store, or read to its end and thrown away.
//!
//! Reading is what keeps a fill going, and its end is what says that the digest
//! was right. Clients may read the same fill meanwhile.

use std::time::Duration;

use tokio::time::sleep;

use super::{Means, job::Job, report::LayerState};
use crate::blob::{Ask, Error, Outcome, Stream};

/// The most that is taken at once.
const PIECE_BYTES: u64 = 1 << 20;

/// How long a layer waits where clients have taken all places for fills, and how often.
const BUSY_WAIT: Duration = Duration::from_secs(2);
const BUSY_TRIES: u32 = 30;

/// How a layer came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It was there.
    Cached,
    /// So many bytes came from upstream for it.
    Fetched(u64),
}

/// Where a layer stands in its job, and how big its manifest says it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) image: usize,
    pub(super) layer: usize,
    pub(super) bytes: u64,
}

/// Has the layer, and tells of its progress.
pub(super) async fn warm(
    means: &Means,
    job: &Job,
    place: Place,
    ask: &Ask,
) -> Result<Came, String> {
    let digest = ask.digest;
    let left_over = means.blobs.left_over(&digest);
    if !means.blobs.holds(digest).await
        && let Some(problem) = means.blobs.cannot_keep(place.bytes)
    {
        return Err(format!("it would not be kept: {problem}"));
    }
    let served = open(means, ask).await?;
    let is_collapsed = match served.outcome {
        Outcome::Hit => {
            job.progress(place.image, place.layer, LayerState::Cached, place.bytes);
            return Ok(Came::Cached);
        }
        Outcome::Fetched { collapsed } => collapsed,
        Outcome::Passed => false,
    };
    let mut stream = Stream::whole(served.feed);
    let mut done = 0;
    job.progress(place.image, place.layer, LayerState::Fetching, done);
    while let Some(piece) = stream.next(PIECE_BYTES).await.map_err(|error| sentence(&error))? {
        done += piece.len() as u64;
        job.progress(place.image, place.layer, LayerState::Fetching, done);
    }
    drop(stream);
    if !means.blobs.is_kept(digest).await {
        let why = means.blobs.cannot_keep(place.bytes);
        let why = why.unwrap_or_else(|| "the log says why".to_owned());
        return Err(format!("it came, and could not be kept: {why}"));
    }
    job.progress(place.image, place.layer, LayerState::Done, place.bytes);
    // What is another's fill is in another's books.
    Ok(Came::Fetched(if is_collapsed { 0 } else { done.saturating_sub(left_over) }))
}

/// Opens the blob; clients come first where places are short.
async fn open(means: &Means, ask: &Ask) -> Result<crate::blob::Served, String> {
    let mut tries = 0;
    loop {
        match means.blobs.open(ask, None, false).await {
            Ok(served) => return Ok(served),
            Err(Error::Busy(_)) if tries < BUSY_TRIES => tries += 1,
            Err(error) => return Err(sentence(&error)),
        }
        sleep(BUSY_WAIT).await;
    }
}

/// An error, for who is not in the middle of a request.
fn sentence(error: &Error) -> String {
    match error {
        Error::Lost | Error::Moved => {
            "its download was broken off; warm again, and it goes on from there".to_owned()
        }
        error => error.to_string(),
    }
}
