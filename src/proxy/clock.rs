//! The time as it stands in log lines, put together once a second in each thread.

use std::{
    cell::RefCell,
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;

thread_local! {
    /// A second since the epoch, and how it is written up to there: `1994-11-06T08:49:37`.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    /// The same as Apache writes it.
    static APACHE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes `now` in UTC as RFC 3339 has it, with microseconds.
pub(super) fn stamp(now: SystemTime, out: &mut Vec<u8>) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since_epoch.as_secs() || text.is_empty() {
            (*second, *text) = (since_epoch.as_secs(), up_to_the_second(since_epoch));
        }
        out.extend_from_slice(text.as_bytes());
    });
    // A vector takes all that is written.
    let _ = write!(out, ".{:06}Z", since_epoch.subsec_micros());
}

/// Writes `now` in UTC as Apache's logs have it: `06/Nov/1994:08:49:37 +0000`.
pub(super) fn apache_stamp(now: SystemTime, out: &mut Vec<u8>) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    APACHE.with_borrow_mut(|(second, text)| {
        if *second != since_epoch.as_secs() || text.is_empty() {
            (*second, *text) = (since_epoch.as_secs(), apache(since_epoch));
        }
        out.extend_from_slice(text.as_bytes());
    });
}

fn apache(since_epoch: Duration) -> String {
    let at = OffsetDateTime::from(UNIX_EPOCH + since_epoch);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = month.to_string();
    let month = month.get(..3).unwrap_or_default();
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

fn up_to_the_second(since_epoch: Duration) -> String {
    let at = OffsetDateTime::from(UNIX_EPOCH + since_epoch);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_log_lines_have_it() {
        let text = |micros| {
            let mut line = Vec::new();
            stamp(UNIX_EPOCH + Duration::from_micros(micros), &mut line);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(784_111_777_000_042), "1994-11-06T08:49:37.000042Z");
        assert_eq!(text(784_111_778_999_999), "1994-11-06T08:49:38.999999Z");
    }
}
