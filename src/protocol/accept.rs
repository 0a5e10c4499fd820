//! The `Accept` header: which media types a client can read.
//!
//! Order, case, spacing and the number of lines never change the answer. Choosing what to serve to
//! a client that accepts less than we hold is left to the manifest path.

use super::list::{Escapes, elements, trim_ows};
use super::media_type::{MANIFEST_TYPES, essence};

/// What one request accepts; without any usable line, everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accept {
    ranges: Vec<MediaRange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MediaRange {
    pattern: Pattern,
    /// `q=0`: explicitly not acceptable (RFC 9110 §12.4.2).
    refused: bool,
}

/// In rising order of precedence (RFC 9110 §12.5.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Pattern {
    Everything,
    /// `type/*`, kept as `type/`.
    Type(String),
    Exact(String),
}

// === impl Accept ===

impl Accept {
    /// Reads every `Accept` line of a request (RFC 9110 §12.5.1); elements that are no media range
    /// are passed over.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let elements = lines.into_iter().flat_map(|line| elements(line, ',', Escapes::Quoted));
        Self { ranges: elements.filter_map(MediaRange::parse).collect() }
    }

    /// Whether the client reads `media_type`; the most specific range decides, parameters are
    /// ignored.
    pub fn accepts(&self, media_type: &str) -> bool {
        let wanted = essence(media_type).to_ascii_lowercase();
        let fitting = self.ranges.iter().filter(|range| range.pattern.fits(&wanted));
        // Among equals (the same type with other parameters) one that is not refused suffices.
        let decisive = fitting.max_by_key(|range| (&range.pattern, !range.refused));
        decisive.map_or(self.is_anything(), |range| !range.refused)
    }

    /// Whether at least one manifest type that we know would do.
    pub fn accepts_any_manifest(&self) -> bool {
        MANIFEST_TYPES.iter().any(|media_type| self.accepts(media_type))
    }

    /// Whether `media_type` is accepted by its own name, not only by a wildcard.
    pub fn names(&self, media_type: &str) -> bool {
        let wanted = Pattern::Exact(essence(media_type).to_ascii_lowercase());
        self.ranges.iter().any(|range| range.pattern == wanted && !range.refused)
    }

    /// Whether the request had no usable `Accept` at all.
    pub fn is_anything(&self) -> bool {
        self.ranges.is_empty()
    }
}

// === impl MediaRange ===

impl MediaRange {
    fn parse(element: &str) -> Option<Self> {
        let mut parts = elements(element, ';', Escapes::Quoted);
        let pattern = Pattern::parse(parts.next()?)?;
        Some(Self { pattern, refused: parts.any(is_zero_weight) })
    }
}

/// `q=0`, `q=0.`, `q=0.0` up to three digits (RFC 9110 §12.4.2); a weight that we cannot read is
/// none.
fn is_zero_weight(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let digits = trim_ows(value).strip_prefix('0');
    trim_ows(name).eq_ignore_ascii_case("q")
        && digits.is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix('.').is_some_and(|zeros| zeros.bytes().all(|b| b == b'0'))
        })
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        // `*` alone is not in the grammar, but old clients (Java's HttpURLConnection) send it.
        if text == "*/*" || text == "*" {
            return Some(Self::Everything);
        }
        let (kind, subtype) = text.split_once('/')?;
        if kind.is_empty() || subtype.is_empty() || kind == "*" {
            return None;
        }
        Some(if subtype == "*" { Self::Type(format!("{kind}/")) } else { Self::Exact(text) })
    }

    fn fits(&self, media_type: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Type(prefix) => media_type.starts_with(prefix),
            Self::Exact(exact) => media_type == exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::media_type::{DOCKER_LIST, OCI_INDEX, OCI_MANIFEST};
    use proptest::prelude::*;

    fn accept(line: &str) -> Accept {
        Accept::parse([line])
    }

    #[test]
    fn no_header_accepts_everything() {
        assert!(Accept::parse([]).accepts(OCI_INDEX));
        assert!(accept("").accepts("text/html"));
        assert!(accept("nonsense").accepts(OCI_INDEX));
    }

    #[test]
    fn containerds_header_accepts_everything() {
        let containerd = accept("application/vnd.oci.image.index.v1+json, */*");
        assert!(containerd.accepts(OCI_INDEX) && containerd.accepts("x/y"));
        assert!(containerd.names(OCI_INDEX) && !containerd.names(OCI_MANIFEST));
    }

    #[test]
    fn dockers_several_lines_are_one_list_in_any_order() {
        let docker = Accept::parse([OCI_INDEX, DOCKER_LIST]);
        assert!(docker.accepts(OCI_INDEX) && docker.accepts(DOCKER_LIST));
        assert!(!docker.accepts(OCI_MANIFEST));
        assert!(docker.accepts_any_manifest());
        assert!(!accept("text/html").accepts_any_manifest());
    }

    #[test]
    fn the_most_specific_range_decides() {
        let picky =
            accept("application/vnd.oci.image.index.v1+json;q=0, application/*, */*;q=0.000");
        assert!(!picky.accepts(OCI_INDEX));
        assert!(picky.accepts(OCI_MANIFEST));
        assert!(!picky.accepts("text/html"));
    }

    #[test]
    fn case_spacing_and_parameters_do_not_matter() {
        let odd = accept("Application/Vnd.OCI.Image.Index.v1+JSON ; a=\"x,y;q=0\" ; Q = 0.5");
        assert!(odd.accepts("application/vnd.oci.image.index.v1+json; charset=utf-8"));
        assert!(!odd.accepts(OCI_MANIFEST));
    }

    #[test]
    fn a_small_weight_is_not_a_refusal() {
        assert!(accept("a/b;q=0.001").accepts("a/b"));
        assert!(accept("a/b;q=").accepts("a/b"));
        assert!(!accept("a/b;q=0.").accepts("a/b"));
    }

    proptest! {
        #[test]
        fn no_text_panics(lines: Vec<String>, media_type: String) {
            let accept = Accept::parse(lines.iter().map(String::as_str));
            let _ = accept.accepts(&media_type);
        }

        #[test]
        fn order_never_matters(mut parts in proptest::collection::vec("(a|b|\\*)/(x|y|\\*)(;q=0|;q=1)?", 1..6)) {
            let forward = accept(&parts.join(","));
            parts.reverse();
            let backward = Accept::parse(parts.iter().map(String::as_str));
            for wanted in ["a/x", "a/y", "b/x", "c/z"] {
                prop_assert_eq!(forward.accepts(wanted), backward.accepts(wanted));
            }
        }
    }
}
