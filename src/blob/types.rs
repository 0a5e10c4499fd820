//! The values of the blob side: who asks, where bytes come from, what went wrong.

use std::sync::Arc;

use bytes::Bytes;

use super::{Feed, Reader, fill::Origin, passing::Passing};
use crate::{
    protocol::{Digest, Repository},
    store::{self, Lease, LinkKey},
    upstream::{self, Caller, Upstream},
};

/// Why a blob can't be served. Cheap to clone: one failure is told to all readers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Upstream said so, or was in trouble.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The bytes are not what their name says.
    #[error(transparent)]
    Mismatch(Box<DigestMismatch>),
    /// A limit is reached and stayed so for as long as a client may wait.
    #[error("too many {0}; try again in a moment")]
    Busy(&'static str),
    /// The bytes can't be had from this fill any more, for reasons of our own; another has them.
    #[error("the fill can't go on")]
    Moved,
    /// The disk failed.
    #[error(transparent)]
    Store(Arc<store::Error>),
    /// The fill ended without a word: the server is stopping.
    #[error("the fill was given up")]
    Lost,
}

/// Upstream sent other bytes than were asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("upstream sent bytes with the digest {found} for {expected}")]
pub struct DigestMismatch {
    /// What was asked for.
    pub expected: Digest,
    /// What came.
    pub found: Digest,
}

/// Who asks for which blob of which repository.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The registry.
    pub upstream: Arc<Upstream>,
    /// The repository there.
    pub repository: Repository,
    /// The blob.
    pub digest: Digest,
    /// On whose behalf upstream is asked.
    pub caller: Caller,
}

/// Where a blob's bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A small one, in memory.
    Memory(Bytes),
    /// A stored one.
    Stored(Lease),
    /// One that is being filled.
    Filling(Reader),
    /// One that this answer fetches by itself.
    Passing(Box<Passing>),
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored.
    Hit,
    /// Being fetched.
    Fetched {
        /// By another request.
        collapsed: bool,
    },
    /// Upstream's, and not kept.
    Passed,
}

/// A blob to serve.
#[derive(Debug)]
pub struct Served {
    /// Its bytes.
    pub feed: Feed,
    /// Its length, where it is known by now.
    pub size: Option<u64>,
    /// How it came about.
    pub outcome: Outcome,
}

// === impl Ask ===

impl Ask {
    pub(super) fn origin(&self) -> Origin {
        Origin {
            upstream: Arc::clone(self.upstream.name()),
            epoch: self.upstream.epoch(),
            repository: self.repository.clone(),
            identity: self.caller.identity(),
        }
    }

    pub(crate) fn link_key(&self) -> LinkKey {
        LinkKey {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            digest: self.digest,
        }
    }
}

// === impl Error ===

impl Error {
    pub(super) fn mismatch(expected: Digest, found: Digest) -> Self {
        Self::Mismatch(Box::new(DigestMismatch { expected, found }))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}
