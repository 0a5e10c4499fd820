//! What is asked of warming and what it answers: plain data, the same over the API and on the
//! command line.
//!
//! The fields' names are a contract. Sizes are bytes, times whole seconds since 1970.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::protocol::Digest;

/// What is to be fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmRequest {
    /// Images as clients name them: `alpine`, `ghcr.io/org/app:1`, `alpine@sha256:…`.
    pub images: Vec<String>,
    /// Such as `linux/arm64`; none: the server's own; `all`: whatever an index lists.
    pub platforms: Vec<String>,
    /// Layers fetched at the same time; `null`: 4.
    pub parallel: Option<usize>,
    /// Only say what it would cost.
    pub dry_run: bool,
    /// With `dry_run`: read manifests that are not cached, at their price, so that nothing stays
    /// unknown.
    pub read_manifests: bool,
    /// Spend what `budget.reserve` keeps for clients, too.
    pub spend_reserve: bool,
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Under way, or about to be.
    Running,
    /// Ended, and every image is there.
    Done,
    /// Ended, and some image is not there.
    Failed,
    /// Ended early, by request or because the server stopped.
    Cancelled,
}

/// How an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// For its turn.
    Waiting,
    /// Its manifests are looked at.
    Resolving,
    /// Its layers are.
    Fetching,
    /// All of it was there.
    Cached,
    /// All of it is there now; of a dry run: it has been looked at.
    Done,
    /// Not all of it is there; `error` says why.
    Failed,
    /// The job ended before.
    Cancelled,
}

/// How a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// It was there.
    Cached,
    /// For its turn.
    Waiting,
    /// On its way.
    Fetching,
    /// It is there now.
    Done,
    /// It is not there; `error` says why.
    Failed,
}

/// A layer, or the config, of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerReport {
    /// Its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// How it is.
    pub state: LayerState,
    /// Its size, as the manifest says it.
    pub bytes: u64,
    /// How much of it is there.
    pub done: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// An image of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageReport {
    /// As it was asked for.
    pub reference: String,
    /// Its full name, where it has one.
    pub name: Option<String>,
    /// How it is.
    pub state: ImageState,
    /// What the tag names, once that is known.
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
    /// The platforms that were chosen.
    pub platforms: Vec<String>,
    /// Requests that the registry counts, as they were made.
    pub spent: u64,
    /// Bytes that came from upstream.
    pub fetched: u64,
    /// Of a dry run: counted requests that a run would make.
    pub to_spend: u64,
    /// Of a dry run: bytes that a run would fetch.
    pub to_fetch: u64,
    /// Of a dry run: something is not known before a manifest has been read, and `to_spend` and
    /// `to_fetch` are what is known; `notes` say of what.
    pub is_estimate: bool,
    /// Layers, configs included, each digest once.
    pub layer_count: u64,
    /// Those that are there.
    pub layers_done: u64,
    /// Bytes of all layers.
    pub bytes: u64,
    /// Bytes that are there.
    pub done: u64,
    /// What is worth knowing of it.
    pub notes: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Its layers. Of a job with very many, those of images that have ended well are left out.
    pub layers: Vec<LayerReport>,
}

/// What a registry's budget has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetLeft {
    /// The upstream's name.
    pub upstream: String,
    /// Pulls left; `null` where no limit is known.
    pub remaining: Option<u64>,
    /// Of how many.
    pub limit: Option<u64>,
    /// What is left is kept for clients (`budget.reserve`).
    pub is_sparing: bool,
}

/// Sums over the images of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Images.
    pub images: u64,
    /// Those that are there.
    pub images_done: u64,
    /// Those that failed.
    pub images_failed: u64,
    /// Layers of the images that are known by now.
    pub layers: u64,
    /// Those that are there.
    pub layers_done: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that are there.
    pub done: u64,
    /// Counted requests that were made.
    pub spent: u64,
    /// Bytes that came from upstream.
    pub fetched: u64,
    /// Of a dry run: counted requests that a run would make.
    pub to_spend: u64,
    /// Of a dry run: bytes that a run would fetch.
    pub to_fetch: u64,
    /// Something is not known of an image at least.
    pub is_estimate: bool,
}

/// A job, without its images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// What to ask for it with.
    pub id: String,
    /// How it is.
    pub state: JobState,
    /// It only says what it would cost.
    pub dry_run: bool,
    /// The key of the schedule that began it, such as `warm[0]`; `null`: it was asked for.
    pub schedule: Option<String>,
    /// `all`, or the platforms that are wanted.
    pub platforms: Vec<String>,
    /// When it was asked for.
    pub started_at: u64,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// Sums over its images.
    pub totals: Totals,
    /// The budgets of the upstreams concerned.
    pub budgets: Vec<BudgetLeft>,
    /// What is worth knowing of it as a whole.
    pub notes: Vec<String>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    /// What it is.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// Its images, in the order in which they were asked for.
    pub images: Vec<ImageReport>,
}

/// What the configuration's `warm` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleReport {
    /// Its key, such as `warm[0]`.
    pub key: String,
    /// `every 6h`, `at 03:00`.
    pub when: String,
    /// When it runs next; `null` while it runs.
    pub next_at: Option<u64>,
    /// Its last job, as long as that is remembered.
    pub last_job: Option<String>,
    /// Why it could not begin last time.
    pub error: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WarmOverview {
    /// Jobs, the newest first; ended ones are forgotten after some time.
    pub jobs: Vec<JobSummary>,
    /// The configuration's.
    pub schedules: Vec<ScheduleReport>,
}

// === impl ImageReport ===

impl ImageReport {
    /// Of an image that has not been looked at.
    pub(crate) fn new(reference: String, name: Option<String>) -> Self {
        Self {
            reference,
            name,
            state: ImageState::Waiting,
            digest: None,
            platforms: Vec::new(),
            spent: 0,
            fetched: 0,
            to_spend: 0,
            to_fetch: 0,
            is_estimate: false,
            layer_count: 0,
            layers_done: 0,
            bytes: 0,
            done: 0,
            notes: Vec::new(),
            error: None,
            layers: Vec::new(),
        }
    }

    /// Whether nothing more comes.
    pub fn is_over(&self) -> bool {
        match self.state {
            ImageState::Waiting | ImageState::Resolving | ImageState::Fetching => false,
            ImageState::Cached | ImageState::Done | ImageState::Failed | ImageState::Cancelled => {
                true
            }
        }
    }
}

// === impl Totals ===

impl Totals {
    pub(super) fn of(images: &[ImageReport]) -> Self {
        images.iter().fold(Self::default(), |sum, image| Self {
            images: sum.images + 1,
            images_done: sum.images_done
                + u64::from(matches!(image.state, ImageState::Cached | ImageState::Done)),
            images_failed: sum.images_failed + u64::from(image.state == ImageState::Failed),
            layers: sum.layers + image.layer_count,
            layers_done: sum.layers_done + image.layers_done,
            bytes: sum.bytes.saturating_add(image.bytes),
            done: sum.done.saturating_add(image.done),
            spent: sum.spent + image.spent,
            fetched: sum.fetched.saturating_add(image.fetched),
            to_spend: sum.to_spend + image.to_spend,
            to_fetch: sum.to_fetch.saturating_add(image.to_fetch),
            is_estimate: sum.is_estimate || image.is_estimate,
        })
    }
}
