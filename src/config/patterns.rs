//! Globs over repository names and over tags.
//!
//! `*`, `?` and classes stay within one path component, `**` crosses them, `[0-9]` and `{a,b}`
//! are known, `[0-9]+` is one or more of its class, case counts. Compiled once; the sources are
//! kept to be printed.

use globset::{Glob, GlobBuilder};
use regex::bytes::{Regex, RegexBuilder};

use super::problem::{Refusal, Scope, quoted};

/// A set of compiled globs; an empty one matches nothing.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    /// What was written, in its order.
    pub sources: Vec<String>,
    /// One for each source. Regexes rather than a `GlobSet`: the set knows no `+`, and its
    /// shortcuts for file names miss those that end in a dot, which a tag may.
    matchers: Vec<Regex>,
}

/// What a glob's next character stands in.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    /// After a backslash: the character means itself.
    Escaped,
    /// After `[`; a `]` here is one of the class.
    Opened,
    /// After `[!` or `[^`; likewise.
    Negated,
    Inside,
    /// After the `]` of a class.
    Closed,
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
        self.first_match(name).is_some()
    }

    /// Which of `sources` is the first to match the whole of `name`.
    pub fn first_match(&self, name: &str) -> Option<usize> {
        self.matchers.iter().position(|matcher| matcher.is_match(name.as_bytes()))
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
            all.extend(one);
            all
        })
    }

    /// Adds `more` behind these.
    pub(super) fn extend(&mut self, more: Self) {
        self.sources.extend(more.sources);
        self.matchers.extend(more.matchers);
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.sources == other.sources
    }
}

impl Eq for Patterns {}

fn compile(source: &str) -> Result<Regex, Refusal> {
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
    if !repeats_only_classes(source) {
        return Err(Refusal::new(
            format!("{} has a `+` that can never match: no name has one", quoted(source)),
            "write it right after a class, such as v[0-9]+, or leave it out",
        ));
    }
    let glob = GlobBuilder::new(source)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| refusal(&format!("is not a glob ({})", error.kind())))?;
    RegexBuilder::new(&regex_of(&glob))
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .map_err(|_| refusal("is too large"))
}

/// Whether each `+` follows a class. No name has one, so anywhere else it is a mistake.
fn repeats_only_classes(source: &str) -> bool {
    let mut place = Place::Outside;
    for c in source.chars() {
        place = match (place, c) {
            (Place::Closed, '+') => Place::Outside,
            (_, '+') => return false,
            (Place::Opened, '!' | '^') => Place::Negated,
            (Place::Opened | Place::Negated, _) => Place::Inside,
            (Place::Inside, ']') => Place::Closed,
            (Place::Inside, _) => Place::Inside,
            (Place::Outside | Place::Closed, '\\') => Place::Escaped,
            (Place::Outside | Place::Closed, '[') => Place::Opened,
            (Place::Outside | Place::Closed | Place::Escaped, _) => Place::Outside,
        };
    }
    true
}

/// The glob's regex, in which a `+` repeats the class before it, and no class crosses a slash.
fn regex_of(glob: &Glob) -> String {
    // The glob library takes a `+` literally, and escapes what is literal: every `\+` is one that
    // stands after a class, and every bare `[^` begins a class (`[^/]` is its `?`).
    glob.regex().replace(r"\+", "+").replace("[^", "[^/")
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
    fn a_plus_repeats_the_class_before_it() {
        for (pattern, good, bad) in [
            ("v[0-9]+*", &["v1", "v12", "v1.2-rc", "v1x"][..], &["vx", "v", "v+", "v1/2"][..]),
            ("v[0-9]+", &["v1", "v123"], &["v", "v1.2", "v1+"]),
            ("[0-9]+.[0-9]+", &["3.20", "10.0"], &["3.", ".20", "3", "3.20.1", "3x20"]),
            ("{v,r}[0-9]+", &["v1", "r12"], &["v", "vr1"]),
            ("[!0-9]+", &["edge", "a"], &["", "a1", "a/b"]),
            ("[]a]+", &["a]a"], &["b"]),
            ("[\\]+x", &["\\\\x"], &["x"]),
            ("v[0-9]*", &["v1", "v1x"], &["vx"]),
        ] {
            let all = |names: &[&str], expected| {
                names.iter().for_each(|name| {
                    assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
                });
            };
            all(good, true);
            all(bad, false);
        }
    }

    #[test]
    fn a_plus_that_repeats_nothing_is_refused() {
        for pattern in
            ["v+", "+", "a*+", "{a,b}+", "[0-9]++", "[+]", "[]+]", r"\+", r"[a\]\+", r"\]+"]
        {
            let refusal = Patterns::new(&[pattern]).expect_err(pattern);
            assert!(refusal.to_string().contains("right after a class"), "{refusal}");
        }
        assert_eq!(
            refused("upstreams: [{ name: docker.io, tags: { immutable: [ok, \"v1+b\"] } }]"),
            "test.yaml: upstreams[0].tags.immutable[1]: `v1+b` has a `+` that can never match: \
             no name has one; write it right after a class, such as v[0-9]+, or leave it out"
        );
    }

    #[test]
    fn the_first_that_matches_counts() {
        let patterns = Patterns::new(&["latest", "v*", "**"]).expect("valid globs");
        let first = |name| patterns.first_match(name);
        assert_eq!((first("latest"), first("v1"), first("x")), (Some(0), Some(1), Some(2)));
    }

    #[test]
    fn a_class_stays_within_a_component_too() {
        assert!(!matches("library[!a]alpine", "library/alpine"));
        assert!(matches("library[!a]alpine", "library-alpine"));
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
