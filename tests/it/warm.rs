//! Warming: what is fetched before a client asks for it, what that costs, and how it is ended.

mod command;
mod schedule;

use std::time::Duration;

use hub::{Action, Fault, Hub, Image, ImageSpec, Kind, Options, Platform, Target};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{get, request};
use crate::pull::{blob_path, pull};
use crate::roadstead::{Roadstead, Setup};

const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// A question to the API; the answer must have this status.
async fn api(roadstead: &Roadstead, method: &str, path: &str, body: Value, status: u16) -> Value {
    let asked = request(roadstead.admin(), method, format!("/api/v1/{path}"));
    let asked = asked.header("X-Roadstead", "1");
    let asked = if body.is_null() { asked } else { asked.body(body.to_string()) };
    let reply = asked.send().await;
    assert_eq!(reply.status, status, "{}", reply.text());
    reply.json()
}

/// Begins a job.
async fn begin(roadstead: &Roadstead, request: Value) -> String {
    let job = api(roadstead, "POST", "warm", request, 202).await;
    job["id"].as_str().unwrap().to_owned()
}

async fn job(roadstead: &Roadstead, id: &str) -> Value {
    api(roadstead, "GET", &format!("warm/{id}"), Value::Null, 200).await
}

/// Waits until the job is as it should be.
async fn until(roadstead: &Roadstead, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let job = job(roadstead, id).await;
        if condition(&job) {
            return job;
        }
        assert!(Instant::now() < deadline, "still waiting: {job:#}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Carries a job out.
async fn warm(roadstead: &Roadstead, request: Value) -> Value {
    let id = begin(roadstead, request).await;
    until(roadstead, &id, |job| job["state"] != "running").await
}

/// The sums of a job.
fn totals(job: &Value, field: &str) -> u64 {
    job["totals"][field].as_u64().unwrap_or_else(|| panic!("no {field} in {job:#}"))
}

/// For Intel alone: what the machine is that the tests run on must not matter.
fn amd64(images: &[&str]) -> Value {
    json!({ "images": images, "platforms": ["linux/amd64"] })
}

fn with(mut request: Value, key: &str, value: impl Into<Value>) -> Value {
    request[key] = value.into();
    request
}

/// Bytes of the config and the layers for Intel.
fn bytes(image: &Image) -> u64 {
    image.configs[0].size + image.layers.iter().map(|layer| layer.size).sum::<u64>()
}

/// Manifests, as they were asked for; what only earned a challenge is left out.
fn manifest_gets(hub: &Hub) -> u64 {
    let requests = hub.requests();
    requests.iter().filter(|it| it.kind == Kind::ManifestGet && it.status != 401).count() as u64
}

fn error(job: &Value, image: usize) -> &str {
    job["images"][image]["error"].as_str().unwrap_or_else(|| panic!("no error in {job:#}"))
}

// === what it fetches ===

#[tokio::test]
async fn a_job_fetches_what_a_pull_needs_and_the_next_one_costs_nothing() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new("library/app").tag("1"));
    let roadstead = Roadstead::start(&hub).await;
    let done = warm(&roadstead, amd64(&["app:1"])).await;
    assert_eq!(done["state"], "done", "{done:#}");
    assert_eq!(done["images"][0]["digest"], image.digest.as_str());
    assert_eq!(done["images"][0]["platforms"], json!(["linux/amd64"]));
    // The index and one child; no attestation, nothing for other platforms.
    assert_eq!((manifest_gets(&hub), totals(&done, "spent")), (2, 2));
    assert_eq!(totals(&done, "fetched"), bytes(&image));
    assert_eq!((totals(&done, "layers"), totals(&done, "layers_done")), (4, 4));
    let layers = done["images"][0]["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["state"] == "done"), "{done:#}");

    let before = hub.stats();
    pull(roadstead.at(), "library/app", "1").await;
    let saved = roadstead.metric(&["roadstead_pulls_saved_total"]).await;
    let again = warm(&roadstead, amd64(&["app:1", "docker.io/library/app:1"])).await;
    assert_eq!(again["images"].as_array().unwrap().len(), 1);
    assert_eq!(again["images"][0]["state"], "cached", "{again:#}");
    assert_eq!((totals(&again, "spent"), totals(&again, "fetched")), (0, 0));
    let after = hub.stats();
    assert_eq!((after.manifest_get, after.cdn_get), (before.manifest_get, before.cdn_get));
    assert_eq!(after.counted, before.counted);
    assert!(after.manifest_head > before.manifest_head, "the tag was not checked");
    // Nobody was saved anything by it.
    assert_eq!(roadstead.metric(&["roadstead_pulls_saved_total"]).await, saved);
}

#[tokio::test]
async fn a_tag_that_moved_costs_what_is_new_of_it() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1"));
    let roadstead = Roadstead::start(&hub).await;
    warm(&roadstead, amd64(&["app:1"])).await;
    let image = hub.push(&ImageSpec::new("library/app").tag("1").seed(7));
    let moved = warm(&roadstead, amd64(&["app:1"])).await;
    assert_eq!(moved["images"][0]["digest"], image.digest.as_str());
    assert_eq!((totals(&moved, "spent"), totals(&moved, "fetched")), (2, bytes(&image)));
}

#[tokio::test]
async fn platforms_are_chosen_and_all_is_all() {
    let hub = Hub::start().await;
    let platforms = vec![Platform::new("linux", "amd64"), Platform::new("linux", "s390x")];
    let image = hub.push(&ImageSpec::new("library/app").tag("1").platforms(platforms));
    let roadstead = Roadstead::start(&hub).await;
    let none =
        warm(&roadstead, json!({ "images": ["app:1"], "platforms": ["linux/arm/v7"] })).await;
    assert_eq!(none["state"], "failed");
    let said = error(&none, 0);
    assert!(said.contains("nothing for linux/arm/v7; there is linux/amd64, linux/s390x"), "{said}");

    let two = json!({ "images": ["app:1"], "platforms": ["linux/s390x", "linux/riscv64"] });
    let two = warm(&roadstead, two).await;
    assert_eq!(two["state"], "done", "{two:#}");
    assert_eq!(two["images"][0]["platforms"], json!(["linux/s390x"]));
    assert!(two["images"][0]["notes"].to_string().contains("linux/riscv64"), "{two:#}");
    assert_eq!(
        (hub.blob_gets(&image.configs[1].digest), hub.blob_gets(&image.configs[0].digest)),
        (1, 0)
    );

    let all = warm(&roadstead, json!({ "images": ["app:1"], "platforms": ["all"] })).await;
    assert_eq!(all["state"], "done", "{all:#}");
    for blob in &image.all_blobs {
        assert_eq!(hub.blob_gets(&blob.digest), 1);
    }
    assert_eq!(manifest_gets(&hub), 1 + image.manifests.len() as u64);
}

#[tokio::test]
async fn a_client_and_a_job_share_one_download() {
    let hub = Hub::start().await;
    let image =
        hub.push(&ImageSpec::new("library/app").tag("1").single().layers(1).layer_size(2 << 20));
    let layer = &image.layers[0].digest;
    let roadstead = Roadstead::start(&hub).await;
    let gate = hub.gate(Target::blob(layer), MIB);
    let id = begin(&roadstead, amd64(&["app:1"])).await;
    gate.waiting().await;
    let under_way = until(&roadstead, &id, |job| {
        let layers = job["images"][0]["layers"].as_array().unwrap();
        layers.iter().any(|layer| layer["state"] == "fetching" && layer["done"] != 0)
    });
    let under_way = under_way.await;
    assert_eq!(under_way["images"][0]["state"], "fetching");
    let mut answer = get(roadstead.at(), blob_path("library/app", layer)).open().await;
    answer.read(1000).await.unwrap();
    gate.open();
    assert!(answer.finish().await.complete);
    let done = until(&roadstead, &id, |job| job["state"] == "done").await;
    assert_eq!(totals(&done, "done"), bytes(&image));
    assert_eq!(hub.blob_gets(layer), 1);
}

// === what it costs ===

#[tokio::test]
async fn a_dry_run_costs_nothing_and_foretells_what_the_run_costs() {
    let hub = Hub::start().await;
    let index = hub.push(&ImageSpec::new("library/index").tag("1"));
    let single = ImageSpec::new("library/single").tag("1").single().seed(5);
    let image = hub.push(&single);
    // The same layers and the same manifest under another name.
    hub.push(&ImageSpec { repository: "library/same".to_owned(), ..single });
    let roadstead = Roadstead::start(&hub).await;
    let request = amd64(&["index:1", "single:1", "same:1", "none:1"]);
    let dry = with(request.clone(), "dry_run", true);
    let first = warm(&roadstead, dry.clone()).await;
    let stats = hub.stats();
    assert_eq!((stats.counted, stats.manifest_get, stats.cdn_get, stats.blob_get), (0, 0, 0, 0));
    assert_eq!((totals(&first, "to_spend"), totals(&first, "spent")), (3, 0));
    assert_eq!(first["totals"]["is_estimate"], true);
    let notes = first["images"][0]["notes"].to_string();
    assert!(notes.contains("not known before it has been read"), "{notes}");
    assert!(error(&first, 3).contains("upstream refused"), "{first:#}");

    let read = warm(&roadstead, with(dry.clone(), "read_manifests", true)).await;
    assert_eq!((totals(&read, "spent"), totals(&read, "to_spend")), (3, 0));
    assert_eq!((manifest_gets(&hub), hub.stats().cdn_get), (3, 0));
    assert_eq!(totals(&read, "to_fetch"), bytes(&index) + bytes(&image));
    assert_eq!(read["totals"]["is_estimate"], false);

    let foretold = warm(&roadstead, dry).await;
    let run = warm(&roadstead, request).await;
    assert_eq!((totals(&foretold, "to_spend"), totals(&run, "spent")), (0, 0));
    assert_eq!(totals(&foretold, "to_fetch"), totals(&run, "fetched"));
    assert_eq!(manifest_gets(&hub), 3);
}

#[tokio::test]
async fn a_run_costs_what_was_foretold_where_nothing_was_cached() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/index").tag("1"));
    hub.push(&ImageSpec::new("library/single").tag("1").single());
    let roadstead = Roadstead::start(&hub).await;
    let request = amd64(&["index:1", "single:1"]);
    let dry = warm(&roadstead, with(request.clone(), "dry_run", true)).await;
    let run = warm(&roadstead, request).await;
    assert_eq!(totals(&dry, "to_spend"), totals(&run, "spent"));
    assert_eq!((totals(&run, "spent"), hub.stats().counted), (3, 3));
}

// === what it may not do ===

#[tokio::test]
async fn what_clients_may_not_pull_is_not_warmed() {
    let hub = Hub::start().await;
    for name in ["library/app", "library/secret"] {
        hub.push(&ImageSpec::new(name).tag("1").single());
    }
    let roadstead = Setup::of(&hub).with("deny", json!(["library/secret"])).start().await;
    let odd = ["app:1", "secret:1", "ghcr.io/a/b", "a b", "sha256:00", "app*"];
    let done = warm(&roadstead, amd64(&odd)).await;
    assert_eq!(done["state"], "failed");
    assert_eq!(done["images"][0]["state"], "done", "{done:#}");
    for (image, said) in [
        (1, "library/secret may not be pulled here (allow, deny"),
        (2, "ghcr.io is not an upstream; the upstreams are docker.io"),
        (3, "a repository name"),
        (4, "digest"),
        (5, "a pattern names no image"),
    ] {
        assert!(error(&done, image).contains(said), "{}", error(&done, image));
    }
    assert_eq!(manifest_gets(&hub), 1);
}

#[tokio::test]
async fn offline_means_offline() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    hub.push(&ImageSpec::new("library/new").tag("1").single());
    let roadstead = Roadstead::start(&hub).await;
    warm(&roadstead, amd64(&["app:1"])).await;
    api(&roadstead, "POST", "offline", json!({ "offline": true }), 200).await;
    let before = hub.stats().requests();
    let done = warm(&roadstead, amd64(&["app:1", "new:1"])).await;
    assert_eq!(hub.stats().requests(), before);
    assert_eq!(done["images"][0]["state"], "cached", "{done:#}");
    assert!(done["images"][0]["notes"].to_string().contains("not asked"), "{done:#}");
    assert!(error(&done, 1).contains("offline"), "{done:#}");
}

#[tokio::test]
async fn the_reserve_is_kept_for_clients() {
    let hub = Hub::start_with(Options { limit: Some(10), ..Options::default() }).await.unwrap();
    for name in ["library/a", "library/b"] {
        hub.push(&ImageSpec::new(name).tag("1").single());
    }
    let roadstead = Setup::of(&hub).with("budget.reserve", 9).start().await;
    let request = with(amd64(&["a:1", "b:1"]), "parallel", 1);
    let done = warm(&roadstead, request.clone()).await;
    assert_eq!(done["images"][0]["state"], "done", "{done:#}");
    let said = error(&done, 1);
    assert!(said.contains("9 of 10 pulls") && said.contains("budget.reserve"), "{said}");
    assert_eq!(
        done["budgets"][0],
        json!({
            "upstream": "docker.io", "remaining": 9, "limit": 10, "is_sparing": true,
        })
    );
    assert_eq!(hub.stats().counted, 1);
    let spent = warm(&roadstead, with(request, "spend_reserve", true)).await;
    assert_eq!(spent["state"], "done", "{spent:#}");
    assert_eq!(hub.stats().counted, 2);
}

#[tokio::test]
async fn what_would_not_be_kept_is_not_fetched() {
    let hub = Hub::start().await;
    let spec = ImageSpec::new("library/app").tag("1").single().layers(1).layer_size(9 << 20);
    let image = hub.push(&spec);
    let roadstead = Setup::of(&hub).key("store.disk", "8MiB").start().await;
    let done = warm(&roadstead, amd64(&["app:1"])).await;
    assert!(error(&done, 0).contains("more than store.disk"), "{done:#}");
    assert_eq!(hub.blob_gets(&image.layers[0].digest), 0);
}

#[tokio::test]
async fn one_layer_that_fails_stops_no_other() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new("library/app").tag("1").single());
    hub.push(&ImageSpec::new("library/other").tag("1").single());
    hub.fault(Fault::new(Target::blob(&image.layers[1].digest), Action::Status(404)));
    let roadstead = Roadstead::start(&hub).await;
    let done = warm(&roadstead, amd64(&["app:1", "other:1"])).await;
    assert_eq!(done["images"][1]["state"], "done", "{done:#}");
    assert!(error(&done, 0).contains(&image.layers[1].digest), "{done:#}");
    let states = done["images"][0]["layers"].as_array().unwrap();
    let count = |state: &str| states.iter().filter(|layer| layer["state"] == state).count();
    assert_eq!((count("done"), count("failed")), (3, 1), "{done:#}");
    hub.clear_faults();
}

// === the API ===

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_a_remedy() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    for (body, said) in [
        (json!({ "images": [] }), "no image is named"),
        (json!({ "images": ["a"], "parallel": 0 }), "parallel: 0"),
        (json!({ "images": ["a"], "parallel": 1000 }), "parallel: 1000"),
        (json!({ "images": ["a"], "platforms": ["linux"] }), "not a platform"),
        (json!({ "images": ["a"], "platforms": ["all", "linux/arm64"] }), "`all`"),
        (json!({ "image": "a" }), "image"),
        (json!({ "images": vec!["a"; 1001] }), "1001 images"),
    ] {
        let refused = api(&roadstead, "POST", "warm", body, 400).await;
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(said) && message.contains(';'), "{message}");
    }
    for method in ["GET", "DELETE"] {
        let refused = api(&roadstead, method, "warm/0123", Value::Null, 404).await;
        assert_eq!(refused["error"]["code"], "not_found");
    }
    let without = request(roadstead.admin(), "POST", "/api/v1/warm").body("{\"images\":[\"a\"]}");
    assert_eq!(without.send().await.status, 403);
    assert_eq!(hub.stats().requests(), 0);
}

#[tokio::test]
async fn jobs_are_few_and_a_cancelled_one_makes_room() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    hub.fault(Fault::new(Target::manifest("1"), Action::Hang));
    let roadstead = Roadstead::start(&hub).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(begin(&roadstead, amd64(&["app:1"])).await);
    }
    let refused = api(&roadstead, "POST", "warm", amd64(&["app:1"]), 429).await;
    assert_eq!(refused["error"]["code"], "busy");
    api(&roadstead, "DELETE", &format!("warm/{}", ids[0]), Value::Null, 200).await;
    let ended = until(&roadstead, &ids[0], |job| job["state"] == "cancelled").await;
    assert_eq!(ended["images"][0]["state"], "cancelled");
    begin(&roadstead, amd64(&["app:1"])).await;
    let all = api(&roadstead, "GET", "warm", Value::Null, 200).await;
    assert_eq!(all["jobs"].as_array().unwrap().len(), 9);
    hub.clear_faults();
}
