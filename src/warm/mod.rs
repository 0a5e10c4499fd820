//! Warming: images are fetched before a client asks for them.
//!
//! A job goes the ways of a client's pull, without the client: tags are checked
//! by HEAD where they are known, manifests fetched once, blobs filled together
//! with whoever reads them meanwhile. What is allowed, offline or short of
//! budget is so for a job too. A job that ends early leaves what its fills leave,
//! and the next one goes on from there.
//!
//! ```text
//! Warmer ─► Job ─► Order (images, platforms) ─► contents (manifests) ─► layers (blobs)
//! ```

mod contents;
mod image;
mod job;
mod layers;
mod list;
mod order;
mod report;
mod schedule;
mod timetable;
mod warmer;

pub use list::parse_list;
pub use order::{BadRequest, MOST_IMAGES, MOST_PARALLEL};
pub use report::{
    BudgetLeft, ImageReport, ImageState, JobReport, JobState, JobSummary, LayerReport, LayerState,
    ScheduleReport, Totals, WarmOverview, WarmRequest,
};
pub use warmer::{Busy, Plan, Refused, Warmer};

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    blob::Blobs,
    manifest::Manifests,
    upstream::{Caller, Roster, Upstream},
};

/// What jobs work with.
#[derive(Debug)]
struct Means {
    manifests: Arc<Manifests>,
    blobs: Arc<Blobs>,
    upstreams: Arc<Roster>,
    /// Places for layers on their way, of all jobs together.
    places: Arc<Semaphore>,
}

// === impl Means ===

impl Means {
    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.upstreams.named(name)
    }
}

/// On whose behalf upstream is asked: with our own accounts, or where only clients have any, with
/// none.
fn caller(upstream: &Upstream) -> Caller {
    match upstream.config().credentials.mode {
        crate::config::Mode::Shared => Caller::Shared,
        crate::config::Mode::Client => Caller::client(None),
    }
}
