//! What happened during the last hour, day and week, kept across restarts.
//!
//! Three rings of steps in memory, and their image in one file of fixed length
//! in the store's directory. What cannot be written is in memory all the same.
//!
//! ```text
//! sample (each second) ─► rings ─► Series
//!                           └─► file (every ten seconds, in place)
//! ```

mod keeping;
mod record;
mod ring;
mod series;

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use keeping::Keeping;
use ring::Ring;
pub use ring::Sample;
pub use series::{Counts, Point, Series, Span};

/// The spans, in the order of their rings.
const SPANS: [Span; 3] = [Span::Hour, Span::Day, Span::Week];

/// The history.
#[derive(Debug)]
pub struct History {
    rings: Mutex<Rings>,
    /// Locked while the disk is waited for; the rings are not.
    keeping: Mutex<Option<Keeping>>,
}

#[derive(Debug)]
struct Rings {
    rings: Vec<Ring>,
    /// When something was last added; seconds since 1970.
    last: u64,
}

// === impl History ===

impl History {
    /// Bytes of its file.
    pub fn file_bytes() -> u64 {
        record::file_bytes(&rings()) as u64
    }

    /// A history that is kept at `path`, with what is there already; without one, in memory only.
    /// Blocks.
    pub fn open(path: Option<PathBuf>, now: SystemTime) -> Self {
        let mut rings = rings();
        let keeping = path.map(|path| Keeping::open(path, &mut rings));
        // What lies after now stays: a clock that is behind at a start is put right soon after.
        let rings = Rings { rings, last: seconds(now) };
        Self { rings: Mutex::new(rings), keeping: Mutex::new(keeping) }
    }

    /// Adds what was counted for a while that ends now.
    pub fn add(&self, sample: &Sample, now: SystemTime) {
        let now = seconds(now);
        let mut rings = lock(&self.rings);
        let went_back = now < rings.last;
        for ring in &mut rings.rings {
            if went_back {
                ring.forget_after(now);
            }
            ring.add(sample, now);
        }
        rings.last = now;
    }

    /// Writes what is new, if it is kept on disk. Blocks; the others don't wait.
    pub fn save(&self) {
        let mut keeping = lock(&self.keeping);
        let Some(keeping) = keeping.as_mut() else { return };
        // A copy: readers must not wait for the disk.
        let mut copy = {
            let mut rings = lock(&self.rings);
            let copy = rings.rings.clone();
            for ring in &mut rings.rings {
                ring.take_changed();
            }
            copy
        };
        keeping.save(&mut copy);
    }

    /// The file is another process' from now on; what this one saves next replaces it.
    pub fn let_go(&self) {
        if let Some(keeping) = lock(&self.keeping).as_mut() {
            keeping.let_go();
        }
    }

    /// A span's past, up to the step of `now`.
    pub fn series(&self, span: Span, now: SystemTime) -> Series {
        let rings = lock(&self.rings);
        let found = SPANS.iter().zip(&rings.rings).find(|(of, _)| **of == span);
        let (begins_at, points) =
            found.map(|(_, ring)| ring.points(seconds(now))).unwrap_or_default();
        Series { span, step_seconds: span.step_seconds(), begins_at, points }
    }
}

/// Empty ones, a ring for each span.
fn rings() -> Vec<Ring> {
    SPANS.iter().map(|span| Ring::new(span.step_seconds(), span.steps())).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn requests(requests: u64) -> Sample {
        let counts = Counts { requests, ..Counts::default() };
        Sample { millis: 1000, counts, left: Some(requests) }
    }

    fn open(path: &Path, now: u64) -> History {
        History::open(Some(path.to_owned()), at(now))
    }

    fn shown(history: &History, span: Span, now: u64) -> Vec<(u64, u64)> {
        let points = history.series(span, at(now)).points;
        points.into_iter().flatten().map(|point| (point.at, point.counts.requests)).collect()
    }

    #[test]
    fn a_process_that_is_killed_leaves_what_it_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ring");
        let first = open(&path, 1_000_000);
        first.add(&requests(1), at(1_000_000));
        first.save();
        first.add(&requests(2), at(1_000_010));
        first.save();
        first.add(&requests(4), at(1_000_020));
        // Never closed, as after kill -9.
        std::mem::forget(first);
        assert_eq!(fs::metadata(&path).unwrap().len(), History::file_bytes());

        let second = open(&path, 1_000_095);
        second.add(&requests(8), at(1_000_095));
        // The step that was under way goes on, and the time between is a gap.
        let hour = [(1_000_000, 1), (1_000_010, 2), (1_000_090, 8)];
        assert_eq!(shown(&second, Span::Hour, 1_000_095), hour);
        assert_eq!(shown(&second, Span::Day, 1_000_095), [(999_900, 11)]);
        let series = second.series(Span::Hour, at(1_000_095));
        assert_eq!(series.points.len(), 360);
        assert_eq!(series.begins_at + 359 * series.step_seconds, 1_000_090);
        assert_eq!(series.points.last().unwrap().as_ref().unwrap().left, Some(8));
    }

    #[test]
    fn a_foreign_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ring");
        fs::write(&path, "something else").unwrap();
        fs::write(path.with_extension("new"), "half of it").unwrap();
        let history = open(&path, 1_000_000);
        history.add(&requests(1), at(1_000_000));
        history.save();
        let again = open(&path, 1_000_000);
        assert_eq!(shown(&again, Span::Week, 1_000_000), [(1_000_000 - 1_000_000 % 1800, 1)]);
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "nothing is left over");
    }

    #[test]
    fn a_clock_that_goes_back_loses_the_future_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ring");
        let history = open(&path, 2_000_000);
        for (now, count) in [(1_999_900, 1), (2_000_000, 2), (1_999_950, 4)] {
            history.add(&requests(count), at(now));
        }
        let expected = [(1_999_900, 1), (1_999_950, 4)];
        assert_eq!(shown(&history, Span::Hour, 2_000_100), expected);
        history.save();
        assert_eq!(shown(&open(&path, 2_000_100), Span::Hour, 2_000_100), expected);
    }

    #[test]
    fn a_start_with_the_clock_behind_costs_nothing_of_the_past() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ring");
        let (now, week) = (2_000_000, 7 * 24 * 3600);
        let history = open(&path, now);
        for (back, count) in [(1000, 1), (500, 2)] {
            history.add(&requests(count), at(now - back));
        }
        history.save();
        let before = shown(&history, Span::Hour, now);
        assert_eq!(before, [(now - 1000, 1), (now - 500, 2)]);

        let behind = open(&path, now - week);
        behind.add(&requests(4), at(now - week));
        behind.save();
        assert_eq!(shown(&behind, Span::Hour, now - week), [(now - week, 4)]);
        assert_eq!(shown(&open(&path, now), Span::Hour, now), before);
    }

    #[test]
    fn what_can_not_be_written_is_kept_in_memory_and_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("gone");
        let path = place.join("history.ring");
        let history = open(&path, 1_000_000);
        history.add(&requests(1), at(1_000_000));
        history.save();
        assert_eq!(shown(&history, Span::Hour, 1_000_000).len(), 1);
        fs::create_dir(&place).unwrap();
        // Nothing has happened since, and all of it is written.
        history.save();
        assert_eq!(shown(&open(&path, 1_000_000), Span::Hour, 1_000_000).len(), 1);
        // Whoever empties the directory finds it there again.
        fs::remove_file(&path).unwrap();
        history.save();
        assert_eq!(shown(&open(&path, 1_000_000), Span::Hour, 1_000_000).len(), 1);
    }
}
