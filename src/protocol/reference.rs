//! References: a tag that may move, or a digest that cannot.
//!
//! What contains a `:` is a digest or an error; a tag never does. Where a tag points at this moment
//! is left to the tag table.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{Digest, DigestError};

/// A tag such as `latest`; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// What a manifest is asked by (distribution-spec, `<reference>`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A name that upstream may point elsewhere tomorrow.
    Tag(Tag),
    /// The manifest itself.
    Digest(Digest),
}

/// The string is not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag is 1 to 128 of a-z, A-Z, 0-9, '_', '.', '-', and does not begin with '.' or '-'")]
pub struct TagError;

/// The string is neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no `:`, so it would be a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a `:`, so it would be a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

// === impl Tag ===

impl Tag {
    /// Parses `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let in_grammar = text.len() <= 128
            && text.starts_with(is_word)
            && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'));
        if in_grammar { Ok(Self(text.into())) } else { Err(TagError) }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        Self::parse(text)
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

// === impl Reference ===

impl Reference {
    /// Parses a tag, or a digest when the text contains a `:`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(Digest::parse(text)?))
        } else {
            Ok(Self::Tag(Tag::parse(text)?))
        }
    }

    /// The digest, if it is one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Tag(_) => None,
        }
    }

    /// The tag, if it is one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Tag(tag) => Some(tag),
            Self::Digest(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::Algorithm;
    use proptest::prelude::*;

    #[test]
    fn a_tag_has_at_most_128_characters() {
        assert!(Tag::parse(&"a".repeat(128)).is_ok());
        assert_eq!(Tag::parse(&"a".repeat(129)), Err(TagError));
        assert_eq!(Tag::parse(""), Err(TagError));
    }

    #[test]
    fn a_tag_does_not_begin_with_a_dot_or_a_dash() {
        for text in [".a", "-a", "..", "a/b", "a%3Ab", "é", "a b"] {
            assert_eq!(Tag::parse(text), Err(TagError), "{text:?}");
        }
        for text in ["latest", "_a", "3.20", "V1", "sha256-abc.sig"] {
            assert!(Tag::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_contains_a_colon_is_a_digest_or_an_error() {
        assert!(matches!(Reference::parse("a:b"), Err(ReferenceError::Digest(_))));
        assert!(matches!(Reference::parse("+"), Err(ReferenceError::Tag(_))));
        let digest = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(Reference::parse(&digest.to_string()), Ok(Reference::Digest(digest)));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert_eq!(Reference::parse(&text).expect("by the grammar").to_string(), text);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
