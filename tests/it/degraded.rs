//! P8: without a place on the disk a blob is streamed all the same, to all who want it; and limits
//! make clients wait, then say when to come again.

use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::get;
use crate::pull::{blob_path, digest};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";
const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn body(seed: u32, len: usize) -> Bytes {
    let body: Bytes = (seed..seed + len.div_ceil(4) as u32).flat_map(u32::to_le_bytes).collect();
    body.slice(..len)
}

/// A store with room for nothing that is larger than a manifest.
async fn without_room() -> (Hub, Roadstead) {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = Setup::of(&hub).key("store.disk", "8MiB").start().await;
    (hub, roadstead)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_without_room_is_fetched_once_for_all() {
    let (hub, roadstead) = without_room().await;
    let blob = hub.put_blob(NAME, body(0, 24 * MIB));
    let gate = hub.gate(Target::blob(&blob), MIB as u64);
    let mut opening = JoinSet::new();
    for _ in 0..16 {
        let request = get(roadstead.at(), blob_path(NAME, &blob));
        opening.spawn(async move {
            let mut answer = request.open().await;
            let first = answer.read(1).await.unwrap();
            (answer, first)
        });
    }
    let answers = timeout(PATIENCE, opening.join_all()).await.unwrap();
    gate.open();
    let mut reading = JoinSet::new();
    for (answer, first) in answers {
        reading.spawn(async move { [first, answer.finish().await.body].concat() });
    }
    for read in timeout(PATIENCE, reading.join_all()).await.unwrap() {
        assert_eq!(digest(&blob, &read), blob);
    }
    assert_eq!(hub.blob_gets(&blob), 1);
    assert!(roadstead.stored().is_empty());
    assert_eq!(roadstead.metric(&["roadstead_fills_unstored_total", "full"]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_what_is_not_stored_goes_on_by_itself() {
    let (hub, roadstead) = without_room().await;
    let blob = hub.put_blob(NAME, body(0, 48 * MIB));
    let gate = hub.gate(Target::blob(&blob), MIB as u64);
    let path = blob_path(NAME, &blob);
    let mut slow = get(roadstead.at(), &path).open_narrow().await;
    let mut begun = slow.read(1).await.unwrap();
    let fast = tokio::spawn(get(roadstead.at(), &path).send());
    gate.open();
    let fast = timeout(PATIENCE, fast).await.expect("the fast waits for the slow").unwrap();
    assert_eq!(digest(&blob, &fast.body), blob);
    // Far more than memory holds has passed by meanwhile.
    let rest = timeout(PATIENCE, slow.finish()).await.unwrap();
    assert!(rest.complete);
    begun.extend(rest.body);
    assert_eq!(digest(&blob, &begun), blob);
    assert_eq!(hub.blob_gets(&blob), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_what_is_not_stored_are_one_stream() {
    let (hub, roadstead) = without_room().await;
    let whole = body(0, 24 * MIB);
    let blob = hub.put_blob(NAME, whole.clone());
    let gate = hub.gate(Target::blob(&blob), MIB as u64);
    let mut clients = JoinSet::new();
    for part in 0..6 {
        let (from, to) = (part * 4 * MIB, (part + 1) * 4 * MIB);
        let ask = get(roadstead.at(), blob_path(NAME, &blob));
        let ask = ask.header("Range", format!("bytes={from}-{}", to - 1));
        clients.spawn(async move { (from, to, ask.send().await) });
    }
    gate.waiting().await;
    let deadline = Instant::now() + PATIENCE;
    while roadstead.metric(&["roadstead_connections"]).await < 6.0 {
        assert!(Instant::now() < deadline, "not all have come");
    }
    gate.open();
    for (from, to, reply) in timeout(PATIENCE, clients.join_all()).await.unwrap() {
        assert_eq!((reply.status, reply.complete), (206, true), "{from}-{to}");
        assert!(reply.body == whole.slice(from..to), "{from}-{to}: other bytes");
    }
    assert!(hub.blob_gets(&blob) <= 2, "{} requests", hub.blob_gets(&blob));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_blob_without_room_is_completed_for_nobody() {
    let (hub, roadstead) = without_room().await;
    let blob = hub.put_blob(NAME, body(0, 24 * MIB));
    hub.fault(Fault::new(Target::blob(&blob), Action::FlipByte(5_000_000)));
    let mut clients = JoinSet::new();
    for range in [None, None, Some("bytes=0-"), Some("bytes=20000000-")] {
        let ask = get(roadstead.at(), blob_path(NAME, &blob));
        clients.spawn(match range {
            Some(range) => ask.header("Range", range).send(),
            None => ask.send(),
        });
    }
    for reply in timeout(PATIENCE, clients.join_all()).await.unwrap() {
        assert!(!reply.complete || reply.status >= 500, "{} {}", reply.status, reply.body.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_fit_evicts_nothing() {
    let (hub, roadstead) = without_room().await;
    let small = hub.put_blob(NAME, body(7, MIB));
    assert!(get(roadstead.at(), blob_path(NAME, &small)).send().await.complete);
    roadstead.settled().await;
    let before = roadstead.stored();
    assert!(before.contains_key(&small));
    let large = hub.put_blob(NAME, body(0, 24 * MIB));
    let reply = get(roadstead.at(), blob_path(NAME, &large)).send().await;
    assert_eq!(digest(&large, &reply.body), large);
    roadstead.settled().await;
    assert_eq!(roadstead.stored(), before);
    assert_eq!(roadstead.metric(&["roadstead_evictions_total"]).await, 0.0);
}

// === limits ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_among_the_downloads_is_told_when_to_come_again() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let setup = Setup::of(&hub).impatient().key("fill.max_active", 1);
    let roadstead = setup.with("timeouts.read", "10s").start().await;
    let blobs = [0, 1].map(|seed| hub.put_blob(NAME, body(seed, 4 * MIB)));
    let gate = hub.gate(Target::blobs(), MIB as u64);
    let first = tokio::spawn(get(roadstead.at(), blob_path(NAME, &blobs[0])).send());
    gate.waiting().await;
    let second = get(roadstead.at(), blob_path(NAME, &blobs[1])).send().await;
    assert_eq!((second.status, second.error_code().as_str()), (503, "TOOMANYREQUESTS"));
    assert!(second.header("retry-after").is_some());
    assert_eq!(hub.blob_gets(&blobs[1]), 0);
    assert_eq!(roadstead.metric(&["roadstead_limited_total", "fills"]).await, 1.0);
    gate.open();
    assert!(first.await.unwrap().complete);
    let second = get(roadstead.at(), blob_path(NAME, &blobs[1])).send().await;
    assert!(second.complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_has_as_many_clients_as_it_may() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = Setup::of(&hub).key("fill.max_readers", 2).start().await;
    let blob = hub.put_blob(NAME, body(0, 4 * MIB));
    let gate = hub.gate(Target::blobs(), MIB as u64);
    let path = blob_path(NAME, &blob);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut answer = get(roadstead.at(), &path).open().await;
        answer.read(1).await.unwrap();
        clients.push(answer);
    }
    let third = get(roadstead.at(), &path).send().await;
    assert_eq!((third.status, third.error_code().as_str()), (503, "TOOMANYREQUESTS"));
    assert!(third.header("retry-after").is_some());
    gate.open();
    for client in clients {
        assert!(client.finish().await.complete);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_has_as_many_requests_as_it_may() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let setup = Setup::of(&hub).impatient().with("max_connections", 1);
    let roadstead = setup.with("timeouts.read", "10s").start().await;
    let blobs = [0, 1].map(|seed| hub.put_blob(NAME, body(seed, 4 * MIB)));
    let gate = hub.gate(Target::blobs(), MIB as u64);
    let first = tokio::spawn(get(roadstead.at(), blob_path(NAME, &blobs[0])).send());
    gate.waiting().await;
    let second = get(roadstead.at(), blob_path(NAME, &blobs[1])).send().await;
    assert_eq!(second.status, 503, "{}", second.text());
    assert!(second.header("retry-after").is_some());
    gate.open();
    assert!(first.await.unwrap().complete);
    let second = get(roadstead.at(), blob_path(NAME, &blobs[1])).send().await;
    assert!(second.complete, "it is held back for having been asked too much");
}
