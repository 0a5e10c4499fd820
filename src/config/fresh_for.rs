//! For how long a tag is fresh: one duration for all, or one for each pattern.
//!
//! The first pattern that matches wins, so their order is kept, in print too. What could never
//! take effect, a pattern twice or behind one that matches everything, is refused.

use std::time::Duration;

use super::patterns::Patterns;
use super::problem::Scope;
use super::quantity::print_duration;
use super::raw::{RawByPattern, Scalar};

/// What a tag gets that nothing else is said of.
const DEFAULT: Duration = Duration::from_secs(60);

/// What is said of the time is said of every tag.
const EVERY_TAG: [&str; 2] = ["*", "**"];

/// How long the tags are fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshFor {
    /// Tags; empty if one duration is for all.
    patterns: Patterns,
    /// One for each pattern.
    durations: Vec<Duration>,
    /// For a tag that no pattern matches; with patterns, the default.
    otherwise: Duration,
}

// === impl FreshFor ===

impl Default for FreshFor {
    fn default() -> Self {
        Self::all(DEFAULT)
    }
}

impl FreshFor {
    /// The same for every tag.
    pub fn all(duration: Duration) -> Self {
        Self { patterns: Patterns::default(), durations: Vec::new(), otherwise: duration }
    }

    /// That of the first pattern that matches `tag`; the default where none does.
    pub fn of(&self, tag: &str) -> Duration {
        let rule = self.patterns.first_match(tag).and_then(|rule| self.durations.get(rule));
        rule.copied().unwrap_or(self.otherwise)
    }

    /// `key` is the mapping in which `fresh_for` stands; none may be longer than `limit`.
    pub(super) fn read(key: &Scope<'_>, raw: Option<RawByPattern>, limit: Duration) -> Self {
        let fresh_for = match raw {
            None => Self::default(),
            Some(RawByPattern::All(scalar)) => {
                Self::all(key.duration("fresh_for", Some(&scalar), DEFAULT))
            }
            Some(RawByPattern::Each(rules)) => {
                let scope = key.at("fresh_for");
                rules.into_iter().fold(Self::default(), |mut all, (pattern, duration)| {
                    all.add(&scope, &pattern, &duration, limit);
                    all
                })
            }
        };
        if !fresh_for.covers_every_tag() {
            let for_whom = match fresh_for.patterns.is_empty() {
                true => "",
                false => ", for the tags that match none,",
            };
            refuse_longer(&key.at("fresh_for"), fresh_for.otherwise, for_whom, limit);
        }
        fresh_for
    }

    fn add(&mut self, scope: &Scope<'_>, pattern: &str, duration: &Scalar, limit: Duration) {
        // A quoted key may hold a line break, and a problem is one line.
        let key = pattern.replace(char::is_control, "?");
        let here = scope.at(&key);
        if self.patterns.sources.iter().any(|source| source == pattern) {
            return here.refuse("is written twice", "keep one");
        }
        if self.covers_every_tag() {
            let what = "can never apply: the pattern before it matches every tag";
            return here.refuse(what, "write it before that one");
        }
        let compiled = here.check(Patterns::new(&[pattern]));
        let duration = scope.duration(&key, Some(duration), DEFAULT.min(limit));
        refuse_longer(&here, duration, "", limit);
        if let Some(pattern) = compiled {
            self.patterns.extend(pattern);
            self.durations.push(duration);
        }
    }

    fn covers_every_tag(&self) -> bool {
        self.patterns.sources.iter().any(|source| EVERY_TAG.contains(&source.as_str()))
    }

    pub(super) fn to_raw(&self) -> RawByPattern {
        if self.patterns.is_empty() {
            return RawByPattern::All(Scalar(print_duration(self.otherwise)));
        }
        let durations = self.durations.iter().map(|duration| Scalar(print_duration(*duration)));
        RawByPattern::Each(self.patterns.sources.iter().cloned().zip(durations).collect())
    }
}

fn refuse_longer(scope: &Scope<'_>, duration: Duration, for_whom: &str, limit: Duration) {
    if duration > limit {
        let (fresh, stale) = (print_duration(duration), print_duration(limit));
        scope.refuse(
            format!("{fresh}{for_whom} is longer than serve_stale_for ({stale})"),
            format!("write at most {stale}, or raise serve_stale_for"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::testing::{only_upstream, parsed, refused};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn yaml(tags: &str) -> String {
        format!("upstreams: [{{ name: docker.io, tags: {{ {tags} }} }}]")
    }

    fn fresh_for(text: &str) -> FreshFor {
        only_upstream(&yaml(&format!("fresh_for: {text}"))).tags.fresh_for
    }

    #[test]
    fn one_duration_is_for_every_tag() {
        let fresh_for = fresh_for("90s");
        assert_eq!(fresh_for, FreshFor::all(Duration::from_secs(90)));
        assert_eq!(fresh_for.of("latest"), fresh_for.of("v1"));
    }

    #[test]
    fn the_first_pattern_that_matches_wins() {
        let fresh_for = fresh_for(r#"{ latest: 30s, "v[0-9]+.[0-9]+": 1d, "v[0-9]+*": 1h }"#);
        for (tag, seconds) in
            [("latest", 30), ("v1.2", 86_400), ("v1", 3600), ("v1.2.3", 3600), ("vx", 60)]
        {
            assert_eq!(fresh_for.of(tag), Duration::from_secs(seconds), "{tag}");
        }
        assert_eq!(self::fresh_for("{}").of("latest"), MINUTE);
        assert_eq!(self::fresh_for("{ 3.10: 1h }").of("3.10"), 60 * MINUTE, "a key is a text");
    }

    #[test]
    fn the_order_survives_printing() {
        let config = parsed(&yaml(r#"fresh_for: { z: 1h, "a*": 2h, 1.10: 0s, "**": 90s }"#));
        let printed = config.to_yaml();
        assert_eq!(parsed(&printed), config);
        let places = ["z: 1h", "a*: 2h", "'1.10': 0s", "'**': 90s"].map(|line| printed.find(line));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {printed}");
        assert_eq!(Config::parse(&printed, "test").expect("it is valid").to_yaml(), printed);
    }

    #[test]
    fn a_fault_is_told_at_its_pattern() {
        const AT: &str = "test.yaml: upstreams[0].tags.fresh_for";
        for (tags, line) in [
            (
                "fresh_for: { latest: 2d, '*': 1h }, serve_stale_for: 1d",
                ".latest: 2d is longer than serve_stale_for (1d); \
                 write at most 1d, or raise serve_stale_for",
            ),
            (
                "fresh_for: { latest: 10s }, serve_stale_for: 30s",
                ": 1m, for the tags that match none, is longer than serve_stale_for (30s); \
                 write at most 30s, or raise serve_stale_for",
            ),
            (
                "fresh_for: { a: 5 }",
                ".a: `5` has no unit; \
                 write whole numbers with ms, s, m, h, d or w, such as 90s or 1h30m",
            ),
            ("fresh_for: { a: [5s] }", ".a: is a list (line 1); write a single value"),
            ("fresh_for: { a: 5s, b: 1s, a: 5s }", ".a: is written twice; keep one"),
            (
                "fresh_for: { '**': 5s, b: 1s }",
                ".b: can never apply: the pattern before it matches every tag; \
                 write it before that one",
            ),
            (
                "fresh_for: { 'v[': 5s }",
                ".v[: `v[` is not a glob (unclosed character class; missing ']'); \
                 write a glob such as library/*, acme/** or v[0-9]*",
            ),
            (
                "fresh_for: [1m]",
                ": is a list (line 1); \
                 write one duration such as 1m, or a mapping such as { latest: 30s, \"**\": 1h }",
            ),
        ] {
            assert_eq!(refused(&yaml(tags)), format!("{AT}{line}"));
        }
        let strange = refused(&yaml("fresh_for: { \"a\\nb\": 5 }"));
        assert_eq!(strange.lines().count(), 1, "{strange}");
    }

    #[test]
    fn the_default_is_not_measured_where_it_is_never_used() {
        let tags = only_upstream(&yaml("fresh_for: { '**': 10s }, serve_stale_for: 30s")).tags;
        assert_eq!(tags.fresh_for.of("a"), Duration::from_secs(10));
    }
}
