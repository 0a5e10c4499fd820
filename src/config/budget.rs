//! The pull budget of an upstream: what is kept in reserve, and how it is spared.

use std::fmt;

use super::problem::{Refusal, Scope, quoted};
use super::raw::{RawBudget, Scalar};
use crate::protocol::{Repository, Tag};

/// Docker's own repository for asking how much is left:
/// <https://docs.docker.com/docker-hub/usage/pulls/#view-pull-rate-and-limit>
const HUB_PROBE: (&str, &str) = ("ratelimitpreview/test", "latest");

/// How an upstream's rate limit is lived with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Below this it is spared. Default: 10%.
    pub reserve: Reserve,
    /// `tags.fresh_for` is multiplied by this meanwhile. 1–1000. Default: 10.
    pub stretch: u32,
    /// The tag whose HEAD tells what is left before anybody has pulled. Default: Docker's own for
    /// docker.io, none for others.
    pub probe: Option<Probe>,
}

/// How much of a budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Of the limit, 0–100.
    Percent(u8),
    /// So many pulls.
    Pulls(u64),
}

/// A tag to be asked for by HEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
}

// === impl Reserve ===

impl Reserve {
    /// The pulls that are kept of `limit`.
    pub fn of(self, limit: u64) -> u64 {
        match self {
            Self::Percent(percent) => limit.saturating_mul(u64::from(percent)) / 100,
            Self::Pulls(pulls) => pulls,
        }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(out, "{percent}%"),
            Self::Pulls(pulls) => write!(out, "{pulls}"),
        }
    }
}

// === impl Budget ===

impl Budget {
    /// The defaults for the upstream of this name.
    pub(super) fn of(name: &str) -> Self {
        let hub = (name == "docker.io").then_some(HUB_PROBE);
        let probe = hub.and_then(|(repository, tag)| Probe::new(repository, tag).ok());
        Self { reserve: Reserve::Percent(10), stretch: 10, probe }
    }

    pub(super) fn read(scope: &Scope<'_>, raw: RawBudget, name: &str) -> Self {
        let default = Self::of(name);
        let reserve =
            raw.reserve.and_then(|text| scope.at("reserve").check(parse_reserve(&text.0)));
        let probe = match raw.probe.as_deref() {
            None => default.probe,
            Some("none") => None,
            Some(text) => scope.at("probe").check(parse_probe(text)),
        };
        Self {
            reserve: reserve.unwrap_or(default.reserve),
            stretch: scope.count("stretch", raw.stretch.as_ref(), default.stretch, 1..=1000),
            probe,
        }
    }

    pub(super) fn to_raw(&self) -> RawBudget {
        let probe = self.probe.as_ref();
        let probe = probe.map(|Probe { repository, tag }| format!("{repository}:{tag}"));
        RawBudget {
            reserve: Scalar::print(self.reserve),
            stretch: Scalar::print(self.stretch),
            probe: Some(probe.unwrap_or_else(|| "none".to_owned())),
        }
    }
}

// === impl Probe ===

impl Probe {
    fn new(repository: &str, tag: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(
                format!("{} is not a tag of a repository", quoted(&format!("{repository}:{tag}"))),
                "write it as library/alpine:latest, or none",
            )
        };
        let repository = Repository::parse(repository).map_err(|_| refusal())?;
        let tag = Tag::parse(tag).map_err(|_| refusal())?;
        Ok(Self { repository, tag })
    }
}

fn parse_probe(text: &str) -> Result<Probe, Refusal> {
    let (repository, tag) = text.rsplit_once(':').unwrap_or((text, ""));
    Probe::new(repository, tag)
}

fn parse_reserve(text: &str) -> Result<Reserve, Refusal> {
    let refusal = || {
        Refusal::new(
            format!("{} is not a share or a number of pulls", quoted(text)),
            "write it as 10% or as 20",
        )
    };
    match text.strip_suffix('%') {
        Some(percent) => match percent.trim_end().parse() {
            Ok(percent @ 0..=100) => Ok(Reserve::Percent(percent)),
            _ => Err(refusal()),
        },
        None => text.parse().map(Reserve::Pulls).map_err(|_| refusal()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};
    use super::*;

    fn budget(keys: &str) -> Budget {
        only_upstream(&format!("upstreams: [{{ name: docker.io, budget: {{ {keys} }} }}]")).budget
    }

    #[test]
    fn a_reserve_is_a_share_or_a_number() {
        assert_eq!(budget("").reserve.of(200), 20);
        assert_eq!(budget("reserve: 50%").reserve.of(201), 100);
        assert_eq!(budget("reserve: 7").reserve.of(200), 7);
        for wrong in ["101%", "-1", "a%", "''", "1.5"] {
            let line = refused(&format!(
                "upstreams: [{{ name: docker.io, budget: {{ reserve: {wrong} }} }}]"
            ));
            assert!(line.contains("upstreams[0].budget.reserve"), "{line}");
            assert!(line.ends_with("write it as 10% or as 20"), "{line}");
        }
    }

    #[test]
    fn docker_hub_is_asked_by_docker_s_own_tag() {
        let probe = budget("").probe.unwrap();
        assert_eq!(probe.repository.as_str(), "ratelimitpreview/test");
        assert_eq!(budget("probe: none").probe, None);
        assert_eq!(budget("probe: 'acme/app:v1'").probe.unwrap().tag.as_str(), "v1");
        assert_eq!(only_upstream("upstreams: [{ name: quay.io }]").budget.probe, None);
        let line = refused("upstreams: [{ name: docker.io, budget: { probe: UPPER } }]");
        assert!(line.ends_with("write it as library/alpine:latest, or none"), "{line}");
    }
}
