//! A schedule of the configuration: it runs when it is time, and never beside itself.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Zoned;
use tokio::time::sleep_until;

use super::{
    Warmer,
    job::Job,
    list::parse_list,
    order::{MOST_IMAGES, Order},
    report::{ScheduleReport, WarmRequest},
    timetable,
    warmer::now,
};
use crate::{
    config::{Warm, When},
    inventory::Names,
};

/// The largest list that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Between a run that could not begin, or ended at once, and the next.
const LEAST: Duration = Duration::from_millis(100);

/// One entry of `warm`.
#[derive(Debug)]
pub(super) struct Schedule {
    key: String,
    config: Warm,
    /// Shared with the same entry of the plan before and after.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next run is due; drawn once, and kept until that run begins.
    due: Option<Due>,
    /// When the last run began, and its job.
    last: Option<Instant>,
    job: Option<Arc<Job>>,
    error: Option<String>,
}

/// A moment to come, as this process and as others tell time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    moment: Instant,
    /// Seconds since 1970.
    at: u64,
}

// === impl Schedule ===

impl Schedule {
    /// The schedule `warm[index]`; the error says which image of it can't be.
    pub(super) fn new(index: usize, config: Warm, names: &Names) -> Result<Self, String> {
        let key = format!("warm[{index}]");
        let schedule = Self { key, config, state: Arc::default() };
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
            next_at: state.due.map(|due| due.at),
            last_job: state.job.as_ref().map(|job| job.id.clone()),
            error: state.error.clone(),
        }
    }

    /// Whether it is the same entry as another, wherever they stand.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.config == other.config
    }

    /// Goes on where `before` is, which is the same entry.
    pub(super) fn succeeding(self, before: &Self) -> Self {
        Self { state: Arc::clone(&before.state), ..self }
    }

    /// Runs again and again. Where it is begun anew, it goes on where it was.
    pub(super) async fn keep(&self, warmer: &Warmer) {
        loop {
            let job = self.state().job.clone();
            if let Some(job) = job {
                job.ended().await;
            }
            let due = self.state().due(&self.config.when, &Zoned::now(), fastrand::f64());
            sleep_until(due.moment.into()).await;
            self.run(warmer).await;
        }
    }

    async fn run(&self, warmer: &Warmer) {
        let images = self.images().await;
        // Not before: who is ended while it reads begins anew, and the run is still due.
        self.state().begin();
        let begun = match images {
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

    /// Whether both are one, before and after.
    #[cfg(test)]
    pub(super) fn goes_on_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// When the next run is due: as it was settled before, or from now on.
    fn due(&mut self, when: &When, clock: &Zoned, chance: f64) -> Due {
        let ago = self.last.map(|last| last.elapsed());
        *self.due.get_or_insert_with(|| {
            let wait = timetable::wait(when, clock, ago, chance);
            let wait = if ago.is_some() { wait.max(LEAST) } else { wait };
            Due { moment: Instant::now() + wait, at: now() + wait.as_secs() }
        })
    }

    /// The run that was due begins.
    fn begin(&mut self) {
        (self.last, self.due) = (Some(Instant::now()), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_due_is_neither_put_off_nor_drawn_anew() {
        let at = |text: &str| text.parse::<Zoned>().unwrap();
        let before = at("2026-01-01T02:59:59+00:00[+00:00]");
        let in_its_lateness = at("2026-01-01T03:01:00+00:00[+00:00]");
        let hours = Duration::from_secs(6 * 3600);
        for when in [When::At { hour: 3, minute: 0 }, When::Every(hours)] {
            let mut state = State::default();
            let due = state.due(&when, &before, 1.0);
            assert!(due.moment.elapsed().is_zero() && due.at <= now() + 301, "{when}: {due:?}");
            assert_eq!(state.due(&when, &in_its_lateness, 0.5), due, "{when}");
            state.begin();
            let next = state.due(&when, &in_its_lateness, 0.0);
            assert!(next.at >= now() + hours.as_secs() - 1, "{when}: {next:?}");
        }
    }
}
