//! How fast it goes: over the last seconds, so that one slow moment does not show.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::warm::{JobReport, LayerState};

/// Over which the speed is taken.
const WINDOW: Duration = Duration::from_secs(4);

/// Bytes that came, and when.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// How much of each layer on its way was there when it was last looked at.
    seen: HashMap<(usize, usize), u64>,
    came: VecDeque<(Instant, u64)>,
}

// === impl Rate ===

impl Rate {
    /// Looks at a job at `now`.
    pub(super) fn look(&mut self, job: &JobReport, now: Instant) {
        let mut bytes = 0;
        for (at_image, image) in job.images.iter().enumerate() {
            for (at_layer, layer) in image.layers.iter().enumerate() {
                let key = (at_image, at_layer);
                if layer.state == LayerState::Fetching {
                    // What was there before it was first seen may be of an earlier run.
                    let before = self.seen.insert(key, layer.done).unwrap_or(layer.done);
                    bytes += layer.done.saturating_sub(before);
                } else if let Some(before) = self.seen.remove(&key) {
                    bytes += layer.done.saturating_sub(before);
                }
            }
        }
        self.came.push_back((now, bytes));
        while self.came.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.came.pop_front();
        }
    }

    /// Bytes per second; `None` before it can be told.
    pub(super) fn per_second(&self, now: Instant) -> Option<u64> {
        let (first, _) = self.came.front()?;
        let passed = now.duration_since(*first);
        if passed < Duration::from_millis(500) {
            return None;
        }
        let bytes: u64 = self.came.iter().skip(1).map(|(_, bytes)| bytes).sum();
        Some((bytes as f64 / passed.as_secs_f64()) as u64)
    }
}
