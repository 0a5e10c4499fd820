//! Whether a pull came through Roadstead: by its counters, before and after.
//!
//! Where others pull at the same time, counters alone prove nothing; then the image's own time of
//! use must have moved too.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::{super::server::Admin, image::Image};

/// How long it is watched whether others pull.
const WATCH: Duration = Duration::from_millis(1500);

/// How long a request may take to be counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(4);

/// How often the counters are looked at.
const STEP: Duration = Duration::from_millis(200);

/// The counters, watched from before a pull.
#[derive(Debug)]
pub(super) struct Witness<'a> {
    admin: &'a Admin,
    image: &'a Image,
    /// Requests for manifests, answered before.
    before: f64,
    /// They rose without us.
    is_busy: bool,
    /// Seconds since 1970.
    began: u64,
}

/// What the counters say of a pull.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Testimony {
    /// So many requests for manifests came.
    Came(f64),
    /// None did.
    NoneCame,
    /// Others came, and it can't be told whether this one did.
    Unsure,
}

// === impl Witness ===

impl<'a> Witness<'a> {
    /// Begins to watch.
    pub(super) async fn new(admin: &'a Admin, image: &'a Image) -> Result<Self, String> {
        let first = count(admin).await?;
        sleep(WATCH).await;
        let before = count(admin).await?;
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self { admin, image, before, is_busy: before > first, began })
    }

    /// What has come since.
    pub(super) async fn testify(&self) -> Result<Testimony, String> {
        let deadline = Instant::now() + COUNTED_WITHIN;
        loop {
            let came = count(self.admin).await? - self.before;
            let is_late = Instant::now() >= deadline;
            match (came > 0.0, self.is_busy) {
                (true, false) => return Ok(Testimony::Came(came)),
                (true, true) if self.is_used().await => return Ok(Testimony::Came(came)),
                (true, true) if is_late => return Ok(Testimony::Unsure),
                (false, _) if is_late => return Ok(Testimony::NoneCame),
                _ => sleep(STEP).await,
            }
        }
    }

    /// Whether the image's manifest was read since.
    async fn is_used(&self) -> bool {
        let (admin, image) = (self.admin.clone(), self.image.to_string());
        let page = tokio::task::spawn_blocking(move || admin.images(&image)).await;
        let Ok(Ok(page)) = page else { return false };
        page.images.iter().any(|image| image.used_at.is_some_and(|at| at > self.began))
    }
}

async fn count(admin: &Admin) -> Result<f64, String> {
    let admin = admin.clone();
    let metrics = tokio::task::spawn_blocking(move || admin.metrics()).await;
    let metrics = metrics.map_err(|error| error.to_string())??;
    Ok(metrics.sum("roadstead_requests_total", &[("kind", "manifest")]).unwrap_or_default())
}
