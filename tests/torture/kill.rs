//! P7: a kill -9 at any instant, again and again, under load.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::books::{assert_accounted, assert_served};
use crate::load::{Load, Tally};
use crate::pool::Pool;
use crate::pull::pull;
use crate::roadstead::Setup;
use crate::{random, setting};

const CLIENTS: usize = 6;

/// What is there from the start, and what comes in each cycle.
const FIRST_IMAGES: usize = 15;
const NEW_IMAGES: usize = 2;

/// After so many cycles an empty store is begun with: all that is kept is checked in each.
const ERA: u32 = 50;

/// The server lives that long in each cycle, in milliseconds.
const LIFE_MS: std::ops::RangeInclusive<f64> = 3.0..=300.0;

/// P7's promise; one start in ten may be later, for a busy machine starts nothing in time.
const START: Duration = Duration::from_secs(1);

/// What has come of it.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    published: usize,
    starts: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_any_instant_lose_and_leave_nothing() {
    let cycles: u32 = setting("ROADSTEAD_CYCLES", 50);
    let mut random = random("kill -9");
    let mut outcome = Outcome::default();
    let mut left = cycles;
    while left > 0 {
        era(left.min(ERA), random.fork(), &mut outcome).await;
        left = left.saturating_sub(ERA);
    }
    let Outcome { tally, published, mut starts } = outcome;
    starts.sort();
    let worst = starts.last().copied().unwrap_or_default();
    let usual = starts.get(starts.len() * 9 / 10).copied().unwrap_or_default();
    println!(
        "kill -9: {cycles} cycles, {} pulls completed with {} MiB, {} cut, {published} published, \
         starts: 9 of 10 within {usual:.0?}, worst {worst:.0?}",
        tally.completed,
        tally.bytes >> 20,
        tally.cut
    );
    assert!(usual <= START, "the starts took {starts:?}");
}

async fn era(cycles: u32, mut random: fastrand::Rng, outcome: &mut Outcome) {
    let mut pool = Pool::start(random.fork()).await;
    (0..FIRST_IMAGES).for_each(|_| drop(pool.grow()));
    let mut roadstead = Setup::of(&pool.hub).start().await;
    let mut kept = BTreeSet::new();
    for cycle in 1..=cycles {
        let when = format!("cycle {cycle}");
        (0..NEW_IMAGES).for_each(|_| drop(pool.grow()));
        let (shortest, longest) = (*LIFE_MS.start(), *LIFE_MS.end());
        let life = shortest * (longest / shortest).powf(random.f64());
        let load = Load::start(roadstead.at(), &pool, CLIENTS);
        sleep(Duration::from_secs_f64(life / 1000.0)).await;
        load.forgive();
        roadstead.kill9();
        outcome.tally += load.stop().await;

        roadstead.assert_all_stored_is_right();
        let published: BTreeSet<_> = roadstead.stored().into_keys().collect();
        let fresh: BTreeSet<_> = published.difference(&kept).cloned().collect();
        kept.extend(published);
        let began = Instant::now();
        roadstead.restart().await;
        outcome.starts.push(began.elapsed());
        assert_accounted(&roadstead, &when).await;
        let whole = |digest: &str| fresh.contains(digest) || random.u8(..) < 16;
        assert_served(&roadstead, &pool, &kept, whole, &when).await;

        // What a client has whole, and no fill is under way for, is to stay.
        let image = pool.any();
        pull(roadstead.at(), &image.name, "latest").await;
        roadstead.settled().await;
        kept.extend(image.digests().cloned());
        let counted = pool.hub.stats().counted;
        pull(roadstead.at(), &image.name, "latest").await;
        assert_eq!(pool.hub.stats().counted, counted, "{when}: a known tag costs a pull");
    }
    roadstead.settled().await;
    assert_accounted(&roadstead, "at the end").await;
    outcome.published += roadstead.stored().len();
}
