//! A schedule of the configuration: it runs when it is time, and never beside itself.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Zoned;
use tokio::time::sleep;

use super::{
    Warmer,
    job::Job,
    list::parse_list,
    order::{MOST_IMAGES, Order},
    report::{ScheduleReport, WarmRequest},
    timetable,
    warmer::now,
};
use crate::{config::Warm, inventory::Names};

/// The largest list that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Between a run that could not begin, or ended at once, and the next.
const LEAST: Duration = Duration::from_millis(100);

/// One entry of `warm`.
#[derive(Debug)]
pub(super) struct Schedule {
    key: String,
    config: Warm,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_at: Option<u64>,
    /// When the last run began, and its job.
    last: Option<Instant>,
    job: Option<Arc<Job>>,
    error: Option<String>,
}

// === impl Schedule ===

impl Schedule {
    /// The schedule `warm[index]`; the error says which image of it can't be.
    pub(super) fn new(index: usize, config: Warm, names: &Names) -> Result<Self, String> {
        let key = format!("warm[{index}]");
        let schedule = Self { key, config, state: Mutex::default() };
        if !schedule.config.images.is_empty() {
            let request = schedule.request(schedule.config.images.clone());
            let order = Order::new(request, names);
            let order = order.map_err(|error| format!("{}: {error}", schedule.key))?;
            for image in order.images {
                if let Err(problem) = image.name {
                    let (key, reference) = (&schedule.key, image.reference);
                    return Err(format!("{key}.images: {reference}: {problem}"));
                }
            }
        }
        Ok(schedule)
    }

    pub(super) fn report(&self) -> ScheduleReport {
        let state = self.state();
        ScheduleReport {
            key: self.key.clone(),
            when: self.config.when.to_string(),
            next_at: state.next_at,
            last_job: state.job.as_ref().map(|job| job.id.clone()),
            error: state.error.clone(),
        }
    }

    /// Whether it is the same entry as another.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (&self.key, &self.config) == (&other.key, &other.config)
    }

    /// Runs again and again. Where it is begun anew, it goes on where it was.
    pub(super) async fn keep(&self, warmer: &Warmer) {
        loop {
            let job = self.state().job.clone();
            if let Some(job) = job {
                job.ended().await;
            }
            let last = self.state().last;
            let ago = last.map(|last| last.elapsed());
            let wait = timetable::wait(&self.config.when, &Zoned::now(), ago, fastrand::f64());
            let wait = if last.is_some() { wait.max(LEAST) } else { wait };
            self.state().next_at = Some(now() + wait.as_secs());
            sleep(wait).await;
            {
                let mut state = self.state();
                (state.last, state.next_at) = (Some(Instant::now()), None);
            }
            self.run(warmer).await;
        }
    }

    async fn run(&self, warmer: &Warmer) {
        let begun = match self.images().await {
            Ok(images) => {
                let begun = warmer.start_scheduled(self.request(images), &self.key);
                begun.map_err(|error| error.to_string())
            }
            Err(problem) => Err(problem),
        };
        match begun {
            Ok(job) => {
                let mut state = self.state();
                (state.job, state.error) = (Some(job), None);
            }
            Err(error) => {
                let schedule = &self.key;
                tracing::warn!(
                    schedule,
                    error,
                    "a schedule could not begin; it is tried again next time"
                );
                self.state().error = Some(error);
            }
        }
    }

    /// Its images, and those that its list has now.
    async fn images(&self) -> Result<Vec<String>, String> {
        let mut images = self.config.images.clone();
        if let Some(path) = &self.config.list {
            let named = |problem: &dyn std::fmt::Display| {
                format!("{}.list: {}: {problem}", self.key, path.display())
            };
            let file = tokio::fs::metadata(path).await.map_err(|error| named(&error))?;
            if file.len() > MOST_BYTES {
                let problem =
                    format!("it has more than {MOST_BYTES} bytes; is it a list of images?");
                return Err(named(&problem));
            }
            let text = tokio::fs::read_to_string(path).await.map_err(|error| named(&error))?;
            images.extend(parse_list(&text));
        }
        if images.len() > MOST_IMAGES {
            let count = images.len();
            return Err(format!(
                "{}: {count} images are more than {MOST_IMAGES}; make two schedules of them",
                self.key
            ));
        }
        Ok(images)
    }

    fn request(&self, images: Vec<String>) -> WarmRequest {
        WarmRequest {
            images,
            platforms: self.config.platforms.words(),
            parallel: Some(self.config.parallel),
            ..WarmRequest::default()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
