//! The administrator's question: does it really help?
//!
//! A budget of 100 manifest requests, and 500 pulls by tag with GET, as podman sends them.

use hub::{Hub, Image, ImageSpec};

use crate::pull::{Puller, pull};
use crate::roadstead::Roadstead;

const NAME: &str = "library/alpine";
const PULLS: usize = 500;

fn spec() -> ImageSpec {
    ImageSpec::new(NAME).layer_size(4 << 10)
}

async fn pulls(roadstead: &Roadstead, image: &Image, count: usize) {
    let puller = Puller::new(roadstead.at());
    for number in 0..count {
        match puller.manifests(NAME, "latest").await {
            Ok(pulled) => assert_eq!(pulled.digest, image.digest),
            Err(failed) => panic!("pull {number}: {failed:?}"),
        }
    }
}

#[tokio::test]
async fn five_hundred_pulls_straight_from_the_hub_end_at_its_limit() {
    let hub = Hub::start().await;
    hub.push(&spec().tag("latest"));
    let puller = Puller::from_hub(&hub, NAME).await;
    let mut good = 0;
    let mut refused = 0;
    for _ in 0..PULLS {
        match puller.manifests(NAME, "latest").await {
            Ok(_) => good += 1,
            Err(failed) => {
                assert_eq!(failed.status, 429, "{failed:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((good, refused, hub.stats().counted), (50, 450, 100));
}

enum End {
    Term,
    Kill9,
}

/// 500 pulls with a restart in their middle cost what one pull costs.
async fn five_hundred_pulls(end: End) {
    let hub = Hub::start().await;
    let image = hub.push(&spec().tag("latest"));
    let mut roadstead = Roadstead::start(&hub).await;
    let first = pull(roadstead.at(), NAME, "latest").await;
    assert_eq!(first.blobs.len(), 4);
    let blobs = hub.stats().cdn_get;

    pulls(&roadstead, &image, PULLS / 2).await;
    match end {
        End::Term => assert!(roadstead.terminate().await.success()),
        End::Kill9 => roadstead.kill9(),
    }
    roadstead.restart().await;
    pulls(&roadstead, &image, PULLS / 2).await;
    assert_eq!(pull(roadstead.at(), NAME, "latest").await, first);

    let stats = hub.stats();
    assert_eq!((stats.counted, stats.manifest_get, stats.refused_429), (2, 2, 0));
    assert_eq!(stats.cdn_get, blobs, "a restart fetched blobs again");
    let heads = hub.manifest_heads("latest") as usize;
    assert_eq!(heads, PULLS + 2, "each pull is checked by one free HEAD");
    roadstead.assert_all_stored_is_right();

    // The tag moves: the next pull has the new image, and costs its manifests alone.
    let moved = hub.push(&spec().tag("latest").seed(7));
    assert_ne!(moved.digest, image.digest);
    assert_eq!(pull(roadstead.at(), NAME, "latest").await.digest, moved.digest);
    pulls(&roadstead, &moved, 10).await;
    assert_eq!(hub.stats().counted, 4);
    assert_eq!(hub.stats().refused_429, 0);
}

#[tokio::test]
async fn five_hundred_pulls_and_a_restart_cost_one() {
    five_hundred_pulls(End::Term).await;
}

#[tokio::test]
async fn five_hundred_pulls_and_a_kill_9_cost_one() {
    five_hundred_pulls(End::Kill9).await;
}

#[tokio::test]
async fn a_spent_budget_hurts_nothing_that_is_cached() {
    let hub = Hub::start().await;
    let image = hub.push(&spec().tag("latest"));
    let roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    hub.set_budget(None, 0);
    pulls(&roadstead, &image, 20).await;
    assert_eq!(hub.stats().refused_429, 0);
}

#[tokio::test]
async fn a_fresh_tag_is_served_without_a_word_to_upstream() {
    let hub = Hub::start().await;
    let image = hub.push(&spec().tag("latest"));
    let setup = crate::roadstead::Setup::of(&hub).with("tags.fresh_for", "1h");
    let roadstead = setup.start().await;
    pull(roadstead.at(), NAME, "latest").await;
    let before = hub.stats().requests();
    pulls(&roadstead, &image, 20).await;
    assert_eq!(hub.stats().requests(), before);
}

#[tokio::test]
async fn the_numbers_say_what_was_spent_what_saved_and_what_is_left() {
    let hub = Hub::start().await;
    hub.push(&spec().tag("latest"));
    let roadstead = Roadstead::start(&hub).await;
    for _ in 0..5 {
        pull(roadstead.at(), NAME, "latest").await;
    }
    let spent = ["roadstead_upstream_requests_total", "counted=\"true\""];
    assert_eq!(roadstead.metric(&spent).await as u64, hub.stats().counted);
    // Each pull asks for three manifests: by tag, the child to see, the child to unpack.
    let saved = roadstead.metric(&["roadstead_pulls_saved_total"]).await;
    assert_eq!(saved as u64, 5 * 3 - hub.stats().counted);
    let left = roadstead.metric(&["roadstead_ratelimit_remaining"]).await;
    assert_eq!(left as u64, 98);
    let limit = roadstead.metric(&["roadstead_ratelimit_limit"]).await;
    assert_eq!(limit as u64, 100);
}
