//! What can be wrong with a configuration, and how it is told to its author.
//!
//! Every problem is one line: `FILE: KEY: what is wrong; remedy`. Problems are
//! collected, so that one run of `roadstead check` shows them all. No line ever
//! quotes a secret.

use std::cell::RefCell;
use std::fmt;
use std::io;

use super::origins::Origins;

/// A configuration that can't be used; `Display` prints one line per problem.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file couldn't be read as text.
    #[error("{origin}: {refusal}")]
    Unreadable {
        /// The path as given.
        origin: String,
        /// What is wrong, and the remedy.
        refusal: Refusal,
        /// The system's own words.
        source: io::Error,
    },
    /// The text was read, and these are its faults, in the order of the keys; never empty.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One fault in a configuration file or on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's path as given, `environment`, or `command line`.
    pub origin: String,
    /// The key (`upstreams[0].tags.fresh_for`), the variable, the flag (`--listen`), or `line 3, column 5`.
    pub key: String,
    /// What is wrong, and the remedy.
    pub refusal: Refusal,
}

/// Why a single value is refused, without saying where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Refusal {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

/// The problems found so far; `Scope`s point into it.
#[derive(Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    /// Of the values that are looked at.
    origins: Origins,
}

/// A place in the configuration: problems found under it are reported with its key.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    report: &'a Report,
    origin: &'a str,
    key: String,
}

// === impl ConfigError ===

impl ConfigError {
    /// Each of its faults.
    pub fn into_problems(self) -> Vec<Problem> {
        match self {
            Self::Unreadable { origin, refusal, .. } => {
                vec![Problem { origin, key: String::new(), refusal }]
            }
            Self::Invalid(problems) => problems,
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

// === impl Problem ===

impl Problem {
    /// Tells it of the variable that has set the key, if one has.
    pub(super) fn blame_variable(&mut self, origins: &Origins) {
        if let Some((name, key)) = origins.variable(&self.key) {
            "environment".clone_into(&mut self.origin);
            self.key = match self.key == key {
                true => name.to_owned(),
                false => format!("{name} ({})", self.key),
            };
        }
    }

    /// What a valid configuration asks for that can't be.
    pub fn of_start(what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        let origin = "configuration".to_owned();
        Self { origin, key: String::new(), refusal: Refusal::new(what, remedy) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        write!(out, "{}", self.refusal)
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { what: what.to_string(), remedy: remedy.to_string() }
    }
}

/// A value as an error line may quote it: in backticks, on one line, at most 60 characters,
/// and without what stands before an `@`, which may be a password.
pub(super) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let value = match value.rsplit_once('@') {
        Some((_, public)) => format!("***@{public}"),
        None => value.to_owned(),
    };
    let mut shown: String = value.chars().take(LONGEST).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("`{}`", shown.escape_debug())
}

// === impl Report ===

impl Report {
    /// Of values that come from these.
    pub(super) fn of(origins: Origins) -> Self {
        Self { origins, ..Self::default() }
    }

    pub(super) fn into_origins(self) -> Origins {
        self.origins
    }

    pub(super) fn scope<'a>(&'a self, origin: &'a str) -> Scope<'a> {
        Scope { report: self, origin, key: String::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    pub(super) fn into_error(self) -> ConfigError {
        ConfigError::Invalid(self.problems.into_inner())
    }
}

// === impl Scope ===

impl Scope<'_> {
    /// The place of `field` in this mapping.
    pub(super) fn at(&self, field: &str) -> Self {
        let key =
            if self.key.is_empty() { field.to_owned() } else { format!("{}.{field}", self.key) };
        Self { key, ..self.clone() }
    }

    /// The place of the entry number `index` in this list.
    pub(super) fn item(&self, index: usize) -> Self {
        let key = format!("{}[{index}]", self.key);
        Self { key, ..self.clone() }
    }

    pub(super) fn refuse(&self, what: impl fmt::Display, remedy: impl fmt::Display) {
        let (origin, key) = (self.origin.to_owned(), self.key.clone());
        let mut problem = Problem { origin, key, refusal: Refusal::new(what, remedy) };
        problem.blame_variable(&self.report.origins);
        self.report.problems.borrow_mut().push(problem);
    }

    /// The value; a refusal is reported here and gives `None`.
    pub(super) fn check<T>(&self, outcome: Result<T, Refusal>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(Refusal { what, remedy }) => {
                self.refuse(what, remedy);
                None
            }
        }
    }

    /// Each entry of a list, parsed; refused ones are reported at their index and left out.
    pub(super) fn each<T>(
        &self,
        entries: &[String],
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Vec<T> {
        entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| self.item(index).check(parse(entry)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_file_key_and_remedy() {
        let report = Report::default();
        let scope = report.scope("a.yaml").at("upstreams").item(1).at("url");
        scope.refuse("is missing", "add it");
        assert_eq!(report.into_error().to_string(), "a.yaml: upstreams[1].url: is missing; add it");
    }

    #[test]
    fn a_quoted_value_stays_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 63);
    }

    #[test]
    fn a_quoted_value_shows_nothing_before_an_at_sign() {
        assert_eq!(quoted("https://me:hunter2@a.io"), "`***@a.io`");
    }
}
