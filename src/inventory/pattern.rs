//! Globs over cached tags: upstream, repository, tag.

use std::{fmt, sync::Arc};

use super::BadReference;
use crate::{config::Patterns, store::TagKey};

/// Some of the cached tags.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// `None`: of every upstream.
    upstream: Option<Arc<str>>,
    repository: Patterns,
    /// `None`: every tag.
    tag: Option<Patterns>,
}

// === impl Pattern ===

impl Pattern {
    /// Every tag of every upstream.
    pub fn everything() -> Self {
        Self { upstream: None, repository: Patterns::everything(), tag: None }
    }

    /// `text` is what was written, for the error.
    pub(super) fn new(
        text: &str,
        upstream: Option<Arc<str>>,
        repository: &str,
        tag: Option<&str>,
    ) -> Result<Self, BadReference> {
        let compile = |glob: &str| {
            let compiled = Patterns::new(&[glob]);
            compiled.map_err(|refusal| BadReference::new(text, &refusal.what, &refusal.remedy))
        };
        Ok(Self { upstream, repository: compile(repository)?, tag: tag.map(compile).transpose()? })
    }

    /// Whether tags of this repository may be among them.
    pub fn has(&self, upstream: &str, repository: &str) -> bool {
        self.upstream.as_ref().is_none_or(|own| **own == *upstream)
            && self.repository.matches(repository)
    }

    /// Whether this tag is among them.
    pub fn matches(&self, key: &TagKey) -> bool {
        self.has(&key.upstream, key.repository.as_str())
            && self.tag.as_ref().is_none_or(|tag| tag.matches(key.tag.as_str()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(upstream) = &self.upstream {
            write!(f, "{upstream}/")?;
        }
        f.write_str(&self.repository.sources.join(","))?;
        match &self.tag {
            Some(tag) => write!(f, ":{}", tag.sources.join(",")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Repository, Tag};

    fn key(upstream: &str, repository: &str, tag: &str) -> TagKey {
        TagKey {
            upstream: upstream.into(),
            repository: Repository::parse(repository).unwrap(),
            tag: Tag::parse(tag).unwrap(),
        }
    }

    #[test]
    fn upstream_repository_and_tag_must_all_match() {
        let pattern = |upstream: Option<&str>, repository: &str, tag: Option<&str>| {
            Pattern::new("", upstream.map(Into::into), repository, tag).unwrap()
        };
        let alpine = key("docker.io", "library/alpine", "3.20");
        assert!(pattern(Some("docker.io"), "library/*", Some("3.*")).matches(&alpine));
        assert!(pattern(None, "**/alpine", None).matches(&alpine));
        assert!(!pattern(Some("ghcr.io"), "**", None).matches(&alpine));
        assert!(!pattern(Some("docker.io"), "library/*", Some("edge")).matches(&alpine));
        assert!(!pattern(Some("docker.io"), "*", None).matches(&alpine));
        assert!(Pattern::everything().matches(&alpine));
    }
}
