//! What is fetched before a client asks for it, and when.
//!
//! Whether the images are of a known upstream is found out where upstreams are known; here they are
//! only looked at.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Refusal, Scope, quoted};
use super::quantity::{parse_duration, print_duration};
use super::raw::{RawWarm, Scalar};
use crate::protocol::platform::Platforms;

/// Schedules; more are a list in the wrong place.
const MOST: usize = 64;

/// Layers at the same time.
const PARALLEL: usize = 4;

/// One schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    /// When it runs.
    pub when: When,
    /// Images, as clients name them.
    pub images: Vec<String>,
    /// A file with more of them, read again for each run.
    pub list: Option<PathBuf>,
    /// Of which platforms. Default: this machine's.
    pub platforms: Platforms,
    /// Layers fetched at the same time. Default: 4.
    pub parallel: usize,
}

/// When a schedule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Soon after the start, and then this long after the last run began.
    Every(Duration),
    /// Once a day, when the clocks here show this.
    At {
        /// From 0 to 23.
        hour: u8,
        /// From 0 to 59.
        minute: u8,
    },
}

// === impl Warm ===

impl Warm {
    pub(super) fn read_all(scope: &Scope<'_>, raw: Option<Vec<RawWarm>>) -> Vec<Self> {
        let raw = raw.unwrap_or_default();
        if raw.len() > MOST {
            let what = format!("there are {} schedules, and {MOST} can be", raw.len());
            scope.refuse(what, "put images that are due at the same time into one");
        }
        let read = |(index, raw)| Self::read(&scope.item(index), raw);
        raw.into_iter().enumerate().take(MOST).filter_map(read).collect()
    }

    fn read(scope: &Scope<'_>, raw: RawWarm) -> Option<Self> {
        let when = When::read(scope, raw.every.as_ref(), raw.at.as_deref());
        let images = raw.images.unwrap_or_default();
        let images = scope.at("images").each(&images, image);
        if images.is_empty() && raw.list.is_none() {
            scope.refuse("names no images", "list some under images, or name a file under list");
        }
        let list = scope.at("list").file(raw.list);
        let platforms = Platforms::parse(&raw.platforms.unwrap_or_default());
        let platforms = platforms.map_err(|bad| {
            let bad = bad.to_string();
            let (what, remedy) = bad.split_once("; ").unwrap_or((&bad, "correct it"));
            Refusal::new(what, remedy)
        });
        let platforms = scope.at("platforms").check(platforms)?;
        let parallel = scope.count("parallel", raw.parallel.as_ref(), PARALLEL, 1..=32);
        Some(Self { when: when?, images, list, platforms, parallel })
    }

    pub(super) fn to_raw(&self) -> RawWarm {
        let (every, at) = match self.when {
            When::Every(interval) => (Scalar::print(print_duration(interval)), None),
            When::At { .. } => (None, Some(self.when.time())),
        };
        RawWarm {
            every,
            at,
            images: Some(self.images.clone()),
            list: self.list.as_ref().map(|path| path.display().to_string()),
            platforms: Some(self.platforms.words()),
            parallel: Scalar::print(self.parallel),
        }
    }
}

fn image(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '?' | '[' | '{');
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(Refusal::new(
            format!("{} is not an image", quoted(text)),
            "write one by its name, such as alpine:3.20 or ghcr.io/org/app:1",
        ));
    }
    Ok(text.to_owned())
}

// === impl When ===

impl When {
    fn read(scope: &Scope<'_>, every: Option<&Scalar>, at: Option<&str>) -> Option<Self> {
        match (every, at) {
            (Some(every), None) => scope.at("every").check(interval(&every.0)).map(Self::Every),
            (None, Some(at)) => scope.at("at").check(time_of_day(at)),
            (Some(_), Some(_)) => {
                scope.refuse("has both every and at", "keep one of them");
                None
            }
            (None, None) => {
                scope.refuse("does not say when", "write every: 6h, or at: \"03:00\"");
                None
            }
        }
    }

    fn time(self) -> String {
        match self {
            Self::Every(interval) => print_duration(interval),
            Self::At { hour, minute } => format!("{hour:02}:{minute:02}"),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if matches!(self, Self::Every(_)) { "every" } else { "at" };
        write!(f, "{word} {}", self.time())
    }
}

fn interval(text: &str) -> Result<Duration, Refusal> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_secs(1) {
        let what = format!("{} is too often", quoted(text));
        return Err(Refusal::new(what, "write at least 1s, such as 6h"));
    }
    Ok(interval)
}

fn time_of_day(text: &str) -> Result<When, Refusal> {
    let number = |part: &str, below: u8| {
        let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u8>().ok().filter(|number| is_number && *number < below)
    };
    let parts = text.trim().split_once(':');
    let parts = parts.and_then(|(hour, minute)| Some((number(hour, 24)?, number(minute, 60)?)));
    let refusal = || {
        let what = format!("{} is not a time of day", quoted(text));
        Refusal::new(what, "write hours and minutes in quotes, such as \"03:00\"")
    };
    parts.map(|(hour, minute)| When::At { hour, minute }).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};
    use super::*;

    #[test]
    fn schedules_are_read_and_printed() {
        let (_kept, list) = scratch_file("alpine\n");
        let text = format!(
            "warm: [{{ every: 6h, images: [alpine, ghcr.io/a/b:1], platforms: [all] }}, \
             {{ at: \"03:05\", list: {list}, platforms: [linux/arm64], parallel: 8 }}]"
        );
        let config = parsed(&text);
        let [every, at] = config.warm.as_slice() else { panic!("two schedules") };
        assert_eq!(every.when, When::Every(Duration::from_secs(6 * 3600)));
        assert_eq!((every.images.len(), every.parallel), (2, PARALLEL));
        assert_eq!((at.when, at.parallel), (When::At { hour: 3, minute: 5 }, 8));
        assert_eq!(at.when.to_string(), "at 03:05");
        assert_eq!(parsed(&config.to_yaml()), config);
        assert!(parsed("").warm.is_empty());
    }

    #[test]
    fn what_makes_no_schedule_is_refused_with_its_key() {
        for (text, said) in [
            ("[{ images: [a] }]", "warm[0]: does not say when; write every: 6h"),
            ("[{ every: 1h, at: \"03:00\", images: [a] }]", "warm[0]: has both"),
            ("[{ every: 1h }]", "warm[0]: names no images"),
            ("[{ every: soon, images: [a] }]", "warm[0].every: `soon`"),
            ("[{ every: 10ms, images: [a] }]", "warm[0].every: `10ms` is too often"),
            ("[{ at: \"3:00\", images: [a] }]", "warm[0].at: `3:00` is not a time"),
            ("[{ at: \"24:00\", images: [a] }]", "warm[0].at: `24:00`"),
            ("[{ every: 1h, images: [\"a b\"] }]", "warm[0].images[0]: `a b` is not an image"),
            ("[{ every: 1h, images: [\"a*\"] }]", "warm[0].images[0]: `a*`"),
            ("[{ every: 1h, list: /nowhere }]", "warm[0].list: `/nowhere` can't be opened"),
            ("[{ every: 1h, images: [a], platforms: [linux] }]", "warm[0].platforms: "),
            ("[{ every: 1h, images: [a], parallel: 0 }]", "warm[0].parallel: `0`"),
            ("[{ evry: 1h, images: [a] }]", "warm[0].evry"),
        ] {
            let line = refused(&format!("warm: {text}"));
            assert!(line.contains(said), "{text}: {line}");
            assert!(line.contains("; ") || line.contains('?'), "no remedy in {line}");
        }
    }
}
