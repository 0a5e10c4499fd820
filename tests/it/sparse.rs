//! Ranges of blobs that are not stored: what lazy pullers and parallel downloads cost.

use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Target};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Reply, get};
use crate::pull::{blob_path, digest};
use crate::roadstead::{Roadstead, Setup, eventually};

const NAME: &str = "library/alpine";
const MIB: usize = 1 << 20;
const SIZE: usize = 40 * MIB + 12_345;

struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    body: Bytes,
    digest: String,
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        let hub = Hub::start().await;
        hub.push(&ImageSpec::new(NAME).tag("latest"));
        let roadstead = Setup::of(&hub).impatient().with("timeouts.fetch", "10s").start().await;
        // Each number once: bytes in the wrong place are wrong bytes.
        let body: Bytes = (0..SIZE.div_ceil(4) as u32).flat_map(u32::to_le_bytes).collect();
        let body = body.slice(..SIZE);
        let digest = hub.put_blob(NAME, body.clone());
        hub.reset_stats();
        Self { hub, roadstead, body, digest }
    }

    async fn range(&self, range: &str) -> Reply {
        let ask = get(self.roadstead.at(), blob_path(NAME, &self.digest));
        ask.header("Range", format!("bytes={range}")).send().await
    }

    /// A range by its ends; it must be right.
    async fn part(&self, from: usize, to: usize) {
        let reply = self.range(&format!("{from}-{}", to - 1)).await;
        assert_eq!((reply.status, reply.complete), (206, true), "{from}-{to}");
        assert!(reply.body == self.body.slice(from..to), "{from}-{to}: other bytes");
    }

    async fn whole(&self) {
        let reply = get(self.roadstead.at(), blob_path(NAME, &self.digest)).send().await;
        assert_eq!((reply.status, reply.complete), (200, true), "{}", reply.text());
        assert!(reply.body == self.body, "other bytes");
    }

    /// What upstream sent, in MiB.
    fn sent(&self) -> f64 {
        self.hub.stats().bytes_sent as f64 / MIB as f64
    }

    fn assert_sent_once(&self) {
        let size = SIZE as f64 / MIB as f64;
        assert!(self.sent() <= 1.05 * size, "{} MiB for {size}", self.sent());
    }

    async fn assert_stored(&self) {
        let stored = || self.roadstead.stored().contains_key(&self.digest);
        eventually("the blob is stored", Duration::from_secs(10), stored).await;
        self.roadstead.settled().await;
        self.roadstead.assert_all_stored_is_right();
        self.roadstead.assert_books_are_right().await;
    }
}

#[tokio::test]
async fn the_end_of_a_cold_blob_costs_a_chunk() {
    let stage = Stage::set().await;
    for _ in 0..3 {
        let reply = stage.range("-50").await;
        assert_eq!((reply.status, &reply.body[..]), (206, &stage.body[SIZE - 50..]));
    }
    stage.part(SIZE - 10_000, SIZE - 5_000).await;
    stage.part(20 * MIB + 5, 20 * MIB + 105).await;
    stage.part(20 * MIB + 500_000, 20 * MIB + 600_000).await;
    assert!(stage.sent() < 1.2, "{} MiB for a chunk and a bit", stage.sent());
    assert!(stage.roadstead.stored().is_empty());
    let reply = stage.range(&format!("{SIZE}-")).await;
    assert_eq!(reply.status, 416);
}

#[tokio::test]
async fn a_range_behind_the_end_is_told_the_size() {
    let stage = Stage::set().await;
    let reply = stage.range(&format!("{}-{}", 2 * SIZE, 3 * SIZE)).await;
    assert_eq!(reply.status, 416);
    assert_eq!(reply.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
    assert!(stage.sent() < 0.1, "{} MiB for nothing", stage.sent());
}

#[tokio::test]
async fn several_ranges_at_once_cost_their_chunks() {
    let stage = Stage::set().await;
    let reply = stage.range(&format!("0-9,{}-{},-7", 30 * MIB, 30 * MIB + 9)).await;
    assert_eq!((reply.status, reply.complete), (206, true));
    let has = |bytes: &[u8]| reply.body.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&stage.body[..10]) && has(&stage.body[30 * MIB..30 * MIB + 10]));
    assert!(has(&stage.body[SIZE - 7..]));
    assert!(stage.sent() < 2.2, "{} MiB", stage.sent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_in_any_order_become_the_blob() {
    let stage = Stage::set().await;
    let mut starts: Vec<usize> = (0..SIZE).step_by(700_000).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut starts);
    for start in starts {
        stage.part(start, (start + 700_000).min(SIZE)).await;
    }
    stage.assert_stored().await;
    stage.assert_sent_once();
    stage.whole().await;
    stage.assert_sent_once();
}

/// containerd: the first request is open-ended, the others begin 4 MiB apart, and each is reset
/// once its piece is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_open_ended_ranges_cost_the_blob_once() {
    let stage = Stage::set().await;
    let piece = SIZE.div_ceil(8);
    let mut pieces = JoinSet::new();
    for start in (0..SIZE).step_by(piece) {
        let ask = get(stage.roadstead.at(), blob_path(NAME, &stage.digest));
        let ask = ask.header("Range", format!("bytes={start}-"));
        pieces.spawn(async move {
            let mut answer = ask.open().await;
            assert_eq!(answer.status, 206);
            (start, answer.read(piece as u64).await.unwrap())
        });
    }
    let mut pieces = pieces.join_all().await;
    pieces.sort_by_key(|(start, _)| *start);
    let body: Vec<u8> = pieces.into_iter().flat_map(|(_, piece)| piece).collect();
    assert!(stage.body == body, "other bytes");
    stage.assert_stored().await;
    stage.assert_sent_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_chunks_are_fetched_once_for_all() {
    let stage = Stage::set().await;
    let gate = stage.hub.gate(Target::blob(&stage.digest), MIB as u64 / 2);
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let ask = get(stage.roadstead.at(), blob_path(NAME, &stage.digest));
        clients.spawn(ask.header("Range", "bytes=5300000-5400000").send());
    }
    gate.waiting().await;
    gate.open();
    for reply in clients.join_all().await {
        assert_eq!(&reply.body[..], &stage.body[5_300_000..5_400_001]);
    }
    assert_eq!(stage.hub.blob_gets(&stage.digest), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_get_fills_the_gaps() {
    let stage = Stage::set().await;
    for at in [3, 17, 39] {
        stage.part(at * MIB, at * MIB + 100).await;
    }
    stage.whole().await;
    stage.assert_stored().await;
    stage.assert_sent_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_far_ahead_of_a_running_download_does_not_wait_for_it() {
    let stage = Stage::set().await;
    let gate = stage.hub.gate(Target::blob(&stage.digest), 2 * MIB as u64);
    let whole = tokio::spawn(get(stage.roadstead.at(), blob_path(NAME, &stage.digest)).send());
    gate.waiting().await;
    stage.part(30 * MIB + 10, 30 * MIB + 20).await;
    assert_eq!(gate.paused(), 1);
    gate.open();
    assert!(whole.await.unwrap().body == stage.body);
    stage.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_survive_kill_9_and_a_graceful_stop() {
    let mut stage = Stage::set().await;
    stage.part(30 * MIB, 34 * MIB).await;
    stage.part(2 * MIB, 4 * MIB).await;
    // What a client has may be in memory only for a moment.
    let deadline = Instant::now() + Duration::from_secs(10);
    while stage.roadstead.metric(&["roadstead_fill_memory_bytes"]).await > 0.0 {
        assert!(Instant::now() < deadline, "it is never written");
    }
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    stage.part(10 * MIB, 12 * MIB).await;
    stage.part(31 * MIB, 32 * MIB).await;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart().await;
    let before = stage.sent();
    stage.part(30 * MIB, 34 * MIB).await;
    stage.part(10 * MIB, 12 * MIB).await;
    assert!(stage.sent() - before < 0.01, "{} MiB again", stage.sent() - before);
    stage.whole().await;
    stage.assert_stored().await;
    stage.assert_sent_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_do_not_make_the_blob_are_all_dropped() {
    let stage = Stage::set().await;
    stage.hub.fault(Fault::new(Target::blob(&stage.digest), Action::FlipByte(1000)).times(1));
    // The chunk is wrong, and nobody can know yet.
    let reply = stage.range("8000000-8100000").await;
    assert_eq!(reply.status, 206);
    // All the rest, in pieces: whoever has them all has not got the last.
    let mut held = reply.body.len();
    for start in (0..SIZE).step_by(4 * MIB) {
        let reply = stage.range(&format!("{start}-{}", start + 4 * MIB - 1)).await;
        let whole = stage.body.slice(start..(start + 4 * MIB).min(SIZE));
        if reply.complete && reply.body == whole {
            held += reply.body.len();
        }
    }
    assert!(held > 0);
    assert!(!stage.roadstead.stored().contains_key(&stage.digest) || stage.sent() > 60.0);
    stage.whole().await;
    stage.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_ignores_ranges_is_asked_once() {
    let stage = Stage::set().await;
    stage.hub.fault(Fault::new(Target::blob(&stage.digest), Action::IgnoreRange));
    stage.part(20 * MIB, 20 * MIB + 10).await;
    stage.part(39 * MIB, 39 * MIB + 10).await;
    stage.whole().await;
    stage.assert_stored().await;
    // The first question may have been asked twice: as a part, and as the whole.
    let gets = stage.hub.blob_gets(&stage.digest);
    assert!(gets <= 2, "{gets} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_cut_is_resumed() {
    let stage = Stage::set().await;
    let cut = Action::CutAfter(300_000);
    stage.hub.fault(Fault::new(Target::blob(&stage.digest), cut).times(3));
    stage.part(6 * MIB, 7 * MIB).await;
    assert!(stage.sent() < 1.1, "{} MiB", stage.sent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_a_cold_blob_fetches_its_rest() {
    let stage = Stage::set().await;
    let reply = stage.range(&format!("{}-", 33 * MIB)).await;
    assert_eq!((reply.status, reply.complete), (206, true));
    assert!(reply.body == stage.body.slice(33 * MIB..));
    assert!(stage.sent() < 7.1, "{} MiB for 7", stage.sent());
    assert_eq!(digest(&stage.digest, &stage.body), stage.digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_whose_length_is_not_said_is_right() {
    let stage = Stage::set().await;
    stage.hub.fault(Fault::new(Target::blob(&stage.digest), Action::NoLength));
    stage.part(20 * MIB + 10, 20 * MIB + 20).await;
    stage.part(33 * MIB, 35 * MIB).await;
    assert!(stage.sent() < 4.1, "{} MiB", stage.sent());
    stage.whole().await;
    stage.assert_stored().await;
    stage.assert_sent_once();
}

/// P6: what another repository brought in parts is served only where upstream says that it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_left_over_in_parts_is_served_only_with_leave() {
    let mut stage = Stage::set().await;
    stage.hub.push(&ImageSpec::new("library/other").tag("latest"));
    stage.part(10 * MIB, 12 * MIB).await;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart().await;
    let before = stage.sent();
    let ask = get(stage.roadstead.at(), blob_path("library/other", &stage.digest));
    let reply = ask.header("Range", format!("bytes={}-{}", 10 * MIB, 11 * MIB)).send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "BLOB_UNKNOWN"));
    stage.part(10 * MIB, 12 * MIB).await;
    assert!(stage.sent() - before < 0.1, "{} MiB again", stage.sent() - before);
}
