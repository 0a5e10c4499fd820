//! A blob's bytes for one answer: whole, one range, or several as multipart.
//!
//! Bytes are handed out in few, large pieces without a copy; pages that would
//! wait for the disk are brought in off the runtime first.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Error, Source};
use crate::{
    protocol::{ByteRange, multipart::Multipart},
    store::{Lease, Map},
};

/// One part of an answer's body.
#[derive(Debug)]
pub enum Part {
    /// Bytes of our own: the heads between ranges.
    Literal(Bytes),
    /// Bytes of the blob, from the first to before the second.
    Range(ByteRange),
    /// The blob to its end, wherever that is.
    Whole,
}

/// A body to be sent.
#[derive(Debug)]
pub struct Stream {
    source: Source,
    parts: VecDeque<Part>,
    /// How much of the whole has been handed out, for [`Part::Whole`].
    position: u64,
}

// === impl Stream ===

impl Stream {
    /// The whole blob.
    pub fn whole(source: Source) -> Self {
        Self { source, parts: VecDeque::from([Part::Whole]), position: 0 }
    }

    /// One range of it.
    pub fn range(source: Source, range: ByteRange) -> Self {
        Self { source, parts: VecDeque::from([Part::Range(range)]), position: 0 }
    }

    /// Several ranges of it, as multipart/byteranges.
    pub fn multipart(source: Source, ranges: &[ByteRange], multipart: &Multipart) -> Self {
        let mut parts = VecDeque::with_capacity(ranges.len() * 2 + 1);
        for range in ranges {
            parts.push_back(Part::Literal(multipart.part_head(*range)));
            parts.push_back(Part::Range(*range));
        }
        parts.push_back(Part::Literal(multipart.tail()));
        Self { source, parts, position: 0 }
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
                    let piece = read(&mut self.source, range.start, limit).await?;
                    let piece = piece.ok_or(Error::Lost)?;
                    let start = range.start + piece.len() as u64;
                    self.parts.push_front(Part::Range(ByteRange::new(start, range.end)));
                    return Ok(Some(piece));
                }
                Some(Part::Whole) => {
                    let piece = read(&mut self.source, self.position, limit).await?;
                    let Some(piece) = piece else { return Ok(None) };
                    self.position += piece.len() as u64;
                    self.parts.push_front(Part::Whole);
                    return Ok(Some(piece));
                }
            }
        }
    }
}

async fn read(source: &mut Source, start: u64, limit: u64) -> Result<Option<Bytes>, Error> {
    match source {
        Source::Memory(body) => {
            let start = usize::try_from(start).unwrap_or(usize::MAX).min(body.len());
            let rest = body.slice(start..);
            let len = rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok((len > 0).then(|| rest.slice(..len)))
        }
        Source::Stored(lease) => read_stored(lease, start, limit).await,
        // What a fill has just written is in memory; what a slow reader comes back for may not be,
        // and then it waits for the page in `write(2)` like any file's reader.
        Source::Filling(reader) => reader.read(start, limit).await,
        Source::Passing(passing) => passing.read(start, limit).await,
    }
}

async fn read_stored(lease: &Lease, start: u64, limit: u64) -> Result<Option<Bytes>, Error> {
    let len = lease.len().saturating_sub(start).min(limit);
    if len == 0 {
        return Ok(None);
    }
    bring_in(lease.map(), start, len).await?;
    Ok(Some(lease.slice(start, len)))
}

async fn bring_in(map: &Map, start: u64, len: u64) -> Result<(), Error> {
    if map.is_resident(start, len) {
        return Ok(());
    }
    let map = map.clone();
    let populated = tokio::task::spawn_blocking(move || map.populate(start, len)).await;
    populated.map_err(|_| Error::Lost)?.map_err(|error| crate::store::Error::from(error).into())
}
