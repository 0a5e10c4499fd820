//! Platforms: which of an index's manifests are wanted.
//!
//! `os/architecture[/variant]`, in the spelling of the image spec (Go's) or the
//! one of `uname`. Choosing follows containerd: the same variant first, then
//! what such a machine can run too.

use std::{fmt, str::FromStr};

use super::listing::Child;

/// The word for all that an index lists.
const ALL: &str = "all";

/// The most platforms that can be asked for by name.
const MOST: usize = 16;

/// A platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Which platforms are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// All that there are, with attestations and whatever else is listed.
    All,
    /// These; never empty.
    Some(Vec<Platform>),
}

/// What is wrong with a platform, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlatform {
    /// It is none.
    #[error(
        "{0:?} is not a platform; write OS/ARCHITECTURE[/VARIANT], such as linux/arm64, or all"
    )]
    Grammar(String),
    /// `all` says it all.
    #[error("`all` stands beside other platforms; leave them out, or `all`")]
    AllAndOthers,
    /// There is a limit.
    #[error("{0} platforms are more than {MOST}; write all")]
    TooMany(usize),
}

// === impl Platform ===

impl Platform {
    /// This machine's.
    pub fn own() -> Self {
        // Images are made for Linux wherever clients run.
        let text = format!("linux/{}", std::env::consts::ARCH);
        text.parse().unwrap_or(Self {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        })
    }

    /// How well a child's platform fits; 0 is best, `None` not at all.
    fn distance(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<u32> {
        let (architecture, variant) = normal(architecture, variant);
        if self.os != os.to_ascii_lowercase() || self.architecture != architecture {
            return None;
        }
        if self.variant == variant {
            return Some(0);
        }
        let [wanted, found] = [self.variant.as_deref(), variant.as_deref()].map(level);
        // Newer machines run what was made for older ones, never the other way round.
        wanted.checked_sub(found)
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let bad = || BadPlatform::Grammar(text.chars().take(60).collect());
        let is_word = |part: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            !part.is_empty() && part.len() <= 32 && part.chars().all(fits)
        };
        let parts: Vec<&str> = text.trim().split('/').collect();
        if !parts.iter().all(|part| is_word(part)) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(*variant)),
            _ => return Err(bad()),
        };
        let (architecture, variant) = normal(architecture, variant);
        Ok(Self { os: os.to_ascii_lowercase(), architecture, variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&label(&self.os, &self.architecture, self.variant.as_deref()))
    }
}

/// `linux/arm/v7`, as people write it: what goes without saying is left out.
fn label(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match (architecture, variant) {
        ("arm64", Some("v8")) | ("amd64", Some("v1")) | (_, None) => format!("{os}/{architecture}"),
        (_, Some(variant)) => format!("{os}/{architecture}/{variant}"),
    }
}

/// One spelling for each architecture and variant, with the variant that goes without saying.
fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let lower = architecture.to_ascii_lowercase();
    let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
    let (name, implied) = match lower.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", Some("v1")),
        "aarch64" | "arm64" => ("arm64", Some("v8")),
        "armhf" | "arm" | "armv7l" => ("arm", Some("v7")),
        "armel" | "armv6l" => ("arm", Some("v6")),
        "i386" | "i686" | "x86" | "386" => ("386", None),
        "powerpc64le" => ("ppc64le", None),
        other => (other, None),
    };
    let variant = variant.map(|variant| match variant.strip_prefix('v') {
        Some(_) => variant.clone(),
        None if variant.bytes().all(|byte| byte.is_ascii_digit()) => format!("v{variant}"),
        None => variant.clone(),
    });
    (name.to_owned(), variant.or_else(|| implied.map(str::to_owned)))
}

/// The number in a variant, such as 7 of `v7`.
fn level(variant: Option<&str>) -> u32 {
    let digits = variant.unwrap_or_default().trim_start_matches('v');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// The platform of an index's entry, as people write it.
pub fn label_of(child: &Child) -> Option<String> {
    let (os, architecture) = child.platform.as_ref()?;
    let (architecture, variant) = normal(architecture, child.variant.as_deref());
    Some(label(os, &architecture, variant.as_deref()))
}

// === impl Platforms ===

impl Platforms {
    /// From words; none: this machine's platform.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, BadPlatform> {
        if words.iter().any(|word| word.as_ref().trim().eq_ignore_ascii_case(ALL)) {
            return if words.len() == 1 { Ok(Self::All) } else { Err(BadPlatform::AllAndOthers) };
        }
        if words.len() > MOST {
            return Err(BadPlatform::TooMany(words.len()));
        }
        let mut platforms: Vec<Platform> = Vec::new();
        for word in words {
            let platform = word.as_ref().parse()?;
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        if platforms.is_empty() {
            platforms.push(Platform::own());
        }
        Ok(Self::Some(platforms))
    }

    /// As words.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::All => vec![ALL.to_owned()],
            Self::Some(platforms) => platforms.iter().map(ToString::to_string).collect(),
        }
    }

    /// How many manifests of an index of unknown content are wanted; `None` if nobody knows.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::All => None,
            Self::Some(platforms) => Some(platforms.len() as u64),
        }
    }

    /// The children of an index that are wanted, and the platforms that it does not have.
    pub fn choose(&self, children: Vec<Child>) -> (Vec<Child>, Vec<String>) {
        let Self::Some(platforms) = self else { return (children, Vec::new()) };
        let mut missing = Vec::new();
        let mut is_chosen = vec![false; children.len()];
        for platform in platforms {
            let best = best(platform, &children);
            if best.is_empty() {
                missing.push(platform.to_string());
            }
            for place in best {
                if let Some(chosen) = is_chosen.get_mut(place) {
                    *chosen = true;
                }
            }
        }
        let chosen = children.into_iter().zip(is_chosen);
        let wanted = |(child, is_chosen): (Child, bool)| {
            // What names no platform is for all, as containerd has it.
            (is_chosen || child.platform.is_none()).then_some(child)
        };
        (chosen.filter_map(wanted).collect(), missing)
    }
}

impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(", "))
    }
}

/// Where the children stand that fit best. Of equals a client takes the first, except on Windows,
/// where the version of the system decides.
fn best(platform: &Platform, children: &[Child]) -> Vec<usize> {
    let fits = children.iter().enumerate().filter_map(|(place, child)| {
        let (os, architecture) = child.platform.as_ref()?;
        let distance = platform.distance(os, architecture, child.variant.as_deref())?;
        Some((distance, place))
    });
    let fits: Vec<_> = fits.collect();
    let Some(least) = fits.iter().map(|(distance, _)| *distance).min() else { return Vec::new() };
    let equal = fits.into_iter().filter(|(distance, _)| *distance == least).map(|(_, place)| place);
    if platform.os == "windows" { equal.collect() } else { equal.take(1).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Algorithm, Digest};

    fn child(text: &str) -> Child {
        let mut parts = text.split('/').map(str::to_owned);
        let platform = parts.next().zip(parts.next());
        let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
        Child { digest, media_type: String::new(), platform, variant: parts.next(), size: 1 }
    }

    fn chosen(wanted: &[&str], there: &[&str]) -> (Vec<String>, Vec<String>) {
        let children: Vec<_> = there.iter().map(|text| child(text)).collect();
        let (found, missing) = Platforms::parse(wanted).unwrap().choose(children.clone());
        let name = |found: &Child| {
            let place = children.iter().position(|child| child.digest == found.digest);
            there[place.unwrap()].to_owned()
        };
        (found.iter().map(name).collect(), missing)
    }

    #[test]
    fn spellings_of_a_platform_are_one() {
        for (text, printed) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/riscv64", "linux/riscv64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(platform));
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b", "linux/\u{1b}[1m"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_variant_that_fits_best_is_chosen() {
        let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        for (wanted, expected) in [
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v9", "linux/arm64/v8"),
        ] {
            assert_eq!(chosen(&[wanted], &arm).0, [expected], "{wanted}");
        }
        assert_eq!(chosen(&["linux/arm/v5"], &["linux/arm/v7"]).1, ["linux/arm/v5"]);
        let amd = ["linux/amd64/v3", "linux/amd64"];
        assert_eq!(chosen(&["linux/amd64"], &amd).0, ["linux/amd64"]);
        assert_eq!(chosen(&["linux/amd64/v4"], &amd).0, ["linux/amd64/v3"]);
    }

    #[test]
    fn attestations_come_only_with_all() {
        let there = ["linux/amd64", "linux/arm64", "unknown/unknown"];
        assert_eq!(chosen(&["linux/amd64"], &there).0, ["linux/amd64"]);
        assert_eq!(chosen(&["all"], &there).0, there);
    }

    #[test]
    fn what_names_no_platform_is_for_all_and_what_is_missing_is_told() {
        let there = ["plain", "linux/amd64", "linux/amd64", "windows/amd64", "windows/amd64"];
        assert_eq!(chosen(&["linux/amd64"], &there).0, ["plain", "linux/amd64"]);
        assert_eq!(chosen(&["windows/amd64"], &there[3..]).0.len(), 2);
        let (_, missing) = chosen(&["linux/s390x", "linux/amd64"], &there);
        assert_eq!(missing, ["linux/s390x"]);
    }

    #[test]
    fn all_stands_alone_and_nothing_is_this_machine() {
        assert_eq!(Platforms::parse(&["all", "linux/amd64"]), Err(BadPlatform::AllAndOthers));
        assert_eq!(Platforms::parse(&["ALL"]), Ok(Platforms::All));
        let own = Platforms::parse::<&str>(&[]).unwrap();
        assert_eq!(own.words(), [Platform::own().to_string()]);
        let same = Platforms::parse(&["linux/amd64", "linux/x86_64"]).unwrap();
        assert_eq!(same.count(), Some(1));
        assert!(Platforms::parse(&vec!["linux/a"; 17]).is_err());
    }
}
