//! A blob that one reader fetches by itself: verified like any other, but not kept.
//!
//! For a reader that fell behind a fill which is not stored: what it needs next
//! has left memory. It asks upstream anew from there, with the hash of all
//! before, and the last piece is held back until the digest is right.

use bytes::{Bytes, BytesMut};

use super::{Ask, Error, HELD_BACK_BYTES, window::Frontier};
use crate::{
    protocol::{Digest, Hasher},
    upstream::{self, BlobBody, Failure},
};

/// One reader's own upstream body.
#[derive(Debug)]
pub(super) struct Passing {
    expected: Digest,
    total: Option<u64>,
    body: upstream::Body,
    hasher: Hasher,
    /// Bytes of the body that the hash has seen already.
    skip: u64,
    /// Received and not yet handed out.
    waiting: BytesMut,
    /// Where in the blob `waiting` begins.
    position: u64,
    is_verified: bool,
}

// === impl Passing ===

impl Passing {
    /// Asks for what comes behind `from`.
    pub(super) async fn open(ask: &Ask, from: Frontier, total: Option<u64>) -> Result<Self, Error> {
        let upstream = &ask.upstream;
        let get = upstream.get_blob(&ask.repository, &ask.digest, from.at, None, &ask.caller);
        let body = get.await?;
        if let (Some(before), Some(now)) = (total, body.total)
            && before != now
        {
            return Err(length_changed());
        }
        let BlobBody { start, total: told, body } = body;
        Ok(Self {
            expected: ask.digest,
            total: total.or(told),
            body,
            hasher: from.hasher,
            skip: from.at.saturating_sub(start),
            waiting: BytesMut::new(),
            position: from.at,
            is_verified: false,
        })
    }

    /// Where it is: it goes only forward.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes from `start` on, at most `limit`; `None` at the end.
    pub(super) async fn read(&mut self, start: u64, limit: u64) -> Result<Option<Bytes>, Error> {
        loop {
            let visible = self.visible();
            let pass_over = start.saturating_sub(self.position).min(visible as u64);
            if pass_over > 0 {
                self.take(pass_over);
                continue;
            }
            if self.position == start && visible > 0 {
                return Ok(Some(self.take(limit.min(visible as u64)).freeze()));
            }
            if self.is_verified {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// How many of the waiting bytes may be handed out.
    fn visible(&self) -> usize {
        let held = if self.is_verified { 0 } else { HELD_BACK_BYTES };
        self.waiting.len().saturating_sub(usize::try_from(held).unwrap_or(usize::MAX))
    }

    fn take(&mut self, count: u64) -> BytesMut {
        self.position += count;
        self.waiting.split_to(usize::try_from(count).unwrap_or(usize::MAX))
    }

    async fn receive(&mut self) -> Result<(), Error> {
        let mut received = BytesMut::new();
        let count = self.body.append_to(&mut received).await.map_err(upstream::Error::from)?;
        if count > 0 {
            let skip = self.skip.min(count as u64);
            self.skip -= skip;
            let new = received.split_off(usize::try_from(skip).unwrap_or(usize::MAX));
            self.hasher.update(&new);
            self.waiting.unsplit(new);
            return Ok(());
        }
        let found = self.hasher.clone().finish();
        if found != self.expected {
            return Err(Error::mismatch(self.expected, found));
        }
        let whole = self.position + self.waiting.len() as u64;
        if self.total.is_some_and(|total| total != whole) {
            return Err(length_changed());
        }
        self.is_verified = true;
        Ok(())
    }
}

fn length_changed() -> Error {
    let failure = Failure::invalid("the blob's length is not what upstream had said");
    upstream::Error::from(failure).into()
}
