//! Progress where there is no terminal: a line now and then.

use std::time::{Duration, Instant};

use crate::{cli::cache::units::size, warm::JobSummary};

/// How often.
const EVERY: Duration = Duration::from_secs(5);

/// Lines on standard error.
#[derive(Debug)]
pub(super) struct Plain {
    last: Instant,
}

// === impl Plain ===

impl Plain {
    pub(super) fn new() -> Self {
        Self { last: Instant::now() }
    }

    pub(super) fn show(&mut self, job: &JobSummary) {
        if self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        let totals = &job.totals;
        eprintln!(
            "{} of {} images, {} of {} layers, {} of {}",
            totals.images_done + totals.images_failed,
            totals.images,
            totals.layers_done,
            totals.layers,
            size(totals.done),
            size(totals.bytes),
        );
    }
}
