//! References as people type them, read against the configured upstreams.
//!
//! `alpine` is what a client would pull by that name: `latest` of
//! `library/alpine` at the default upstream. The rules are those by which
//! requests are classified, so that what was pulled is found by the same name.

use std::{fmt, sync::Arc};

use super::Pattern;
use crate::{
    config,
    protocol::{Algorithm, Digest, Reference, Repository, Tag},
    store::{TagKey, TagRecord},
};

/// The tag of a reference that names none.
const DEFAULT_TAG: &str = "latest";

/// What is wrong with a reference, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {problem}; {remedy}")]
pub struct BadReference {
    pub(super) text: String,
    pub(super) problem: String,
    pub(super) remedy: String,
}

/// The upstreams by name.
#[derive(Debug, Clone)]
pub struct Names {
    /// In the order of the configuration: the first is the default.
    known: Vec<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    name: Arc<str>,
    /// Its hosts, and where it is: what a client may have written before the repository.
    others: Vec<String>,
    has_library: bool,
}

/// An image by its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The repository there.
    pub repository: Repository,
    /// Which of its images.
    pub reference: Reference,
}

/// What somebody asks for.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// One object, whatever it is.
    Object(Digest),
    /// One image.
    Image(ImageName),
    /// Every tag that matches.
    Tags(Pattern),
}

/// Repositories that are looked for.
pub(super) enum Search {
    Pattern(Pattern),
    /// A part of their full name, in lower case as names are.
    Part(String),
}

/// A reference in its parts: `name[:tag][@digest]`.
struct Parts<'a> {
    name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

/// A name as its upstream knows it; none of the upstreams in particular for `**`.
pub(super) struct Located {
    pub(super) upstream: Option<Arc<str>>,
    pub(super) name: String,
}

// === impl BadReference ===

impl BadReference {
    pub(super) fn new(text: &str, problem: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        let (problem, remedy) = (problem.to_string(), remedy.to_string());
        Self { text: text.to_owned(), problem, remedy }
    }

    /// What is wrong and what to write, for where the reference stands beside it.
    pub fn reason(&self) -> String {
        format!("{}; {}", self.problem, self.remedy)
    }
}

/// What a good reference looks like, for those who wrote a bad one.
const EXAMPLES: &str = "write it like alpine, ghcr.io/org/app:1, library/* or sha256:...";

// === impl Names ===

impl Names {
    /// The names of `upstreams`, the default one first.
    pub fn new(upstreams: &[config::Upstream]) -> Self {
        let known = |upstream: &config::Upstream| Known {
            name: upstream.name.as_str().into(),
            others: [upstream.hosts.clone(), vec![upstream.url.authority()]].concat(),
            has_library: upstream.library_rule(),
        };
        Self { known: upstreams.iter().map(known).collect() }
    }

    /// One image or object, or a pattern where `text` has a glob in it.
    pub fn resolve(&self, text: &str) -> Result<Wanted, BadReference> {
        let algorithm = text.split_once(':').map(|(algorithm, _)| algorithm.parse::<Algorithm>());
        if let Some(Ok(_)) = algorithm {
            let digest = Digest::parse(text);
            return digest
                .map(Wanted::Object)
                .map_err(|error| BadReference::new(text, error, "copy the digest as a whole"));
        }
        if is_glob(text) {
            return self.pattern(text).map(Wanted::Tags);
        }
        let bad = |problem: &dyn fmt::Display| BadReference::new(text, problem, EXAMPLES);
        let parts = Parts::of(text);
        let located = self.locate(text, parts.name)?;
        let repository = Repository::parse(&located.name).map_err(|error| bad(&error))?;
        // With both, the digest says it all: so docker reads it, too.
        let reference = match (parts.digest, parts.tag) {
            (Some(digest), _) => Digest::parse(digest).map(Reference::Digest).map_err(|e| bad(&e)),
            (None, tag) => {
                let tag = Tag::parse(tag.unwrap_or(DEFAULT_TAG));
                tag.map(Reference::Tag).map_err(|error| bad(&error))
            }
        }?;
        let upstream = located.upstream.unwrap_or_default();
        Ok(Wanted::Image(ImageName { upstream, repository, reference }))
    }

    /// The tags that `text` stands for: all of a repository where it names no tag, all of an
    /// upstream where it names nothing else.
    pub fn pattern(&self, text: &str) -> Result<Pattern, BadReference> {
        if text.contains(['.', ':'])
            && let Some(known) = self.find(text)
        {
            return Pattern::new(text, Some(Arc::clone(&known.name)), "**", None);
        }
        let parts = Parts::of(text);
        if parts.digest.is_some() {
            let remedy = "leave the digest out, or name the image without a glob";
            return Err(BadReference::new(text, "a digest names one image", remedy));
        }
        let located = self.locate(text, parts.name)?;
        Pattern::new(text, located.upstream, &located.name, parts.tag)
    }

    /// All tags of the repository that `text` names.
    pub fn all_tags(&self, text: &str) -> Result<Pattern, BadReference> {
        if let Some(tag) = Parts::of(text).tag
            && self.find(text).is_none()
        {
            let problem = format!("it names the tag {tag:?}, and all are asked for");
            return Err(BadReference::new(text, problem, "leave out the tag, or --all-tags"));
        }
        self.pattern(text)
    }

    /// The repository that `text` names.
    pub fn repository(&self, text: &str) -> Result<(Arc<str>, Repository), BadReference> {
        let remedy = "write a repository like alpine or ghcr.io/org/app";
        let bad = |problem: &dyn fmt::Display| BadReference::new(text, problem, remedy);
        let parts = Parts::of(text);
        if is_glob(text) || parts.tag.is_some() || parts.digest.is_some() {
            return Err(bad(&"it is more than the name of one repository"));
        }
        let located = self.locate(text, parts.name)?;
        let repository = Repository::parse(&located.name).map_err(|error| bad(&error))?;
        Ok((located.upstream.unwrap_or_default(), repository))
    }

    /// The repositories that somebody looks for by `text`.
    pub(super) fn search(&self, text: &str) -> Result<Search, BadReference> {
        if is_glob(text) {
            return self.pattern(text).map(Search::Pattern);
        }
        Ok(Search::Part(text.to_lowercase()))
    }

    fn locate(&self, text: &str, name: &str) -> Result<Located, BadReference> {
        let (mut known, mut name) = (self.known.first(), name);
        if let Some((first, rest)) = name.split_once('/') {
            if let Some(named) = self.find(first) {
                (known, name) = (Some(named), rest);
            } else if first.contains(['.', ':']) || first == "localhost" {
                // So every client reads it: a host, which we don't know.
                return Err(self.unknown(text, first));
            } else if first == "**" {
                return Ok(Located { upstream: None, name: name.to_owned() });
            }
        } else if name == "**" {
            return Ok(Located { upstream: None, name: name.to_owned() });
        }
        let Some(known) = known else { return Err(self.unknown(text, name)) };
        let is_short = known.has_library && !name.contains('/') && name != "**";
        let name = if is_short { format!("library/{name}") } else { name.to_owned() };
        Ok(Located { upstream: Some(Arc::clone(&known.name)), name })
    }

    fn find(&self, name: &str) -> Option<&Known> {
        let by_name = self.known.iter().find(|known| known.name.eq_ignore_ascii_case(name));
        by_name.or_else(|| {
            let answers_to = |known: &&Known| {
                let mut others = known.others.iter();
                others.any(|other| other.eq_ignore_ascii_case(name))
            };
            self.known.iter().find(answers_to)
        })
    }

    fn unknown(&self, text: &str, name: &str) -> BadReference {
        let known: Vec<&str> = self.known.iter().map(|known| &*known.name).collect();
        let remedy = format!("the upstreams are {}", known.join(", "));
        BadReference::new(text, format!("{name} is not an upstream"), remedy)
    }
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

// === impl Search ===

impl Search {
    pub(super) fn matches(&self, upstream: &str, repository: &str) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.has(upstream, repository),
            Self::Part(part) => format!("{upstream}/{repository}").to_lowercase().contains(part),
        }
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before a slash belongs to a port.
        match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => Self { name, tag: Some(tag), digest },
            None => Self { name: rest, tag: None, digest },
        }
    }
}

// === impl ImageName ===

impl ImageName {
    /// The full name of a tag.
    pub fn of_tag(key: &TagKey) -> Self {
        Self {
            upstream: Arc::clone(&key.upstream),
            repository: key.repository.clone(),
            reference: Reference::Tag(key.tag.clone()),
        }
    }

    /// Reads back a name that was printed in full, of whatever upstream.
    pub fn parse_full(text: &str) -> Option<Self> {
        let (upstream, rest) = text.split_once('/')?;
        let parts = Parts::of(rest);
        let reference = parts.digest.or(parts.tag)?;
        Some(Self {
            upstream: upstream.into(),
            repository: Repository::parse(parts.name).ok()?,
            reference: Reference::parse(reference).ok()?,
        })
    }

    /// The tag's key, if it names one.
    pub fn tag_key(&self) -> Option<TagKey> {
        Some(TagKey {
            upstream: Arc::clone(&self.upstream),
            repository: self.repository.clone(),
            tag: self.reference.tag()?.clone(),
        })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if self.reference.tag().is_some() { ':' } else { '@' };
        write!(f, "{}/{}{before}{}", self.upstream, self.repository, self.reference)
    }
}

// === impl Wanted ===

impl Wanted {
    /// Whether a cached tag is meant: by its name, or by the digest that it names.
    pub(super) fn is_tag(&self, key: &TagKey, record: &TagRecord) -> bool {
        match self {
            Self::Object(_) => false,
            Self::Tags(pattern) => pattern.matches(key),
            Self::Image(name) => {
                *name.upstream == *key.upstream
                    && name.repository == key.repository
                    && match &name.reference {
                        Reference::Tag(tag) => *tag == key.tag,
                        Reference::Digest(digest) => *digest == record.digest,
                    }
            }
        }
    }

    /// Whether a pin of this name is meant.
    pub(super) fn is_pin(&self, name: &str) -> bool {
        match self {
            Self::Object(digest) => digest.to_string() == name,
            Self::Image(image) => image.to_string() == name,
            Self::Tags(pattern) => {
                let key = ImageName::parse_full(name).and_then(|name| name.tag_key());
                key.is_some_and(|key| pattern.matches(&key))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn names() -> Names {
        let text = "upstreams: [{name: docker.io}, {name: ghcr.io, hosts: [ghcr.lan]}, \
                    {name: 'localhost:5000', url: 'http://localhost:5000'}]";
        Names::new(&Config::parse(text, "test").unwrap().upstreams)
    }

    fn resolved(text: &str) -> String {
        match names().resolve(text) {
            Ok(Wanted::Object(digest)) => format!("object {digest}"),
            Ok(Wanted::Image(name)) => name.to_string(),
            Ok(Wanted::Tags(pattern)) => format!("tags {pattern}"),
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn references_mean_what_a_client_would_pull() {
        let digest = format!("sha256:{HEX}");
        let cases = [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
            ("library/alpine:3.20", "docker.io/library/alpine:3.20".to_owned()),
            ("docker.io/alpine", "docker.io/library/alpine:latest".to_owned()),
            ("docker.io/library/alpine", "docker.io/library/alpine:latest".to_owned()),
            ("Docker.io/org/app", "docker.io/org/app:latest".to_owned()),
            ("registry-1.docker.io/alpine", "docker.io/library/alpine:latest".to_owned()),
            ("ghcr.io/org/app:1", "ghcr.io/org/app:1".to_owned()),
            ("ghcr.lan/org/app:1", "ghcr.io/org/app:1".to_owned()),
            ("ghcr.io/app", "ghcr.io/app:latest".to_owned()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("localhost:5000/app:2", "localhost:5000/app:2".to_owned()),
            (&format!("alpine@{digest}"), format!("docker.io/library/alpine@{digest}")),
            (&format!("alpine:3@{digest}"), format!("docker.io/library/alpine@{digest}")),
            (&digest, format!("object {digest}")),
            ("alp*", "tags docker.io/library/alp*".to_owned()),
            ("library/*:3.*", "tags docker.io/library/*:3.*".to_owned()),
            ("ghcr.io/**", "tags ghcr.io/**".to_owned()),
            ("**", "tags **".to_owned()),
            ("**/app:1", "tags **/app:1".to_owned()),
            ("docker.io/**", "tags docker.io/**".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(resolved(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_to_write() {
        for (text, word) in [
            ("quay.io/org/app", "the upstreams are docker.io, ghcr.io"),
            ("docker://alpine", "is not an upstream"),
            ("Alpine", "a repository name is made of"),
            ("alpine:", "a tag is"),
            ("", "a repository name is made of"),
            ("sha256:abc", "64 hex digits"),
            ("alpine@sha256:abc", "64 hex digits"),
            ("library/a[", "glob"),
            ("alp*@sha256:abc", "a digest names one image"),
        ] {
            let said = resolved(text);
            assert!(said.starts_with('!') && said.contains(word) && said.contains("; "), "{said}");
        }
    }

    #[test]
    fn a_pattern_without_a_tag_is_every_tag_and_an_upstream_all_of_it() {
        let pattern = |text: &str| names().pattern(text).unwrap().to_string();
        assert_eq!(pattern("alpine"), "docker.io/library/alpine");
        assert_eq!(pattern("ghcr.io"), "ghcr.io/**");
        assert_eq!(pattern("localhost:5000"), "localhost:5000/**");
        assert!(names().all_tags("alpine:3").is_err());
        assert_eq!(names().all_tags("alpine").unwrap().to_string(), "docker.io/library/alpine");
    }

    #[test]
    fn full_names_are_read_back() {
        for text in ["docker.io/library/alpine:3.20", "gone.example:5000/a/b:1"] {
            assert_eq!(ImageName::parse_full(text).unwrap().to_string(), text);
        }
        let text = format!("docker.io/a/b@sha256:{HEX}");
        assert_eq!(ImageName::parse_full(&text).unwrap().to_string(), text);
        assert_eq!(ImageName::parse_full("alpine"), None);
    }
}
