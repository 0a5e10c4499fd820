//! P8 on real file systems: a disk that is full, read-only or gone makes a plain proxy, is told of,
//! and is used again once it is well.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use hub::Target;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::books::{assert_accounted, assert_served};
use crate::client::get;
use crate::errors::recovered;
use crate::load::{Load, Tally};
use crate::mount::{Mount, missing, skipped};
use crate::pool::{Image, Pool};
use crate::pull::{blob_path, pull};
use crate::random;
use crate::readyz;
use crate::roadstead::{Roadstead, Setup};

const MIB: usize = 1 << 20;

/// For the server to notice what became of its disk.
const NOTICE: Duration = Duration::from_secs(15);

/// Words of `/readyz` and the log while the store does not take what it should.
const DEGRADED: &str = "degraded";

/// The word of the log when it does again.
const RECOVERED: &str = "recovered";

/// A change of state is told once. A disk on the brink may change to and fro some times.
const CHANGES: usize = 4;

/// Pulls all images by four clients; each must arrive.
async fn pull_all(roadstead: &Roadstead, images: &[Arc<Image>]) {
    let mut clients = JoinSet::new();
    for mine in images.chunks(images.len().div_ceil(4)) {
        let (at, mine) = (roadstead.at(), mine.to_vec());
        clients.spawn(async move {
            for image in mine {
                pull(at, &image.name, "latest").await;
            }
        });
    }
    clients.join_all().await;
}

async fn healthy(roadstead: &Roadstead) -> Option<f64> {
    roadstead.metrics().await.get("roadstead_store_healthy").copied()
}

/// Pulls one new image after the other until the store says that it is in this state.
async fn says(roadstead: &Roadstead, pool: &mut Pool, expected: f64, bytes: usize, when: &str) {
    let deadline = Instant::now() + NOTICE;
    loop {
        let found = healthy(roadstead).await;
        let degraded = readyz(roadstead).await.to_lowercase().contains(DEGRADED);
        if found == Some(expected) && degraded == (expected == 0.0) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{when}: roadstead_store_healthy is {found:?}, /readyz says degraded: {degraded}"
        );
        let image = pool.one_layer(bytes);
        pull(roadstead.at(), &image.name, "latest").await;
        sleep(Duration::from_millis(100)).await;
    }
}

/// One line for each change, and as many up as down.
fn assert_told(roadstead: &Roadstead, when: &str) {
    let log = roadstead.log().to_lowercase();
    let is_for_operators =
        |line: &&str| [" info ", " warn ", " error "].iter().any(|l| line.contains(l));
    let lines: Vec<_> = log.lines().filter(is_for_operators).collect();
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    let (down, up) = (count(DEGRADED), count(RECOVERED));
    let right = down == up && (1..=CHANGES).contains(&down);
    assert!(right, "{when}: {down} lines say `{DEGRADED}`, {up} say `{RECOVERED}`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_a_plain_proxy_until_there_is_room() {
    if let Some(why) = missing() {
        return skipped("full disk", why);
    }
    let mut pool = Pool::start(random("full disk")).await;
    let images: Vec<_> = (0..12).map(|_| pool.push(&[3 * MIB, 3 * MIB], &[])).collect();
    let mount = Mount::tmpfs("24m").unwrap();
    let setup = Setup::of(&pool.hub).directory(mount.point().join("data"));
    let mut roadstead = setup.start().await;

    // Small enough that evicting everything makes no room for a layer.
    let filler = mount.fill(2 * MIB as u64);
    pull_all(&roadstead, &images).await;
    says(&roadstead, &mut pool, 0.0, 6 * MIB, "a full disk").await;
    pull_all(&roadstead, &images).await;
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();

    fs::remove_file(filler).unwrap();
    says(&roadstead, &mut pool, 1.0, MIB, "room again").await;
    recovered(&roadstead, &mut pool, "room again").await;
    assert_told(&roadstead, "room again");

    // Three times what the disk holds, under a limit that is far above it.
    let fetched = pool.hub.stats().cdn_get;
    pull_all(&roadstead, &images).await;
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();
    assert!(roadstead.lives());
    let fetched = pool.hub.stats().cdn_get - fetched;
    println!(
        "full disk: 3 × 12 pulls right, {} objects on a disk of 24 MiB, {fetched} blobs fetched last",
        roadstead.stored().len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_share_one_fetch_of_a_blob_that_cannot_be_stored() {
    if let Some(why) = missing() {
        return skipped("sharing on a full disk", why);
    }
    const CLIENTS: usize = 8;
    let mut pool = Pool::start(random("sharing on a full disk")).await;
    let image = pool.one_layer(8 * MIB);
    let layer = image.blobs[1].clone();
    let mount = Mount::tmpfs("16m").unwrap();
    let setup = Setup::of(&pool.hub).directory(mount.point().join("data"));
    let roadstead = setup.start().await;
    let filler = mount.fill(0);

    let gate = pool.hub.gate(Target::blob(&layer), 256 << 10);
    let mut readers = JoinSet::new();
    let joined = Arc::new(Semaphore::new(0));
    for _ in 0..CLIENTS {
        let request = get(roadstead.at(), blob_path(&image.name, &layer));
        let joined = Arc::clone(&joined);
        readers.spawn(async move {
            let mut answer = request.open().await;
            let first = answer.read(1).await.unwrap();
            joined.add_permits(1);
            (first, answer.finish().await)
        });
    }
    let all = timeout(NOTICE, joined.acquire_many(CLIENTS as u32)).await;
    assert!(all.is_ok(), "only {} clients have joined", joined.available_permits());
    gate.open();
    for (mut body, reply) in readers.join_all().await {
        body.extend(&reply.body);
        assert!(reply.status == 200 && reply.complete, "{} {:?}", reply.status, reply.headers);
        assert!(body == pool.objects[&layer].body, "{} wrong bytes", body.len());
    }
    assert_eq!(pool.hub.blob_gets(&layer), 1, "fetches for {CLIENTS} clients");
    roadstead.settled().await;
    assert!(!roadstead.stored().contains_key(&layer), "the disk was not full");
    fs::remove_file(filler).unwrap();
    println!("sharing on a full disk: {CLIENTS} clients, one fetch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_turns_read_only_is_used_again_when_it_may_be_written() {
    if let Some(why) = missing() {
        return skipped("read-only disk", why);
    }
    let mut pool = Pool::start(random("read-only disk")).await;
    (0..10).for_each(|_| drop(pool.grow()));
    let mount = Mount::tmpfs("256m").unwrap();
    let setup = Setup::of(&pool.hub).directory(mount.point().join("data"));
    let roadstead = setup.start().await;
    let first = pool.any();
    pull(roadstead.at(), &first.name, "latest").await;
    roadstead.settled().await;

    let load = Load::start(roadstead.at(), &pool, 4);
    // A remount is refused while the index is open, so what has the names is made read-only.
    let read_only = Mount::read_only(&mount.point()).unwrap();
    says(&roadstead, &mut pool, 0.0, MIB, "read-only").await;
    let kept = first.digests().cloned().collect::<BTreeSet<_>>();
    assert_served(&roadstead, &pool, &kept, |_| true, "read-only").await;
    drop(read_only);
    says(&roadstead, &mut pool, 1.0, MIB, "writable again").await;
    let tally = load.stop().await;
    assert_eq!(tally.cut, 0);
    recovered(&roadstead, &mut pool, "writable again").await;
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();
    assert_told(&roadstead, "writable again");
    println!("read-only disk: {} pulls right meanwhile", tally.completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ext4_that_the_kernel_turned_read_only_is_served_from_and_survives() {
    const TEST: &str = "broken ext4";
    if let Some(why) = missing() {
        return skipped(TEST, why);
    }
    let mut pool = Pool::start(random(TEST)).await;
    (0..10).for_each(|_| drop(pool.grow()));
    let mount = match Mount::ext4(256 << 20) {
        Ok(mount) => mount,
        Err(why) => return skipped(TEST, &why),
    };
    let setup = Setup::of(&pool.hub).directory(mount.point().join("data"));
    let mut roadstead = setup.start().await;
    let first = pool.any();
    pull(roadstead.at(), &first.name, "latest").await;
    roadstead.settled().await;

    let load = Load::start(roadstead.at(), &pool, 4);
    if let Err(why) = mount.turn_read_only() {
        return skipped(TEST, &why);
    }
    says(&roadstead, &mut pool, 0.0, MIB, "a broken ext4").await;
    let kept = first.digests().cloned().collect::<BTreeSet<_>>();
    assert_served(&roadstead, &pool, &kept, |_| true, "a broken ext4").await;
    let tally = load.stop().await;
    assert_eq!(tally.cut, 0);
    assert!(roadstead.lives());
    roadstead.kill9();
    mount.unmount().unwrap();
    mount.mount().unwrap();
    roadstead.restart().await;
    recovered(&roadstead, &mut pool, "mounted anew").await;
    roadstead.assert_all_stored_is_right();
    assert_accounted(&roadstead, "mounted anew").await;
    println!("{TEST}: {} pulls right meanwhile", tally.completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_removed_under_load_comes_back() {
    let mut pool = Pool::start(random("removed store")).await;
    (0..10).for_each(|_| drop(pool.grow()));
    let mut roadstead = Setup::of(&pool.hub).start().await;
    let mut tallies = Tally::default();
    for round in 0..3 {
        let when = format!("removed for the {}. time", round + 1);
        let load = Load::start(roadstead.at(), &pool, 4);
        let deadline = Instant::now() + NOTICE;
        // Files may appear in a folder while it is being removed.
        while let Err(error) = fs::remove_dir_all(roadstead.data()) {
            assert!(Instant::now() < deadline, "{when}: {error}");
        }
        recovered(&roadstead, &mut pool, &when).await;
        tallies += load.stop().await;
        assert!(roadstead.data().join("index.redb").exists(), "{when}: there is no index");
    }
    assert_eq!(tallies.cut, 0);
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();
    // The new store is one like any other.
    let image = recovered(&roadstead, &mut pool, "removed").await;
    roadstead.kill9();
    roadstead.restart().await;
    let kept = image.digests().cloned().collect::<BTreeSet<_>>();
    assert_served(&roadstead, &pool, &kept, |_| true, "restarted").await;
    println!("removed store: {} pulls right meanwhile", tallies.completed);
}
