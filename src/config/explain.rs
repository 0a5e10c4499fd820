//! The effective configuration, each value with where it comes from.
//!
//! What is printed is YAML: the sources stand in comments, in one column.

use std::fmt::Write as _;

use serde_yaml::Value;

use super::origins::Origins;

/// Comments stand here, or behind longer values.
const COLUMN: usize = 48;

/// A longer value keeps its comment close.
const LONGEST: usize = 72;

const DIM: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

struct Printer<'a> {
    origins: &'a Origins,
    is_colourful: bool,
    out: String,
}

/// Prints `tree`, whose keys come from `origins`.
pub(super) fn explain(tree: &Value, origins: &Origins, is_colourful: bool) -> String {
    let mut printer = Printer { origins, is_colourful, out: String::new() };
    if let Value::Mapping(mapping) = tree {
        printer.mapping(mapping, "", 0, "");
    }
    printer.out
}

// === impl Printer ===

impl Printer<'_> {
    /// `first`: what stands before the first key, in place of its indentation.
    fn mapping(&mut self, mapping: &serde_yaml::Mapping, key: &str, indent: usize, first: &str) {
        let mut first = Some(first).filter(|first| !first.is_empty());
        for (name, value) in mapping {
            let name = name.as_str().unwrap_or_default();
            let inner = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
            let margin = first.take().map_or_else(|| " ".repeat(indent), str::to_owned);
            let printed = one_line(&Value::String(name.to_owned()));
            match value {
                Value::Null => {
                    // What has no default and is not set; its place must not be lost.
                    if margin.ends_with("- ") {
                        self.line(&format!("{margin}{printed}:"), &inner);
                    }
                }
                Value::Mapping(mapping) if !mapping.is_empty() => {
                    let _ = writeln!(self.out, "{margin}{printed}:");
                    self.mapping(mapping, &inner, indent + 2, "");
                }
                Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
                    let _ = writeln!(self.out, "{margin}{printed}:");
                    self.items(items, &inner, indent + 2);
                }
                Value::Sequence(items) => {
                    let text = format!("{margin}{printed}: {}", one_line(value));
                    self.list(&text, &inner, items.len());
                }
                value => self.line(&format!("{margin}{printed}: {}", one_line(value)), &inner),
            }
        }
    }

    fn items(&mut self, items: &[Value], key: &str, indent: usize) {
        let margin = format!("{}- ", " ".repeat(indent));
        for (index, item) in items.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match item {
                Value::Mapping(mapping) => self.mapping(mapping, &key, indent + 2, &margin),
                item => self.line(&format!("{margin}{}", one_line(item)), &key),
            }
        }
    }

    fn line(&mut self, text: &str, key: &str) {
        self.sourced(text, &self.source(key));
    }

    /// A list on one line: its entries may be of several sources.
    fn list(&mut self, text: &str, key: &str, count: usize) {
        let mut sources: Vec<String> = Vec::new();
        for index in 0..count {
            let entry = format!("{key}[{index}]");
            let is_known = self.origins.source(&entry).is_some();
            let source = self.source(if is_known { &entry } else { key });
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let source = if sources.is_empty() { self.source(key) } else { sources.join(", ") };
        self.sourced(text, &source);
    }

    fn sourced(&mut self, text: &str, source: &str) {
        let width = text.chars().count();
        let gap = if width < LONGEST { COLUMN.saturating_sub(width).max(2) } else { 2 };
        let (dim, plain) = if self.is_colourful { (DIM, PLAIN) } else { ("", "") };
        let _ = writeln!(self.out, "{text}{:gap$}{dim}# {source}{plain}", "");
    }

    fn source(&self, key: &str) -> String {
        // A flag sets a key with all that is in it.
        let mut outer = Some(key);
        while let Some(this) = outer {
            match self.origins.source(this) {
                Some(source) if this == key || source.is_flag() => {
                    return source.to_string().replace(char::is_control, "?");
                }
                _ => outer = this.rfind(['.', '[']).and_then(|end| this.get(..end)),
            }
        }
        "default".to_owned()
    }
}

/// As flow YAML.
fn one_line(value: &Value) -> String {
    match value {
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(one_line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(mapping) => {
            let entry =
                |(key, value): (&Value, &Value)| format!("{}: {}", one_line(key), one_line(value));
            let entries: Vec<_> = mapping.iter().map(entry).collect();
            if entries.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", entries.join(", "))
            }
        }
        Value::String(text) => quoted(text),
        other => serde_yaml::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}

/// Quoted where YAML would read something else, or a terminal do something with it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '%' | ':');
    let reads_as_text =
        matches!(serde_yaml::from_str::<Value>(text), Ok(Value::String(same)) if same == text);
    let begins = |c: char| c.is_alphanumeric() || matches!(c, '.' | '/' | '_');
    let is_plain = text.starts_with(begins) && text.chars().all(is_plain) && !text.ends_with(':');
    let is_safe = is_plain && reads_as_text;
    match is_safe {
        true => text.to_owned(),
        // JSON's strings are YAML's.
        false => serde_json::to_string(text).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Overrides, Sources};

    fn sources(file: Option<&Path>) -> Sources {
        let flags = Overrides { data: Some("/flag".into()), ..Overrides::default() };
        let variables = [("ROADSTEAD_STORE_MEMORY".into(), "1GiB".into())];
        Sources::new(file.map(Path::to_owned), flags).with_variables(variables)
    }

    fn explained(text: &str) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let printed = sources(Some(file.path())).explain(false).unwrap();
        (file, printed)
    }

    #[test]
    fn every_value_says_where_it_comes_from() {
        let text = "store:\n  disk: 7GiB\nupstreams:\n  - name: ghcr.io\n    deny: [\"a/**\"]\n";
        let (file, printed) = explained(text);
        let file = file.path().display();
        let line_of = |value: &str| {
            let line = printed.lines().find(|line| line.trim_start().starts_with(value));
            let line = line.unwrap_or_else(|| panic!("no {value} in\n{printed}"));
            line.split_once("# ").unwrap().1.to_owned()
        };
        assert_eq!(line_of("disk: 7GiB"), format!("{file}:2"));
        assert_eq!(line_of("- name: ghcr.io"), format!("{file}:4"));
        assert_eq!(line_of("deny: [\"a/**\"]"), format!("{file}:5"));
        assert_eq!(line_of("memory: 1GiB"), "ROADSTEAD_STORE_MEMORY");
        assert_eq!(line_of("directory: /flag"), "--data");
        assert_eq!(line_of("scrub_rate: 4MiB"), "default");
        assert_eq!(line_of("- address: 0.0.0.0:5000"), "default");
    }

    #[test]
    fn a_list_on_one_line_names_the_sources_of_its_entries() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "trusted_proxies: [10.0.0.1, 10.0.0.2]\n").unwrap();
        let variables = [("ROADSTEAD_TRUSTED_PROXIES_1".into(), "10.0.0.3".into())];
        let sources = Sources::new(Some(file.path().to_owned()), Overrides::default());
        let printed = sources.with_variables(variables).explain(false).unwrap();
        let line = printed.lines().find(|line| line.starts_with("trusted_proxies")).unwrap();
        let sources = format!("# {}:1, ROADSTEAD_TRUSTED_PROXIES_1", file.path().display());
        assert!(line.ends_with(&sources), "{line}");
    }

    #[test]
    fn what_is_printed_is_the_configuration() {
        let (_file, printed) = explained(
            "upstreams: [{ name: docker.io, tags: { fresh_for: { 'v[0-9]+*': 1d, '**': 5m }, immutable: ['*', 'true'] } }]",
        );
        let config =
            Config::parse(&printed, "printed").unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(config.store.directory.to_str(), Some("/flag"));
        assert_eq!(config.upstreams[0].tags.fresh_for.of("v1").as_secs(), 86_400);
    }

    #[test]
    fn no_secret_is_printed_and_colours_are_for_terminals() {
        let (_file, printed) = explained(
            "upstreams: [{ name: docker.io, credentials: { accounts: [{ username: me, password: hunter2 }] } }]",
        );
        assert!(printed.contains("***") && !printed.contains("hunter2"), "{printed}");
        assert!(!printed.contains('\u{1b}'));
        assert!(sources(None).explain(true).unwrap().contains('\u{1b}'));
    }
}
