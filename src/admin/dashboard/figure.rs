//! Figures and words as people read them: sizes, counts, shares, times, foreign text.
//!
//! Each is a value that prints itself, so that a template can only show what was
//! made for showing. The same figure is always as wide: what changes each second
//! must not make the page jump.

use std::fmt;

/// Foreign text that is shown is cut after this many characters.
const MOST_SHOWN: usize = 300;

/// Between a figure and its unit, where no line may break.
const GAP: char = '\u{a0}';

/// Text from elsewhere, fit to be shown: one line, bounded, nothing that hides or turns around what
/// stands beside it. HTML's own characters are the templates' business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown(String);

/// A size, as `1.25 GiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A number of things, as `12,480` or `1.25 G`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// So many things each second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct PerSecond(pub(crate) f64);

/// So many bytes each second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct BytesPerSecond(pub(crate) f64);

/// A part of a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) part: u64,
    pub(crate) whole: u64,
}

/// How long something lasts, in the two largest units: `1 h 20 min`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lasting(pub(crate) u64);

/// A moment beside the present one, both in seconds since 1970: `3 min ago`, `in 2 h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: u64,
    pub(crate) now: u64,
}

// === impl Shown ===

impl Shown {
    /// `text` without what would mislead.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let mut shown: String = text.chars().take(MOST_SHOWN).map(harmless).collect();
        if text.chars().nth(MOST_SHOWN).is_some() {
            shown.push('…');
        }
        Self(shown)
    }

    /// It, as it is shown.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Control characters, and those that are invisible or change the direction of writing.
fn harmless(c: char) -> char {
    let misleads = c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}');
    if misleads { '\u{fffd}' } else { c }
}

// === impl figures ===

/// Three digits of a number below 1000, or four of one below 1024.
fn digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// `value` in bytes, with the unit at which it has at most four digits before the point.
fn size(value: f64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024.0 {
        return format!("{value:.0}{GAP}B");
    }
    // No counter holds more.
    let mut value = value.min(float(u64::MAX));
    let mut unit = "B";
    for larger in UNITS {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{}{GAP}{unit}", digits(value))
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn float(value: u64) -> f64 {
    value as f64
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&size(float(self.0)))
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", size(self.0.max(0.0)))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LARGE: [(f64, &str); 4] = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")];
        let value = float(self.0);
        if let Some((unit, prefix)) = LARGE.iter().find(|(unit, _)| value >= *unit) {
            return write!(f, "{}{GAP}{prefix}", digits(value / unit));
        }
        let plain = self.0.to_string();
        for (index, digit) in plain.chars().enumerate() {
            if index > 0 && (plain.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate < 0.05 => f.write_str("0"),
            rate if rate < 99.95 => write!(f, "{rate:.1}"),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it saturates"
            )]
            rate => write!(f, "{}", Count(rate.round() as u64)),
        }
    }
}

impl Share {
    /// Of 100; 0 where there is nothing to be a part of. For widths.
    pub(crate) fn percent(self) -> f64 {
        if self.whole == 0 {
            0.0
        } else {
            (float(self.part) / float(self.whole) * 100.0).min(100.0)
        }
    }

    /// The same in a form that SVG takes.
    pub(crate) fn width(self) -> String {
        format!("{:.2}", self.percent())
    }
}

impl fmt::Display for Share {
    /// Neither all nor nothing unless it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.whole == 0 {
            return f.write_str("–");
        }
        let percent = match self.part {
            0 => 0.0,
            part if part >= self.whole => return write!(f, "100{GAP}%"),
            _ => self.percent().clamp(0.1, 99.9),
        };
        write!(f, "{percent:.1}{GAP}%")
    }
}

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
        let mut rest = self.0;
        let mut written = 0;
        for (unit, name) in UNITS {
            let many = rest / unit;
            rest %= unit;
            if many > 0 {
                let gap = if written > 0 { " " } else { "" };
                write!(f, "{gap}{}{GAP}{name}", Count(many))?;
            }
            // Two units at most, and none is left out between them.
            if many > 0 || written > 0 {
                written += 1;
            }
            if written == 2 {
                break;
            }
        }
        if written == 0 { write!(f, "0{GAP}s") } else { Ok(()) }
    }
}

// === impl Moment ===

impl Moment {
    /// As `datetime` takes it.
    pub(crate) fn iso(self) -> String {
        let seconds = i64::try_from(self.at).unwrap_or(i64::MAX);
        let Ok(time) = time::OffsetDateTime::from_unix_timestamp(seconds) else {
            return String::from("9999-12-31T23:59:59Z");
        };
        let (date, clock) = (time.date(), time.time());
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second()
        )
    }

    /// The same for people.
    pub(crate) fn exact(self) -> String {
        self.iso().replace('T', " ").replace('Z', " UTC")
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rough = |seconds: u64| {
            let (unit, name) = match seconds {
                0..60 => (1, "s"),
                60..3600 => (60, "min"),
                3600..172_800 => (3600, "h"),
                _ => (86_400, "d"),
            };
            format!("{}{GAP}{name}", Count(seconds / unit))
        };
        match (self.now.saturating_sub(self.at), self.at.saturating_sub(self.now)) {
            (0..2, 0..2) => f.write_str("just now"),
            (0, ahead) => write!(f, "in{GAP}{}", rough(ahead)),
            (past, _) => write!(f, "{}{GAP}ago", rough(past)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(figure: impl fmt::Display) -> String {
        figure.to_string().replace(GAP, " ")
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024 * 1024, "10.0 MiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(plain(Bytes(bytes)), expected);
        }
        assert_eq!(plain(BytesPerSecond(f64::NAN)), "0 B/s");
    }

    #[test]
    fn counts_are_exact_until_nobody_reads_them() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456_789, "123,456,789"),
            (1_250_000_000, "1.25 G"),
            (u64::MAX, "18.4 E"),
        ] {
            assert_eq!(plain(Count(count)), expected);
        }
        assert_eq!(plain(PerSecond(0.01)), "0");
        assert_eq!(plain(PerSecond(1234.4)), "1,234");
        assert_eq!(plain(PerSecond(f64::NAN)), "0");
    }

    #[test]
    fn a_share_is_all_or_nothing_only_if_it_is() {
        let share = |part, whole| plain(Share { part, whole });
        assert_eq!(share(0, 0), "–");
        assert_eq!(share(0, 5), "0.0 %");
        assert_eq!(share(1, 100_000), "0.1 %");
        assert_eq!(share(99_999, 100_000), "99.9 %");
        assert_eq!(share(5, 5), "100 %");
        assert_eq!(share(7, 5), "100 %");
    }

    #[test]
    fn times_are_told_in_two_units_and_moments_in_one() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (4800, "1 h 20 min"),
            (3605, "1 h"),
            (86_400 * 3 + 3600 * 4 + 7, "3 d 4 h"),
        ] {
            assert_eq!(plain(Lasting(seconds)), expected);
        }
        let now = 1_000_000;
        for (at, expected) in [
            (now, "just now"),
            (now - 12, "12 s ago"),
            (now - 7200, "2 h ago"),
            (now + 300, "in 5 min"),
            (0, "11 d ago"),
        ] {
            assert_eq!(plain(Moment { at, now }), expected);
        }
        assert_eq!(Moment { at: 1_700_000_000, now }.iso(), "2023-11-14T22:13:20Z");
        assert_eq!(Moment { at: u64::MAX, now }.exact(), "9999-12-31 23:59:59 UTC");
    }

    #[test]
    fn foreign_text_neither_hides_nor_turns_what_stands_beside_it() {
        assert_eq!(
            Shown::new("a\u{202e}b\u{200b}c\nd\u{1b}[31m").as_str(),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}[31m"
        );
        assert_eq!(Shown::new("ü".repeat(1000)).as_str().chars().count(), MOST_SHOWN + 1);
    }
}
