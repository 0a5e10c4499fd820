//! Downloads that everybody has left: some go on, the others stop and are resumed later.

use std::time::Duration;

use hub::{Action, Descriptor, Fault, Hub, ImageSpec, Kind, Target};

use tokio::time::{Instant, sleep};

use crate::client::{Reply, get};
use crate::pull::{blob_path, digest};
use crate::roadstead::{Roadstead, Setup, eventually};

const NAME: &str = "library/alpine";
const MIB: u64 = 1 << 20;

struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    layer: Descriptor,
}

// === impl Stage ===

impl Stage {
    /// One layer of `mib` MiB, and fills that go on for no more than the last MiB.
    async fn set(mib: u64) -> Self {
        let hub = Hub::start().await;
        let image = hub.push(&ImageSpec::new(NAME).layers(1).layer_size((mib * MIB) as usize));
        let setup = Setup::of(&hub).key("fill.finish_below", "1MiB");
        Self {
            roadstead: setup.key("fill.finish_above_percent", 90).start().await,
            layer: image.layers[0].clone(),
            hub,
        }
    }

    async fn get(&self) -> Reply {
        get(self.roadstead.at(), blob_path(NAME, &self.layer.digest)).send().await
    }

    /// A client reads so much and leaves.
    async fn read_and_leave(&self, bytes: u64) {
        let request = get(self.roadstead.at(), blob_path(NAME, &self.layer.digest));
        let mut answer = request.open().await;
        answer.read(bytes).await.unwrap();
    }

    /// A slow upstream, a client that leaves, and the partial file that stays.
    async fn abandon(&self) -> u64 {
        let slow = Action::Throttle(8 * MIB);
        self.hub.fault(Fault::new(Target::blob(&self.layer.digest), slow));
        self.read_and_leave(MIB).await;
        self.roadstead.settled().await;
        let sent = self.hub.stats().bytes_sent;
        assert!(sent < self.layer.size / 2, "it went on to {sent} bytes");
        self.hub.clear_faults();
        self.left_over().await
    }

    /// The size of the only partial file, once its writer has let go of it.
    async fn left_over(&self) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let partial = self.roadstead.partial();
            assert_eq!(partial.len(), 1, "{partial:?}");
            let held = self.roadstead.metric(&["roadstead_store_bytes", "staged"]).await;
            if held as u64 == partial[0].1 {
                return partial[0].1;
            }
            assert!(Instant::now() < deadline, "{held} bytes held for {partial:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The next client's pull begins where the last one's ended.
    async fn resume(&self, from: u64) {
        let reply = self.get().await;
        assert!(reply.complete);
        assert_eq!(digest(&self.layer.digest, &reply.body), self.layer.digest);
        let requests = self.hub.requests();
        let gets = requests.iter().filter(|one| one.kind == Kind::CdnGet);
        let ranges: Vec<_> = gets.map(|one| one.range.clone()).collect();
        assert_eq!(ranges, [None, Some(format!("bytes={from}-"))]);
        self.roadstead.settled().await;
        assert!(self.roadstead.partial().is_empty());
        self.roadstead.assert_all_stored_is_right();
    }
}

#[tokio::test]
async fn a_big_slow_fill_stops_when_all_have_left_and_is_resumed() {
    let stage = Stage::set(32).await;
    let partial = stage.abandon().await;
    assert!(partial >= MIB, "{partial}");
    let sent = stage.hub.stats().bytes_sent;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.hub.stats().bytes_sent, sent, "upstream still sends");
    stage.resume(partial).await;
}

/// The writer of an abandoned fill lives a moment longer than the fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_as_the_last_one_leaves_is_served() {
    let stage = Stage::set(8).await;
    let mut failed = Vec::new();
    for round in 0..40u64 {
        let blob = stage.hub.put_blob(NAME, vec![round as u8; 8 << 20].into());
        let path = blob_path(NAME, &blob);
        let mut answer = get(stage.roadstead.at(), &path).open().await;
        answer.read(MIB).await.unwrap();
        drop(answer);
        sleep(Duration::from_micros(200 * round)).await;
        let reply = get(stage.roadstead.at(), &path).send().await;
        if !reply.complete || digest(&blob, &reply.body) != blob {
            failed.push((round, reply.status, reply.text().chars().take(200).collect::<String>()));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn a_partial_fill_survives_a_restart() {
    let mut stage = Stage::set(32).await;
    let partial = stage.abandon().await;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart().await;
    stage.resume(partial).await;
}

#[tokio::test]
async fn a_partial_fill_survives_a_kill_9() {
    let mut stage = Stage::set(32).await;
    let partial = stage.abandon().await;
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    stage.resume(partial).await;
}

#[tokio::test]
async fn a_fill_killed_midway_is_resumed() {
    let mut stage = Stage::set(8).await;
    let gate = stage.hub.gate(Target::blob(&stage.layer.digest), 4 * MIB);
    let request = get(stage.roadstead.at(), blob_path(NAME, &stage.layer.digest));
    let mut answer = request.open().await;
    answer.read(3 * MIB).await.unwrap();
    gate.waiting().await;
    let roadstead = &stage.roadstead;
    let all = || roadstead.partial().iter().any(|(_, len)| *len == 4 * MIB);
    eventually("4 MiB are written", Duration::from_secs(5), all).await;
    stage.roadstead.kill9();
    assert!(!answer.finish().await.complete);
    gate.open();
    stage.roadstead.restart().await;
    stage.resume(4 * MIB).await;
}

#[tokio::test]
async fn a_partial_file_that_rotted_is_never_completed_wrong() {
    let mut stage = Stage::set(32).await;
    stage.abandon().await;
    stage.roadstead.kill9();
    let (file, _) = stage.roadstead.partial().remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1000] ^= 0xff;
    std::fs::write(&file, bytes).unwrap();
    stage.roadstead.restart().await;
    let reply = stage.get().await;
    assert!(!reply.complete || digest(&stage.layer.digest, &reply.body) == stage.layer.digest);
    stage.roadstead.settled().await;
    let reply = stage.get().await;
    assert!(reply.complete, "the rotten file is used again");
    assert_eq!(digest(&stage.layer.digest, &reply.body), stage.layer.digest);
}

/// All leave once they have read so much, while the hub holds back the rest at `gate`; the blob is
/// stored all the same.
async fn goes_on(stage: Stage, read: u64, gate: u64) {
    let gate = stage.hub.gate(Target::blob(&stage.layer.digest), gate);
    stage.read_and_leave(read).await;
    gate.waiting().await;
    gate.open();
    let stored = || stage.roadstead.stored().contains_key(&stage.layer.digest);
    eventually("the blob is stored", Duration::from_secs(10), stored).await;
    stage.roadstead.settled().await;
    assert!(stage.get().await.complete);
    assert_eq!(stage.hub.blob_gets(&stage.layer.digest), 1);
}

#[tokio::test]
async fn a_fill_with_little_left_goes_on() {
    let stage = Stage::set(2).await;
    goes_on(stage, 5 * MIB / 4, 3 * MIB / 2).await;
}

#[tokio::test]
async fn a_fill_well_advanced_goes_on() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).layers(1).layer_size(8 << 20));
    let setup = Setup::of(&hub).key("fill.finish_below", "1KiB");
    let stage = Stage {
        roadstead: setup.key("fill.finish_above_percent", 50).start().await,
        layer: image.layers[0].clone(),
        hub,
    };
    let gate = stage.hub.gate(Target::blob(&stage.layer.digest), 6 * MIB);
    stage.read_and_leave(5 * MIB).await;
    gate.open();
    let stored = || stage.roadstead.stored().contains_key(&stage.layer.digest);
    eventually("the blob is stored", Duration::from_secs(10), stored).await;
    assert_eq!(stage.hub.blob_gets(&stage.layer.digest), 1);
}

#[tokio::test]
async fn a_stop_waits_for_requests_under_way() {
    let mut stage = Stage::set(4).await;
    let gate = stage.hub.gate(Target::blob(&stage.layer.digest), 2 * MIB);
    let request = get(stage.roadstead.at(), blob_path(NAME, &stage.layer.digest));
    let mut answer = request.open().await;
    let begun = answer.read(MIB).await.unwrap();
    stage.roadstead.signal_term();
    let at = stage.roadstead.at();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::net::TcpStream::connect(at).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gate.open();
    let rest = answer.finish().await;
    assert!(rest.complete, "cut by a graceful stop");
    let body = [begun, rest.body].concat();
    assert_eq!(digest(&stage.layer.digest, &body), stage.layer.digest);
    assert!(stage.roadstead.ended().await.success());
    stage.roadstead.assert_all_stored_is_right();
}
