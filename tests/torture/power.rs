//! P7 on a real file system: what a power cut leaves is served right or fetched again, and what was
//! stored ten seconds before is still there.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::books::{assert_accounted, assert_served};
use crate::load::{Load, Tally};
use crate::mount::{Mount, missing, skipped};
use crate::pool::Pool;
use crate::pull::{Puller, pull};
use crate::roadstead::Setup;
use crate::{random, setting};

const DISK_BYTES: u64 = 256 << 20;
const CLIENTS: usize = 4;

/// Images that were there long before.
const EARLY_IMAGES: usize = 5;

/// What was stored that long ago outlives any cut.
const DURABLE: Duration = Duration::from_secs(10);

/// Power lasts that long in each round, in milliseconds.
const LIFE_MS: std::ops::RangeInclusive<u64> = 20..=1200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_tear_nothing_and_lose_nothing_old() {
    if let Some(why) = missing() {
        return skipped("power cuts", why);
    }
    let rounds: u32 = setting("ROADSTEAD_POWER_CUTS", 20);
    let mut random = random("power cuts");
    let mut pool = Pool::start(random.fork()).await;
    let mount = match Mount::ext4(DISK_BYTES) {
        Ok(mount) => mount,
        Err(why) => return skipped("power cuts", &why),
    };
    // Far below the disk's size: eviction is not what this is about.
    let setup = Setup::of(&pool.hub).key("store.disk", "200MiB");
    let mut roadstead = setup.directory(mount.point().join("data")).start().await;
    let mut early = BTreeSet::new();
    for _ in 0..EARLY_IMAGES {
        let image = pool.grow();
        pull(roadstead.at(), &image.name, "latest").await;
        early.extend(image.digests().cloned());
    }
    roadstead.settled().await;
    // The promise is about time; nothing else tells that it is up.
    sleep_until(Instant::now() + DURABLE).await;

    let mut sum = Tally::default();
    let (mut left, mut torn) = (0, 0);
    for round in 1..=rounds {
        let when = format!("cut {round}");
        pool.grow();
        let load = Load::start(roadstead.at(), &pool, CLIENTS);
        sleep(Duration::from_millis(random.u64(LIFE_MS))).await;
        load.forgive();
        mount.cut_power();
        roadstead.kill9();
        sum += load.stop().await;
        mount.unmount().unwrap();
        mount.mount().unwrap();

        roadstead.restart().await;
        assert_accounted(&roadstead, &when).await;
        assert_served(&roadstead, &pool, &early, |_| true, &when).await;
        // The puller checks each body: what was torn is found out, whoever asks first.
        let stored = roadstead.stored();
        left += stored.len();
        let before = pool.hub.stats().cdn_get;
        for digest in stored.keys().filter(|digest| !pool.objects[*digest].is_manifest) {
            let repository = &pool.objects[digest].repository;
            let blob = Puller::new(roadstead.at()).blob(repository, digest).await;
            assert!(blob.is_ok(), "{when}: {digest}: {blob:?}");
        }
        torn += pool.hub.stats().cdn_get - before;
        for image in pool.images.clone() {
            pull(roadstead.at(), &image.name, "latest").await;
        }
        roadstead.settled().await;
        roadstead.assert_all_stored_is_right();
        let known = roadstead.stored();
        let blobs = pool.images.iter().flat_map(|image| &image.blobs);
        let missing: Vec<_> = blobs.filter(|digest| !known.contains_key(*digest)).collect();
        assert!(missing.is_empty(), "{when}: not stored again: {missing:?}");
    }
    println!(
        "power cuts: {rounds} cuts, {} pulls completed with {} MiB, {} cut, {left} objects found \
         afterwards, {torn} of them fetched again, {} early ones served from disk each time",
        sum.completed,
        sum.bytes >> 20,
        sum.cut,
        early.len()
    );
    drop(roadstead);
    drop(mount);
}
