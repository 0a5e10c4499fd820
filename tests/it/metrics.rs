//! The metrics page of a running server: every family that the README has, with its labels, and times
//! and states that are true.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Target};
use tokio::time::Instant;

use crate::client::{get, request};
use crate::pull::{accepting, blob_path, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, eventually};

const NAME: &str = "library/alpine";
const SOON: Duration = Duration::from_secs(20);

/// Family, type and labels of each row of the README's table.
fn table() -> Vec<(String, String, BTreeSet<String>)> {
    let readme = include_str!("../../README.md");
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        let kind = *cells.get(2)?;
        let is_family = ["counter", "gauge", "histogram"].contains(&kind);
        let labels =
            cells.get(3)?.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        is_family.then(|| (name.to_owned(), kind.to_owned(), labels))
    });
    rows.collect()
}

/// A sample's family and labels; `le` is the histogram's own.
fn sample(line: &str) -> (&str, BTreeSet<String>) {
    let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
    let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
    (name, labels.filter(|label| label != "le").collect())
}

#[tokio::test]
async fn the_page_has_what_the_readme_says() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = Roadstead::start(&hub).await;
    for _ in 0..2 {
        pull(roadstead.at(), NAME, "latest").await;
        roadstead.settled().await;
    }
    let page = get(roadstead.admin(), "/metrics").send().await.text();
    let table = table();
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = sample(line);
        let of = |(family, kind, _): &&(String, String, _)| match &**kind {
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| name.strip_suffix(suffix) == Some(&**family)),
            _ => name == *family,
        };
        let row = table.iter().find(of).unwrap_or_else(|| panic!("the README has no {name}"));
        assert_eq!(labels, row.2, "{line}");
        assert!(page.contains(&format!("# TYPE {} {}\n", row.0, row.1)), "{}", row.0);
        seen.insert(&row.0);
    }
    // What a pull touches is there.
    for name in [
        "roadstead_first_byte_seconds",
        "roadstead_fill_seconds",
        "roadstead_fill_bytes_total",
        "roadstead_upstream_request_seconds",
        "roadstead_upstream_requests_in_flight",
        "roadstead_store_objects",
        "roadstead_store_sync_seconds",
        "roadstead_build_info",
        "process_cpu_seconds_total",
        "process_anonymous_memory_bytes",
        "process_open_fds",
    ] {
        assert!(seen.contains(&name.to_owned()), "{name} is missing");
    }
}

#[tokio::test]
async fn states_are_what_is_there() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    let stored = roadstead.stored();
    assert_eq!(roadstead.metric(&["roadstead_store_objects"]).await as usize, stored.len());
    let blobs: u64 = image.all_blobs.iter().map(|blob| stored[&blob.digest]).sum();
    let committed = ["roadstead_fill_bytes_total", "committed"];
    assert_eq!(roadstead.metric(&committed).await as u64, blobs);
    let fills = roadstead.metric(&["roadstead_fills_total", "committed"]).await;
    assert_eq!(roadstead.metric(&["roadstead_fill_seconds_count"]).await, fills);
    assert_eq!(
        roadstead.metric(&["roadstead_store_sync_seconds_count"]).await as usize,
        stored.len()
    );
    for idle in ["roadstead_fill_readers", "roadstead_upstream_requests_in_flight"] {
        assert_eq!(roadstead.metric(&[idle]).await, 0.0, "{idle}");
    }
    let started = roadstead.metric(&["process_start_time_seconds"]).await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((0.0..600.0).contains(&(now - started)), "started at {started}, now {now}");
    let open = roadstead.metric(&["process_open_fds"]).await;
    assert!(open > 5.0 && open < roadstead.metric(&["process_max_fds"]).await, "{open}");
}

#[tokio::test]
async fn no_label_says_what_a_client_makes_up() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let at = roadstead.at();
    // Other values each time, answered alike each time.
    let made_up = async |number: usize| {
        let path = manifest_path(&format!("made/up-{number}"), &format!("tag-{number}"));
        let host = format!("host-{number}.example");
        for request in [
            request(at, &format!("METHOD{number}"), "/v2/"),
            get(at, &path),
            get(at, blob_path(&format!("made/up-{number}"), &hub::sha256(&number.to_le_bytes()))),
            get(at, manifest_path(&format!("made/up-too-{number}"), "latest")).header("Host", host),
            get(at, format!("{path}?ns=ns-{number}.example")),
        ] {
            let status = request.send().await.status;
            assert!((400..500).contains(&status), "{status}");
        }
    };
    let label_sets = async |requests: usize| {
        // A client has its answer a moment before that is in the books.
        let deadline = Instant::now() + SOON;
        while roadstead.metric(&["roadstead_requests_total"]).await as usize != requests {
            assert!(Instant::now() < deadline, "not all are counted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        roadstead.metrics().await.into_keys().collect::<BTreeSet<_>>()
    };
    made_up(0).await;
    let before = label_sets(5).await;
    for number in 1..=12 {
        made_up(number).await;
    }
    let after = label_sets(5 * 13).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
}

#[tokio::test]
async fn what_is_stored_is_counted_again_after_a_restart() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    let stored = roadstead.stored().len();
    roadstead.terminate().await;
    roadstead.restart().await;
    assert_eq!(roadstead.metric(&["roadstead_store_objects"]).await as usize, stored);
}

#[tokio::test]
async fn times_are_by_what_the_cache_did() {
    let hub = Hub::start().await;
    let layer = hub.put_blob(NAME, Bytes::from(vec![7; 300_000]));
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = Setup::of(&hub).with("tags.fresh_for", "1h").start().await;
    let path = blob_path(NAME, &layer);
    hub.fault(Fault::new(Target::blob(&layer), Action::Delay(Duration::from_millis(300))).times(1));
    assert_eq!(get(roadstead.at(), &path).send().await.status, 200);
    roadstead.settled().await;
    let missed = ["kind=\"blob\"", "cache=\"miss\""];
    let sum = async |family: &str, labels: &[&str; 2]| {
        roadstead.metric(&[family, labels[0], labels[1]]).await
    };
    // The wait for upstream is before the first byte.
    assert!(sum("roadstead_first_byte_seconds_sum", &missed).await >= 0.3);
    let total = sum("roadstead_request_seconds_sum", &missed).await;
    assert!(total >= sum("roadstead_first_byte_seconds_sum", &missed).await);
    // Repeated answers are in the same families.
    let tag = accepting(get(roadstead.at(), manifest_path(NAME, "latest")));
    for _ in 0..5 {
        assert_eq!(tag.clone().send().await.status, 200);
    }
    let hits = ["kind=\"manifest\"", "cache=\"hit\""];
    // A client has its answer a moment before that is in the books.
    let counts = async || {
        let families = ["requests_total", "first_byte_seconds_count", "request_seconds_count"];
        let mut counts = Vec::new();
        for family in families {
            counts.push(sum(&format!("roadstead_{family}"), &hits).await);
        }
        counts
    };
    let deadline = Instant::now() + SOON;
    while counts().await != [4.0; 3] {
        assert!(Instant::now() < deadline, "{:?}", counts().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(roadstead.metric(&["roadstead_repeated_answers_total"]).await > 0.0);
}

#[tokio::test]
async fn a_host_is_shown_only_while_it_is_held_back() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = Setup::of(&hub).impatient().start().await;
    pull(roadstead.at(), NAME, "latest").await;
    let shown = async || {
        let metrics = roadstead.metrics().await;
        metrics.keys().any(|name| name.starts_with("roadstead_breaker_open"))
    };
    assert!(!shown().await);
    hub.fault(Fault::new(Target::any(), Action::Hang));
    let tag = accepting(get(roadstead.at(), manifest_path(NAME, "latest")));
    assert_eq!(tag.send().await.status, 200);
    assert!(shown().await);
    let errors = roadstead.metric(&["roadstead_upstream_errors_total"]).await;
    assert!(errors > 0.0, "nobody answered, and nothing says so");
    hub.clear_faults();
    eventually("it answers again", SOON, || roadstead.log().contains("answers again")).await;
    assert!(!shown().await);
}
