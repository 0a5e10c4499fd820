//! What an operator is told of how it goes: status, history, fills and events.

use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Target};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::get;
use crate::pull::{accepting, blob_path, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, eventually};

const MIB: usize = 1 << 20;
const IMAGE: &str = "library/app";
const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(roadstead: &Roadstead, path: &str) -> Value {
    let reply = get(roadstead.admin(), format!("/api/v1/{path}")).send().await;
    assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
    reply.json()
}

/// What `path` answers once that is as it should be.
async fn ask_until(roadstead: &Roadstead, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(roadstead, path).await;
        if is_so(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} never came to be as it should: {answer:#}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn image(layer_bytes: usize) -> ImageSpec {
    ImageSpec::new(IMAGE).tag("latest").layers(1).layer_size(layer_bytes).single()
}

fn sum(series: &Value, count: &str) -> u64 {
    let points = series["points"].as_array().unwrap().iter();
    points.filter_map(|point| point[count].as_u64()).sum()
}

#[tokio::test]
async fn the_status_tells_what_was_asked_for_and_what_it_cost() {
    let hub = Hub::start().await;
    hub.push(&image(MIB));
    let roadstead = Setup::of(&hub).with("tags.fresh_for", "1h").start().await;
    pull(roadstead.at(), IMAGE, "latest").await;
    roadstead.settled().await;
    let cold = ask(&roadstead, "status").await;
    assert!(cold["totals"]["bytes_from_cache"].as_u64().unwrap() < MIB as u64 / 2, "{cold:#}");
    for _ in 0..3 {
        pull(roadstead.at(), IMAGE, "latest").await;
    }

    let in_books = |status: &Value, list: &str| {
        status[list]["by_requests"][0]["requests"] == status["totals"]["requests"]
    };
    let is_counted = |status: &Value| {
        let ratio = status["hit_ratio"]["bytes"].as_f64();
        let rate = status["traffic"]["requests_per_second"].as_f64();
        // Nothing is averaged over less than a tenth of a second.
        rate > Some(0.0)
            && ratio > Some(0.74)
            && ["repositories", "clients"].iter().all(|list| in_books(status, list))
    };
    let status = ask_until(&roadstead, "status", is_counted).await;
    let count = |name: &str| status["totals"][name].as_u64().unwrap();
    assert!(count("requests") >= count("hits") + count("misses"), "{status:#}");
    assert!(count("misses") > 0 && count("hits") >= 3 * count("misses"), "{status:#}");
    assert!(count("bytes") >= 4 * MIB as u64 && count("upstream_bytes") >= MIB as u64);
    assert_eq!(status["ready"], true);
    let spent = hub.stats().counted;
    assert_eq!((spent, count("spent")), (1, 1));
    assert_eq!(status["budgets"][0]["spent"].as_u64(), Some(spent), "{status:#}");
    assert!(status["budgets"][0]["saved"].as_u64() > Some(0), "{status:#}");

    // Requests along the chain and those that are answered before HTTP is parsed alike.
    let first = &status["repositories"]["by_bytes"][0];
    assert_eq!((&first["name"], &first["upstream"]), (&IMAGE.into(), &"docker.io".into()));
    assert_eq!(first["bytes"].as_u64(), Some(count("bytes")), "{status:#}");
    assert_eq!(first["spent"].as_u64(), Some(spent), "{status:#}");
    let client = &status["clients"]["by_requests"][0];
    assert_eq!((&client["name"], &client["bytes"]), (&"127.0.0.1".into(), &first["bytes"]));

    let process = &status["process"];
    assert!(process["memory_bytes"].as_u64() > Some(MIB as u64), "{process:#}");
    let [open, limit] =
        ["open_files", "open_files_limit"].map(|name| process[name].as_u64().unwrap());
    assert!(0 < open && open < limit, "{process:#}");
    let disk = &status["disk"];
    assert!(disk["published_bytes"].as_u64() > Some(MIB as u64), "{disk:#}");
    assert!(disk["history_bytes"].as_u64() > Some(0), "{disk:#}");
    assert_eq!(disk.get("trouble"), Some(&Value::Null), "{disk:#}");
}

#[tokio::test]
async fn an_account_with_nothing_left_has_run_out_now() {
    let hub = Hub::start().await;
    for seed in [1, 2] {
        hub.push(&image(4096).tag(seed.to_string()).seed(seed));
    }
    hub.set_budget(None, 2);
    let roadstead = Setup::of(&hub).start().await;
    let account = |status: &Value| status["budgets"][0]["accounts"][0].clone();
    let card = async || {
        let page = get(roadstead.admin(), "/").send().await.text();
        let (_, card) = page.split_once("id=\"budget\"").unwrap();
        card.split_once("</section>").unwrap().0.to_owned()
    };
    pull(roadstead.at(), IMAGE, "1").await;
    let status = ask_until(&roadstead, "status", |status| account(status)["remaining"] == 1).await;
    assert_eq!(account(&status).get("runs_out_at"), Some(&Value::Null), "{status:#}");
    let told = card().await;
    assert!(told.contains("<b>1</b> of 100") && !told.contains("nothing is left"), "{told}");

    pull(roadstead.at(), IMAGE, "2").await;
    let status = ask_until(&roadstead, "status", |status| account(status)["remaining"] == 0).await;
    let at = account(&status)["runs_out_at"].as_u64();
    assert!(at.is_some() && at == status["now"].as_u64(), "{status:#}");
    let told = card().await;
    assert!(told.contains("<b>0</b> of 100") && told.contains("nothing is left"), "{told}");
}

#[tokio::test]
async fn a_repetition_is_in_the_books_of_its_repository_and_client() {
    let hub = Hub::start().await;
    hub.push(&image(4096));
    let roadstead = Setup::of(&hub).with("tags.fresh_for", "1h").start().await;
    for _ in 0..10 {
        let request = accepting(get(roadstead.at(), manifest_path(IMAGE, "latest")));
        assert_eq!(request.send().await.status, 200);
    }
    assert!(roadstead.metric(&["roadstead_repeated_answers_total"]).await >= 5.0);
    let ten = |entry: &Value| entry["requests"].as_u64() == Some(10);
    let are_counted = |status: &Value| {
        let lists = [&status["repositories"]["by_requests"][0], &status["clients"]["by_bytes"][0]];
        ten(&status["totals"]) && lists.into_iter().all(ten)
    };
    ask_until(&roadstead, "status", are_counted).await;
    // Whoever asks for what is not there makes no name known.
    get(roadstead.at(), manifest_path("library/no-such", "latest")).send().await;
    let status = ask(&roadstead, "status").await;
    assert_eq!(status["repositories"]["by_requests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn whoever_watches_is_sent_the_status() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let mut watching = get(roadstead.admin(), "/api/v1/stream").open().await;
    assert_eq!(watching.status, 200);
    let mut seen = Vec::new();
    while !seen.ends_with(b"\n\n") {
        seen.extend(watching.next(1 << 20).await.unwrap().expect("it goes on"));
    }
    let seen = String::from_utf8(seen).unwrap();
    let data = seen.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let status: Value = serde_json::from_str(data).unwrap();
    assert_eq!(status["ready"], true, "{seen}");
    assert!(status["totals"]["requests"].is_u64(), "{seen}");
}

#[tokio::test]
async fn the_history_outlives_a_process_that_is_killed() {
    let hub = Hub::start().await;
    hub.push(&image(MIB));
    let mut roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), IMAGE, "latest").await;
    let is_there = |series: &Value| sum(series, "requests") > 0 && sum(series, "fills") > 0;
    let before = ask_until(&roadstead, "history?span=hour", is_there).await;
    assert_eq!(before["step_seconds"].as_u64(), Some(10));
    assert_eq!(before["points"].as_array().unwrap().len(), 360);
    assert!(before["points"][0].is_null(), "nobody counted an hour ago");
    let file = roadstead.data().join("history.ring");
    let read = || std::fs::read(&file).unwrap_or_default();
    let bytes = read();
    eventually("the history is written", PATIENCE, || read() != bytes).await;
    roadstead.assert_books_are_right().await;

    roadstead.kill9();
    roadstead.restart().await;
    for span in ["hour", "day", "week"] {
        let after = ask(&roadstead, &format!("history?span={span}")).await;
        assert_eq!(after["span"], span);
        assert!(sum(&after, "requests") >= sum(&before, "requests"), "{span}: {after:#}");
    }
    let status = ask(&roadstead, "status").await;
    assert_eq!(status["totals"]["requests"].as_u64(), Some(0), "the process is another one");
    assert!(status["hit_ratio"]["requests_last_hour"].is_f64(), "{status:#}");
    let refused = get(roadstead.admin(), "/api/v1/history?span=year").send().await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn a_fill_under_way_is_told_with_its_progress() {
    let hub = Hub::start().await;
    let layer = hub.put_blob(IMAGE, Bytes::from(vec![7; 8 * MIB]));
    let gate = hub.gate(Target::blob(&layer), 2 * MIB as u64);
    let roadstead = Setup::of(&hub).start().await;
    let reading = get(roadstead.at(), blob_path(IMAGE, &layer)).open().await;
    let has_come = |fills: &Value| fills["fills"][0]["received_bytes"].as_u64() >= Some(MIB as u64);
    let fills = ask_until(&roadstead, "fills", has_come).await;
    let fill = &fills["fills"][0];
    assert_eq!(fills["active"].as_u64(), Some(1));
    assert_eq!((&fill["digest"], &fill["repository"]), (&layer.as_str().into(), &IMAGE.into()));
    assert_eq!((&fill["state"], &fill["upstream"]), (&"receiving".into(), &"docker.io".into()));
    assert_eq!(fill["total_bytes"].as_u64(), Some(8 * MIB as u64));
    assert_eq!(fill["readers"].as_u64(), Some(1));
    gate.open();
    assert_eq!(reading.finish().await.body.len(), 8 * MIB);
    let is_over = |fills: &Value| fills["active"].as_u64() == Some(0);
    ask_until(&roadstead, "fills", is_over).await;
}

#[tokio::test]
async fn an_outage_is_an_event_with_a_remedy_and_is_counted_not_repeated() {
    let hub = Hub::start().await;
    hub.push(&image(4096));
    let roadstead = Setup::of(&hub).impatient().start().await;
    pull(roadstead.at(), IMAGE, "latest").await;
    assert!(ask(&roadstead, "events").await["events"].as_array().unwrap().is_empty());
    hub.fault(Fault::new(Target::any(), Action::Drop));
    for number in 0..5 {
        let path = manifest_path(IMAGE, &format!("v{number}"));
        assert!(get(roadstead.at(), path).send().await.status >= 500);
    }
    let is_told = |events: &Value| !events["events"].as_array().unwrap().is_empty();
    let told = ask_until(&roadstead, "events", is_told).await;
    let events = told["events"].as_array().unwrap();
    let outage =
        events.iter().find(|event| event["message"] == "is not asked until it answers a probe");
    let outage = outage.unwrap_or_else(|| panic!("{told:#}"));
    assert!(outage["remedy"].as_str().is_some_and(|remedy| remedy.contains("DNS")), "{outage:#}");
    assert_eq!(outage["level"], "warning");
    assert!(events.len() < 5, "{told:#}");
    let last = events.last().unwrap()["id"].as_u64().unwrap();
    let after = ask(&roadstead, &format!("events?after={last}")).await;
    assert!(
        after["events"].as_array().unwrap().iter().all(|event| event["id"].as_u64() > Some(last))
    );
}
