//! Whether a pull came through Roadstead: by its counters, before and after.
//!
//! A request that was refused is none that came through: the client goes to the registry then. Where
//! others pull at the same time, counters alone prove nothing; then the image's own time of use must
//! have moved too.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    super::server::{Admin, label},
    image::Image,
};

/// How long it is watched whether others pull, before the pull and after it.
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
    before: Counts,
    /// They rose without us.
    is_busy: bool,
    /// When the image was last used, by the server's clock.
    used: Option<u64>,
}

/// Requests for manifests.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    served: f64,
    refused: f64,
}

/// What the counters say of a pull.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Testimony {
    /// So many requests for manifests were served.
    Came(f64),
    /// So many came, and none was served.
    Refused(f64),
    /// None came.
    NoneCame,
    /// Others came, and it can't be told whether this one did.
    Unsure,
}

// === impl Witness ===

impl<'a> Witness<'a> {
    /// Begins to watch.
    pub(super) async fn new(admin: &'a Admin, image: &'a Image) -> Result<Self, String> {
        let first = Counts::now(admin).await?;
        let used = last_use(admin, image).await;
        sleep(WATCH).await;
        let before = Counts::now(admin).await?;
        Ok(Self { admin, image, before, is_busy: before.served > first.served, used })
    }

    /// What has come of a pull that has ended.
    pub(super) async fn testify(&self) -> Result<Testimony, String> {
        let deadline = Instant::now() + COUNTED_WITHIN;
        let (served, refused) = loop {
            let now = Counts::now(self.admin).await?;
            let served = now.served - self.before.served;
            if served > 0.0 || Instant::now() >= deadline {
                break (served, now.refused - self.before.refused);
            }
            sleep(STEP).await;
        };
        if served <= 0.0 {
            let is_refused = refused > 0.0;
            return Ok(if is_refused { Testimony::Refused(refused) } else { Testimony::NoneCame });
        }
        // Who asks from now on is somebody else.
        sleep(STEP).await;
        let ended = Counts::now(self.admin).await?;
        sleep(WATCH).await;
        let is_busy = self.is_busy || Counts::now(self.admin).await?.served > ended.served;
        let is_told = !is_busy || last_use(self.admin, self.image).await > self.used;
        Ok(if is_told { Testimony::Came(served) } else { Testimony::Unsure })
    }
}

/// When the image's manifest was last read, as far as it was written down: once a minute.
async fn last_use(admin: &Admin, image: &Image) -> Option<u64> {
    let (admin, image) = (admin.clone(), image.to_string());
    let page = tokio::task::spawn_blocking(move || admin.images(&image)).await;
    page.ok()?.ok()?.images.iter().filter_map(|image| image.used_at).max()
}

// === impl Counts ===

impl Counts {
    async fn now(admin: &Admin) -> Result<Self, String> {
        let admin = admin.clone();
        let metrics = tokio::task::spawn_blocking(move || admin.metrics()).await;
        let metrics = metrics.map_err(|error| error.to_string())??;
        let mut counts = Self::default();
        for (labels, value) in metrics.family("roadstead_requests_total") {
            if label(labels, "kind") != Some("manifest") {
                continue;
            }
            let is_refused = label(labels, "status").is_some_and(|it| it.starts_with(['4', '5']));
            *(if is_refused { &mut counts.refused } else { &mut counts.served }) += value;
        }
        Ok(counts)
    }
}
