//! The pages of what is cached: the list of repositories, and one of them with its tags.

use askama::Template;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Digest, Frame, Newcomer, Tone};
use crate::admin::dashboard::{
    asset,
    figure::{Bytes, Count, Lasting, Moment, Shown},
};

/// What is left as it is in a path's segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The same in a path of several.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// `/repositories`.
#[derive(Debug, Template)]
#[template(path = "repositories.html")]
pub(crate) struct Repositories {
    pub(crate) frame: Frame,
    /// Why the search could not be done.
    pub(crate) refused: Option<Shown>,
    pub(crate) rows: Vec<Repository>,
    /// The address of the next page.
    pub(crate) next: Option<String>,
    /// It is not the first page.
    pub(crate) is_later: bool,
    pub(crate) newcomer: Option<Newcomer>,
}

/// A repository of which something is stored.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub(crate) upstream: Shown,
    pub(crate) name: Shown,
    pub(crate) tags: Count,
    pub(crate) objects: Option<Count>,
    pub(crate) bytes: Option<Bytes>,
    /// There is more than was counted.
    pub(crate) is_more: bool,
    pub(crate) used: Option<Moment>,
}

/// `/repositories/UPSTREAM/NAME`.
#[derive(Debug, Template)]
#[template(path = "repository.html")]
pub(crate) struct RepositoryPage {
    pub(crate) frame: Frame,
    /// What it has here as a whole.
    pub(crate) whole: Repository,
    /// As commands and the API take it.
    pub(crate) reference: String,
    pub(crate) tags: Vec<Tag>,
    pub(crate) next: Option<String>,
    pub(crate) is_later: bool,
}

/// A cached tag.
#[derive(Debug, Clone)]
pub(crate) struct Tag {
    pub(crate) name: Shown,
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    pub(crate) state: Kept,
    pub(crate) bytes: Bytes,
    pub(crate) missing: Count,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) used: Option<Moment>,
    pub(crate) freshness: Freshness,
    pub(crate) checked: Option<Moment>,
    pub(crate) moved: Moment,
    pub(crate) is_pinned: bool,
}

/// How much of something is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Complete,
    Partial,
    Absent,
}

/// Whether a tag is served without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It never moves.
    Immutable,
    /// For so long still, where that ends.
    Fresh(Option<Lasting>),
    /// Upstream is asked (free) when it is pulled next.
    Due,
    /// It would be asked, but is in trouble: the copy is served.
    Stale,
    /// Upstream has it no more.
    Gone,
    /// Its upstream is configured no more.
    Unknown,
}

/// One platform of a tag.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    pub(crate) name: Shown,
    pub(crate) state: Kept,
    pub(crate) bytes: Bytes,
}

// === impl ===

impl Kept {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Absent => "not stored",
        }
    }

    pub(crate) fn tone(self) -> Tone {
        match self {
            Self::Complete => Tone::Good,
            Self::Partial => Tone::Warning,
            Self::Absent => Tone::Quiet,
        }
    }
}

impl Repository {
    /// Where its page is.
    pub(crate) fn path(&self) -> String {
        repository_path(self.upstream.as_str(), self.name.as_str())
    }
}

/// Where the page of a repository is.
pub(crate) fn repository_path(upstream: &str, name: &str) -> String {
    let upstream = utf8_percent_encode(upstream, SEGMENT);
    format!("/repositories/{upstream}/{}", utf8_percent_encode(name, PATH))
}
