//! Sizes, durations and counts: one grammar, that parses and prints.
//!
//! A size is a whole number of bytes with an optional unit (`100GiB`, `10GB`, `512`).
//! A duration is one or more whole numbers, each with a unit (`90s`, `1h30m`); the unit is
//! never guessed. `parse(print(x)) == x` for all that the grammar can say.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Refusal, Scope, quoted};
use super::raw::Scalar;

/// Units of size in bytes, largest first, so that printing takes the first that divides.
const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Units of time in milliseconds, largest first. Weeks are read and never printed.
const TIMES: [(&str, u64); 6] = [
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A hundred years: more can't be added to a clock without overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

// === sizes ===

/// Parses `100GiB`, `10GB`, `4096`; the answer is in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, Refusal> {
    let refusal = |what: &str| {
        Refusal::new(
            format!("{} {what}", quoted(text)),
            "write a whole number and B, KiB, MiB, GiB or TiB (or kB, MB, GB, TB), such as 100GiB",
        )
    };
    let (number, unit) = split_number(text.trim());
    let number: u64 = number.parse().map_err(|_| refusal("is not a size"))?;
    let unit = match unit.trim_start() {
        "" => 1,
        unit => unit_of(&SIZES, unit).ok_or_else(|| refusal("has an unknown unit"))?,
    };
    number.checked_mul(unit).ok_or_else(|| refusal("is too big"))
}

/// Prints bytes in the largest unit that divides them.
pub(super) fn print_size(bytes: u64) -> String {
    let mut units = SIZES.iter().filter(|(_, unit)| bytes.is_multiple_of(*unit));
    match units.next() {
        Some((name, unit)) if bytes > 0 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

// === durations ===

/// Parses `200ms`, `90s`, `1h30m`, `30d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Refusal> {
    const REMEDY: &str = "write whole numbers with ms, s, m, h, d or w, such as 90s or 1h30m";
    let refusal = |what: &str| Refusal::new(format!("{} {what}", quoted(text)), REMEDY);
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(refusal("is not a duration"));
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_| refusal("is not a duration"))?;
        if unit.is_empty() {
            return Err(refusal("has no unit"));
        }
        let unit_ms = unit_of(&TIMES, unit).ok_or_else(|| refusal("has an unknown unit"))?;
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| refusal("is too long"))?;
        rest = after.trim_start();
    }
    let duration = Duration::from_millis(total_ms);
    if duration > LONGEST {
        return Err(Refusal::new(
            format!("{} is longer than 100 years", quoted(text)),
            "write at most 36500d",
        ));
    }
    Ok(duration)
}

/// Prints a duration in the largest unit that divides it; below a millisecond is cut off.
pub(super) fn print_duration(duration: Duration) -> String {
    let total_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut units =
        TIMES.iter().filter(|(name, unit)| *name != "w" && total_ms.is_multiple_of(*unit));
    match units.next() {
        Some((name, unit)) if total_ms > 0 => format!("{}{name}", total_ms / unit),
        _ => "0s".to_owned(),
    }
}

/// Digits, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn unit_of(units: &[(&str, u64)], name: &str) -> Option<u64> {
    let (_, size) = units.iter().find(|(unit, _)| *unit == name)?;
    Some(*size)
}

// === impl Scope ===

impl Scope<'_> {
    /// The duration at `field`, which may be zero.
    pub(super) fn duration(
        &self,
        field: &str,
        raw: Option<&Scalar>,
        default: Duration,
    ) -> Duration {
        self.scalar(field, raw, default, parse_duration)
    }

    /// The duration at `field`, above zero.
    pub(super) fn wait(&self, field: &str, raw: Option<&Scalar>, default: Duration) -> Duration {
        self.scalar(field, raw, default, |text| {
            let duration = parse_duration(text)?;
            above_zero(duration, duration.is_zero(), print_duration(default))
        })
    }

    /// The size at `field` in bytes, above zero.
    pub(super) fn size(&self, field: &str, raw: Option<&Scalar>, default: u64) -> u64 {
        self.scalar(field, raw, default, |text| {
            let bytes = parse_size(text)?;
            above_zero(bytes, bytes == 0, print_size(default))
        })
    }

    /// The size at `field` in bytes, which may be zero.
    pub(super) fn size_or_zero(&self, field: &str, raw: Option<&Scalar>, default: u64) -> u64 {
        self.scalar(field, raw, default, parse_size)
    }

    /// The size at `field` in bytes, within `range`.
    pub(super) fn size_within(
        &self,
        field: &str,
        raw: Option<&Scalar>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.scalar(field, raw, default, |text| {
            let size = parse_size(text)?;
            if range.contains(&size) {
                return Ok(size);
            }
            let (least, most) = (print_size(*range.start()), print_size(*range.end()));
            Err(Refusal::new(
                format!("{} is out of range", quoted(text)),
                format!("write a size from {least} to {most}, such as {}", print_size(default)),
            ))
        })
    }

    /// The whole number at `field`, within `range`.
    pub(super) fn count<N>(
        &self,
        field: &str,
        raw: Option<&Scalar>,
        default: N,
        range: RangeInclusive<N>,
    ) -> N
    where
        N: std::str::FromStr + PartialOrd + Display + Copy,
    {
        self.scalar(field, raw, default, |text| match text.trim().parse::<N>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(Refusal::new(
                format!("{} is not a whole number in range", quoted(text)),
                format!("write one from {} to {}, such as {default}", range.start(), range.end()),
            )),
        })
    }

    fn scalar<T>(
        &self,
        field: &str,
        raw: Option<&Scalar>,
        default: T,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> T {
        match raw {
            Some(Scalar(text)) => self.at(field).check(parse(text)).unwrap_or(default),
            None => default,
        }
    }
}

fn above_zero<T>(value: T, is_zero: bool, example: String) -> Result<T, Refusal> {
    if is_zero {
        return Err(Refusal::new("is zero", format!("write more than zero, such as {example}")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn sizes_are_bytes_with_an_optional_unit() {
        for (text, bytes) in [
            ("100GiB", 100 << 30),
            ("256MiB", 256 << 20),
            ("4KiB", 4096),
            ("10GB", 10_000_000_000),
            ("10 GB", 10_000_000_000),
            ("3kB", 3000),
            ("7B", 7),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn bad_sizes_are_refused() {
        for text in ["", "GiB", "1.5GiB", "-1", "10Gi", "10gib", "99999999TiB", "1GiB2", "ten"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, duration) in [
            ("1m", Duration::from_secs(60)),
            ("30d", 30 * DAY),
            ("200ms", Duration::from_millis(200)),
            ("1h30m", Duration::from_secs(5400)),
            ("1h 30m", Duration::from_secs(5400)),
            ("2w", 14 * DAY),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in
            ["", "60", "0", "m", "1.5h", "-1s", "1M", "5 minutes", "99999999999999999d", "36501d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same() {
        for number in
            [0, 1, 999, 1000, 1024, 1500, 4096, 90_000, 60_000_000, 1 << 33, 10_000_000_000]
        {
            assert_eq!(parse_size(&print_size(number)), Ok(number));
            let duration = Duration::from_millis(number);
            assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }
        assert_eq!(print_size(100 << 30), "100GiB");
        assert_eq!(print_size(10_000_000_000), "10GB");
        assert_eq!(print_duration(30 * DAY), "30d");
        assert_eq!(print_duration(Duration::from_secs(90)), "90s");
    }
}
