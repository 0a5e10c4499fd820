//! How long the answer to "what does this tag point at" may be used.
//!
//! `manifest::revalidation` plans with these; a digest never expires and needs none of them.

use std::time::Duration;

use super::fresh_for::FreshFor;
use super::patterns::Patterns;
use super::problem::Scope;
use super::quantity::print_duration;
use super::raw::{RawTags, Scalar};

/// The freshness of tags (RFC 9111 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// A tag this young is served without asking upstream. Default: 1m.
    pub fresh_for: FreshFor,
    /// While upstream is in trouble, a tag this old is still served; never less than
    /// `fresh_for`. Default: 30d.
    pub serve_stale_for: Duration,
    /// Tags that never move once seen, and are never asked for again. Default: none.
    pub immutable: Patterns,
    /// A tag that moved names what it named before until the new digest is this old, counted from
    /// when it was first seen. Zero: it moves at once. Default: 0s.
    pub cooldown: Duration,
}

// === impl Tags ===

impl Default for Tags {
    fn default() -> Self {
        Self {
            fresh_for: FreshFor::default(),
            serve_stale_for: Duration::from_secs(30 * 86_400),
            immutable: Patterns::default(),
            cooldown: Duration::ZERO,
        }
    }
}

impl Tags {
    /// How old a new digest of `tag` must be to be served.
    pub fn cooldown_of(&self, tag: &str) -> Duration {
        if self.immutable.matches(tag) { Duration::ZERO } else { self.cooldown }
    }

    pub(super) fn read(scope: &Scope<'_>, raw: RawTags) -> Self {
        let default = Self::default();
        let serve_stale_for = scope.duration(
            "serve_stale_for",
            raw.serve_stale_for.as_ref(),
            default.serve_stale_for,
        );
        Self {
            fresh_for: FreshFor::read(scope, raw.fresh_for, serve_stale_for),
            serve_stale_for,
            immutable: Patterns::read(&scope.at("immutable"), raw.immutable, default.immutable),
            cooldown: scope.duration("cooldown", raw.cooldown.as_ref(), default.cooldown),
        }
    }

    pub(super) fn to_raw(&self) -> RawTags {
        RawTags {
            fresh_for: Some(self.fresh_for.to_raw()),
            serve_stale_for: Scalar::print(print_duration(self.serve_stale_for)),
            immutable: Some(self.immutable.sources.clone()),
            cooldown: Scalar::print(print_duration(self.cooldown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};
    use super::*;

    #[test]
    fn tags_are_fresh_for_a_minute_by_default() {
        let tags = only_upstream("upstreams: [{ name: docker.io }]").tags;
        assert_eq!(tags, Tags::default());
        assert_eq!(print_duration(tags.fresh_for.of("latest")), "1m");
        assert_eq!(print_duration(tags.serve_stale_for), "30d");
    }

    #[test]
    fn a_tag_can_not_be_fresh_for_longer_than_it_is_served() {
        assert_eq!(
            refused(
                "upstreams: [{ name: docker.io, tags: { fresh_for: 2d, serve_stale_for: 1d } }]"
            ),
            "test.yaml: upstreams[0].tags.fresh_for: 2d is longer than serve_stale_for (1d); \
             write at most 1d, or raise serve_stale_for"
        );
    }

    #[test]
    fn a_bad_duration_is_refused_with_its_grammar() {
        assert_eq!(
            refused("upstreams: [{ name: docker.io, tags: { fresh_for: 60 } }]"),
            "test.yaml: upstreams[0].tags.fresh_for: `60` has no unit; \
             write whole numbers with ms, s, m, h, d or w, such as 90s or 1h30m"
        );
    }

    #[test]
    fn tags_may_always_be_validated() {
        let tags = only_upstream("upstreams: [{ name: docker.io, tags: { fresh_for: 0s } }]").tags;
        assert!(tags.fresh_for.of("latest").is_zero());
    }

    #[test]
    fn only_tags_that_may_move_cool() {
        let tags = "{ cooldown: 3d, immutable: [\"v[0-9]+*\"] }";
        let tags = only_upstream(&format!("upstreams: [{{ name: docker.io, tags: {tags} }}]")).tags;
        assert_eq!(tags.cooldown_of("latest"), Duration::from_secs(3 * 86_400));
        assert!(tags.cooldown_of("v1").is_zero());
        assert!(Tags::default().cooldown_of("latest").is_zero());
    }

    #[test]
    fn a_bad_cooldown_is_refused() {
        let line = refused("upstreams: [{ name: docker.io, tags: { cooldown: 3 } }]");
        assert!(
            line.starts_with("test.yaml: upstreams[0].tags.cooldown: `3` has no unit"),
            "{line}"
        );
    }
}
