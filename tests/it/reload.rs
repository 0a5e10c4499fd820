//! Another configuration for a server that runs: what holds at once, what waits, what changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub::{Account, Hub, ImageSpec, Options, Target};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Connection, Reply, Request, get};
use crate::pull::{accepting, blob_path, get_manifest, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, eventually, free_address, signal};
use crate::secure::{self, Signer, Speaker};

const NAME: &str = "library/alpine";
const SOON: Duration = Duration::from_secs(20);

/// A client whose connection stays open.
struct Kept(Option<Connection>);

// === impl Kept ===

impl Kept {
    async fn open(at: SocketAddr) -> Self {
        Self(Some(Connection::open(at).await.unwrap()))
    }

    /// The answer to one more request, on the same connection.
    async fn send(&mut self, request: &Request) -> Reply {
        let connection = self.0.take().unwrap();
        let answer = connection.exchange(request).await.unwrap();
        let (reply, connection) = answer.finish_and_keep().await;
        self.0 = Some(connection);
        reply
    }
}

/// The keys that hold from now on, and those that wait.
fn keys(reply: &Reply) -> (Vec<String>, Vec<String>) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    let of = |list: &str| -> Vec<String> {
        let changes = body[list].as_array().unwrap().iter();
        changes.map(|change| change["key"].as_str().unwrap().to_owned()).collect()
    };
    (of("changed"), of("pending"))
}

/// Changes the configuration, which must hold as a whole; answers what has changed.
async fn change(roadstead: &mut Roadstead, change: impl FnOnce(Setup) -> Setup) -> Vec<String> {
    roadstead.rewrite(change);
    let (changed, pending) = keys(&roadstead.reload().await);
    assert!(pending.is_empty(), "{pending:?}");
    changed
}

async fn status(roadstead: &Roadstead, name: &str) -> u16 {
    get_manifest(roadstead.at(), name, "latest").send().await.status
}

#[tokio::test]
async fn nothing_changes_where_nothing_is_written() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let reply = roadstead.reload().await;
    assert_eq!(reply.json(), json!({ "changed": [], "pending": [] }));
}

/// What is answered out of memory, without the chain, must not outlive the rule that allowed it.
#[tokio::test]
async fn a_hot_repository_that_is_denied_is_refused_on_an_open_connection() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Setup::of(&hub).with("tags.fresh_for", "1h").start().await;
    pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    let tag = accepting(get(roadstead.at(), manifest_path(NAME, "latest")));
    let digest = accepting(get(roadstead.at(), manifest_path(NAME, &image.digest)));
    let mut connection = Kept::open(roadstead.at()).await;
    for _ in 0..3 {
        for request in [&tag, &digest] {
            assert_eq!(connection.send(request).await.status, 200);
        }
    }
    assert!(roadstead.metric(&["roadstead_repeated_answers_total"]).await > 0.0, "it is hot");
    let changed = change(&mut roadstead, |setup| setup.with("deny", json!([NAME]))).await;
    assert_eq!(changed, ["upstreams[docker.io].deny"]);
    for request in [&tag, &digest] {
        assert_eq!(connection.send(request).await.status, 403);
    }
    change(&mut roadstead, |setup| setup.with("deny", json!([]))).await;
    assert_eq!(connection.send(&tag).await.status, 200);
}

/// The same of who may pull, and of who is believed.
#[tokio::test]
async fn a_client_that_may_no_longer_pull_is_refused_on_an_open_connection() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Setup::of(&hub).with("tags.fresh_for", "1h").start().await;
    let request = accepting(get(roadstead.at(), manifest_path(NAME, "latest")));
    let mut connection = Kept::open(roadstead.at()).await;
    for _ in 0..4 {
        assert_eq!(connection.send(&request).await.status, 200);
    }
    let only = |network: &str| json!({ "allow": [network] });
    let changed = change(&mut roadstead, |setup| setup.key("access", only("192.0.2.0/24"))).await;
    assert_eq!(changed, ["access.allow"]);
    assert_eq!(connection.send(&request).await.status, 403);
    // Behind a proxy that is believed, it is another client.
    let there = request.clone().header("X-Forwarded-For", "192.0.2.7");
    assert_eq!(connection.send(&there).await.status, 403);
    change(&mut roadstead, |setup| setup.key("trusted_proxies", json!(["127.0.0.1"]))).await;
    assert_eq!(connection.send(&there).await.status, 200);
    assert_eq!(connection.send(&request).await.status, 403);
}

#[tokio::test]
async fn an_upstream_comes_and_goes() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    other.push(&ImageSpec::new("acme/app").tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    let there = |roadstead: &Roadstead| {
        accepting(get(roadstead.at(), format!("{}?ns=corp", manifest_path("acme/app", "latest"))))
    };
    assert_eq!(there(&roadstead).send().await.status, 404);
    let changed = change(&mut roadstead, |setup| setup.also("corp", &other, json!({}))).await;
    assert_eq!(changed, ["upstreams[corp]"]);
    assert_eq!(there(&roadstead).send().await.status, 200);
    let reports = get(roadstead.admin(), "/api/v1/upstreams").send().await.json();
    assert_eq!(reports["upstreams"].as_array().unwrap().len(), 2);
    let changed = change(&mut roadstead, |setup| {
        let first = setup.value("upstreams")[0].clone();
        setup.key("upstreams", json!([first]))
    })
    .await;
    assert_eq!(changed, ["upstreams[corp]"]);
    assert_eq!(there(&roadstead).send().await.status, 404);
    assert_eq!(status(&roadstead, NAME).await, 200);
}

#[tokio::test]
async fn a_tag_is_fresh_for_as_long_as_is_written_now() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    status(&roadstead, NAME).await;
    let heads = || hub.manifest_heads("latest");
    let before = heads();
    status(&roadstead, NAME).await;
    assert_eq!(heads(), before + 1, "it is checked each time");
    let changed = change(&mut roadstead, |setup| setup.with("tags.fresh_for", "1h")).await;
    assert_eq!(changed, ["upstreams[docker.io].tags.fresh_for"]);
    let before = heads();
    status(&roadstead, NAME).await;
    assert_eq!(heads(), before, "it is fresh");
    change(&mut roadstead, |setup| setup.with("tags.fresh_for", "0s")).await;
    status(&roadstead, NAME).await;
    assert_eq!(heads(), before + 1, "it is checked again");
}

/// Tokens, budgets and the books are not lost with a change that is not theirs.
#[tokio::test]
async fn an_upstream_keeps_what_does_not_change() {
    let options = Options { limit: Some(100), ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    status(&roadstead, NAME).await;
    let budget = async |roadstead: &Roadstead| {
        let body = get(roadstead.admin(), "/api/v1/budget").send().await.json();
        let budget: &Value = &body["upstreams"][0];
        [budget["remaining"].clone(), budget["spent"].clone()]
    };
    let before = budget(&roadstead).await;
    assert_eq!(before, [json!(99), json!(1)]);
    let tokens = || hub.requests().iter().filter(|request| request.path.contains("token")).count();
    let fetched = tokens();
    change(&mut roadstead, |setup| setup.with("deny", json!(["other/**"]))).await;
    assert_eq!(budget(&roadstead).await, before);
    status(&roadstead, NAME).await;
    assert_eq!(tokens(), fetched, "the token is still good");
    // Other connections: the account and what it has left stay.
    change(&mut roadstead, |setup| setup.with("timeouts.connect", "2s")).await;
    assert_eq!(budget(&roadstead).await, before);
    status(&roadstead, NAME).await;
    assert_eq!(tokens(), fetched, "the token is still good");
}

#[tokio::test]
async fn another_account_asks_from_now_on() {
    let accounts = vec![Account::new("one", "secret-1"), Account::new("two", "secret-2")];
    let options = Options { accounts, private: vec![NAME.to_owned()], ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let account = |user: &str, password: &str| json!({ "accounts": [{ "username": user, "password": password }], "anonymous": false });
    let wrong = account("one", "wrong");
    let mut roadstead = Setup::of(&hub).with("credentials", wrong).start().await;
    assert_ne!(status(&roadstead, NAME).await, 200);
    let right = account("one", "secret-1");
    let changed = change(&mut roadstead, |setup| setup.with("credentials", right)).await;
    assert_eq!(changed, ["upstreams[docker.io].credentials"]);
    assert_eq!(status(&roadstead, NAME).await, 200, "what was refused before is asked anew");
    let log = roadstead.whole_log().await;
    assert!(!log.contains("secret-1"), "no secret is told");
}

#[tokio::test]
async fn a_file_that_can_not_be_used_changes_nothing_and_all_of_it_is_told() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    roadstead.rewrite(|setup| {
        let setup = setup.with("deny", json!(["**"])).with("tags.fresh_for", "soon");
        setup.key("store.disk", "much").key("fill.colour", "red")
    });
    let reply = roadstead.reload().await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "invalid_configuration");
    let problem = &error["problems"][0];
    assert_eq!(problem["key"], "fill.colour");
    assert!(problem["origin"].as_str().unwrap().ends_with("roadstead.yaml"), "{problem}");
    roadstead.rewrite(|setup| setup.key("fill", json!({})));
    let body = roadstead.reload().await.json();
    let problems = body["error"]["problems"].as_array().unwrap();
    let keys: Vec<_> = problems.iter().map(|problem| problem["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["store.disk", "upstreams[0].tags.fresh_for"]);
    assert!(problems.iter().all(|problem| problem["remedy"].as_str().unwrap().contains("write")));
    assert_eq!(status(&roadstead, NAME).await, 200, "what was in force still is");
    assert!(roadstead.log().contains("the one before stays in force"));
    fs::remove_file(roadstead.config()).unwrap();
    let reply = roadstead.reload().await;
    assert_eq!(reply.status, 422);
    assert!(reply.text().contains("there is no such file"), "{}", reply.text());
}

#[tokio::test]
async fn what_takes_a_new_process_is_told_and_the_rest_holds() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    let one_more = free_address().to_string();
    roadstead.rewrite(|setup| {
        let setup = setup.key("listen", json!([{ "address": one_more }]));
        setup.key("shutdown.drain", "9s").with("deny", json!([NAME]))
    });
    let reply = roadstead.reload().await;
    let (changed, pending) = keys(&reply);
    assert_eq!(changed, ["upstreams[docker.io].deny"]);
    assert_eq!(pending, [format!("listen[{one_more}]"), "shutdown.drain".to_owned()]);
    let drain = &reply.json()["pending"][1];
    assert_eq!((&drain["before"], &drain["now"]), (&json!("5s"), &json!("9s")));
    assert!(drain["remedy"].as_str().unwrap().contains("SIGQUIT"), "{drain}");
    assert_eq!(status(&roadstead, NAME).await, 403);
    assert!(roadstead.log().contains("shutdown.drain"));
}

#[tokio::test]
async fn limits_hold_at_once() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    let changed = change(&mut roadstead, |setup| {
        let setup = setup.key("store.disk", "2GiB").key("store.memory", "32MiB");
        let setup = setup.key("fill.max_active", 7).key("fill.memory", "16MiB");
        setup.key("downstream.max_connections", 1)
    })
    .await;
    assert_eq!(changed.len(), 5, "{changed:?}");
    let capacity = roadstead.metric(&["roadstead_store_bytes", "\"capacity\""]).await;
    assert_eq!(capacity, 2.0 * 1024.0 * 1024.0 * 1024.0);
    let mut first = Kept::open(roadstead.at()).await;
    assert_eq!(first.send(&get(roadstead.at(), "/v2/")).await.status, 200);
    let turned_away = get(roadstead.at(), "/v2/").try_send().await;
    assert!(turned_away.is_err(), "{turned_away:?}");
    drop(first);
    change(&mut roadstead, |setup| setup.key("downstream.max_connections", 100)).await;
    pull(roadstead.at(), NAME, "latest").await;
    let log = roadstead.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// A smaller disk evicts what does not fit any more.
#[tokio::test]
async fn a_smaller_disk_is_kept_to() {
    const MIB: u64 = 1 << 20;
    let hub = Hub::start().await;
    let spec = ImageSpec::new(NAME).tag("latest").single().layers(8).layer_size(4 * MIB as usize);
    hub.push(&spec);
    let mut roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    let stored = |roadstead: &Roadstead| roadstead.stored().values().sum::<u64>();
    assert!(stored(&roadstead) > 30 * MIB);
    change(&mut roadstead, |setup| setup.key("store.disk", "16MiB")).await;
    eventually("it is evicted", SOON, || stored(&roadstead) < 16 * MIB).await;
}

/// What a listener asks of a connection can change too, as long as its address stays.
#[tokio::test]
async fn a_listener_speaks_tls_from_now_on() {
    let hub = Hub::start().await;
    let (signer, folder) = (Signer::new("first"), tempfile::tempdir().unwrap());
    signer.issue("mirror.test").write(folder.path(), "tls");
    let (certificate, key) = secure::paths(folder.path(), "tls");
    let at = free_address();
    let listen = |tls: Value| json!([{ "address": at.to_string(), "tls": tls }]);
    let mut roadstead = Setup::of(&hub).key("listen", listen(Value::Null)).start().await;
    assert_eq!(get(at, "/v2/").send().await.status, 200);
    let tls = json!({ "certificate": certificate, "key": key });
    let changed = change(&mut roadstead, |setup| setup.key("listen", listen(tls))).await;
    let own = format!("listen[{at}].tls");
    assert!(changed.len() == 2 && changed.iter().all(|key| key.starts_with(&own)), "{changed:?}");
    let said = Speaker::trusting(&[&signer.pem()]).get(at, "mirror.test", "/v2/").await.unwrap();
    assert_eq!(said.status, 200);
    // Files that don't fit each other change nothing.
    fs::write(&certificate, "nonsense").unwrap();
    roadstead.rewrite(|setup| setup.with("deny", json!(["**"])));
    let reply = roadstead.reload().await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().contains("listen[1].tls"), "{}", reply.text());
}

/// Requests under way end on the configuration that they began with.
#[tokio::test]
async fn a_download_under_way_goes_on_whatever_changes() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single().layer_size(3 << 20));
    let mut roadstead = Roadstead::start(&hub).await;
    let layer = &image.layers[0].digest;
    let gate = hub.gate(Target::blob(layer), 1 << 20);
    let at = roadstead.at();
    let path = blob_path(NAME, layer);
    let download = tokio::spawn(async move { get(at, path).send().await });
    gate.waiting().await;
    change(&mut roadstead, |setup| {
        setup.with("deny", json!([NAME])).with("timeouts.connect", "1s")
    })
    .await;
    gate.open();
    let reply = download.await.unwrap();
    assert_eq!((reply.status, reply.complete), (200, true));
    assert_eq!(status(&roadstead, NAME).await, 403);
}

/// SIGHUP, again and again, while clients pull: none of them notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_it_is_reloaded() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Setup::of(&hub).with("tags.fresh_for", "50ms").start().await;
    let (at, stop) = (roadstead.at(), Arc::new(AtomicBool::new(false)));
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..6 {
        let (stop, answered, layer) =
            (Arc::clone(&stop), Arc::clone(&answered), image.layers[0].digest.clone());
        clients.spawn(async move {
            let mut kept = Kept::open(at).await;
            while !stop.load(Ordering::Acquire) {
                let path = match client % 2 {
                    0 => manifest_path(NAME, "latest"),
                    _ => blob_path(NAME, &layer),
                };
                let request = accepting(get(at, path));
                let reply = match client % 3 {
                    0 => request.send().await,
                    _ => kept.send(&request).await,
                };
                assert_eq!((reply.status, reply.complete), (200, true), "{}", reply.text());
                answered.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    let reloads = |roadstead: &Roadstead| roadstead.log().matches("was reloaded").count();
    for round in 0..12_u64 {
        let before = answered.load(Ordering::Acquire);
        roadstead.rewrite(|setup| match round % 4 {
            0 => setup.also("corp", &other, json!({})),
            1 => setup.with("timeouts.connect", "2s").with("tags.fresh_for", "40ms"),
            2 => {
                let first = setup.value("upstreams")[0].clone();
                setup.key("upstreams", json!([first]))
            }
            _ => setup.with("timeouts.connect", "3s").key("fill.max_active", 10 + round),
        });
        let done = reloads(&roadstead);
        signal(roadstead.pid(), "HUP");
        eventually("it is reloaded", SOON, || reloads(&roadstead) > done).await;
        let more = || answered.load(Ordering::Acquire) > before + 20;
        eventually("clients go on", SOON, more).await;
    }
    stop.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}
