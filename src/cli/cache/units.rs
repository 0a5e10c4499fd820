//! Sizes and ages for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// `12.3 MiB`, `512 B`.
pub(in crate::cli) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        // 1023.96 would print as 1024.0.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// The age of a moment in seconds since 1970: `12s`, `5m`, `3h`, `3d`; in whole units, cut off.
pub(in crate::cli) fn age(at: u64, now: u64) -> String {
    let seconds = now.saturating_sub(at);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Seconds since 1970.
pub(in crate::cli) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((12 << 20) + (300 << 10), "12.3 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (100 << 30, "100.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages_are_whole_units() {
        let now = 10_000_000;
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (86_400 * 3, "3d")]
        {
            assert_eq!(age(now - seconds, now), text);
        }
        assert_eq!(age(now + 5, now), "0s");
    }
}
