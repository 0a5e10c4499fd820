//! Conditional requests against content whose entity tag is its digest.
//!
//! `ETag` is always `"<digest>"` and strong, since a digest names exact bytes. What a condition
//! leads to (304, 412, a whole body) is left to the caller.

use super::digest::Digest;
use super::list::{Escapes, elements, trim_ows};

/// How two entity tags compare (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The `ETag` of the content that `digest` names (RFC 9110 §8.8.3).
pub fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether `If-None-Match` names the content: then GET and HEAD are answered 304 (RFC 9110 §13.1.2,
/// weak comparison). Without a line it is false. `*` names whatever exists.
pub fn if_none_match<'a>(lines: impl IntoIterator<Item = &'a str>, etag_digest: &Digest) -> bool {
    lines.into_iter().any(|line| names(line, etag_digest, Comparison::Weak))
}

/// Whether `If-Match` lets the request through: false is answered 412 (RFC 9110 §13.1.1, strong
/// comparison). Without a line there is no condition, so it is true.
pub fn if_match<'a>(lines: impl IntoIterator<Item = &'a str>, etag_digest: &Digest) -> bool {
    let mut lines = lines.into_iter().peekable();
    lines.peek().is_none() || lines.any(|line| names(line, etag_digest, Comparison::Strong))
}

/// Whether `If-Range` lets the range apply; otherwise the whole body is sent (RFC 9110 §13.1.5,
/// strong comparison). A date is false: we give no `Last-Modified`, so it can name nothing of ours.
pub fn if_range(value: &str, etag_digest: &Digest) -> bool {
    matches(trim_ows(value), etag_digest, Comparison::Strong)
}

fn names(line: &str, digest: &Digest, comparison: Comparison) -> bool {
    trim_ows(line) == "*"
        || elements(line, ',', Escapes::None).any(|tag| matches(tag, digest, comparison))
}

fn matches(tag: &str, digest: &Digest, comparison: Comparison) -> bool {
    let opaque = match tag.strip_prefix("W/") {
        Some(_) if comparison == Comparison::Strong => return false,
        Some(opaque) => opaque,
        None => tag,
    };
    // The quotes are the grammar's; CNCF distribution also takes a bare digest, and so do we.
    let quoted = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Digest::parse(quoted.unwrap_or(opaque)).is_ok_and(|named| named == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::Algorithm;
    use proptest::prelude::*;

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"content")
    }

    fn other() -> Digest {
        Digest::of(Algorithm::Sha256, b"other")
    }

    #[test]
    fn if_none_match_finds_the_digest_in_any_spelling() {
        let tag = etag(&digest());
        for line in
            [tag.clone(), format!("W/{tag}"), format!("\"a,b\", W/{tag} "), digest().to_string()]
        {
            assert!(if_none_match([line.as_str()], &digest()), "{line}");
        }
        assert!(if_none_match(["\"x\"", " * "], &digest()));
    }

    #[test]
    fn if_none_match_does_not_find_what_is_not_there() {
        let tag = etag(&other());
        let inside = format!("\"a, {}\"", digest());
        for line in [tag.as_str(), "", "\"", "W/", "\"*\"", "w/\"x\"", &inside] {
            assert!(!if_none_match([line], &digest()), "{line}");
        }
        assert!(!if_none_match([], &digest()));
    }

    #[test]
    fn if_match_is_strong_and_holds_when_absent() {
        let tag = etag(&digest());
        assert!(if_match([], &digest()));
        assert!(if_match(["*"], &digest()));
        assert!(if_match(["\"x\"", tag.as_str()], &digest()));
        assert!(!if_match([format!("W/{tag}").as_str()], &digest()));
        assert!(!if_match(["\"x\""], &digest()));
        assert!(!if_match([""], &digest()));
    }

    #[test]
    fn if_range_takes_only_the_strong_tag() {
        let tag = etag(&digest());
        assert!(if_range(&tag, &digest()));
        assert!(!if_range(&format!("W/{tag}"), &digest()));
        assert!(!if_range("Tue, 15 Nov 1994 12:45:26 GMT", &digest()));
        assert!(!if_range("*", &digest()));
        assert!(!if_range(&etag(&other()), &digest()));
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = if_none_match([text.as_str()], &digest());
            let _ = if_match([text.as_str()], &digest());
            prop_assert!(!if_range(&text, &digest()));
        }
    }
}
