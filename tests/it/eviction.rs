//! P8: the limit on disk, and who goes when it is reached.

use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Target};

use crate::client::{Answer, Reply, get};
use crate::pull::{blob_path, digest, get_manifest};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";
const MIB: u64 = 1 << 20;
const LIMIT: u64 = 32 * MIB;

struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    /// Of 12 MiB each: more than the kernel takes on its way to a client that does not read.
    blobs: Vec<String>,
}

// === impl Stage ===

impl Stage {
    async fn set(count: u8) -> Self {
        let hub = Hub::start().await;
        hub.push(&ImageSpec::new(NAME).tag("latest"));
        let body = |seed: u8| Bytes::from(vec![seed; 12 << 20]);
        let blobs = (0..count).map(|seed| hub.put_blob(NAME, body(seed))).collect();
        let setup = Setup::of(&hub).key("store.disk", "32MiB");
        let setup = setup.key("store.memory", "1MiB").impatient();
        Self { roadstead: setup.with("timeouts.fetch", "5s").start().await, hub, blobs }
    }

    async fn open(&self, digest: &str) -> Answer {
        get(self.roadstead.at(), blob_path(NAME, digest)).open().await
    }

    async fn get(&self, digest: &str) -> Reply {
        let reply = self.open(digest).await.finish().await;
        self.roadstead.settled().await;
        reply
    }

    async fn get_right(&self, name: &str) {
        let reply = self.get(name).await;
        assert_eq!((reply.status, reply.complete), (200, true), "{}", reply.text());
        assert_eq!(digest(name, &reply.body), name);
    }

    fn used(&self) -> u64 {
        let partial = self.roadstead.partial();
        let partial: u64 = partial.iter().map(|(_, len)| len).sum();
        self.roadstead.stored().values().sum::<u64>() + partial
    }

    fn has(&self, digest: &str) -> bool {
        self.roadstead.stored().contains_key(digest)
    }
}

#[tokio::test]
async fn the_oldest_go_and_the_limit_holds() {
    let stage = Stage::set(6).await;
    get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    for blob in &stage.blobs {
        stage.get_right(blob).await;
        assert!(stage.used() <= LIMIT, "{} bytes", stage.used());
        assert!(stage.has(blob));
    }
    assert!(!stage.has(&stage.blobs[0]), "the oldest is still there");
    assert!(stage.has(&stage.blobs[4]), "the second newest is gone");
    stage.roadstead.assert_all_stored_is_right();
    stage.roadstead.assert_books_are_right().await;

    // What went is fetched again, and right.
    stage.get_right(&stage.blobs[0]).await;
    assert!(stage.used() <= LIMIT);
    assert_eq!(stage.hub.blob_gets(&stage.blobs[0]), 2);

    // Manifests outlive blobs: the tag is known, upstream or not.
    stage.hub.fault(Fault::new(Target::any(), Action::Drop));
    let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn what_was_read_lately_stays() {
    let stage = Stage::set(3).await;
    let [old, read, new] = [&stage.blobs[1], &stage.blobs[0], &stage.blobs[2]];
    stage.get_right(read).await;
    stage.get_right(old).await;
    // Recency has a resolution, and is written within a second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    stage.get_right(read).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    stage.get_right(new).await;
    assert!(stage.has(new) && stage.has(read), "the one that was read last is gone");
    assert!(!stage.has(old));
}

#[tokio::test]
async fn a_blob_that_is_being_read_survives() {
    let stage = Stage::set(5).await;
    let first = &stage.blobs[0];
    stage.get_right(first).await;
    let mut reading = stage.open(first).await;
    let begun = reading.read(1000).await.unwrap();
    for blob in &stage.blobs[1..] {
        stage.get_right(blob).await;
        assert!(stage.used() <= LIMIT, "{} bytes", stage.used());
    }
    let rest = reading.finish().await;
    assert!(rest.complete);
    assert_eq!(digest(first, &[begun, rest.body].concat()), *first);
}

#[tokio::test]
async fn the_limit_holds_across_a_restart_with_a_smaller_one() {
    let mut stage = Stage::set(3).await;
    stage.get_right(&stage.blobs[0]).await;
    stage.get_right(&stage.blobs[1]).await;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart_with(|setup| setup.key("store.disk", "16MiB")).await;
    stage.get_right(&stage.blobs[2]).await;
    assert!(stage.used() <= 16 * MIB, "{} bytes", stage.used());
}

#[tokio::test]
async fn a_blob_larger_than_the_cache_is_passed_through() {
    let stage = Stage::set(0).await;
    let big = stage.hub.put_blob(NAME, Bytes::from(vec![9; 33 << 20]));
    stage.get_right(&big).await;
    assert!(stage.used() <= LIMIT, "{} bytes", stage.used());
}

#[tokio::test]
async fn a_cache_full_of_what_is_being_read_passes_the_rest_through() {
    let stage = Stage::set(3).await;
    let mut reading = Vec::new();
    for blob in &stage.blobs[..2] {
        stage.get_right(blob).await;
        let mut answer = stage.open(blob).await;
        answer.read(1000).await.unwrap();
        reading.push(answer);
    }
    stage.get_right(&stage.blobs[2]).await;
    assert!(stage.used() <= LIMIT, "{} bytes", stage.used());
}
