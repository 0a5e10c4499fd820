//! Chains: a Roadstead behind a Roadstead, as a branch office has it.

use hub::{Account, Hub, ImageSpec, Options};
use serde_json::json;
use tokio::task::JoinSet;

use crate::pull::{get_manifest, pull};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";

/// The outer of two, whose upstream is the inner one, whose upstream is the hub.
async fn chain(hub: &Hub) -> (Roadstead, Roadstead) {
    let account = json!([{ "username": "alice", "password": "a" }]);
    let inner = Setup::of(hub).with("credentials.accounts", account).start().await;
    let url = format!("http://{}", inner.at());
    let outer = Setup::upstream(&url, &format!("{url}/token")).start().await;
    (inner, outer)
}

async fn hub() -> Hub {
    let accounts = vec![Account::new("alice", "a").limit(10)];
    Hub::start_with(Options { accounts, ..Options::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_through_two_costs_what_one_costs() {
    let hub = hub().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(300 << 10));
    let (_inner, outer) = chain(&hub).await;
    let mut pulls = JoinSet::new();
    for _ in 0..8 {
        let at = outer.at();
        pulls.spawn(async move { pull(at, NAME, "latest").await });
    }
    for pulled in pulls.join_all().await {
        assert_eq!(pulled.digest, image.digest);
    }
    // The index and one child; each blob once.
    let stats = hub.stats();
    assert_eq!((stats.counted, stats.cdn_get), (2, 4), "{stats:?}");
    outer.settled().await;
    outer.assert_all_stored_is_right();
}

#[tokio::test]
async fn the_budget_is_told_through_a_chain_and_so_is_its_end() {
    let hub = hub().await;
    for n in 0..11 {
        hub.push(&ImageSpec::new(format!("library/i{n}")).tag("latest").single());
    }
    let (_inner, outer) = chain(&hub).await;
    let told = async |name: &str| {
        let reply = get_manifest(outer.at(), name, "latest").send().await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let told = ["ratelimit-limit", "ratelimit-remaining"].map(|name| reply.header(name));
        told.map(|header| header.unwrap_or_default().to_owned())
    };
    assert_eq!(told("library/i0").await, ["10;w=21600", "9;w=21600"]);
    assert_eq!(told("library/i1").await, ["10;w=21600", "8;w=21600"]);
    hub.set_budget(Some("alice"), 0);
    hub.set_budget(None, 0);
    let refused = get_manifest(outer.at(), "library/i10", "latest").send().await;
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "TOOMANYREQUESTS"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 5 * 3600, "{wait}");
    // Neither has left the other alone for that: what is known goes on being checked.
    let reply = get_manifest(outer.at(), "library/i0", "latest").send().await;
    assert_eq!((reply.status, reply.cache_status()), (200, "roadstead; fwd=stale; fwd-status=200"));
}
