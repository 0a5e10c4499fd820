//! P3: one fetch for all, and nobody in each other's way.

use std::time::Duration;

use hub::{Hub, ImageSpec, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::{Request, get};
use crate::pull::{Puller, blob_path, digest, get_manifest};
use crate::roadstead::Roadstead;

const NAME: &str = "library/alpine";
const CLIENTS: usize = 64;
const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_pull_a_cold_image_for_the_price_of_one() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(2 * MIB));
    let roadstead = Roadstead::start(&hub).await;

    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let puller = Puller::new(roadstead.at());
        clients.spawn(async move { puller.image(NAME, "latest").await });
    }
    for pulled in clients.join_all().await {
        let pulled = pulled.unwrap();
        assert_eq!(pulled.digest, image.digest);
        for blob in pulled.blobs {
            assert_eq!(hub.blob_gets(&blob), 1, "{blob}");
        }
    }
    let amd64 = &image.manifests[0].digest;
    assert_eq!(hub.manifest_gets("latest"), 0);
    assert_eq!((hub.manifest_gets(&image.digest), hub.manifest_gets(amd64)), (1, 1));
    assert_eq!(hub.stats().cdn_get, 4);
    roadstead.assert_all_stored_is_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stream_while_it_fills_and_those_who_leave_hurt_nobody() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).layers(1).layer_size(4 * MIB));
    let layer = image.layers[0].clone();
    let roadstead = Roadstead::start(&hub).await;
    let gate = hub.gate(Target::blob(&layer.digest), 2 * MIB as u64);

    let path = blob_path(NAME, &layer.digest);
    let mut opening = JoinSet::new();
    for _ in 0..CLIENTS {
        let request = get(roadstead.at(), &path);
        opening.spawn(async move {
            let mut answer = request.open().await;
            assert_eq!(answer.status, 200);
            let first = answer.read(1).await.unwrap();
            (answer, first)
        });
    }
    // Each has its first byte while the hub holds back the second half.
    let mut reading = timeout(PATIENCE, opening.join_all()).await.unwrap();
    assert_eq!(gate.paused(), 1);
    let length = layer.size.to_string();
    for (answer, _) in &reading {
        assert_eq!(answer.header("content-length"), Some(length.as_str()));
    }

    // Half of them hang up, the one that came first among them.
    drop(reading.drain(..CLIENTS / 2));
    gate.open();
    for (answer, first) in reading {
        let rest = answer.finish().await;
        assert!(rest.complete);
        let body = [first, rest.body].concat();
        assert_eq!(digest(&layer.digest, &body), layer.digest);
    }
    assert_eq!(hub.blob_gets(&layer.digest), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_nobody() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).layers(1).layer_size(16 * MIB));
    let layer = image.layers[0].digest.clone();
    let roadstead = Roadstead::start(&hub).await;
    let gate = hub.gate(Target::blob(&layer), MIB as u64);

    let path = blob_path(NAME, &layer);
    let mut slow = get(roadstead.at(), &path).open_narrow().await;
    let mut begun = slow.read(1).await.unwrap();
    let slow = tokio::spawn(async move {
        begun.extend(slow.read_slowly(64 << 10).await?);
        Ok::<_, crate::client::Cut>(begun)
    });
    let mut fast = JoinSet::new();
    for _ in 0..8 {
        let request = get(roadstead.at(), &path);
        fast.spawn(request.send());
    }
    gate.open();
    let replies = timeout(Duration::from_secs(20), fast.join_all()).await;
    for reply in replies.expect("the fast wait for the slow") {
        assert!(reply.complete);
        assert_eq!(digest(&layer, &reply.body), layer);
    }
    assert!(!slow.is_finished(), "a reader at 64 KiB/s has read 16 MiB");
    assert_eq!(hub.blob_gets(&layer), 1);
    slow.abort();
}

/// Asks again and again, from before a fill until after it.
async fn ask_until_hit(request: Request) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = request.clone().send().await;
        assert!(matches!(reply.status, 200 | 206), "{reply:?}");
        if reply.cache_status() == "roadstead; hit" {
            return;
        }
        assert!(Instant::now() < deadline, "never a hit: {}", reply.cache_status());
    }
}

/// Looking into the store and joining the fill are two steps; a fill that ends in between must
/// not lead to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_as_a_fill_ends_asks_nobody_again() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = Roadstead::start(&hub).await;
    let mut twice = Vec::new();
    for round in 0..40u8 {
        let blob = hub.put_blob(NAME, vec![round; 200_000].into());
        let request = get(roadstead.at(), blob_path(NAME, &blob)).header("Range", "bytes=0-0");
        let mut clients = JoinSet::new();
        (0..12).for_each(|_| drop(clients.spawn(ask_until_hit(request.clone()))));
        clients.join_all().await;
        if hub.blob_gets(&blob) != 1 {
            twice.push(round);
        }
    }
    assert!(twice.is_empty(), "fetched more than once: {twice:?}");
}

/// The same of manifests, where the second fetch is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_as_a_manifest_arrives_asks_nobody_again() {
    let hub = Hub::start_with(hub::Options { limit: None, ..hub::Options::default() });
    let hub = hub.await.unwrap();
    let roadstead = Roadstead::start(&hub).await;
    let mut twice = Vec::new();
    for round in 0..40u64 {
        let image = hub.push(&ImageSpec::new(NAME).tag("latest").seed(round + 1).single());
        let request = get_manifest(roadstead.at(), NAME, &image.digest);
        let mut clients = JoinSet::new();
        (0..12).for_each(|_| drop(clients.spawn(ask_until_hit(request.clone()))));
        clients.join_all().await;
        if hub.manifest_gets(&image.digest) != 1 {
            twice.push(round);
        }
    }
    assert!(twice.is_empty(), "fetched more than once: {twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_fill_fails_all_its_readers_alike() {
    use hub::{Action, Fault};
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).layers(1).layer_size(MIB));
    let layer = image.layers[0].digest.clone();
    let roadstead = Roadstead::start(&hub).await;
    hub.fault(Fault::new(Target::blob(&layer), Action::FlipByte(MIB as u64 / 2)).times(1));
    let gate = hub.gate(Target::blob(&layer), MIB as u64 / 2);

    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let request = get(roadstead.at(), blob_path(NAME, &layer));
        clients.spawn(async move {
            let mut answer = request.open().await;
            answer.read(1).await.unwrap();
            answer
        });
    }
    let answers = timeout(PATIENCE, clients.join_all()).await.unwrap();
    gate.open();
    for answer in answers {
        assert!(!answer.finish().await.complete, "a corrupt blob was completed");
    }
    // The next one is fetched anew, and right.
    let reply = get(roadstead.at(), blob_path(NAME, &layer)).send().await;
    assert!(reply.complete);
    assert_eq!(digest(&layer, &reply.body), layer);
    roadstead.assert_all_stored_is_right();
}
