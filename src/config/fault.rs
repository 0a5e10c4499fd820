//! serde's and the YAML parser's messages, turned into lines with a key and a remedy.
//!
//! They come as text alone, and may quote a value, which may be a secret in the wrong place:
//! no value of theirs is repeated.

use super::nearest::nearest;
use super::problem::{Problem, Refusal};

/// What serde or the YAML parser found wrong.
enum Fault<'a> {
    UnknownKey { name: &'a str, known: Vec<&'a str> },
    DuplicateKey { name: &'a str },
    WrongType { found: &'a str, expected: &'a str },
    SeveralDocuments,
    Syntax,
}

impl<'a> Fault<'a> {
    /// `derive(Deserialize)` and `serde_yaml` give their findings as text alone.
    fn classify(message: &'a str) -> Self {
        let after =
            |start: &str| message.find(start).and_then(|at| message.get(at + start.len()..));
        if let Some((name, known)) =
            after("unknown field `").and_then(|s| s.rsplit_once("`, expected "))
        {
            let known = known.split('`').skip(1).step_by(2).collect();
            return Self::UnknownKey { name, known };
        }
        if let Some((name, _)) = after("duplicate field `").and_then(|s| s.split_once('`')) {
            return Self::DuplicateKey { name };
        }
        if let Some((found, expected)) =
            after("invalid type: ").and_then(|s| s.rsplit_once(", expected "))
        {
            return Self::WrongType { found, expected };
        }
        if message.contains("more than one document") {
            return Self::SeveralDocuments;
        }
        Self::Syntax
    }
}

/// serde's error as a problem; `path` is where it stopped reading.
pub(super) fn explain(origin: &str, path: &str, error: &serde_yaml::Error) -> Problem {
    let place = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let (line, column) = place;
    let message = error.to_string().replacen(&format!(" at line {line} column {column}"), "", 1);
    // `.` is the root, and a `?` ends the path to a key that could not be read.
    let path = path.trim_end_matches('?').trim_end_matches('.').to_owned();
    let (key, refusal) = match Fault::classify(&message) {
        Fault::UnknownKey { name, known } => unknown_key(&path, name, &known, line),
        Fault::DuplicateKey { name } => {
            let key = [path.as_str(), name].join(if path.is_empty() { "" } else { "." });
            (key, Refusal::new("is written twice", "keep one"))
        }
        Fault::WrongType { found, expected } => {
            let what = format!("is {}{}", kind(found), at(line));
            (path, Refusal::new(what, format!("write {}", wanted(expected))))
        }
        Fault::SeveralDocuments => {
            (path, Refusal::new("has more than one YAML document", "keep one, and remove `---`"))
        }
        Fault::Syntax => (format!("line {line}, column {column}"), bad_syntax(&message)),
    };
    Problem {
        origin: origin.to_owned(),
        // A quoted key may hold a line break, and a problem is one line.
        key: key.replace(char::is_control, "?"),
        refusal,
    }
}

/// A variable has no lines.
fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" (line {line})") }
}

fn unknown_key(path: &str, name: &str, known: &[&str], line: usize) -> (String, Refusal) {
    let guess = nearest(name, known);
    let known = known.join(", ");
    let remedy = match guess {
        Some(guess) => format!("did you mean {guess}? known here: {known}"),
        None => format!("known here: {known}"),
    };
    let parent = path.strip_suffix(name).unwrap_or(path).trim_end_matches('.');
    // `{user:hunter2}`, without a space, is a key to YAML: only near misses are repeated there.
    let key = match parent.contains("credentials") && guess.is_none() {
        true => parent.to_owned(),
        false => path.to_owned(),
    };
    let what = match key == path {
        true => format!("is not a known key{}", at(line)),
        false => format!("has an unknown key{}", at(line)),
    };
    (key, Refusal::new(what, remedy))
}

/// The kind of value alone: the value itself may be a secret in the wrong place.
fn kind(found: &str) -> &'static str {
    const KINDS: [(&str, &str); 8] = [
        ("string", "a text"),
        ("integer", "a number"),
        ("floating point", "a number"),
        ("boolean", "true or false"),
        ("sequence", "a list"),
        ("map", "a mapping"),
        ("unit", "empty"),
        ("newtype", "a tagged value"),
    ];
    let known = KINDS.iter().find(|(start, _)| found.starts_with(start));
    known.map_or("something else", |(_, kind)| kind)
}

fn wanted(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list, such as `[a, b]`",
        "a string" => "a single value",
        "field identifier" => "a key",
        described => described,
    }
}

fn bad_syntax(message: &str) -> Refusal {
    let remedy = match message {
        tab if tab.contains("cannot start any token") => {
            "indent with spaces, not tabs, and put quotes around text that starts with a special character"
        }
        colon if colon.contains("mapping values are not allowed") => {
            "put quotes around a value that has `: ` in it, or correct the indentation"
        }
        _ => "correct the indentation, quotes or brackets there",
    };
    Refusal::new(format!("is not valid YAML ({message})"), remedy)
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_and_all_known() {
        assert_eq!(
            refused("upstreams:\n- name: docker.io\n  tags: { fresh_fro: 1m }"),
            "test.yaml: upstreams[0].tags.fresh_fro: is not a known key (line 3); \
             did you mean fresh_for? known here: fresh_for, serve_stale_for, immutable, cooldown"
        );
        assert_eq!(
            refused("shutdown: { zebra: 1 }"),
            "test.yaml: shutdown.zebra: is not a known key (line 1); known here: drain"
        );
        assert!(
            refused("lisen: []")
                .starts_with("test.yaml: lisen: is not a known key (line 1); did you mean listen?")
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_the_right_one() {
        for (text, line) in [
            (
                "store: 5",
                "store: is a number (line 1); write a mapping such as { directory: DIR, disk: 100GiB }",
            ),
            (
                "trusted_proxies: 10.0.0.0/8",
                "trusted_proxies: is a text (line 1); write a list, such as `[a, b]`",
            ),
            ("store: { disk: [1] }", "store.disk: is a list (line 1); write a single value"),
            (
                "upstreams: [docker.io]",
                "upstreams[0]: is a text (line 1); write a mapping such as { name: docker.io }",
            ),
            ("[a]", "is a list (line 1); write a mapping of keys"),
            ("? [a]\n: b", "is a list (line 1); write a key"),
        ] {
            assert_eq!(refused(text), format!("test.yaml: {line}"));
        }
    }

    #[test]
    fn a_strange_key_still_makes_one_line() {
        assert_eq!(refused("\"a\\nb\": 1").lines().count(), 1);
    }

    #[test]
    fn a_key_written_twice_is_refused() {
        assert_eq!(refused("store: {}\nstore: {}"), "test.yaml: store: is written twice; keep one");
        assert_eq!(
            refused("store: { disk: 1GiB, disk: 2GiB }"),
            "test.yaml: store.disk: is written twice; keep one"
        );
    }

    #[test]
    fn bad_yaml_is_refused_with_line_and_column() {
        let line = refused("store:\n  disk: 1GiB\n memory: 1GiB");
        assert!(line.starts_with("test.yaml: line 3, column 2: is not valid YAML ("), "{line}");
        let line = refused("store:\n\tdisk: 1GiB");
        assert!(
            line.starts_with("test.yaml: line 2, column 1: ") && line.contains("not tabs"),
            "{line}"
        );
        assert!(refused("store: { disk: a: b }\n").contains("line 1, column "));
        assert!(refused("store: *missing").contains("unknown anchor"));
        assert!(refused("store: {}\n---\nfill: {}").contains("more than one YAML document"));
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        for account in [
            "[\"me:hunter2\"]",
            "[{user:hunter2}]",
            "hunter2",
            "[{ username: a, password: [hunter2] }]",
            "[{ username: a, password_env: hunter2 }]",
            "[{ username: a, password_file: hunter2 }]",
        ] {
            let line = refused(&format!(
                "upstreams: [{{ name: a, credentials: {{ accounts: {account} }} }}]"
            ));
            assert!(line.contains("upstreams[0].credentials.accounts"), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
        let typo =
            refused("upstreams: [{ name: a, credentials: { accounts: [{ pasword: hunter2 }] } }]");
        assert!(typo.contains("did you mean password?") && !typo.contains("hunter2"), "{typo}");
        assert!(!refused("upstreams: [\"https://me:hunter2@a.io\"]").contains("hunter2"));
        assert!(
            !refused("upstreams: [{ name: a, url: a.io, hosts: [\"me:hunter2@a.io\"] }]")
                .contains("hunter2")
        );
    }
}
