//! The time as it stands in heads and log lines, put together once a second in each thread.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;

/// A second, as it is written.
#[derive(Debug, Clone)]
struct Second {
    since_epoch: u64,
    /// RFC 9110 §5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
    date: String,
    /// RFC 3339 up to the second: `1994-11-06T08:49:37`.
    stamp: String,
}

thread_local! {
    static NOW: RefCell<Option<Second>> = const { RefCell::new(None) };
}

/// Writes `now` as `Date` has it.
pub(super) fn date(now: SystemTime, out: &mut Vec<u8>) {
    with_second(since_epoch(now), |second| out.extend_from_slice(second.date.as_bytes()));
}

/// Writes `now` in UTC, with microseconds.
pub(super) fn stamp(now: SystemTime, out: &mut Vec<u8>) {
    let since = since_epoch(now);
    with_second(since, |second| out.extend_from_slice(second.stamp.as_bytes()));
    let mut digits = *b".000000Z";
    let mut rest = since.subsec_micros();
    for digit in digits.iter_mut().skip(1).take(6).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn with_second(since_epoch: Duration, write: impl FnOnce(&Second)) {
    NOW.with_borrow_mut(|known| {
        let seconds = since_epoch.as_secs();
        match known {
            Some(second) if second.since_epoch == seconds => write(second),
            _ => write(known.insert(Second::new(seconds))),
        }
    });
}

// === impl Second ===

impl Second {
    fn new(since_epoch: u64) -> Self {
        let time = UNIX_EPOCH + Duration::from_secs(since_epoch);
        let at = OffsetDateTime::from(time);
        let ((year, month, day), (hour, minute, second)) =
            ((at.year(), u8::from(at.month()), at.day()), at.to_hms());
        let stamp = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        Self { since_epoch, date: httpdate::fmt_http_date(time), stamp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_heads_and_log_lines_have_it() {
        let (mut head, mut line) = (Vec::new(), Vec::new());
        let at = UNIX_EPOCH + Duration::from_micros(784_111_777_000_042);
        date(at, &mut head);
        stamp(at, &mut line);
        assert_eq!(head, b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(line, b"1994-11-06T08:49:37.000042Z");
        let later = at + Duration::from_secs(1);
        (head, line) = (Vec::new(), Vec::new());
        date(later, &mut head);
        stamp(later, &mut line);
        assert_eq!(head, b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(line, b"1994-11-06T08:49:38.000042Z");
    }
}
