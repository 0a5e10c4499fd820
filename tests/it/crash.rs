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
