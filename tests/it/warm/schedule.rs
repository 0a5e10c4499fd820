//! What the configuration has warmed by itself.

use std::fs;

use hub::{Hub, ImageSpec, Target};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{MIB, PATIENCE, api, begin, bytes, job, manifest_gets, until};
use crate::pull::pull;
use crate::roadstead::{Roadstead, Setup};

async fn overview(roadstead: &Roadstead, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = api(roadstead, "GET", "warm", Value::Null, 200).await;
        if condition(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "still waiting for {what}: {found:#}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The jobs of one entry of `warm`, the newest first.
fn jobs_of<'a>(overview: &'a Value, key: &str) -> Vec<&'a Value> {
    let jobs = overview["jobs"].as_array().unwrap();
    jobs.iter().filter(|job| job["schedule"] == key).collect()
}

fn ended(overview: &Value, key: &str) -> usize {
    jobs_of(overview, key).iter().filter(|job| job["state"] == "done").count()
}

/// A schedule of another image that runs every second: what it has done says how long it was.
fn clock(hub: &Hub) -> Value {
    hub.push(&ImageSpec::new("library/clock").tag("1").single().layers(1).seed(7));
    json!({ "every": "1s", "images": ["clock:1"] })
}

#[tokio::test]
async fn a_schedule_runs_again_and_again_and_only_the_first_time_costs() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new("library/app").tag("1"));
    hub.push(&ImageSpec::new("library/listed").tag("1").single().layers(1));
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("images.txt");
    fs::write(&list, "# nightly\nlisted:1  # too\n").unwrap();
    let warm = json!([{
        "every": "1s", "images": ["app:1"], "list": list, "platforms": ["linux/amd64"],
    }]);
    let roadstead = Setup::of(&hub).key("warm", warm).start().await;
    let found = overview(&roadstead, "three runs", |found| ended(found, "warm[0]") >= 3).await;
    assert_eq!(manifest_gets(&hub), 3);
    let first = found["jobs"].as_array().unwrap().last().unwrap();
    assert_eq!((&first["schedule"], &first["totals"]["spent"]), (&json!("warm[0]"), &json!(3)));
    assert!(first["totals"]["fetched"].as_u64().unwrap() > bytes(&image));
    assert_eq!(found["jobs"][0]["totals"]["fetched"], 0, "{found:#}");
    let schedule = &found["schedules"][0];
    assert_eq!((&schedule["key"], &schedule["when"]), (&json!("warm[0]"), &json!("every 1s")));

    // The list is read again each time.
    fs::remove_file(&list).unwrap();
    let found = overview(&roadstead, "an error", |found| !found["schedules"][0]["error"].is_null());
    let found = found.await;
    assert!(found["schedules"][0]["error"].as_str().unwrap().contains("images.txt"), "{found:#}");
    assert!(roadstead.log().contains("a schedule could not begin"));
}

#[tokio::test]
async fn a_schedule_never_runs_beside_itself() {
    let hub = Hub::start().await;
    let image =
        hub.push(&ImageSpec::new("library/app").tag("1").single().layers(1).layer_size(2 << 20));
    let gate = hub.gate(Target::blob(&image.layers[0].digest), MIB);
    let warm = json!([{ "every": "1s", "images": ["app:1"] }, clock(&hub)]);
    let roadstead = Setup::of(&hub).key("warm", warm).start().await;
    gate.waiting().await;
    let found = overview(&roadstead, "the clock", |found| ended(found, "warm[1]") >= 3).await;
    assert_eq!(jobs_of(&found, "warm[0]").len(), 1, "{found:#}");
    assert_eq!(found["schedules"][0]["next_at"], Value::Null);
    gate.open();
    overview(&roadstead, "the next run", |found| ended(found, "warm[0]") >= 2).await;
}

#[tokio::test]
async fn a_schedule_that_stands_elsewhere_now_does_not_run_beside_itself() {
    let hub = Hub::start().await;
    let image =
        hub.push(&ImageSpec::new("library/app").tag("1").single().layers(1).layer_size(2 << 20));
    let gate = hub.gate(Target::blob(&image.layers[0].digest), MIB);
    let app = json!({ "every": "1s", "images": ["app:1"] });
    let mut roadstead = Setup::of(&hub).key("warm", json!([app])).start().await;
    gate.waiting().await;
    let other = json!({ "at": "03:00", "images": ["other:1"] });
    let clock = clock(&hub);
    roadstead.rewrite(|setup| setup.key("warm", json!([other, app, clock])));
    assert_eq!(roadstead.reload().await.status, 200);
    let found = overview(&roadstead, "the clock", |found| ended(found, "warm[2]") >= 3).await;
    // It began under the key that it had then.
    let jobs = jobs_of(&found, "warm[0]");
    assert_eq!((jobs.len(), jobs_of(&found, "warm[1]").len()), (1, 0), "{found:#}");
    let schedule = &found["schedules"][1];
    assert_eq!((&schedule["key"], &schedule["last_job"]), (&json!("warm[1]"), &jobs[0]["id"]));
    gate.open();
    overview(&roadstead, "the next run", |found| ended(found, "warm[1]") >= 1).await;
}

#[tokio::test]
async fn a_time_of_day_is_waited_for() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    let warm = json!([{ "at": "03:00", "images": ["app:1"] }]);
    let roadstead = Setup::of(&hub).key("warm", warm).variable("TZ", "UTC").start().await;
    let found =
        overview(&roadstead, "a time", |found| found["schedules"][0]["next_at"].as_u64().is_some());
    let next = found.await["schedules"][0]["next_at"].as_u64().unwrap();
    // 03:00, and at most five minutes late.
    assert!((3 * 3600..=3 * 3600 + 301).contains(&(next % 86_400)), "{next}");
}

#[tokio::test]
async fn a_time_that_was_settled_outlives_a_reload_of_something_else() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    let nightly = json!({ "at": "03:00", "images": ["app:1"] });
    let warm = json!([nightly]);
    let mut roadstead = Setup::of(&hub).key("warm", warm).variable("TZ", "UTC").start().await;
    let is_settled = |found: &Value| found["schedules"][0]["next_at"].as_u64().is_some();
    let before = overview(&roadstead, "a time", is_settled).await;
    // Its lateness is by chance: drawn anew, it would be the same once in a while.
    for (disk, tag) in [("2GiB", "2"), ("3GiB", "3"), ("4GiB", "4")] {
        hub.push(&ImageSpec::new("library/clock").tag(tag).single().seed(9));
        let clock = json!({ "every": "1s", "images": [format!("clock:{tag}")] });
        roadstead
            .rewrite(|setup| setup.key("store.disk", disk).key("warm", json!([nightly, clock])));
        assert_eq!(roadstead.reload().await.status, 200);
        let is_kept = |found: &Value| !found["schedules"][1]["last_job"].is_null();
        let after = overview(&roadstead, "the new timetable", is_kept).await;
        assert_eq!(after["schedules"][0], before["schedules"][0]);
    }
}

#[tokio::test]
async fn a_lower_limit_of_fills_leaves_places_for_clients() {
    let hub = Hub::start().await;
    let spec = ImageSpec::new("library/app").tag("1").single().layers(6).layer_size(2 << 20);
    let image = hub.push(&spec);
    let gates: Vec<_> =
        image.layers.iter().map(|layer| hub.gate(Target::blob(&layer.digest), MIB)).collect();
    hub.push(&ImageSpec::new("library/other").tag("1").single().layers(1).seed(9));
    let mut roadstead = Roadstead::start(&hub).await;
    roadstead.rewrite(|setup| setup.key("fill.max_active", 4));
    assert_eq!(roadstead.reload().await.status, 200);
    let id = begin(&roadstead, json!({ "images": ["app:1"], "parallel": 8 })).await;
    let on_their_way = |job: &Value| {
        let layers = job["images"][0]["layers"].as_array();
        layers.into_iter().flatten().filter(|layer| layer["state"] == "fetching").count()
    };
    until(&roadstead, &id, |job| on_their_way(job) >= 2).await;
    pull(roadstead.at(), "library/other", "1").await;
    assert_eq!(on_their_way(&job(&roadstead, &id).await), 2);
    gates.iter().for_each(|gate| gate.open());
    until(&roadstead, &id, |job| job["state"] == "done").await;
}

#[tokio::test]
async fn an_image_of_no_upstream_is_refused_at_the_start() {
    let hub = Hub::start().await;
    let warm = json!([{ "every": "1h", "images": ["ghcr.io/a/b"] }]);
    let failed = Setup::of(&hub).key("warm", warm).try_start().await.unwrap_err();
    assert_eq!(failed.ended.and_then(|status| status.code()), Some(2));
    assert!(
        failed.log.contains(
            "warm[0].images: ghcr.io/a/b: ghcr.io is not an upstream; the upstreams are docker.io"
        ),
        "{failed}"
    );
}

#[tokio::test]
async fn a_schedule_that_is_written_into_the_configuration_begins_with_a_reload() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    let mut roadstead = Roadstead::start(&hub).await;
    let wrong = json!([{ "every": "1h", "images": ["ghcr.io/a/b"] }]);
    roadstead.rewrite(|setup| setup.key("warm", wrong));
    let refused = roadstead.reload().await;
    assert!(refused.text().contains("warm[0].images"), "{}", refused.text());
    roadstead.rewrite(|setup| setup.key("warm", json!([{ "every": "1s", "images": ["app:1"] }])));
    assert_eq!(roadstead.reload().await.status, 200);
    let found = overview(&roadstead, "two runs", |found| ended(found, "warm[0]") >= 2).await;
    assert_eq!(found["schedules"].as_array().unwrap().len(), 1);
    assert_eq!(manifest_gets(&hub), 1);
    roadstead.rewrite(|setup| setup.key("warm", json!([])));
    assert_eq!(roadstead.reload().await.status, 200);
    let found = api(&roadstead, "GET", "warm", Value::Null, 200).await;
    assert_eq!(found["schedules"], json!([]));
}
