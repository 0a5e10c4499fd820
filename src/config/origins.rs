//! Where each value comes from: a line of the file, a variable, a flag; or, without a word, the default.

use std::collections::BTreeMap;
use std::fmt;

use serde_yaml::Value;
use yaml_edit::{Document, Mapping, Sequence, YamlNode};

/// Who says what a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A line of the file, from 1; 0 where it is not known.
    Line(String, usize),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

/// Every key that somebody has set, down to the last: `upstreams[0].tags.fresh_for`.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    known: BTreeMap<String, Source>,
    /// Keys whose inner keys have no line of their own, for they stand elsewhere (`*alias`).
    wholes: Vec<String>,
}

// === impl Source ===

impl Source {
    pub(super) fn is_flag(&self) -> bool {
        matches!(self, Self::Flag(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, 0) => out.write_str(file),
            Self::Line(file, line) => write!(out, "{file}:{line}"),
            Self::Variable(name) => out.write_str(name),
            Self::Flag(flag) => out.write_str(flag),
        }
    }
}

// === impl Origins ===

impl Origins {
    /// Those of a file's text.
    pub(super) fn of(text: &str, file: &str) -> Self {
        let mut origins = Self::default();
        let Ok(document) = text.parse::<Document>() else { return origins };
        let lines = Lines { text, file };
        if let Some(mapping) = document.as_mapping() {
            origins.add_mapping(&lines, "", &mapping);
        }
        origins
    }

    fn add_mapping(&mut self, lines: &Lines<'_>, before: &str, mapping: &Mapping) {
        for entry in mapping.entries() {
            let Some(key) = entry.key_node() else { continue };
            let name = key.as_scalar().map(|scalar| scalar.as_string()).unwrap_or_default();
            let name = match before {
                "" => name,
                before => format!("{before}.{name}"),
            };
            self.add(lines, name, &key, entry.value_node().as_ref());
        }
    }

    fn add_sequence(&mut self, lines: &Lines<'_>, before: &str, sequence: &Sequence) {
        for (index, item) in sequence.values().enumerate() {
            self.add(lines, format!("{before}[{index}]"), &item, Some(&item));
        }
    }

    /// `at`: what stands on the line that is meant.
    fn add(&mut self, lines: &Lines<'_>, key: String, at: &YamlNode, value: Option<&YamlNode>) {
        match value {
            Some(YamlNode::Mapping(mapping)) => self.add_mapping(lines, &key, mapping),
            Some(YamlNode::Sequence(sequence)) => self.add_sequence(lines, &key, sequence),
            Some(YamlNode::Scalar(_)) | None => {}
            Some(_) => self.wholes.push(key.clone()),
        }
        self.known.insert(key, lines.source(at));
    }

    /// `key`, and all that is in `value`, is from `source`.
    pub(super) fn replace(&mut self, key: &str, value: &Value, source: &Source) {
        self.known.retain(|known, _| !is_within(known, key));
        self.wholes.retain(|known| !is_within(known, key));
        self.note(key.to_owned(), value, source);
    }

    fn note(&mut self, key: String, value: &Value, source: &Source) {
        match value {
            Value::Mapping(mapping) => {
                for (name, value) in mapping.iter().filter(|(_, value)| !value.is_null()) {
                    let name = name.as_str().unwrap_or_default();
                    self.note(format!("{key}.{name}"), value, source);
                }
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(format!("{key}[{index}]"), item, source);
                }
            }
            _ => {}
        }
        self.known.insert(key, source.clone());
    }

    /// Whatever of the file's `tree` is not known yet is from the file too, on a line that is not known.
    pub(super) fn complete(&mut self, tree: &Value, file: &str) {
        let mut all = Self::default();
        all.note(String::new(), tree, &Source::Line(file.to_owned(), 0));
        for (key, source) in all.known {
            let key = key.trim_start_matches('.').to_owned();
            if self.source(&key).is_none() {
                self.known.insert(key, source);
            }
        }
    }

    /// `key` as a whole is from a flag, whatever it holds.
    pub(super) fn flag(&mut self, key: &str, flag: &'static str) {
        self.replace(key, &Value::Null, &Source::Flag(flag));
    }

    /// Who has set `key`, if anybody.
    pub(super) fn source(&self, key: &str) -> Option<&Source> {
        let whole = || {
            let whole = self.wholes.iter().find(|whole| is_within(key, whole))?;
            self.known.get(whole)
        };
        self.known.get(key).or_else(whole)
    }

    /// The variable that has set `key`, or what it stands in; and what the variable has set.
    pub(super) fn variable(&self, key: &str) -> Option<(&str, &str)> {
        let mut outer = Some(key);
        let nearest = std::iter::from_fn(|| {
            let this = outer?;
            outer = this.rfind(['.', '[']).and_then(|end| this.get(..end));
            Some(this)
        });
        let set = nearest.filter_map(|key| self.known.get_key_value(key));
        let mut variables = set.map_while(|(key, source)| match source {
            Source::Variable(name) => Some((name.as_str(), key.as_str())),
            _ => None,
        });
        let first = variables.next()?;
        // Of keys that one variable has set, the outermost is its own.
        Some(variables.take_while(|(name, _)| *name == first.0).last().unwrap_or(first))
    }
}

fn is_within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

struct Lines<'a> {
    text: &'a str,
    file: &'a str,
}

// === impl Lines ===

impl Lines<'_> {
    fn source(&self, at: &YamlNode) -> Source {
        let start = at.byte_range().start as usize;
        let before = self.text.get(..start).unwrap_or_default();
        Source::Line(self.file.to_owned(), before.matches('\n').count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_file_has_its_line() {
        let text = "# first\nstore:\n  disk: 1GiB\n\nupstreams:\n  - name: docker.io\n    tags: { fresh_for: 1m,\n            cooldown: 3d }\n  - &two\n    name: ghcr.io\n";
        let origins = Origins::of(text, "a.yaml");
        for (key, line) in [
            ("store", 2),
            ("store.disk", 3),
            ("upstreams[0].name", 6),
            ("upstreams[0].tags.fresh_for", 7),
            ("upstreams[0].tags.cooldown", 8),
            ("upstreams[1].name", 10),
        ] {
            let found = origins.source(key);
            assert_eq!(found, Some(&Source::Line("a.yaml".into(), line)), "{key}: {origins:?}");
        }
        assert_eq!(origins.source("store.memory"), None);
    }

    #[test]
    fn what_has_no_line_is_still_the_file_s() {
        let mut origins = Origins::of("store: { disk: 1GiB }", "a.yaml");
        let tree =
            serde_yaml::from_str("{ store: { disk: 1GiB, memory: ~ }, fill: { retries: 1 } }");
        origins.complete(&tree.unwrap(), "a.yaml");
        let source = |key| origins.source(key).map(ToString::to_string);
        assert_eq!(source("store.disk").as_deref(), Some("a.yaml:1"));
        assert_eq!(source("fill.retries").as_deref(), Some("a.yaml"));
        assert_eq!(source("store.memory"), None);
    }

    #[test]
    fn a_variable_is_told_for_what_stands_in_it() {
        let mut origins = Origins::of("store: { disk: 1GiB }", "a.yaml");
        let value = serde_yaml::from_str("{ memory: 1GiB }").unwrap();
        origins.replace("store", &value, &Source::Variable("STORE".into()));
        assert_eq!(origins.source("store.disk"), None, "it was replaced");
        assert_eq!(origins.variable("store.memory"), Some(("STORE", "store")));
        assert_eq!(origins.variable("store.disk"), Some(("STORE", "store")));
        assert_eq!(origins.variable("fill.chunk"), None);
    }
}
