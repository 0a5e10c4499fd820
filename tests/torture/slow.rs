//! P3 and P8: a disk that takes seconds for each write and sync slows no client.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::mount::skipped;
use crate::pool::Pool;
use crate::pull::pull;
use crate::random;
use crate::roadstead::Setup;
use crate::tracer::{Tracer, arguments, missing};

/// Each write and sync takes that long.
const DELAY: Duration = Duration::from_secs(3);

/// Cold pulls, at the same time.
const PULLS: usize = 4;

/// At 512 KiB a write, a layer's writes take 96 s; at 4 MiB a write, 12 s.
const LAYER_BYTES: usize = 16 << 20;

/// A tenth of that, far more than upstream needs.
const LIMIT: Duration = Duration::from_secs(9);

/// The calls: these are made for files alone.
const CALLS: &str = "pwrite64,pwritev,pwritev2,fsync,fdatasync";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_pulls_are_as_fast_as_upstream_on_a_slow_disk() {
    if let Some(why) = missing() {
        return skipped("slow disk", why);
    }
    let mut pool = Pool::start(random("slow disk")).await;
    let images: Vec<_> = (0..2 * PULLS).map(|_| pool.one_layer(LAYER_BYTES)).collect();
    let (quick, slow) = images.split_at(PULLS);
    let mut roadstead = Setup::of(&pool.hub).start().await;
    let mut took = Vec::new();
    for (delay, images) in [(Duration::ZERO, quick), (DELAY, slow)] {
        let delay_us = delay.as_micros().max(1);
        let delays = arguments(&[], CALLS, &format!("delay_enter={delay_us}"));
        let tracer = Tracer::attach(&roadstead, &delays).await;
        let began = tokio::time::Instant::now();
        let mut pulls = JoinSet::new();
        for image in images {
            let (at, name) = (roadstead.at(), image.name.clone());
            pulls.spawn(async move {
                pull(at, &name, "latest").await;
                began.elapsed()
            });
        }
        let each = pulls.join_all().await;
        took.push(each.into_iter().max().unwrap());
        // What is being written now may take as long as it likes.
        let hits = tracer.detach().await;
        println!(
            "slow disk: {PULLS} cold pulls of {} MiB, {delay:?} for each of the {hits} calls \
            made meanwhile: {:.1?}",
            LAYER_BYTES >> 20,
            took.last().unwrap()
        );
        roadstead.settled().await;
        assert!(roadstead.lives());
    }
    roadstead.assert_all_stored_is_right();
    let (quick, slow) = (took[0], took[1]);
    assert!(slow < LIMIT, "{slow:?} with a slow disk, {quick:?} without");
}
