//! P7 on a real file system: what a power cut leaves is served right or fetched again, and what was
//! stored ten seconds before is still there.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::books::{assert_accounted, assert_served};
use crate::load::{Load, Tally};
use crate::mount::{Mount, missing, skipped};
use crate::pool::Pool;
use crate::pull::{Puller, pull};
use crate::roadstead::{Roadstead, Setup};
use crate::{random, setting};

const DISK_BYTES: u64 = 256 << 20;
const CLIENTS: usize = 4;

/// Images that were there long before.
const EARLY_IMAGES: usize = 5;

/// New ones in each round: something to be filling when the power goes.
const NEW_IMAGES: usize = 4;

/// After so many rounds a new disk is begun with.
const ERA: u32 = 20;

/// What was stored that long ago outlives any cut.
const DURABLE: Duration = Duration::from_secs(10);

/// Power lasts that long in each round, in milliseconds.
const LIFE_MS: std::ops::RangeInclusive<u64> = 20..=1200;

/// What has come of it.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    early: usize,
    /// Blobs that were in place after the cuts, and those of them that were fetched again.
    found: usize,
    fetched_again: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_tear_nothing_and_lose_nothing_old() {
    if let Some(why) = missing() {
        return skipped("power cuts", why);
    }
    let rounds: u32 = setting("ROADSTEAD_POWER_CUTS", 20);
    let mut random = random("power cuts");
    let mut outcome = Outcome::default();
    let mut left = rounds;
    while left > 0 {
        let mount = match Mount::ext4(DISK_BYTES) {
            Ok(mount) => mount,
            Err(why) => return skipped("power cuts", &why),
        };
        era(left.min(ERA), &mount, random.fork(), &mut outcome).await;
        left = left.saturating_sub(ERA);
    }
    let Outcome { tally, early, found, fetched_again } = outcome;
    println!(
        "power cuts: {rounds} cuts, {} pulls completed with {} MiB, {} cut, {found} blobs in place \
         afterwards, {fetched_again} of them fetched again, {early} old objects never",
        tally.completed,
        tally.bytes >> 20,
        tally.cut
    );
}

async fn era(rounds: u32, mount: &Mount, mut random: fastrand::Rng, outcome: &mut Outcome) {
    let mut pool = Pool::start(random.fork()).await;
    // Below the disk's size, and more than all images: eviction is not what this is about.
    let setup = Setup::of(&pool.hub).key("store.disk", "200MiB");
    let mut roadstead = setup.directory(mount.point().join("data")).start().await;
    let mut early = BTreeSet::new();
    for _ in 0..EARLY_IMAGES {
        let image = pool.grow();
        pull(roadstead.at(), &image.name, "latest").await;
        early.extend(image.digests().cloned());
    }
    roadstead.settled().await;
    outcome.early += early.len();
    // The promise is about time; nothing else tells that it is up.
    sleep(DURABLE).await;
    for round in 1..=rounds {
        let when = format!("cut {round}");
        (0..NEW_IMAGES).for_each(|_| drop(pool.grow()));
        let load = Load::start(roadstead.at(), &pool, CLIENTS);
        sleep(Duration::from_millis(random.u64(LIFE_MS))).await;
        load.forgive();
        mount.cut_power();
        roadstead.kill9();
        outcome.tally += load.stop().await;
        mount.unmount().unwrap();
        mount.mount().unwrap();
        roadstead.restart().await;
        assert_accounted(&roadstead, &when).await;
        assert_served(&roadstead, &pool, &early, |_| true, &when).await;
        afterwards(&roadstead, &pool, outcome, &when).await;
    }
}

/// No torn object is served, and whatever the cut took is stored again once it is asked for.
async fn afterwards(roadstead: &Roadstead, pool: &Pool, outcome: &mut Outcome, when: &str) {
    let found = roadstead.stored();
    let is_blob = |digest: &&String| !pool.objects[*digest].is_manifest;
    let before = pool.hub.stats().cdn_get;
    for digest in found.keys().filter(is_blob) {
        outcome.found += 1;
        // The puller checks the body.
        let repository = &pool.objects[digest].repository;
        let blob = Puller::new(roadstead.at()).blob(repository, digest).await;
        assert!(blob.is_ok(), "{when}: {digest}: {blob:?}");
    }
    outcome.fetched_again += pool.hub.stats().cdn_get - before;
    for image in &pool.images {
        pull(roadstead.at(), &image.name, "latest").await;
    }
    roadstead.settled().await;
    roadstead.assert_all_stored_is_right();
    let stored = roadstead.stored();
    let blobs = pool.images.iter().flat_map(|image| &image.blobs);
    let missing: Vec<_> = blobs.filter(|digest| !stored.contains_key(*digest)).collect();
    assert!(missing.is_empty(), "{when}: not stored again: {missing:?}");
}
