//! Repository names, `<name>` of the OCI distribution-spec.
//!
//! A `Repository` always follows the spec's grammar: lowercase, no empty or dotted component, so it
//! is safe inside a URL. Which registry it belongs to is left to the upstream choice.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name that a client may send, in bytes (distribution-spec, "Pulling manifests": many
/// clients limit the name to 255 characters).
pub const MAX_NAME_BYTES: usize = 255;

/// A repository name such as `library/alpine`; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Arc<str>);

/// Why a string is not a repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a repository name has at most {MAX_NAME_BYTES} bytes, not {0}")]
    TooLong(usize),
    /// Not the spec's grammar.
    #[error(
        "a repository name is made of a-z and 0-9, joined by '.', '_', '__' or '-', in parts joined by '/'"
    )]
    Grammar,
}

// === impl Repository ===

impl Repository {
    /// Parses a whole name by the distribution-spec's grammar:
    /// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`, at most
    /// [`MAX_NAME_BYTES`]. A first component like `docker.io` or `localhost` is a component as any.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        Self::parse_any_length(text)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, at least one, from left to right.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The first component and the name that the others make; `None` for a one-part name.
    pub fn split_first(&self) -> Option<(&str, Self)> {
        let (first, rest) = self.0.split_once('/')?;
        Some((first, Self(rest.into())))
    }

    /// This name below `prefix`, which itself is a valid name written by us, such as `library`.
    ///
    /// The result may exceed [`MAX_NAME_BYTES`]: the limit is about what a client may send, and
    /// upstream gives its own answer to a name that is too long for it.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Self {
        debug_assert!(is_name(prefix), "a prefix is a repository name: {prefix:?}");
        Self(format!("{prefix}/{}", self.0).into())
    }

    fn parse_any_length(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NameError::Grammar) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for Repository {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl Serialize for Repository {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A stored name may carry the prefix that `with_prefix` gave it, so its length is not
        // judged.
        Self::parse_any_length(&text).map_err(serde::de::Error::custom)
    }
}

// === the grammar ===

fn is_name(text: &str) -> bool {
    text.split('/').all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`: runs of letters and digits, between them one separator.
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let after_word = rest.trim_start_matches(is_word);
        if after_word.len() == rest.len() {
            return false;
        }
        if after_word.is_empty() {
            return true;
        }
        rest = after_word.trim_start_matches(|c| !is_word(c));
        let separator = after_word.strip_suffix(rest).unwrap_or_default();
        if !is_separator(separator) {
            return false;
        }
    }
}

fn is_separator(text: &str) -> bool {
    matches!(text, "." | "_" | "__") || (!text.is_empty() && text.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Repository {
        Repository::parse(text).expect("a name by the grammar")
    }

    #[test]
    fn names_by_the_grammar_are_accepted() {
        for text in
            ["alpine", "library/alpine", "docker.io/library/alpine", "localhost/a", "a__b/c---d"]
        {
            assert_eq!(name(text).as_str(), text);
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        let wrong = [
            "", "/", "a/", "/a", "a//b", "A", "a.", ".a", "a..b", "a___b", "a_-b", "-a", "a-",
            "..", "a/../b", "a:b", "a%2fb", "a b", "é", "a\0", "_catalog",
        ];
        for text in wrong {
            assert_eq!(Repository::parse(text), Err(NameError::Grammar), "{text:?}");
        }
    }

    #[test]
    fn the_limit_is_255_bytes() {
        assert!(Repository::parse(&"a".repeat(255)).is_ok());
        assert_eq!(Repository::parse(&"a".repeat(256)), Err(NameError::TooLong(256)));
    }

    #[test]
    fn the_first_component_splits_off() {
        let split = name("ghcr.io/org/app");
        assert_eq!(split.split_first(), Some(("ghcr.io", name("org/app"))));
        assert_eq!(name("alpine").split_first(), None);
    }

    #[test]
    fn a_prefixed_name_survives_storage_even_beyond_the_limit() {
        let long = name(&"a".repeat(255)).with_prefix("library");
        let json = serde_json::to_string(&long).expect("a string serialises");
        assert_eq!(serde_json::from_str::<Repository>(&json).expect("its own output"), long);
        assert_eq!(name("alpine").with_prefix("library"), name("library/alpine"));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(text in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}){0,3}") {
            prop_assert_eq!(name(&text).to_string(), text);
        }

        #[test]
        fn no_text_panics_and_what_parses_is_safe_in_a_path(text in ".{0,12}|[a-z./_-]{0,12}") {
            if let Ok(name) = Repository::parse(&text) {
                prop_assert!(name.components().all(|part| !part.is_empty() && part != "." && part != ".."));
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
