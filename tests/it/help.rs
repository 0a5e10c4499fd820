//! What the program says of itself: help, completions for shells, man pages.

use std::env;
use std::fs;
use std::process::{Command, Output, Stdio};

use crate::roadstead::BINARY;

/// Help lines are no longer.
const WIDTH: usize = 100;

fn roadstead(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a script; `None` where there is no such interpreter.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()
}

/// The same with a program that must not be missing where everything is required.
fn run_required(program: &str, arguments: &[&str]) -> Option<Output> {
    let output = run(program, arguments);
    let is_required = env::var_os("ROADSTEAD_REQUIRE").is_some();
    assert!(output.is_some() || !is_required, "{program} is not installed");
    output
}

/// Every command, as its words: [], ["cache"], ["cache", "ls"]…
fn commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut at = 0;
    while at < all.len() {
        let words: Vec<String> = all[at].clone();
        let arguments: Vec<_> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = roadstead(&arguments);
        let listed = help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
        for line in listed.unwrap_or_default().lines() {
            // Descriptions go on in lines that are further in.
            let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else {
                continue;
            };
            let name = name.split_whitespace().next().unwrap().to_owned();
            if name != "help" {
                all.push(words.iter().cloned().chain([name]).collect());
            }
        }
        at += 1;
    }
    assert!(all.len() > 15, "{all:?}");
    all
}

#[test]
fn help_is_for_newcomers() {
    for words in commands() {
        let name = words.join(" ");
        let arguments: Vec<_> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = roadstead(&arguments);
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{name}: too long: {line}");
        }
        let first = help.lines().next().unwrap();
        assert!(!first.starts_with("Usage"), "{name} does not say what it is for");
        // Each flag is explained where it stands or in the next line.
        let lines: Vec<_> = help.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let flag = line.trim_start();
            if !flag.starts_with('-') || line.len() - flag.len() > 6 {
                continue;
            }
            let explained = flag.contains("  ")
                || lines.get(at + 1).is_some_and(|next| next.starts_with("          "));
            assert!(explained, "{name}: {flag} is not explained");
        }
    }
    let help = roadstead(&["--help"]);
    for word in ["roadstead serve ", "roadstead client docker", "Exit codes"] {
        assert!(help.contains(word), "no {word}");
    }
    for command in ["serve", "check", "cache", "client"] {
        assert!(roadstead(&[command, "--help"]).contains("Examples:"), "{command}");
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("roadstead.bash");
    fs::write(&script, roadstead(&["completions", "bash"])).unwrap();
    let script = script.to_str().unwrap();
    let Some(parsed) = run_required("bash", &["-n", script]) else { return };
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
    let complete = |words: &[&str]| {
        let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let last = words.len() - 1;
        let ask = format!(
            "source {script}; COMP_WORDS=({line}); COMP_CWORD={last}; \
             _roadstead roadstead '{}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            words[last],
            words[last - 1],
        );
        let output = run("bash", &["-c", &ask]).unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["roadstead", "ser"]), "serve");
    assert_eq!(complete(&["roadstead", "cache", "pu"]), "purge");
    assert_eq!(complete(&["roadstead", "serve", "--access"]), "--access-log");
    assert_eq!(complete(&["roadstead", "serve", "--access-log", ""]), "text json combined");
}

#[test]
fn other_shells_have_theirs() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = roadstead(&["completions", shell]);
        assert!(script.contains("access-log"), "{shell}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        fs::write(&file, script).unwrap();
        if ["zsh", "fish"].contains(&shell)
            && let Some(parsed) = run(shell, &["-n", file.to_str().unwrap()])
        {
            assert!(
                parsed.status.success(),
                "{shell}: {}",
                String::from_utf8_lossy(&parsed.stderr)
            );
        }
    }
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("share/man/man1");
    roadstead(&["man", at.to_str().unwrap()]);
    for words in commands() {
        let name = ["roadstead".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join("-");
        let page = at.join(format!("{name}.1"));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
        let page = page.to_str().unwrap();
        // groff warns of what it can't print; mandoc, where it is, of more.
        if let Some(shown) = run_required("groff", &["-man", "-Tutf8", "-ww", "-z", page]) {
            let said = String::from_utf8_lossy(&shown.stderr).into_owned();
            assert!(shown.status.success() && said.is_empty(), "{name}: {said}");
        }
        if let Some(shown) = run_required("mandoc", &["-T", "lint", "-W", "error", page]) {
            assert!(shown.status.success(), "{name}: {}", String::from_utf8_lossy(&shown.stdout));
        }
    }
    assert!(roadstead(&["man"]).contains(".TH roadstead 1"));
}

#[test]
fn man_pages_that_can_not_be_written_are_told() {
    let output = Command::new(BINARY).args(["man", "/dev/null/man1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("roadstead: /dev/null/man1: ") && said.contains("; "), "{said}");
}
