//! A blob that passes through: verified like any other, but not kept.
//!
//! For blobs that the store has no room for, or while its disk fails: the cache
//! is then a plain proxy, never an error. Each reader has an upstream body of
//! its own, in order, with the last piece held back until the digest is right.

use bytes::{Bytes, BytesMut};

use super::{Ask, Error, HELD_BACK_BYTES};
use crate::{
    protocol::{Digest, Hasher},
    upstream::{self, BlobBody, Failure},
};

/// One reader's own upstream body.
#[derive(Debug)]
pub struct Passing {
    expected: Digest,
    total: Option<u64>,
    body: upstream::Body,
    hasher: Hasher,
    /// Received and not yet handed out.
    waiting: BytesMut,
    /// Bytes handed out or passed over.
    position: u64,
    is_verified: bool,
}

// === impl Passing ===

impl Passing {
    pub(super) async fn open(ask: &Ask) -> Result<Self, Error> {
        let get = ask.upstream.get_blob(&ask.repository, &ask.digest, 0, &ask.caller);
        let BlobBody { total, body, .. } = get.await?;
        Ok(Self {
            expected: ask.digest,
            total,
            body,
            hasher: Hasher::new(ask.digest.algorithm()),
            waiting: BytesMut::new(),
            position: 0,
            is_verified: false,
        })
    }

    /// The blob's length, where upstream says it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The next bytes from `start` on, at most `limit`; `None` at the end. It goes only forward.
    pub async fn read(&mut self, start: u64, limit: u64) -> Result<Option<Bytes>, Error> {
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
        let before = self.waiting.len();
        let received = self.body.append_to(&mut self.waiting).await;
        if received.map_err(upstream::Error::from)? > 0 {
            self.hasher.update(self.waiting.get(before..).unwrap_or_default());
            return Ok(());
        }
        let found = self.hasher.clone().finish();
        if found != self.expected {
            return Err(Error::mismatch(self.expected, found));
        }
        let whole = self.position + self.waiting.len() as u64;
        if self.total.is_some_and(|total| total != whole) {
            let failure = Failure::invalid("the blob's length is not what upstream had said");
            return Err(upstream::Error::from(failure).into());
        }
        self.is_verified = true;
        Ok(())
    }
}
