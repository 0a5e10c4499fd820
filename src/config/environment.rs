//! `ROADSTEAD_*`: every key as a variable of the environment.
//!
//! A variable's name is the key's path in capitals, joined by `_`, entries of lists by their number:
//! `ROADSTEAD_STORE_DISK`, `ROADSTEAD_UPSTREAMS_0_TAGS_FRESH_FOR`. A plain value is taken as it is; a
//! list or a mapping is written as YAML, and replaces the file's. Numbered, an entry's keys are set
//! one by one, beside those that the file has. `NAME_FILE` names a file with the value, for what
//! should not stand in an environment. An empty variable is none. The names are those of the schema,
//! and unknown ones are refused as unknown keys are.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Schema;
use serde_yaml::Value;

use super::files::unopenable;
use super::nearest::nearest;
use super::origins::{Origins, Source};
use super::problem::{Problem, Refusal};
use super::schema::schema;
use super::secret::Secret;

/// What all of them begin with.
pub(super) const PREFIX: &str = "ROADSTEAD_";

/// Where the value is read from a file.
const FILE: &str = "_FILE";

/// Variables that begin alike and are no keys; each with whose it is.
const OTHERS: [(&str, &str); 18] = [
    ("ROADSTEAD_HANDOVER", "a server, for its successor"),
    ("ROADSTEAD_ADMIN_USER", "the command line, to log in"),
    ("ROADSTEAD_ADMIN_PASSWORD_FILE", "the command line, to log in"),
    ("ROADSTEAD_ADMIN_CLIENT_CERTIFICATE", "the command line, to log in"),
    ("ROADSTEAD_ADMIN_CLIENT_KEY", "the command line, to log in"),
    ("ROADSTEAD_BIN", "the tests"),
    ("ROADSTEAD_BINARY", "the tests"),
    ("ROADSTEAD_LAB", "the tests"),
    ("ROADSTEAD_PAGES", "the tests"),
    ("ROADSTEAD_SEED", "the tests"),
    ("ROADSTEAD_MEMORY_MIB", "the tests"),
    ("ROADSTEAD_EXAMPLES", "the tests"),
    ("ROADSTEAD_REQUIRE", "the tests"),
    ("ROADSTEAD_CYCLES", "the tests"),
    ("ROADSTEAD_INJECTIONS", "the tests"),
    ("ROADSTEAD_POWER_CUTS", "the tests"),
    ("ROADSTEAD_SOAK", "the tests"),
    ("ROADSTEAD_UNSET", "the tests"),
];

/// The first entry of each list that is not empty by default: what it is known by, unless one of
/// these is said of it.
const DEFAULTS: [(&str, &str, &str, &[&str]); 2] = [
    ("upstreams", "name", "docker.io", &["name", "url"]),
    ("listen", "address", "0.0.0.0:5000", &["address"]),
];

/// What names a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: Vec<Step>,
    form: &'static Schema,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(&'static str),
    Item(usize),
}

/// Sets what the variables say in `tree`, and notes in `origins` that they did; answers what is wrong
/// with them.
pub(super) fn overlay(
    tree: &mut Value,
    variables: &[(String, Secret)],
    origins: &mut Origins,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    // In this order what is set as a whole comes before what is set in it, and entry by entry.
    let mut found: BTreeMap<Vec<Step>, (Place, &str, String)> = BTreeMap::new();
    for (name, text) in variables {
        let text = text.expose();
        if !is_key(name, text) {
            continue;
        }
        match read(name, text) {
            Ok((place, text)) => {
                let path = place.path.clone();
                if let Some((_, other, _)) = found.insert(path, (place, name, text)) {
                    let refusal = Refusal::new(format!("{other} is set too"), "keep one of them");
                    problems.push(problem(name, refusal));
                }
            }
            Err(refusal) => problems.push(problem(name, refusal)),
        }
    }
    begin(tree, &found.keys().collect::<Vec<_>>());
    for (place, name, text) in found.into_values() {
        let set = place.value(&text).and_then(|value| {
            origins.replace(&place.key(), &value, &Source::Variable(name.to_owned()));
            put(tree, &place.path, value)
        });
        if let Err(refusal) = set {
            problems.push(problem(name, refusal));
        }
    }
    problems
}

/// Where only entries are changed of a list that the file has not, they are those of the default.
fn begin(tree: &mut Value, paths: &[&Vec<Step>]) {
    for (list, key, value, others) in DEFAULTS {
        let is_free = tree.get(list).is_none_or(Value::is_null);
        let is_whole = |path: &&Vec<Step>| ***path == [Step::Key(list)];
        let mut inner = paths.iter().filter(|path| path.first() == Some(&Step::Key(list)));
        if !is_free || paths.iter().any(is_whole) || inner.next().is_none() {
            continue;
        }
        let says = |key: &'static str| {
            let path = [Step::Key(list), Step::Item(0), Step::Key(key)];
            paths.iter().any(|other| ***other == path)
        };
        if !others.iter().copied().any(says) {
            let path = [Step::Key(list), Step::Item(0), Step::Key(key)];
            // What is put into an empty list has its place there.
            let _ = put(tree, &path, Value::String(value.to_owned()));
        }
    }
}

fn problem(name: &str, refusal: Refusal) -> Problem {
    Problem { origin: "environment".to_owned(), key: name.to_owned(), refusal }
}

/// Whether a variable is meant for the configuration.
fn is_key(name: &str, text: &str) -> bool {
    name.starts_with(PREFIX)
        && !text.is_empty()
        && !OTHERS.iter().any(|(other, _)| *other == name)
        && !is_service_link(name, text)
}

/// Kubernetes puts the addresses of a Service that is named roadstead, or roadstead-admin, into the
/// environment of every pod beside it.
fn is_service_link(name: &str, text: &str) -> bool {
    if let Some((before, after)) = name.rsplit_once("_PORT_") {
        let number = after.split('_').next().unwrap_or_default();
        return before.ends_with("_SERVICE") || number.parse::<u16>().is_ok();
    }
    let is_link = name.ends_with("_PORT") && text.contains("://");
    is_link || name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT")
}

/// The key that a variable names, and its value.
fn read(name: &str, text: &str) -> Result<(Place, String), Refusal> {
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    if let Some(place) = place(rest, schema()) {
        return Ok((place, text.to_owned()));
    }
    let in_file = rest.strip_suffix(FILE).and_then(|rest| place(rest, schema()));
    let Some(place) = in_file else { return Err(unknown(rest)) };
    let read = std::fs::read_to_string(text);
    let read = read.map_err(|error| unopenable(Some(Path::new(text)), &error))?;
    Ok((place, read.trim_end_matches(['\r', '\n']).to_owned()))
}

fn unknown(rest: &str) -> Refusal {
    let (plain, numbers) = numbered(rest);
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let remedy = match nearest(&plain, &names) {
        Some(guess) => {
            let guess = filled(guess, &numbers);
            format!("did you mean {PREFIX}{guess}? `roadstead check --variables` lists all")
        }
        None => "remove it; `roadstead check --variables` lists all".to_owned(),
    };
    Refusal::new("is not a known variable", remedy)
}

/// A name with `N` for each number, and the numbers.
fn numbered(rest: &str) -> (String, Vec<usize>) {
    let mut numbers = Vec::new();
    let parts = rest.split('_').map(|part| match part.parse() {
        Ok(number) => {
            numbers.push(number);
            "N"
        }
        Err(_) => part,
    });
    let plain = parts.collect::<Vec<_>>().join("_");
    (plain, numbers)
}

/// The other way round; a number that is missing is 0.
fn filled(plain: &str, numbers: &[usize]) -> String {
    let mut numbers = numbers.iter().copied();
    let parts = plain.split('_').map(|part| match part {
        "N" => numbers.next().unwrap_or(0).to_string(),
        part => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("_")
}

/// Every variable that sets a key, with `N` for the numbers of entries.
pub fn variables() -> Vec<String> {
    names().into_iter().map(|name| format!("{PREFIX}{name}")).collect()
}

fn names() -> Vec<String> {
    let mut names = Vec::new();
    list(&mut names, "", schema());
    names
}

fn list(names: &mut Vec<String>, before: &str, form: &Schema) {
    let inner = form.get("properties").and_then(Schema::as_object);
    for (key, form) in inner.into_iter().flatten() {
        let name = format!("{before}{}", key.to_ascii_uppercase());
        list(names, &format!("{name}_"), form);
        names.push(name);
    }
    match form.get("items") {
        Some(item) if item.get("properties").is_some() => {
            list(names, &format!("{before}N_"), item);
        }
        Some(_) => names.push(format!("{before}N")),
        None => {}
    }
}

/// The place that a name leads to from here, if it leads anywhere.
fn place(rest: &str, form: &'static Schema) -> Option<Place> {
    let join = |step: Step, found: Place| {
        let path = std::iter::once(step).chain(found.path).collect();
        Some(Place { path, form: found.form })
    };
    let after = |rest: &str, form| match rest.strip_prefix('_') {
        Some(rest) => place(rest, form),
        None => rest.is_empty().then_some(Place { path: Vec::new(), form }),
    };
    if let Some(item) = form.get("items") {
        let end = rest.find('_').unwrap_or(rest.len());
        let (number, rest) = rest.split_at_checked(end)?;
        return join(Step::Item(number.parse().ok()?), after(rest, item)?);
    }
    let keys = form.get("properties")?.as_object()?;
    keys.iter().find_map(|(key, form)| {
        let rest = rest.strip_prefix(&key.to_ascii_uppercase())?;
        join(Step::Key(key), after(rest, form)?)
    })
}

// === impl Place ===

impl Place {
    fn key(&self) -> String {
        let mut key = String::new();
        for step in &self.path {
            match step {
                Step::Key(name) if key.is_empty() => key.push_str(name),
                Step::Key(name) => key.push_str(&format!(".{name}")),
                Step::Item(index) => key.push_str(&format!("[{index}]")),
            }
        }
        key
    }

    fn is(&self, kind: &str) -> bool {
        match self.form.get("type") {
            Some(Schema::Array(kinds)) => kinds.iter().any(|one| one == kind),
            Some(one) => one == kind,
            None => false,
        }
    }

    /// What the text stands for here.
    fn value(&self, text: &str) -> Result<Value, Refusal> {
        if self.is("boolean") {
            return match text.trim() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(Refusal::new("is neither true nor false", "write true or false")),
            };
        }
        let is_list = self.is("array");
        if !is_list && !self.is("object") {
            return Ok(Value::String(text.to_owned()));
        }
        let example = if is_list { "[a, b]" } else { "{ key: value }" };
        let value = serde_yaml::from_str(text).map_err(|_| {
            // What is wrong may quote a secret.
            Refusal::new("is not valid YAML", format!("write it on one line, such as {example}"))
        })?;
        as_written(value)
    }
}

/// Numbers as text, as the file's are read; one with a point would not be what was written.
pub(super) fn as_written(value: Value) -> Result<Value, Refusal> {
    Ok(match value {
        Value::Number(number) if number.is_f64() => {
            return Err(Refusal::new("has a number with a point", "put quotes around it"));
        }
        Value::Number(number) => Value::String(number.to_string()),
        Value::Sequence(items) => {
            Value::Sequence(items.into_iter().map(as_written).collect::<Result<_, _>>()?)
        }
        Value::Mapping(mapping) => {
            let entries = mapping.into_iter().map(|(key, value)| Ok((key, as_written(value)?)));
            Value::Mapping(entries.collect::<Result<_, Refusal>>()?)
        }
        other => other,
    })
}

/// Puts `value` at a place, with what leads there.
fn put(tree: &mut Value, path: &[Step], value: Value) -> Result<(), Refusal> {
    let Some((step, rest)) = path.split_first() else {
        *tree = value;
        return Ok(());
    };
    match step {
        Step::Key(name) => {
            if !tree.is_mapping() {
                *tree = Value::Mapping(serde_yaml::Mapping::new());
            }
            let inner = tree.as_mapping_mut().map(|mapping| {
                mapping.entry(Value::String((*name).to_owned())).or_insert(Value::Null)
            });
            inner.map_or(Ok(()), |inner| put(inner, rest, value))
        }
        Step::Item(index) => {
            if !tree.is_sequence() {
                *tree = Value::Sequence(Vec::new());
            }
            let Some(items) = tree.as_sequence_mut() else { return Ok(()) };
            let count = items.len();
            if *index > count {
                let what = format!("there is no entry {count} before it");
                return Err(Refusal::new(what, "number the entries from 0, without gaps"));
            }
            if *index == count {
                items.push(Value::Null);
            }
            items.get_mut(*index).map_or(Ok(()), |item| put(item, rest, value))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use super::super::{Config, Sources};
    use super::*;

    fn with(file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let set = |(name, text): &(&str, &str)| ((*name).into(), (*text).into());
        let sources = Sources::default().with_variables(variables.iter().map(set));
        sources.parse(file, "test.yaml").map_err(|error| error.to_string())
    }

    fn set(file: &str, variables: &[(&str, &str)]) -> Config {
        with(file, variables).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        with("", variables).map(|_| ()).expect_err("refused")
    }

    #[test]
    fn no_two_keys_have_one_name() {
        let names = names();
        assert!(names.len() > 90, "{}", names.len());
        assert!(names.iter().any(|name| name == "ACCESS_ALLOW_N"), "{names:?}");
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in &names {
            let found = place(&filled(name, &[7, 7, 7]), schema());
            let found = found.unwrap_or_else(|| panic!("{name} leads nowhere"));
            let back: String = found.key().replace("[7]", "_N").replace('.', "_");
            assert_eq!(back.to_uppercase(), *name);
        }
    }

    #[test]
    fn a_variable_wins_over_the_file() {
        let config = set(
            "store: { disk: 1GiB, memory: 2MiB }\nupstreams: [{ name: docker.io, deny: [a] }]",
            &[
                ("ROADSTEAD_STORE_DISK", "3GiB"),
                ("ROADSTEAD_UPSTREAMS_0_TAGS_FRESH_FOR", "9s"),
                ("ROADSTEAD_UPSTREAMS_0_OFFLINE", "true"),
                ("ROADSTEAD_UPSTREAMS_1_NAME", "ghcr.io"),
                ("ROADSTEAD_TRUSTED_PROXIES", "[10.0.0.0/8]"),
                ("ROADSTEAD_FILL_RETRIES", ""),
                ("PATH", "/bin"),
            ],
        );
        let expected = "store: { disk: 3GiB, memory: 2MiB }\ntrusted_proxies: [10.0.0.0/8]\n\
            upstreams: [{ name: docker.io, deny: [a], tags: { fresh_for: 9s }, offline: true }, { name: ghcr.io }]";
        assert_eq!(config, Config::parse(expected, "expected").unwrap());
    }

    #[test]
    fn a_whole_list_replaces_the_file_s_and_its_entries_can_be_changed() {
        let config = set(
            "upstreams: [{ name: docker.io }, { name: ghcr.io }]",
            &[
                ("ROADSTEAD_UPSTREAMS_0_WRITES", "forward"),
                (
                    "ROADSTEAD_UPSTREAMS",
                    "[{ name: quay.io, tags: { fresh_for: { latest: 30s, '**': 1h } } }]",
                ),
            ],
        );
        let text = "upstreams: [{ name: quay.io, writes: forward, tags: { fresh_for: { latest: 30s, '**': 1h } } }]";
        assert_eq!(config, Config::parse(text, "expected").unwrap());
    }

    #[test]
    fn entries_of_a_list_that_nobody_wrote_are_the_default_s() {
        for (variables, text) in [
            (
                &[("ROADSTEAD_UPSTREAMS_0_OFFLINE", "true")][..],
                "upstreams: [{ name: docker.io, offline: true }]",
            ),
            (
                &[("ROADSTEAD_UPSTREAMS_1_NAME", "ghcr.io")],
                "upstreams: [{ name: docker.io }, { name: ghcr.io }]",
            ),
            (
                &[
                    ("ROADSTEAD_UPSTREAMS_0_NAME", "a.io"),
                    ("ROADSTEAD_UPSTREAMS_0_URL", "https://b.io"),
                ],
                "upstreams: [{ name: a.io, url: 'https://b.io' }]",
            ),
            (&[("ROADSTEAD_UPSTREAMS_0_NAME", "quay.io")], "upstreams: [{ name: quay.io }]"),
            (
                &[("ROADSTEAD_LISTEN_1_ADDRESS", "127.0.0.1:7")],
                "listen: [{ address: '0.0.0.0:5000' }, { address: '127.0.0.1:7' }]",
            ),
        ] {
            assert_eq!(
                set("", variables),
                Config::parse(text, "expected").unwrap(),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_value_may_lie_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "http://me:hunter2@10.0.0.1:3128\n").unwrap();
        let path = file.path().display().to_string();
        let config = set(
            "",
            &[
                ("ROADSTEAD_UPSTREAMS_0_NAME", "docker.io"),
                ("ROADSTEAD_UPSTREAMS_0_PROXY_FILE", &path),
            ],
        );
        let proxy = config.upstreams[0].proxy_server().unwrap();
        assert_eq!(proxy.login.as_ref().unwrap().password.expose(), "hunter2");
        assert!(refused(&[("ROADSTEAD_STORE_DISK_FILE", "/nowhere/disk")]).starts_with(
            "environment: ROADSTEAD_STORE_DISK_FILE: `/nowhere/disk` can't be opened"
        ));
        let both =
            refused(&[("ROADSTEAD_STORE_DISK_FILE", &path), ("ROADSTEAD_STORE_DISK", "1GiB")]);
        assert!(both.contains("is set too; keep one of them"), "{both}");
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest() {
        assert_eq!(
            refused(&[("ROADSTEAD_UPSTREAMS_3_TAGS_FRESH_FRO", "1m")]),
            "environment: ROADSTEAD_UPSTREAMS_3_TAGS_FRESH_FRO: is not a known variable; \
             did you mean ROADSTEAD_UPSTREAMS_3_TAGS_FRESH_FOR? `roadstead check --variables` lists all"
        );
        assert!(refused(&[("ROADSTEAD_XYZ", "1")]).contains("is not a known variable; remove it"));
        for (name, _) in OTHERS {
            set("", &[(name, "value")]);
        }
    }

    /// The files that set variables for tests.
    fn scripts() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = vec![root.join("Makefile"), root.join(".ci/run")];
        let mut folders = vec![root.join("tests")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("sh" | "py") => found.push(path),
                    _ if path.is_dir() => folders.push(path),
                    _ => {}
                }
            }
        }
        found
    }

    #[test]
    fn the_tests_own_variables_are_known() {
        let is_known = |name: &str| {
            let rest = name.strip_prefix(PREFIX).unwrap();
            let plain = rest.strip_suffix(FILE).unwrap_or(rest);
            !is_key(name, "value") || place(rest, schema()).or(place(plain, schema())).is_some()
        };
        // Nothing here sets it yet.
        assert!(is_known("ROADSTEAD_REQUIRE"));
        for script in scripts() {
            let text = std::fs::read_to_string(&script).unwrap();
            for (at, _) in text.match_indices(PREFIX) {
                let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                let name = text[at..].split(|c| !is_name(c)).next().unwrap();
                assert!(is_known(name), "{name} of {} is not known", script.display());
            }
        }
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_no_key() {
        set(
            "",
            &[
                ("ROADSTEAD_SERVICE_HOST", "10.96.0.7"),
                ("ROADSTEAD_SERVICE_PORT", "5000"),
                ("ROADSTEAD_SERVICE_PORT_HTTP", "5000"),
                ("ROADSTEAD_PORT", "tcp://10.96.0.7:5000"),
                ("ROADSTEAD_PORT_5000_TCP", "tcp://10.96.0.7:5000"),
                ("ROADSTEAD_PORT_5000_TCP_PROTO", "tcp"),
                ("ROADSTEAD_ADMIN_PORT_5001_TCP_ADDR", "10.96.0.8"),
            ],
        );
        assert!(names().iter().all(|name| !is_service_link(&format!("{PREFIX}{name}"), "://")));
        assert!(refused(&[("ROADSTEAD_PORT", "5000")]).contains("is not a known variable"));
    }

    #[test]
    fn a_bad_value_is_told_by_the_variable_s_name() {
        for (name, value, line) in [
            (
                "ROADSTEAD_STORE_DISK",
                "0",
                "ROADSTEAD_STORE_DISK: is zero; write more than zero, such as 100GiB",
            ),
            (
                "ROADSTEAD_TRUSTED_PROXIES",
                "10.0.0.1",
                "ROADSTEAD_TRUSTED_PROXIES: is a text; write a list, such as `[a, b]`",
            ),
            (
                "ROADSTEAD_TRUSTED_PROXIES",
                "[",
                "ROADSTEAD_TRUSTED_PROXIES: is not valid YAML; write it on one line, such as [a, b]",
            ),
            (
                "ROADSTEAD_UPSTREAMS_0_TAGS_IMMUTABLE",
                "[1.10]",
                "ROADSTEAD_UPSTREAMS_0_TAGS_IMMUTABLE: has a number with a point; put quotes around it",
            ),
            (
                "ROADSTEAD_TRUSTED_PROXIES",
                "[x]",
                "ROADSTEAD_TRUSTED_PROXIES (trusted_proxies[0]): `x` is not a network; write a CIDR such as 10.0.0.0/8 or fd00::/8",
            ),
            (
                "ROADSTEAD_STORE",
                "{ dsk: 1 }",
                "ROADSTEAD_STORE (store.dsk): is not a known key; did you mean disk? known here: directory, disk, memory, evict_above_percent, evict_to_percent, scrub_rate",
            ),
            (
                "ROADSTEAD_LISTEN_0_PROXY_PROTOCOL",
                "yes",
                "ROADSTEAD_LISTEN_0_PROXY_PROTOCOL: is neither true nor false; write true or false",
            ),
            (
                "ROADSTEAD_UPSTREAMS_2_NAME",
                "ghcr.io",
                "ROADSTEAD_UPSTREAMS_2_NAME: there is no entry 1 before it; number the entries from 0, without gaps",
            ),
        ] {
            let found = refused(&[(name, value)]);
            assert!(found.lines().any(|found| found == format!("environment: {line}")), "{found}");
        }
    }
}
