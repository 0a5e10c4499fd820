//! P7: what a kill -9 leaves behind, and what "ready" means.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use hub::{Hub, ImageSpec};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::client::get;
use crate::pull::{Puller, blob_path, digest, pull};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";

/// Pulls that are killed at random instants: nothing wrong, nothing lost, nothing uncounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_instant_leaves_no_wrong_byte_and_none_uncounted() {
    let hub = Hub::start_with(hub::Options { limit: None, ..hub::Options::default() });
    let hub = hub.await.unwrap();
    let mut roadstead = Roadstead::start(&hub).await;
    let mut published = Vec::new();
    for round in 1..=12u64 {
        let name = format!("library/image{round}");
        hub.push(&ImageSpec::new(&name).tag("latest").layer_size(300 << 10));
        let puller = Puller::new(roadstead.at());
        let pulling = async { puller.image(&name, "latest").await };
        let patience = Duration::from_millis(10 * round);
        if let Ok(Ok(_)) = timeout(patience, pulling).await {
            published.push(name);
        }
        roadstead.kill9();
        roadstead.assert_all_stored_is_right();
        roadstead.restart().await;
        roadstead.assert_books_are_right().await;
    }
    let last = "library/image12";
    pull(roadstead.at(), last, "latest").await;
    roadstead.assert_all_stored_is_right();
}

/// The instant between the file's name and its entry in the index.
#[tokio::test]
async fn a_file_that_has_its_name_is_known_after_a_kill_9() {
    let hub = Hub::start().await;
    let mut roadstead = Roadstead::start(&hub).await;
    for round in 0..8u64 {
        let body = bytes::Bytes::from(vec![round as u8; 100_000]);
        hub.push(&ImageSpec::new(NAME).tag("latest"));
        let blob = hub.put_blob(NAME, body);
        let reading = tokio::spawn(get(roadstead.at(), blob_path(NAME, &blob)).send());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !roadstead.stored().contains_key(&blob) {
            assert!(Instant::now() < deadline, "it is never stored");
            tokio::task::yield_now().await;
        }
        roadstead.kill9();
        let _ = reading.await;
        roadstead.restart().await;
        roadstead.assert_books_are_right().await;
    }
}

#[tokio::test]
async fn ready_means_that_clients_are_accepted() {
    let hub = Hub::start().await;
    for _ in 0..10 {
        let roadstead = Setup::of(&hub).start_until_it_says_ready().await;
        let connected = TcpStream::connect(roadstead.at()).await;
        assert!(connected.is_ok(), "/readyz says 200 and the client port refuses");
    }
}

#[tokio::test]
async fn a_small_blob_that_rotted_on_disk_is_fetched_again() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let mut roadstead = Roadstead::start(&hub).await;
    let pulled = pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    assert!(roadstead.terminate().await.success());
    for blob in roadstead.stored().keys() {
        let (algorithm, hex) = blob.split_once(':').unwrap();
        let file = roadstead.data().join("blobs").join(algorithm).join(&hex[..2]).join(hex);
        let file = fs::File::options().write(true).open(file).unwrap();
        file.write_all_at(b"\xff\x00\xff", 20).unwrap();
    }
    roadstead.restart().await;
    assert_eq!(pull(roadstead.at(), NAME, "latest").await, pulled);
}

#[tokio::test]
async fn a_blob_file_that_was_cut_or_removed_is_fetched_again() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let body = bytes::Bytes::from(vec![5; 3 << 20]);
    let blob = hub.put_blob(NAME, body);
    let mut roadstead = Roadstead::start(&hub).await;
    for cut in [None, Some(1 << 20)] {
        let reply = get(roadstead.at(), blob_path(NAME, &blob)).send().await;
        assert!(reply.complete);
        roadstead.settled().await;
        roadstead.kill9();
        let (algorithm, hex) = blob.split_once(':').unwrap();
        let file = roadstead.data().join("blobs").join(algorithm).join(&hex[..2]).join(hex);
        match cut {
            None => fs::remove_file(file).unwrap(),
            Some(len) => fs::File::options().write(true).open(file).unwrap().set_len(len).unwrap(),
        }
        roadstead.restart().await;
        let reply = get(roadstead.at(), blob_path(NAME, &blob)).send().await;
        assert!(reply.complete);
        assert_eq!(digest(&blob, &reply.body), blob);
        roadstead.settled().await;
    }
}

/// What the index said is learnt again from the files, and costs no counted request.
#[tokio::test]
async fn a_lost_or_broken_index_costs_no_fetch() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(300 << 10));
    let mut roadstead = Roadstead::start(&hub).await;
    let pulled = pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
    let index = roadstead.data().join("index.redb");
    let whole = fs::read(&index).unwrap();
    let broken = [None, Some(vec![0; 4096]), Some(whole[..whole.len() / 2].to_vec())];
    for (round, broken) in broken.into_iter().enumerate() {
        roadstead.kill9();
        match broken {
            None => fs::remove_file(&index).unwrap(),
            Some(bytes) => fs::write(&index, bytes).unwrap(),
        }
        hub.reset_stats();
        roadstead.restart().await;
        // P8: what the index does not know takes its room all the same.
        let there: u64 = roadstead.stored().values().sum();
        let used = roadstead.metric(&["roadstead_store_bytes", "\"used\""]).await as u64;
        assert!(there > 300 << 10 && used >= there, "round {round}: {used} counted of {there}");
        assert_eq!(pull(roadstead.at(), NAME, "latest").await, pulled, "round {round}");
        let stats = hub.stats();
        assert_eq!((stats.counted, stats.cdn_get), (0, 0), "round {round}: {stats:?}");
        assert_eq!(hub.manifest_gets(&image.digest), 0, "round {round}");
        roadstead.settled().await;
        roadstead.assert_all_stored_is_right();
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_store_is_refused() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let data = roadstead.data();
    let second = std::process::Command::new(crate::roadstead::BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("another process uses this store"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused_and_left_alone() {
    let hub = Hub::start().await;
    let mut roadstead = Roadstead::start(&hub).await;
    pull_of(&hub, &roadstead).await;
    assert!(roadstead.terminate().await.success());
    let before = roadstead.stored();
    fs::write(roadstead.data().join("FORMAT"), "999\n").unwrap();
    let output = std::process::Command::new(crate::roadstead::BINARY)
        .args(["serve", "--config"])
        .arg(roadstead.config())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("format 999") && said.contains("run the version"), "{said}");
    assert_eq!(roadstead.stored(), before);
}

async fn pull_of(hub: &Hub, roadstead: &Roadstead) {
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    pull(roadstead.at(), NAME, "latest").await;
    roadstead.settled().await;
}

fn file_of(roadstead: &Roadstead, blob: &str) -> std::path::PathBuf {
    let (algorithm, hex) = blob.split_once(':').unwrap();
    roadstead.data().join("blobs").join(algorithm).join(&hex[..2]).join(hex)
}

/// Rot in a file that nobody has read since: the scrub finds it.
#[tokio::test]
async fn the_scrub_finds_a_large_blob_that_rotted() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let blob = hub.put_blob(NAME, bytes::Bytes::from(vec![5; 3 << 20]));
    let mut roadstead = Setup::of(&hub).key("store.scrub_rate", "100MiB").start().await;
    assert!(get(roadstead.at(), blob_path(NAME, &blob)).send().await.complete);
    roadstead.settled().await;
    roadstead.kill9();
    let file = fs::File::options().write(true).open(file_of(&roadstead, &blob)).unwrap();
    file.write_all_at(b"rot", 2 << 20).unwrap();
    roadstead.restart().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while roadstead.metric(&["roadstead_store_quarantined_total"]).await < 1.0 {
        assert!(Instant::now() < deadline, "the scrub does not find it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    roadstead.assert_books_are_right().await;
    let reply = get(roadstead.at(), blob_path(NAME, &blob)).send().await;
    assert_eq!(digest(&blob, &reply.body), blob);
    assert_eq!(hub.blob_gets(&blob), 2);
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();
}

/// The file is open and mapped already when it is cut: its pages can't be read any more.
#[tokio::test]
async fn an_open_blob_that_is_cut_short_is_fetched_on_from_there() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let body: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = hub.put_blob(NAME, bytes::Bytes::from(body));
    let roadstead = Roadstead::start(&hub).await;
    for _ in 0..2 {
        assert!(get(roadstead.at(), blob_path(NAME, &blob)).send().await.complete);
        roadstead.settled().await;
    }
    let file = fs::File::options().write(true).open(file_of(&roadstead, &blob)).unwrap();
    file.set_len(3 << 20).unwrap();
    let reply = get(roadstead.at(), blob_path(NAME, &blob)).send().await;
    assert!(reply.complete);
    assert_eq!(digest(&blob, &reply.body), blob);
    assert_eq!(roadstead.metric(&["roadstead_store_quarantined_total"]).await, 1.0);
}
