//! A job: what is to be done, and how far it is.
//!
//! Its state is one value under one lock, read by whoever asks and written by
//! the tasks that do the work. Once a job has ended nothing changes it, however
//! late a task of it still reports.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, watch};

use super::{
    order::{Order, full},
    report::{
        ImageReport, ImageState, JobReport, JobState, JobSummary, LayerReport, LayerState, Totals,
    },
};
use crate::protocol::Digest;

/// Layers remembered of one job; beyond them those of images that ended well are dropped.
const MOST_LAYERS: usize = 4096;

/// The right to fetch a manifest.
type Turn = tokio::sync::Mutex<()>;

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) order: Order,
    /// The key of the schedule that began it.
    pub(super) schedule: Option<String>,
    started_at: u64,
    /// Layers on their way.
    pub(super) places: Semaphore,
    /// Who holds one fetches the manifest: repositories share some, and each is paid for once.
    turns: Mutex<HashMap<Digest, Arc<Turn>>>,
    state: Mutex<State>,
    /// True once it is to end early.
    cancelled: watch::Sender<bool>,
    /// True once it has ended.
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    job: JobState,
    ended_at: Option<u64>,
    images: Vec<ImageReport>,
    /// Layers that `images` hold.
    layers: usize,
    notes: Vec<String>,
    /// What a dry run has counted already: images share layers and manifests.
    counted: HashSet<Digest>,
}

// === impl Job ===

impl Job {
    pub(super) fn new(id: String, order: Order, schedule: Option<String>, now: u64) -> Self {
        let image = |image: &super::order::Image| {
            let name = image.name.as_ref().ok().map(full);
            ImageReport::new(image.reference.clone(), name)
        };
        let state = State {
            job: JobState::Running,
            ended_at: None,
            images: order.images.iter().map(image).collect(),
            layers: 0,
            notes: Vec::new(),
            counted: HashSet::new(),
        };
        Self {
            id,
            schedule,
            started_at: now,
            places: Semaphore::new(order.parallel),
            turns: Mutex::default(),
            order,
            state: Mutex::new(state),
            cancelled: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.lock().job == JobState::Running
    }

    /// Has it end early.
    pub(super) fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    /// Waits until it is to end early.
    pub(super) async fn cancelled(&self) {
        // The sender lives as long as the job.
        let _ = self.cancelled.subscribe().wait_for(|cancelled| *cancelled).await;
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// What it is now; budgets are for others to add.
    pub(super) fn summary(&self) -> JobSummary {
        self.summarise(&self.lock())
    }

    /// The same with its images.
    pub(super) fn report(&self) -> JobReport {
        let state = self.lock();
        JobReport { summary: self.summarise(&state), images: state.images.clone() }
    }

    fn summarise(&self, state: &State) -> JobSummary {
        JobSummary {
            id: self.id.clone(),
            state: state.job,
            dry_run: self.order.dry_run,
            schedule: self.schedule.clone(),
            platforms: self.order.platforms.words(),
            started_at: self.started_at,
            ended_at: state.ended_at,
            totals: Totals::of(&state.images),
            budgets: Vec::new(),
            notes: state.notes.clone(),
        }
    }

    /// True for the first who counts this digest, in a dry run.
    pub(super) fn counts(&self, digest: Digest) -> bool {
        self.lock().counted.insert(digest)
    }

    /// The turn at a manifest that is to be fetched.
    pub(super) fn turn(&self, digest: Digest) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(digest).or_default())
    }

    pub(super) fn note(&self, note: String) {
        self.change(|state| state.notes.push(note));
    }

    /// Changes what is said of an image.
    pub(super) fn image(&self, index: usize, change: impl FnOnce(&mut ImageReport)) {
        self.change(|state| {
            if let Some(image) = state.images.get_mut(index) {
                change(image);
            }
        });
    }

    /// The image's layers are known.
    pub(super) fn list_layers(&self, index: usize, blobs: &[(Digest, u64)]) {
        let layer = |&(digest, bytes): &(Digest, u64)| LayerReport {
            digest,
            state: LayerState::Waiting,
            bytes,
            done: 0,
            error: None,
        };
        self.change(|state| {
            let Some(image) = state.images.get_mut(index) else { return };
            image.state = ImageState::Fetching;
            image.layer_count = blobs.len() as u64;
            image.bytes = blobs.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
            image.layers = blobs.iter().map(layer).collect();
            state.layers += blobs.len();
        });
    }

    /// So much of a layer is there.
    pub(super) fn progress(&self, index: usize, layer: usize, state: LayerState, done: u64) {
        self.image(index, |image| {
            let Some(layer) = image.layers.get_mut(layer) else { return };
            let before = layer.done;
            layer.state = state;
            layer.done = done.min(layer.bytes);
            image.done = image.done.saturating_sub(before).saturating_add(layer.done);
            if matches!(state, LayerState::Cached | LayerState::Done) {
                image.layers_done += 1;
            }
        });
    }

    /// A layer can't be had.
    pub(super) fn layer_failed(&self, index: usize, layer: usize, error: String) {
        self.image(index, |image| {
            if let Some(layer) = image.layers.get_mut(layer) {
                layer.state = LayerState::Failed;
                layer.error = Some(error);
            }
        });
    }

    /// An image has ended.
    pub(super) fn end_image(&self, index: usize, outcome: Result<ImageState, String>) {
        self.change(|state| {
            let is_full = state.layers > MOST_LAYERS;
            let Some(image) = state.images.get_mut(index) else { return };
            match outcome {
                Ok(end) => {
                    image.state = end;
                    if is_full {
                        state.layers -= image.layers.len();
                        image.layers = Vec::new();
                    }
                }
                Err(error) => {
                    image.state = ImageState::Failed;
                    image.error = Some(error);
                }
            }
        });
    }

    /// The job has ended: by itself, or early. Nothing changes it from then on.
    pub(super) fn end(&self, is_early: bool, now: u64) {
        self.change(|state| {
            for image in state.images.iter_mut().filter(|image| !image.is_over()) {
                if is_early {
                    image.state = ImageState::Cancelled;
                } else {
                    image.state = ImageState::Failed;
                    image.error = Some("it ended halfway; the log says why".to_owned());
                }
            }
            let has_failed = |image: &ImageReport| image.state == ImageState::Failed;
            state.job = match is_early {
                true => JobState::Cancelled,
                false if state.images.iter().any(has_failed) => JobState::Failed,
                false => JobState::Done,
            };
            state.ended_at = Some(now);
            state.counted = HashSet::new();
        });
        self.ended.send_replace(true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if state.job == JobState::Running {
            change(&mut state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, inventory::Names, protocol::Algorithm, warm::report::WarmRequest};

    fn job(images: &[&str]) -> Job {
        let names = Names::new(&Config::parse("", "test").unwrap().upstreams);
        let images = images.iter().map(|&image| image.to_owned()).collect();
        let request = WarmRequest { images, ..WarmRequest::default() };
        Job::new("1".to_owned(), Order::new(request, &names).unwrap(), None, 1)
    }

    fn blobs(sizes: &[u64]) -> Vec<(Digest, u64)> {
        let digest = |size: u64| Digest::of(Algorithm::Sha256, &size.to_le_bytes());
        sizes.iter().map(|&size| (digest(size), size)).collect()
    }

    #[test]
    fn sums_follow_the_layers() {
        let job = job(&["a", "b"]);
        job.list_layers(0, &blobs(&[10, 20]));
        job.progress(0, 0, LayerState::Cached, 10);
        job.progress(0, 1, LayerState::Fetching, 5);
        job.progress(0, 1, LayerState::Fetching, 15);
        let totals = job.summary().totals;
        assert_eq!((totals.bytes, totals.done, totals.layers, totals.layers_done), (30, 25, 2, 1));
        job.progress(0, 1, LayerState::Done, 25);
        job.end_image(0, Ok(ImageState::Done));
        job.end_image(1, Err("no".to_owned()));
        job.end(false, 7);
        let summary = job.summary();
        let totals = summary.totals;
        assert_eq!((totals.done, totals.images_done, totals.images_failed), (30, 1, 1));
        assert_eq!((summary.state, summary.ended_at), (JobState::Failed, Some(7)));
    }

    #[test]
    fn what_has_ended_does_not_change() {
        let job = job(&["a", "b"]);
        job.end_image(0, Ok(ImageState::Cached));
        job.end(true, 2);
        job.end_image(1, Ok(ImageState::Done));
        job.end(false, 3);
        let report = job.report();
        assert_eq!(report.summary.state, JobState::Cancelled);
        assert_eq!(report.summary.ended_at, Some(2));
        assert_eq!(report.images[0].state, ImageState::Cached);
        assert_eq!(report.images[1].state, ImageState::Cancelled);
    }

    #[test]
    fn very_many_layers_are_not_all_remembered() {
        let job = job(&["a", "b", "c"]);
        let many: Vec<u64> = (0..MOST_LAYERS as u64).collect();
        job.list_layers(0, &blobs(&many));
        job.end_image(0, Ok(ImageState::Done));
        assert_eq!(job.report().images[0].layers.len(), MOST_LAYERS);
        job.list_layers(1, &blobs(&[1, 2]));
        job.end_image(1, Ok(ImageState::Done));
        let report = job.report();
        assert_eq!((report.images[1].layers.len(), report.images[1].layer_count), (0, 2));
    }
}
