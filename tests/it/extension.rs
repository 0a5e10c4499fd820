//! A filter of the library's user, as `examples/custom_filter.rs` shows it.

use std::path::PathBuf;
use std::process::Command;

use hub::{Hub, ImageSpec};

use crate::client::get;
use crate::pull::pull;
use crate::roadstead::Setup;

/// The example, built if the tests were built alone.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().unwrap().parent().unwrap();
    let program = target.join("examples").join("custom_filter");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", "custom_filter", "--target-dir"])
        .arg(target.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success() && program.exists(), "{}", program.display());
    program
}

#[tokio::test]
async fn a_filter_of_one_s_own_refuses_and_lets_pass() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/alpine").tag("latest").tag("3.20"));
    let server = Setup::of(&hub).program(example()).start().await;
    let reply = get(server.at(), "/v2/alpine/manifests/latest").send().await;
    assert_eq!(reply.status, 403);
    let text = String::from_utf8(reply.body).unwrap();
    assert!(text.contains("DENIED") && text.contains("pull a version"), "{text}");
    assert_eq!(hub.stats().requests(), 0, "upstream was asked");
    for _ in 0..3 {
        pull(server.at(), "library/alpine", "3.20").await;
    }
    // It sees each request, those included that came before.
    assert_eq!(server.metric(&["roadstead_repeated_answers_total"]).await, 0.0);
}
