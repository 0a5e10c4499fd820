//! What is asked of the manifest side, and what it answers.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    negative::Question,
    revalidation::{Choice, choose},
};
use crate::{
    protocol::{Digest, Reference, Repository, Tag},
    store::{LinkKey, TagKey, TagRecord},
    upstream::{self, Caller, Upstream},
};

/// Why there is no manifest to serve.
pub type Error = upstream::Error;

/// Whether the body is wanted, or only its description (a client's HEAD).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// A HEAD: nothing that is counted is spent on it.
    Head,
    /// A GET.
    Body,
    /// A GET that no client has asked for yet: what costs nothing has saved nobody anything.
    Ahead,
}

/// Who asks for what of which repository.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The registry.
    pub upstream: Arc<Upstream>,
    /// The repository there.
    pub repository: Repository,
    /// Whether the body is wanted.
    pub want: Want,
    /// On whose behalf upstream is asked.
    pub caller: Caller,
    /// The client's address, for the books.
    pub client: Option<IpAddr>,
}

/// A verified manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type under which its repository serves it.
    pub media_type: Arc<str>,
    /// Its bytes, as upstream sent them.
    pub body: Bytes,
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// The manifest.
    Whole(Manifest),
    /// For a HEAD of what is not cached: upstream's description of it.
    Described {
        /// Its digest.
        digest: Digest,
        /// Its media type.
        media_type: String,
        /// Its length in bytes.
        size: u64,
    },
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, without asking.
    Hit {
        /// How long it stays fresh; `None` for ever.
        left: Option<Duration>,
    },
    /// From the cache, after a free HEAD.
    Validated {
        /// The HEAD was another request's.
        collapsed: bool,
    },
    /// From upstream.
    Fetched {
        /// By another request.
        collapsed: bool,
    },
    /// From the cache, though upstream could not be asked.
    Stale {
        /// Why, in a word.
        why: &'static str,
    },
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Served {
    /// The manifest or its description.
    pub found: Found,
    /// Where it came from.
    pub outcome: Outcome,
    /// When upstream last confirmed the tag; `None` for what a digest names.
    pub validated: Option<SystemTime>,
    /// It is what the tag named before, for what it names now is younger than `tags.cooldown`.
    pub cooling: bool,
}

/// The caller's identity, and the upstream's epoch.
pub(super) type Side = (Option<Digest>, u64);

// === impl Ask ===

impl Ask {
    pub(crate) fn tag_key(&self, tag: &Tag) -> TagKey {
        TagKey {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            tag: tag.clone(),
        }
    }

    pub(super) fn cooldown(&self, tag: &Tag) -> Duration {
        self.upstream.config().tags.cooldown_of(tag.as_str())
    }

    /// Which digest answers for `tag` now.
    pub(super) fn choice(&self, tag: &Tag, record: &TagRecord) -> Choice {
        choose(record, self.cooldown(tag), SystemTime::now())
    }

    pub(crate) fn link_key(&self, digest: Digest) -> LinkKey {
        LinkKey {
            upstream: Arc::clone(self.upstream.name()),
            repository: self.repository.clone(),
            digest,
        }
    }

    pub(super) fn question(&self, reference: Reference) -> Question {
        Question {
            upstream: Arc::clone(self.upstream.name()),
            epoch: self.upstream.epoch(),
            repository: self.repository.clone(),
            reference,
            identity: self.caller.identity(),
        }
    }

    /// For whom upstream is asked, and which upstream that is: those who ask alike wait together.
    pub(super) fn side(&self) -> Side {
        (self.caller.identity(), self.upstream.epoch())
    }

    pub(super) fn is_authorised(&self) -> bool {
        self.upstream.is_authorised(&self.caller, &self.repository)
    }
}
