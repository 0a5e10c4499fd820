//! The command line: exit codes, and one clear line that names key and remedy.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hub::Hub;
use tempfile::TempDir;

use crate::roadstead::{BINARY, Roadstead, free_address};

fn roadstead(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).env_remove("RUST_LOG").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder with a configuration in it.
fn config(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yaml");
    fs::write(&file, text).unwrap();
    (folder, file)
}

fn run(command: &str, file: &Path) -> Output {
    roadstead(&[command, "--config", file.to_str().unwrap()])
}

/// It ends with `code` and a single line that contains all of `words`.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("roadstead: "), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    // What is wrong; what to do.
    assert!(said.contains("; "), "no remedy in {said}");
}

#[test]
fn a_good_configuration_is_printed_with_every_default() {
    let (_folder, file) = config("store: { disk: 5GiB }");
    let output = run("check", &file);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stderr.is_empty());
    let printed = String::from_utf8(output.stdout).unwrap();
    for word in ["5GiB", "fresh_for: 1m", "docker.io", "0.0.0.0:5000"] {
        assert!(printed.contains(word), "no {word:?} in\n{printed}");
    }
    // What it prints is a configuration.
    let (_folder, file) = config(&printed);
    let again = run("check", &file);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), printed);
}

#[test]
fn the_example_configuration_is_good() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/roadstead.yaml");
    let output = run("check", &file);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn passwords_are_not_printed() {
    let (_folder, file) = config(
        "upstreams: [{ name: docker.io, credentials: { accounts: \
         [{ username: alice, password: hunter2 }] } }]",
    );
    let output = run("check", &file);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("alice"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let (_folder, file) = config("upstreams: [{ name: docker.io, tags: { fresh_fr: 1m } }]");
    for command in ["check", "serve"] {
        let words = ["test.yaml", "upstreams[0].tags.fresh_fr", "fresh_for"];
        refused(&run(command, &file), 2, &words);
    }
}

#[test]
fn a_bad_value_is_named_with_its_key() {
    for (text, key) in [
        ("store: { disk: lots }", "store.disk"),
        ("store: { disk: 0B }", "store.disk"),
        ("listen: [{ address: 'nowhere' }]", "listen[0].address"),
        ("upstreams: [{ name: corp }]", "upstreams[0].url"),
        ("upstreams: [{ name: corp, url: 'ftp://x' }]", "upstreams[0].url"),
        ("upstreams: []", "upstreams"),
        ("shutdown: { drain: soon }", "shutdown.drain"),
        ("access: { allow: [10.0.0.0/99] }", "access.allow[0]"),
    ] {
        let (_folder, file) = config(text);
        refused(&run("check", &file), 2, &["test.yaml", key]);
    }
}

#[test]
fn a_file_of_users_that_can_t_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "ann:{SHA}xyz\n").unwrap();
    for key in ["access", "admin"] {
        let (_folder, file) = config(&format!("{key}: {{ htpasswd: '{}' }}", users.display()));
        refused(&run("check", &file), 2, &[&format!("{key}.htpasswd"), "users", "ann"]);
    }
}

#[test]
fn two_mistakes_are_two_lines() {
    let (_folder, file) = config("store: { disk: lots, memory: more }");
    let said = stderr(&run("check", &file));
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("store.disk") && said.contains("store.memory"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = roadstead(&["check", "--config", "/nowhere/roadstead.yaml"]);
    refused(&output, 2, &["/nowhere/roadstead.yaml"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    for args in [&["serve", "--no-such-flag"][..], &["no-such-command"], &[]] {
        let output = roadstead(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

fn serve(listen: &str, admin: &str, data: &Path) -> Output {
    roadstead(&[
        "serve",
        "--listen",
        listen,
        "--admin",
        admin,
        "--upstream",
        "docker.io=http://127.0.0.1:9",
        "--data",
        data.to_str().unwrap(),
    ])
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (taken.local_addr().unwrap().to_string(), free_address().to_string());
    let data = folder.path().join("data");
    refused(&serve(&taken, &free, &data), 1, &["listen", &taken]);
}

#[test]
fn an_admin_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (taken.local_addr().unwrap().to_string(), free_address().to_string());
    let data = folder.path().join("data");
    refused(&serve(&free, &taken, &data), 1, &["admin.address", &taken]);
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let (listen, admin) = (free_address(), free_address());
    for data in [file.join("data"), file, PathBuf::from("/proc/nowhere")] {
        let (_folder, file) = config(&format!(
            "listen: [{{ address: '{listen}' }}]\nadmin: {{ address: '{admin}' }}\n\
             upstreams: [{{ name: x, url: 'http://127.0.0.1:9' }}]\n\
             store: {{ directory: {} }}\n",
            data.display()
        ));
        refused(&run("serve", &file), 2, &["store.directory"]);
    }
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let hub = Hub::start().await;
    let first = Roadstead::start(&hub).await;
    let (listen, admin) = (free_address().to_string(), free_address().to_string());
    let output = serve(&listen, &admin, &first.data());
    refused(&output, 2, &["store.directory", first.data().to_str().unwrap()]);
    let reply = crate::client::get(first.at(), "/v2/").send().await;
    assert_eq!(reply.status, 200, "the first one serves on");
}
