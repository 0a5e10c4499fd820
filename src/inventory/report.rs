//! What the inventory answers: plain data, the same over the API and on the command line.
//!
//! The fields' names are a contract. Sizes are bytes, times whole seconds since
//! 1970; a list that can be long comes in pages, and `next` is what to ask the
//! following one with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{protocol::Digest, store};

/// Which server answers, and for which store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// The program's version.
    pub version: String,
    /// The store's folder, as the server names it.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// What tells the folder from others under any name.
    pub directory_id: Option<String>,
}

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Their sizes together.
    pub bytes: u64,
}

/// How much of something is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it: it can be pulled with upstream gone.
    Complete,
    /// Some of it.
    Partial,
    /// Nothing but its name.
    Absent,
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Platform {
    /// `os/architecture[/variant]`; `null` where the image does not say.
    pub platform: Option<String>,
    /// How much of it is stored.
    pub state: State,
    /// Stored bytes: manifest, config and layers.
    pub bytes: u64,
    /// Pieces that it names and that are not stored.
    pub missing: u64,
}

/// A cached tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Its full name.
    pub reference: String,
    /// The upstream's name.
    pub upstream: String,
    /// The repository there.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What it named when upstream was last asked.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// `complete` if one platform at least can be pulled from here.
    pub state: State,
    /// Stored objects that it reaches.
    pub objects: u64,
    /// Their bytes; what other images share is counted for each.
    pub bytes: u64,
    /// Objects that it names and that are not stored.
    pub missing: u64,
    /// Its platforms, in its own order, without attestations.
    pub platforms: Vec<Platform>,
    /// When upstream last confirmed it; `null` if it is to be asked before the tag is served again.
    pub checked_at: Option<u64>,
    /// When it was first seen to name this digest.
    pub moved_at: u64,
    /// When its manifest was last read; `null` if that is not stored.
    pub used_at: Option<u64>,
    /// Whether it is pinned by this name.
    pub pinned: bool,
}

/// Some of the cached tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagePage {
    /// By name. It may hold none though more follow.
    pub images: Vec<Image>,
    /// `after` of the following page; `null` at the end.
    pub next: Option<String>,
}

/// What a stored object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A layer, a config, any blob.
    Blob,
    /// An image manifest or index.
    Manifest,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blob {
    /// Its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What it is.
    pub kind: BlobKind,
    /// Its size.
    pub bytes: u64,
    /// When it was last read.
    pub used_at: u64,
    /// Whether a pin keeps it.
    pub pinned: bool,
}

/// Some of the stored objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobPage {
    /// By digest.
    pub blobs: Vec<Blob>,
    /// `after` of the following page; `null` at the end.
    pub next: Option<String>,
}

/// The store's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreUsage {
    /// `store.disk`.
    pub capacity: u64,
    /// What counts against it.
    pub used: u64,
    /// How many objects are stored.
    pub objects: u64,
    /// Their bytes.
    pub published: u64,
    /// Bytes of unfinished downloads.
    pub staged: u64,
    /// Bytes of the index.
    pub index: u64,
    /// Bytes set aside because they went bad.
    pub quarantine: u64,
    /// Bytes of the history.
    #[serde(default)]
    pub history: u64,
    /// Bytes that pins keep.
    pub pinned: u64,
}

/// What an upstream's repositories have here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpstreamUsage {
    /// The upstream's name.
    pub upstream: String,
    /// Its repositories of which anything is stored.
    pub repositories: u64,
    /// Their tags.
    pub tags: u64,
    /// Stored objects; what its repositories share is counted once.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a repository has here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryUsage {
    /// The upstream's name.
    pub upstream: String,
    /// The repository there.
    pub repository: String,
    /// Its cached tags.
    pub tags: u64,
    /// Its stored objects, those that it shares with others included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Who uses how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// The store as a whole: every object once.
    pub store: StoreUsage,
    /// By upstream.
    pub upstreams: Vec<UpstreamUsage>,
    /// The largest repositories, the largest first.
    pub repositories: Vec<RepositoryUsage>,
    /// Smaller ones that are not listed.
    pub repositories_left_out: u64,
    /// When upstreams and repositories were counted; `null` while they are for the first time.
    pub as_of: Option<u64>,
}

/// A repository of which something is known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryInfo {
    /// The upstream's name.
    pub upstream: String,
    /// The repository there.
    pub repository: String,
    /// Its cached tags.
    pub tags: u64,
    /// Its stored objects, those that it shares with others included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When one of them was last read; `null` if none is stored.
    pub used_at: Option<u64>,
    /// There are more than these numbers say: it has too many to be counted at once.
    pub at_least: bool,
}

/// Some of the repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryPage {
    /// By upstream and name. It may hold none though more follow.
    pub repositories: Vec<RepositoryInfo>,
    /// `after` of the following page; `null` at the end.
    pub next: Option<String>,
}

/// What the next pull of a tag leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FreshnessState {
    /// It is served without asking upstream.
    Fresh,
    /// Upstream is asked first, by a request that costs nothing.
    Due,
    /// It is served as it is, since upstream is not to be asked at present.
    Stale,
    /// Upstream has it no more.
    Gone,
    /// Its upstream is not configured any more.
    Unknown,
}

/// How fresh a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Freshness {
    /// What the next pull leads to.
    pub state: FreshnessState,
    /// Seconds since upstream last confirmed it; `null` if that is not known.
    pub age: Option<u64>,
    /// Seconds for which it stays fresh; `null` if it is not, or stays so for ever.
    pub fresh_for: Option<u64>,
    /// It is never asked for again (`tags.immutable`).
    pub immutable: bool,
}

/// A cached tag and its freshness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TagInfo {
    /// The image that it names.
    #[serde(flatten)]
    pub image: Image,
    /// Whether it is served as it is.
    pub freshness: Freshness,
}

/// Some of a repository's tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TagPage {
    /// The repository, and what it has here as a whole.
    pub repository: RepositoryInfo,
    /// By name. It may hold none though more follow.
    pub tags: Vec<TagInfo>,
    /// `after` of the following page; `null` at the end.
    pub next: Option<String>,
}

// === impl ===

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl From<store::Kind> for BlobKind {
    fn from(kind: store::Kind) -> Self {
        match kind {
            store::Kind::Blob => Self::Blob,
            store::Kind::Manifest => Self::Manifest,
        }
    }
}

impl From<store::Usage> for StoreUsage {
    fn from(usage: store::Usage) -> Self {
        Self {
            capacity: usage.capacity,
            used: usage.used,
            objects: usage.objects,
            published: usage.published,
            staged: usage.staged,
            index: usage.index,
            quarantine: usage.quarantine,
            history: usage.history,
            pinned: usage.pinned,
        }
    }
}
