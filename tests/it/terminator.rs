//! Behind a terminator: who asks and for which host is what a trusted proxy says, and nobody else.

use hub::{Hub, ImageSpec};
use serde_json::json;

use crate::client::get;
use crate::pull::manifest_path;
use crate::roadstead::{Roadstead, Setup, eventually};

use std::time::Duration;

/// Two registries, with Roadstead before them that trusts `proxies`.
async fn stage(proxies: &str) -> (Hub, Hub, Roadstead) {
    let (first, second) = (Hub::start().await, Hub::start().await);
    second.push(&ImageSpec::new("org/app").tag("1"));
    let setup = Setup::of(&first)
        .also("other.example", &second, json!({ "hosts": ["other.corp"] }))
        .key("trusted_proxies", json!([proxies]));
    let roadstead = setup.start().await;
    (first, second, roadstead)
}

async fn logged(roadstead: &Roadstead, path: &str) -> String {
    let line = || roadstead.log().lines().find(|line| line.contains(path)).map(str::to_owned);
    eventually("the access line", Duration::from_secs(10), || line().is_some()).await;
    line().unwrap_or_default()
}

#[tokio::test]
async fn a_trusted_proxy_says_who_asks_and_for_which_host() {
    let (_first, second, roadstead) = stage("127.0.0.1").await;
    let path = manifest_path("org/app", "1");
    let reply = get(roadstead.at(), &path)
        .header("X-Forwarded-For", "198.51.100.1, [2001:db8::7]:4711")
        .header("X-Forwarded-Host", "other.corp")
        .send()
        .await;
    assert_eq!(reply.status, 200);
    assert!(second.stats().requests() > 0, "the forwarded host chose no upstream");
    let line = logged(&roadstead, &path).await;
    assert!(line.contains("2001:db8::7") && !line.contains("198.51.100.1"), "{line}");
}

#[tokio::test]
async fn a_trusted_proxy_may_choose_by_host_and_tell_the_one_outside() {
    let (_first, second, roadstead) = stage("127.0.0.1").await;
    let reply = get(roadstead.at(), manifest_path("org/app", "1"))
        .header("X-Forwarded-For", "198.51.100.1")
        .header("X-Forwarded-Host", "mirror.example.com")
        .header("Host", "other.corp")
        .send()
        .await;
    assert_eq!(reply.status, 200);
    assert!(second.stats().requests() > 0, "Host chose no upstream");
}

#[tokio::test]
async fn what_anybody_else_says_changes_nothing() {
    let (_first, second, roadstead) = stage("10.0.0.0/8").await;
    let path = manifest_path("org/app", "1");
    let reply = get(roadstead.at(), &path)
        .header("X-Forwarded-For", "198.51.100.1")
        .header("X-Forwarded-Host", "other.corp")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=unknown;host=other.corp")
        .send()
        .await;
    assert_ne!(reply.status, 200, "the first upstream does not have it");
    assert_eq!(second.stats().requests(), 0);
    let line = logged(&roadstead, &path).await;
    assert!(line.contains("127.0.0.1") && !line.contains("198.51.100.1"), "{line}");
}

#[tokio::test]
async fn nothing_that_a_client_writes_gets_it_past_the_addresses_that_may_pull() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("org/app").tag("1"));
    let setup = Setup::of(&hub).key("trusted_proxies", json!(["127.0.0.1"]));
    let roadstead =
        setup.key("access", json!({ "allow": ["127.0.0.1", "10.0.0.0/8"] })).start().await;
    let status = async |forwarded: &str| {
        let request = get(roadstead.at(), manifest_path("org/app", "1"));
        request.header("Forwarded", forwarded).send().await.status
    };
    assert_eq!(status("for=10.9.9.9").await, 200);
    // In each, the last element is what a proxy has written for 198.51.100.1.
    for (forwarded, expected) in [
        ("\u{ff}, for=198.51.100.1", 403),
        ("\u{ff}for=10.9.9.9, for=198.51.100.1", 403),
        ("for=198.51.100.1;host=\"x, for=10.9.9.9;y=\";proto=https", 403),
        ("host=\"x;for=10.9.9.9;y=\";for=198.51.100.1", 403),
        ("for=\"x, for=198.51.100.1", 400),
        ("for=\"x, for=198.51.100.1;host=\", for=10.9.9.9;y=\"", 400),
        ("\u{ff}", 400),
    ] {
        assert_eq!(status(forwarded).await, expected, "{forwarded}");
    }
}
