//! Steps of time in a ring: what was counted during each, for as long as the ring is.
//!
//! A step has its slot by when it begins, so that a step in which nobody counted
//! is a gap and no zero: its slot is of another time. Pure; time is an argument.

use super::{Counts, Point};

/// One span's past.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    step_seconds: u64,
    slots: Vec<Slot>,
    /// Slots that have changed since they were last taken, by place.
    changed: Vec<bool>,
}

/// What was counted during one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// Seconds since 1970; 0: nobody has counted here.
    pub(super) begins_at: u64,
    /// How long somebody counted, in milliseconds.
    pub(super) millis: u64,
    pub(super) counts: Counts,
    pub(super) left: Option<u64>,
}

/// What was counted for a while that has just ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// How long, in milliseconds.
    pub millis: u64,
    /// What.
    pub counts: Counts,
    /// Pulls left at its end, where that is known.
    pub left: Option<u64>,
}

// === impl Ring ===

impl Ring {
    /// So many steps of so many seconds.
    pub(super) fn new(step_seconds: u64, steps: usize) -> Self {
        let (slots, changed) = (vec![Slot::default(); steps], vec![false; steps]);
        Self { step_seconds, slots, changed }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn step_seconds(&self) -> u64 {
        self.step_seconds
    }

    /// Adds what ended at `now` to the step in which that is.
    pub(super) fn add(&mut self, sample: &Sample, now: u64) {
        let begins_at = self.begin(now);
        let place = self.place(begins_at);
        let Some((slot, changed)) = self.slots.get_mut(place).zip(self.changed.get_mut(place))
        else {
            return;
        };
        if slot.begins_at != begins_at {
            *slot = Slot { begins_at, ..Slot::default() };
        }
        slot.millis = slot.millis.saturating_add(sample.millis);
        slot.counts = slot.counts.plus(&sample.counts);
        slot.left = sample.left;
        *changed = true;
    }

    /// Puts back a slot that was kept; one of another place is left out.
    pub(super) fn restore(&mut self, place: usize, slot: Slot) {
        let is_its_place =
            slot.begins_at.is_multiple_of(self.step_seconds) && self.place(slot.begins_at) == place;
        if let Some(own) = self.slots.get_mut(place).filter(|_| is_its_place) {
            *own = slot;
        }
    }

    /// Forgets what lies after `now` and would be seen soon: the clock was wrong then. What lies
    /// further ahead is overwritten before it is seen, and is right if the clock is wrong now.
    pub(super) fn forget_after(&mut self, now: u64) {
        let soon = self.step_seconds.saturating_mul(self.slots.len() as u64);
        for (slot, changed) in self.slots.iter_mut().zip(&mut self.changed) {
            if slot.begins_at > now && slot.begins_at - now <= soon {
                (*slot, *changed) = (Slot::default(), true);
            }
        }
    }

    /// When the first point begins, and all up to the step of `now`.
    pub(super) fn points(&self, now: u64) -> (u64, Vec<Option<Point>>) {
        let steps = self.slots.len() as u64;
        let begins_at = self.begin(now).saturating_sub(self.step_seconds * (steps - 1));
        let point = |step: u64| {
            let at = begins_at + step * self.step_seconds;
            // No time at all is nothing to divide by.
            let is_it = |slot: &&Slot| slot.begins_at == at && slot.millis > 0;
            self.slots.get(self.place(at)).filter(is_it).map(Slot::point)
        };
        (begins_at, (0..steps).map(point).collect())
    }

    /// All slots, whether they have changed or not.
    pub(super) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The slots that have changed since this was last asked, with their places.
    pub(super) fn take_changed(&mut self) -> Vec<(usize, Slot)> {
        let slots = self.slots.iter().zip(&mut self.changed).enumerate();
        let changed = slots.filter_map(|(place, (slot, changed))| {
            std::mem::take(changed).then_some((place, *slot))
        });
        changed.collect()
    }

    fn begin(&self, time: u64) -> u64 {
        time - time % self.step_seconds
    }

    fn place(&self, begins_at: u64) -> usize {
        let steps = self.slots.len() as u64;
        usize::try_from(begins_at / self.step_seconds % steps).unwrap_or_default()
    }
}

// === impl Slot ===

impl Slot {
    fn point(&self) -> Point {
        let seconds = self.millis as f64 / 1000.0;
        Point { at: self.begins_at, seconds, counts: self.counts, left: self.left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(requests: u64) -> Sample {
        let counts = Counts { requests, ..Counts::default() };
        Sample { millis: 1000, counts, left: None }
    }

    fn shown(ring: &Ring, now: u64) -> Vec<Option<u64>> {
        let points = ring.points(now).1;
        points.into_iter().map(|point| point.map(|point| point.counts.requests)).collect()
    }

    #[test]
    fn steps_add_up_and_the_oldest_makes_room() {
        let mut ring = Ring::new(10, 3);
        for (now, count) in [(100, 1), (105, 2), (110, 4), (129, 8)] {
            ring.add(&requests(count), now);
        }
        assert_eq!(shown(&ring, 129), [Some(3), Some(4), Some(8)]);
        assert_eq!(ring.points(129).0, 100);
        ring.add(&requests(16), 130);
        assert_eq!(shown(&ring, 130), [Some(4), Some(8), Some(16)]);
    }

    #[test]
    fn time_in_which_nobody_counted_is_a_gap() {
        let mut ring = Ring::new(10, 3);
        ring.add(&requests(1), 100);
        ring.add(&requests(2), 120);
        assert_eq!(shown(&ring, 125), [Some(1), None, Some(2)]);
        assert_eq!(shown(&ring, 1000), [None, None, None]);
        assert_eq!(shown(&ring, 5), [None, None, None], "not before 1970");
    }

    #[test]
    fn a_clock_that_goes_back_counts_nothing_for_the_future() {
        let mut ring = Ring::new(10, 3);
        ring.add(&requests(1), 100);
        ring.add(&requests(2), 120);
        ring.forget_after(109);
        ring.add(&requests(4), 109);
        assert_eq!(shown(&ring, 109), [None, None, Some(5)]);
        // Once it is there again, what was counted under the wrong clock is not found.
        assert_eq!(shown(&ring, 120), [Some(5), None, None]);
        ring.forget_after(50);
        assert_eq!(shown(&ring, 120), [Some(5), None, None], "it is not seen soon");
    }

    #[test]
    fn only_what_has_changed_is_to_be_kept() {
        let mut ring = Ring::new(10, 3);
        ring.add(&requests(1), 100);
        let changed = ring.take_changed();
        assert_eq!(changed.len(), 1);
        assert!(ring.take_changed().is_empty());
        let mut again = Ring::new(10, 3);
        for (place, slot) in changed {
            again.restore(place + 1, slot);
            assert_eq!(shown(&again, 100), [None, None, None], "it is not its place");
            again.restore(place, slot);
        }
        assert_eq!(shown(&again, 100), [None, None, Some(1)]);
    }
}
