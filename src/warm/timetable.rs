//! When a schedule runs next. Pure.
//!
//! Each run is a little late, by chance, so that servers which are configured
//! alike don't ask a registry in the same second.

use std::time::Duration;

use jiff::{ToSpan, Zoned, civil};

use crate::config::When;

/// The most by which a run is late.
const LATEST: Duration = Duration::from_secs(300);

/// Of a short interval, no more than this part.
const PART: u32 = 10;

/// How long to wait for the next run at `now`, if the last one began so long `ago`. `chance` is from
/// 0 to 1.
pub(super) fn wait(when: &When, now: &Zoned, ago: Option<Duration>, chance: f64) -> Duration {
    match when {
        When::Every(interval) => {
            let late = (*interval / PART).min(LATEST).mul_f64(chance.clamp(0.0, 1.0));
            // The first one comes soon: what is warm already costs next to nothing.
            let rest = ago.map_or(Duration::ZERO, |ago| interval.saturating_sub(ago));
            rest + late
        }
        When::At { hour, minute } => {
            until(*hour, *minute, now) + LATEST.mul_f64(chance.clamp(0.0, 1.0))
        }
    }
}

/// The time until a clock in this time zone shows so; a full day if it does just now.
fn until(hour: u8, minute: u8, now: &Zoned) -> Duration {
    let [hour, minute] = [hour, minute].map(|number| i8::try_from(number).unwrap_or_default());
    let time = civil::Time::new(hour, minute, 0, 0).unwrap_or_default();
    // Where the clocks skip it, it is what comes after the gap.
    let at = |day: civil::Date| day.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
    let mut days = (0..=2).filter_map(|days| now.date().checked_add(i64::from(days).days()).ok());
    let next = days.find_map(|day| at(day).filter(|at| at > now));
    let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    wait.unwrap_or(Duration::from_secs(24 * 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3600)
    }

    #[test]
    fn the_first_of_an_interval_comes_soon_and_the_next_are_counted_from_the_last() {
        let (every, now) = (When::Every(hours(6)), at("2026-01-01T12:00:00+00:00[+00:00]"));
        assert_eq!(wait(&every, &now, None, 0.0), Duration::ZERO);
        assert_eq!(wait(&every, &now, None, 1.0), LATEST);
        assert_eq!(wait(&every, &now, Some(hours(2)), 0.0), hours(4));
        assert_eq!(wait(&every, &now, Some(hours(8)), 0.0), Duration::ZERO);
        let often = When::Every(Duration::from_secs(10));
        assert_eq!(wait(&often, &now, None, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn a_time_of_day_is_that_of_the_zone() {
        let three = When::At { hour: 3, minute: 0 };
        let wait = |now: &str| wait(&three, &at(now), None, 0.0);
        assert_eq!(wait("2026-01-01T01:00:00+00:00[+00:00]"), hours(2));
        assert_eq!(wait("2026-01-01T03:00:00+00:00[+00:00]"), hours(24));
        assert_eq!(wait("2026-01-31T04:00:00+00:00[+00:00]"), hours(23));
        // Later in the day than there.
        assert_eq!(wait("2026-01-01T01:00:00+05:00[+05:00]"), hours(2));
    }
}
