//! The floors of `lib.rs`, held: who may use whom, and where `pingora` and `unsafe` stand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The floors, from the ground up; modules on one floor don't see each other.
const FLOORS: [&[&str]; 10] = [
    &["sync"],
    &["protocol", "collapse", "permits"],
    &["config", "metrics", "events", "trace", "traffic"],
    &["store", "tls", "upstream"],
    &["manifest", "blob", "inventory", "history"],
    &["warm"],
    &["filter", "status"],
    &["proxy", "admin"],
    &["server"],
    &["cli"],
];

/// The only places where Pingora is named.
const PINGORA: [&str; 4] = ["proxy/", "admin/", "upstream/exchange", "server/"];

/// A file longer than this has more than one job. Tests below the code don't count.
const LINES: usize = 380;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file below `src`, by its path there, with its text.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    assert!(paths.len() > 40, "the sources were not found");
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    paths.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

/// The code of a file: no comments, no strings' worth of care, and not its unit tests, which may
/// build their values from wherever they like.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = before_tests.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// The modules that `code` names through `crate::`, whether by path or in a `use` group.
fn used(code: &str) -> Vec<String> {
    let word = |text: &str| {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut at_start = true;
                for (index, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_start = true,
                        c if at_start && !c.is_whitespace() => {
                            found.push(word(&group[index..]));
                            at_start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

#[test]
fn modules_use_only_the_floors_below() {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        let module = path.split(['/', '.']).next().unwrap();
        let Some(own) = floor(module) else {
            assert!(matches!(module, "lib" | "main"), "{path} stands on no floor");
            continue;
        };
        for other in used(&code(&text)) {
            let below = floor(&other).is_some_and(|other| other < own);
            if other != module && !below {
                wrong.push(format!("{path} uses crate::{other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_sees_paths_and_groups() {
    let code = "use crate::{a::{b, c}, d,\n e::f}; fn x() { crate::g::h() }";
    assert_eq!(used(code), ["a", "d", "e", "g"]);
}

#[test]
fn pingora_is_named_only_at_the_edges() {
    for (path, text) in files() {
        let allowed = PINGORA.iter().any(|place| path.starts_with(place));
        assert!(allowed || !code(&text).contains("pingora::"), "{path} names pingora");
    }
}

/// `routes!` takes an endpoint with its description; any other way is without.
#[test]
fn no_endpoint_of_the_api_is_without_its_description() {
    let api: Vec<_> =
        files().into_iter().filter(|(path, _)| path.starts_with("admin/api/")).collect();
    assert!(api.len() > 4, "the API was not found");
    for (path, text) in api {
        for way in [".route(", ".nest(", ".nest_service(", ".route_service(", ".fallback("] {
            assert!(!code(&text).contains(way), "{path} has an endpoint without a description");
        }
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let with: Vec<_> =
        files().into_iter().filter(|(_, text)| code(text).contains("unsafe {")).collect();
    let names: Vec<_> = with.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["store/mapped.rs"]);
}

#[test]
fn a_file_opens_with_its_claim_and_has_one_job() {
    for (path, text) in files() {
        assert!(text.starts_with("//!"), "{path} does not say what it is for");
        let lines = code(&text).lines().count();
        assert!(lines <= LINES, "{path} has {lines} lines");
    }
}

#[test]
fn tests_and_comments_hide_nothing() {
    for (path, text) in files() {
        for word in ["todo!(", "unimplemented!(", "TODO", "FIXME", "#[ignore"] {
            assert!(!text.contains(word), "{path} contains {word}");
        }
    }
}
