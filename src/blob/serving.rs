//! A blob's bytes for one answer: whole, one range, or several as multipart.
//!
//! Bytes are handed out in few, large pieces without a copy; pages that would
//! wait for the disk are brought in off the runtime first. A source that fails
//! on our side is replaced by another that goes on from there.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{Ask, Blobs, Error, Source, passing::Passing, reader::Piece, window::Interest};
use crate::{
    protocol::{ByteRange, multipart::Multipart},
    store::{Lease, Map, is_bad_file},
};

/// How often an answer's source may be replaced.
const REPLACEMENTS: u32 = 3;

/// One part of an answer's body.
#[derive(Debug)]
enum Part {
    /// Bytes of our own: the heads between ranges.
    Literal(Bytes),
    /// Bytes of the blob, from the first to before the second.
    Range(ByteRange),
    /// The blob from this byte to its end, wherever that is.
    Rest(u64),
}

/// Where an answer's bytes come from, and how to find another place.
#[derive(Debug)]
pub struct Feed {
    pub(super) source: Source,
    pub(super) blobs: Arc<Blobs>,
    pub(super) ask: Ask,
    pub(super) replaced: u32,
}

/// A body to be sent.
#[derive(Debug)]
pub struct Stream {
    feed: Feed,
    parts: VecDeque<Part>,
}

// === impl Stream ===

impl Stream {
    /// The whole blob.
    pub fn whole(feed: Feed) -> Self {
        Self { feed, parts: VecDeque::from([Part::Rest(0)]) }
    }

    /// One range of it.
    pub fn range(feed: Feed, range: ByteRange) -> Self {
        Self { feed, parts: VecDeque::from([Part::Range(range)]) }
    }

    /// Several ranges of it, as multipart/byteranges.
    pub fn multipart(feed: Feed, ranges: &[ByteRange], multipart: &Multipart) -> Self {
        let mut parts = VecDeque::with_capacity(ranges.len() * 2 + 1);
        for range in ranges {
            parts.push_back(Part::Literal(multipart.part_head(*range)));
            parts.push_back(Part::Range(*range));
        }
        parts.push_back(Part::Literal(multipart.tail()));
        Self { feed, parts }
    }

    /// The next piece, of at most `limit` bytes of the blob; `None` at the end. An error means that the rest can't be had: the
    /// connection must be cut, so that nobody takes what was sent for the whole.
    pub async fn next(&mut self, limit: u64) -> Result<Option<Bytes>, Error> {
        loop {
            match self.parts.pop_front() {
                None => return Ok(None),
                Some(Part::Literal(bytes)) => return Ok(Some(bytes)),
                Some(Part::Range(range)) if range.is_empty() => {}
                Some(Part::Range(range)) => {
                    let limit = range.len().min(limit);
                    let piece = self.feed.read(range.start, Some(range.end), limit).await?;
                    let piece = piece.ok_or(Error::Lost)?;
                    let start = range.start + piece.len() as u64;
                    self.parts.push_front(Part::Range(ByteRange::new(start, range.end)));
                    return Ok(Some(piece));
                }
                Some(Part::Rest(start)) => {
                    let piece = self.feed.read(start, None, limit).await?;
                    let Some(piece) = piece else { return Ok(None) };
                    self.parts.push_front(Part::Rest(start + piece.len() as u64));
                    return Ok(Some(piece));
                }
            }
        }
    }
}

// === impl Feed ===

impl Feed {
    /// The next bytes from `start` on; `None` at the blob's end.
    async fn read(
        &mut self,
        start: u64,
        until: Option<u64>,
        limit: u64,
    ) -> Result<Option<Bytes>, Error> {
        loop {
            match &mut self.source {
                Source::Memory(body) => return Ok(slice(body, start, limit)),
                Source::Stored(lease) => match read_stored(lease, start, limit).await {
                    Err(problem) if is_bad_file(&problem) => {
                        self.set_aside(problem).await;
                        self.replace(start, until).await?;
                    }
                    Err(problem) => return Err(crate::store::Error::from(problem).into()),
                    Ok(read) => return Ok(read),
                },
                Source::Filling(reader) => match reader.read(start, until, limit).await {
                    Ok(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
                    Ok(Piece::End) => return Ok(None),
                    Ok(Piece::Left { from, total }) => {
                        tracing::debug!(digest = %self.ask.digest, start, "a reader goes on by itself");
                        let passing = Passing::open(&self.ask, *from, total).await?;
                        self.source = Source::Passing(Box::new(passing));
                    }
                    Err(Error::Moved) => self.replace(start, until).await?,
                    Err(error) => return Err(error),
                },
                // It goes only forward.
                Source::Passing(passing) if start < passing.position() => {
                    self.replace(start, until).await?;
                }
                Source::Passing(passing) => return passing.read(start, limit).await,
            }
        }
    }

    async fn replace(&mut self, start: u64, until: Option<u64>) -> Result<(), Error> {
        self.replaced += 1;
        if self.replaced > REPLACEMENTS {
            return Err(Error::Lost);
        }
        let interest = Interest { at: start, until, is_whole: until.is_none() };
        self.source = self.blobs.source(&self.ask, interest).await?;
        Ok(())
    }

    async fn set_aside(&self, problem: std::io::Error) {
        let (store, digest) = (Arc::clone(self.blobs.store()), self.ask.digest);
        let work = move || store.set_aside(digest, &format!("it can't be read: {problem}"));
        // It reports for itself.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}

fn slice(body: &Bytes, start: u64, limit: u64) -> Option<Bytes> {
    let start = usize::try_from(start).unwrap_or(usize::MAX).min(body.len());
    let rest = body.slice(start..);
    let len = rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
    (len > 0).then(|| rest.slice(..len))
}

async fn read_stored(lease: &Lease, start: u64, limit: u64) -> std::io::Result<Option<Bytes>> {
    let len = lease.len().saturating_sub(start).min(limit);
    if len == 0 {
        return Ok(None);
    }
    bring_in(lease.map(), start, len).await?;
    Ok(Some(lease.slice(start, len)))
}

/// Brings the pages of a range in, off the runtime where they have to come from the disk.
pub(super) async fn bring_in(map: &Map, start: u64, len: u64) -> std::io::Result<()> {
    if map.is_resident(start, len) {
        return Ok(());
    }
    let map = map.clone();
    let populated = tokio::task::spawn_blocking(move || map.populate(start, len)).await;
    populated.map_err(|_| std::io::Error::other("the server is stopping"))?
}
