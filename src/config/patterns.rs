//! Globs over repository names and over tags.
//!
//! `*` and `?` stay within one path component, `**` crosses them, `[0-9]` and `{a,b}` are
//! known, case counts. Compiled once; the sources are kept to be printed.

use globset::{GlobBuilder, GlobMatcher};

use super::problem::{Refusal, Scope, quoted};

/// A set of compiled globs; an empty one matches nothing.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    /// What was written, in its order.
    pub sources: Vec<String>,
    /// One for each source. Single matchers rather than a `GlobSet`: the set's shortcuts know
    /// file names, and miss those that end in a dot, which a tag may.
    matchers: Vec<GlobMatcher>,
}

// === impl Patterns ===

impl Patterns {
    /// Compiles all sources, or says which one is wrong.
    pub fn new<S: AsRef<str>>(sources: &[S]) -> Result<Self, Refusal> {
        sources.iter().try_fold(Self::default(), |mut patterns, source| {
            let source = source.as_ref();
            patterns.matchers.push(compile(source)?);
            patterns.sources.push(source.to_owned());
            Ok(patterns)
        })
    }

    /// `**`: whatever it is asked.
    pub fn everything() -> Self {
        Self::new(&["**"]).expect("`**` is a valid glob")
    }

    /// Whether any of them matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.matchers.iter().any(|matcher| matcher.is_match(name))
    }

    /// Whether there is none, so that nothing matches.
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    pub(super) fn read(scope: &Scope<'_>, raw: Option<Vec<String>>, default: Self) -> Self {
        let Some(sources) = raw else {
            return default;
        };
        let compiled = scope.each(&sources, |source| Self::new(&[source]));
        compiled.into_iter().fold(Self::default(), |mut all, one| {
            all.sources.extend(one.sources);
            all.matchers.extend(one.matchers);
            all
        })
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.sources == other.sources
    }
}

impl Eq for Patterns {}

fn compile(source: &str) -> Result<GlobMatcher, Refusal> {
    let remedy = "write a glob such as library/*, acme/** or v[0-9]*";
    let refusal = |what: &str| Refusal::new(format!("{} {what}", quoted(source)), remedy);
    if source.is_empty() {
        return Err(refusal("is empty"));
    }
    if source.split('/').any(|part| part.contains("**") && part != "**") {
        // The glob library reads it as `*` there: the pattern would match less than it seems to.
        return Err(refusal(
            "has `**` beside other characters: it must stand alone between slashes",
        ));
    }
    let glob = GlobBuilder::new(source)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| refusal(&format!("is not a glob ({})", error.kind())))?;
    Ok(glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused};
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Patterns::new(&[pattern]).expect("a valid glob").matches(name)
    }

    #[test]
    fn a_single_star_stays_within_a_component() {
        assert!(matches("library/*", "library/alpine"));
        assert!(!matches("library/*", "library/a/b"));
        assert!(!matches("*", "library/alpine"));
        assert!(matches("library/alpin?", "library/alpine"));
        assert!(!matches("library?alpine", "library/alpine"));
    }

    #[test]
    fn a_double_star_crosses_components() {
        assert!(matches("**", "a/b/c"));
        assert!(matches("**", "a"));
        assert!(matches("acme/**", "acme/a/b"));
        assert!(!matches("acme/**", "acme"));
        assert!(matches("**/secret", "secret"));
        assert!(matches("**/secret", "a/b/secret"));
    }

    #[test]
    fn the_whole_name_must_match_and_case_counts() {
        assert!(!matches("alpine", "library/alpine"));
        assert!(!matches("library/alpine", "library/alpine2"));
        assert!(!matches("Latest", "latest"));
    }

    #[test]
    fn tags_of_any_shape_can_be_matched() {
        assert!(matches("v[0-9]*", "v1.2.3"));
        assert!(!matches("v[0-9]*", "vnext"));
        assert!(matches("sha256-*", "sha256-abc.sig"));
        assert!(matches("*.", "odd."));
        assert!(matches("{stable,edge}-*", "edge-1"));
    }

    #[test]
    fn an_empty_set_matches_nothing() {
        assert!(Patterns::default().is_empty());
        assert!(!Patterns::default().matches("a"));
        assert!(Patterns::everything().matches("a/b"));
    }

    #[test]
    fn a_bad_glob_is_refused_at_its_place() {
        let line = refused("upstreams: [{ name: docker.io, deny: [ok, \"a[\"] }]");
        assert!(line.starts_with("test.yaml: upstreams[0].deny[1]: `a[` is not a glob"), "{line}");
        assert!(refused("upstreams: [{ name: docker.io, deny: [\"\"] }]").contains("is empty"));
        assert!(
            refused("upstreams: [{ name: docker.io, deny: [\"acme**\"] }]")
                .contains("must stand alone")
        );
        parsed("upstreams: [{ name: docker.io, deny: [\"acme/**\"] }]");
    }
}
