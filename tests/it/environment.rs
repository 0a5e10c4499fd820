//! The environment's variables, and what `roadstead check` says of all sources.

use std::fs;
use std::process::{Command, Output};

use hub::{Hub, ImageSpec};
use serde_json::json;

use crate::pull::get_manifest;
use crate::roadstead::{BINARY, Setup};

fn check(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("check").args(arguments).envs(variables.iter().copied());
    command.env_remove("RUST_LOG").output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn explain_tells_where_each_value_comes_from() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "store:\n  disk: 7GiB\n  memory: 9MiB\n").unwrap();
    let path = file.path().to_str().unwrap();
    let secret = "http://me:hunter2@10.0.0.1:3128";
    let output = check(
        &["--config", path, "--explain", "--data", "/flag"],
        &[
            ("ROADSTEAD_STORE_MEMORY", "1GiB"),
            ("ROADSTEAD_UPSTREAMS_0_NAME", "ghcr.io"),
            ("ROADSTEAD_UPSTREAMS_0_PROXY", secret),
        ],
    );
    let printed = printed(&output);
    for (value, source) in [
        ("disk: 7GiB", format!("# {path}:2")),
        ("memory: 1GiB", "# ROADSTEAD_STORE_MEMORY".to_owned()),
        ("directory: /flag", "# --data".to_owned()),
        ("scrub_rate: 4MiB", "# default".to_owned()),
        ("- name: ghcr.io", "# ROADSTEAD_UPSTREAMS_0_NAME".to_owned()),
        ("proxy: ", "# ROADSTEAD_UPSTREAMS_0_PROXY".to_owned()),
    ] {
        let line = printed.lines().find(|line| line.trim_start().starts_with(value));
        let line = line.unwrap_or_else(|| panic!("no {value:?} in\n{printed}"));
        assert!(line.ends_with(&source), "{line}");
    }
    assert!(!printed.contains("hunter2") && !printed.contains('\u{1b}'), "{printed}");
}

#[test]
fn schema_and_variables_are_printed() {
    let schema: serde_json::Value =
        serde_json::from_str(&printed(&check(&["--schema"], &[]))).unwrap();
    assert!(schema["properties"]["store"]["properties"]["disk"]["description"].is_string());
    let variables = printed(&check(&["--variables"], &[]));
    for name in ["ROADSTEAD_STORE_DISK", "ROADSTEAD_UPSTREAMS_N_TAGS_FRESH_FOR"] {
        assert!(variables.lines().any(|line| line == name), "{variables}");
    }
}

#[test]
fn an_unknown_variable_is_wrong_usage() {
    let output = check(&[], &[("ROADSTEAD_STORE_DSK", "1GiB"), ("ROADSTEAD_FILL_RETRIES", "x")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean ROADSTEAD_STORE_DISK?"), "{said}");
    // The password comes in a file alone.
    let output = check(&[], &[("ROADSTEAD_ADMIN_PASSWORD", "secret")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_server_takes_its_keys_from_the_environment() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/alpine").tag("latest").single());
    let setup = Setup::of(&hub).variable("ROADSTEAD_UPSTREAMS_0_DENY", "[library/alpine]");
    let mut roadstead = setup.start().await;
    let reply = get_manifest(roadstead.at(), "library/alpine", "latest").send().await;
    assert_eq!(reply.status, 403);
    // It wins over the file at a reload too.
    roadstead.rewrite(|setup| setup.with("deny", json!(["other"])));
    assert_eq!(roadstead.reload().await.json()["changed"], json!([]));
}
