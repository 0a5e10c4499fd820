//! How long a tag is fresh, by pattern; and how long one that moved cools before it is served.

use std::process::Command;
use std::time::Duration;

use hub::{Action, Fault, Hub, Image, ImageSpec, Target};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Reply, get, head};
use crate::pull::{Puller, accepting, get_manifest, manifest_path, pull};
use crate::roadstead::{BINARY, Roadstead, Setup, eventually};

const NAME: &str = "library/alpine";

/// Longer than any test.
const LONG: &str = "1h";

/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn image(seed: u64) -> ImageSpec {
    ImageSpec::new(NAME).layer_size(4 << 10).seed(seed)
}

// === by pattern ===

/// The checks that four more pulls of a tag cost, each tag known.
async fn checks<const N: usize>(fresh_for: serde_json::Value, tags: [&str; N]) -> [u64; N] {
    let hub = Hub::start().await;
    hub.push(&tags.iter().fold(image(1), |spec, tag| spec.tag(*tag)));
    let roadstead = Setup::of(&hub).with("tags.fresh_for", fresh_for).start().await;
    for tag in tags {
        pull(roadstead.at(), NAME, tag).await;
    }
    hub.reset_stats();
    for tag in tags {
        for _ in 0..4 {
            pull(roadstead.at(), NAME, tag).await;
        }
    }
    assert_eq!(hub.stats().counted, 0);
    tags.map(|tag| hub.manifest_heads(tag))
}

#[tokio::test]
async fn each_pattern_has_a_freshness_of_its_own() {
    let fresh_for = json!({ "latest": "0s", "v[0-9]+*": LONG });
    let tags = ["latest", "v1", "v12.3-rc", "vx"];
    // `vx` matches none and has the default, a minute.
    assert_eq!(checks(fresh_for, tags).await, [4, 0, 0, 0]);
}

#[tokio::test]
async fn the_first_pattern_that_matches_says_how_fresh_a_tag_is() {
    let fresh_for = json!({ "v1": "0s", "v[0-9]+*": LONG, "v{1,2}": "0s" });
    assert_eq!(checks(fresh_for, ["v1", "v2"]).await, [4, 0]);
}

// === cooling ===

/// A Roadstead that has pulled `latest`, which has since moved.
struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    old: Image,
    new: Image,
}

// === impl Stage ===

impl Stage {
    async fn set(cooldown: &str) -> Self {
        Self::with(|setup| setup.with("tags.cooldown", cooldown)).await
    }

    async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let hub = Hub::start().await;
        let old = hub.push(&image(1).tag("latest"));
        let roadstead = change(Setup::of(&hub)).start().await;
        pull(roadstead.at(), NAME, "latest").await;
        roadstead.settled().await;
        let new = hub.push(&image(2).tag("latest"));
        assert_ne!(old.digest, new.digest);
        hub.reset_stats();
        Self { hub, roadstead, old, new }
    }

    async fn get(&self) -> Reply {
        get_manifest(self.roadstead.at(), NAME, "latest").send().await
    }

    async fn head(&self) -> Reply {
        accepting(head(self.roadstead.at(), manifest_path(NAME, "latest"))).send().await
    }

    /// What GET and HEAD, in this order, agree on, with the status of the GET.
    async fn ask(&self) -> (String, String) {
        let (got, headed) = (self.get().await, self.head().await);
        assert_eq!((got.status, headed.status), (200, 200), "{}", got.text());
        assert_eq!(hub::sha256(&got.body), digest(&got));
        assert_eq!((digest(&got), got.length()), (digest(&headed), headed.length()));
        assert_eq!(is_cooling(&got), is_cooling(&headed), "{headed:?}");
        (digest(&got), got.cache_status().to_owned())
    }

    async fn assert_cools(&self) {
        let (digest, status) = self.ask().await;
        assert_eq!(digest, self.old.digest, "{status}");
        assert!(status.ends_with("; detail=cooldown"), "{status}");
    }

    async fn assert_serves(&self, image: &Image) {
        let (digest, status) = self.ask().await;
        assert_eq!(digest, image.digest, "{status}");
        assert!(!status.contains("detail"), "{status}");
    }

    /// P1: the new one costs nothing as long as it is not served.
    fn assert_new_cost_nothing(&self) {
        assert_eq!(
            (self.hub.manifest_gets(&self.new.digest), self.hub.manifest_gets("latest")),
            (0, 0)
        );
    }

    fn purge(&self, reference: &str) {
        let config = self.roadstead.config();
        let mut command = Command::new(BINARY);
        command.args(["cache", "purge", reference, "--config"]).arg(config).env_remove("RUST_LOG");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn logged(&self, line: &str) -> usize {
        self.roadstead.log().matches(line).count()
    }
}

fn digest(reply: &Reply) -> String {
    reply.header("docker-content-digest").unwrap().to_owned()
}

fn is_cooling(reply: &Reply) -> bool {
    reply.cache_status().contains("cooldown")
}

#[tokio::test]
async fn a_tag_that_moved_names_the_digest_before() {
    let stage = Stage::set(LONG).await;
    for _ in 0..3 {
        stage.assert_cools().await;
    }
    let status = stage.get().await.cache_status().to_owned();
    assert_eq!(status, "roadstead; fwd=stale; fwd-status=200; detail=cooldown");
    let pulled = pull(stage.roadstead.at(), NAME, "latest").await;
    assert_eq!(pulled.digest, stage.old.digest);
    assert_eq!(stage.hub.stats().counted, 0);
    let answers = stage.roadstead.metric(&["roadstead_tags_cooling_answers_total", "docker.io"]);
    assert_eq!(answers.await, 8.0);
    assert_eq!(stage.logged("a tag moved and cools"), 1);

    // By digest there is everything, and it does not change what the tag names.
    let puller = Puller::new(stage.roadstead.at());
    for image in [&stage.old, &stage.new] {
        let reply = puller.manifest(NAME, &image.digest).await.unwrap();
        assert!(!is_cooling(&reply), "{reply:?}");
    }
    stage.assert_cools().await;
}

#[tokio::test]
async fn a_tag_never_seen_before_is_served_at_once() {
    let stage = Stage::set(LONG).await;
    stage.hub.tag(NAME, "edge", &stage.new.digest);
    let reply = get_manifest(stage.roadstead.at(), NAME, "edge").send().await;
    assert_eq!((digest(&reply), is_cooling(&reply)), (stage.new.digest.clone(), false));
    stage.assert_cools().await;
}

#[tokio::test]
async fn a_tag_has_cooled_once_its_new_digest_is_old_enough() {
    const COOLDOWN: Duration = Duration::from_secs(2);
    let stage = Stage::set("2s").await;
    let begun = Instant::now();
    let first = stage.get().await;
    assert_eq!((digest(&first), is_cooling(&first)), (stage.old.digest.clone(), true));
    loop {
        stage.assert_new_cost_nothing();
        let reply = stage.head().await;
        if digest(&reply) == stage.new.digest {
            break assert!(!is_cooling(&reply), "{reply:?}");
        }
        assert!(begun.elapsed() < PATIENCE, "it cools for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= COOLDOWN, "{:?}", begun.elapsed());
    stage.assert_serves(&stage.new).await;
    assert_eq!(stage.hub.manifest_gets(&stage.new.digest), 1);
    assert_eq!(pull(stage.roadstead.at(), NAME, "latest").await.digest, stage.new.digest);
    let told = || (stage.logged("a tag moved and cools"), stage.logged("a tag has cooled"));
    eventually("both ends of cooling are told once", PATIENCE, || told() == (1, 1)).await;
}

#[tokio::test]
async fn cooling_goes_on_through_a_restart() {
    let mut stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    let moved = Instant::now();
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    stage.assert_cools().await;
    assert_eq!(stage.hub.stats().counted, 0);
    // The age counts from before the restart: for a cooldown that short it has cooled.
    stage.roadstead.kill9();
    eventually("two seconds pass", PATIENCE, || moved.elapsed() > Duration::from_secs(2)).await;
    stage.roadstead.restart_with(|setup| setup.with("tags.cooldown", "2s")).await;
    stage.assert_serves(&stage.new).await;
}

#[tokio::test]
async fn a_tag_that_is_deleted_and_comes_back_cools() {
    let mut stage = Stage::set(LONG).await;
    stage.hub.delete_tag(NAME, "latest");
    let reply = stage.get().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
    let listed = Command::new(BINARY)
        .args(["cache", "ls", "--admin", &stage.roadstead.admin().to_string()])
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!listed.contains(":latest"), "it is listed although it is gone: {listed}");
    // Neither a restart nor an outage brings the old one back.
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    stage.hub.fault(Fault::new(Target::manifests(), Action::Status(503)));
    let reply = stage.get().await;
    assert!(matches!(reply.status, 502 | 503), "{reply:?}");
    stage.hub.clear_faults();
    stage.hub.tag(NAME, "latest", &stage.new.digest);
    let deadline = Instant::now() + PATIENCE;
    while stage.get().await.status != 200 {
        assert!(Instant::now() < deadline, "it is back, and not served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.assert_cools().await;
}

#[tokio::test]
async fn a_tag_that_cools_does_so_while_upstream_is_down() {
    let mut stage = Stage::with(|setup| setup.impatient().with("tags.cooldown", LONG)).await;
    stage.assert_cools().await;
    // It is cached, and yet not what answers for the tag.
    let reply = get_manifest(stage.roadstead.at(), NAME, &stage.new.digest).send().await;
    assert_eq!(reply.status, 200);
    stage.hub.fault(Fault::new(Target::any(), Action::Drop));
    let assert_stale = async |stage: &Stage| {
        let (digest, status) = stage.ask().await;
        assert_eq!(digest, stage.old.digest, "{status}");
        assert_eq!(status, "roadstead; hit; detail=upstream-unreachable+cooldown");
    };
    assert_stale(&stage).await;
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    assert_stale(&stage).await;

    // What answers is not cached, what is may not answer: it is as good as unseen.
    stage.purge(&stage.old.digest);
    let reply = stage.get().await;
    assert!(matches!(reply.status, 502 | 503), "{reply:?}");
    stage.hub.clear_faults();
    let deadline = Instant::now() + PATIENCE;
    while stage.get().await.status != 200 {
        assert!(Instant::now() < deadline, "upstream is back, and not asked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.assert_cools().await;
}

#[tokio::test]
async fn a_tag_that_moves_again_keeps_what_it_named_at_first() {
    let stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    let puller = Puller::new(stage.roadstead.at());
    puller.manifest(NAME, &stage.new.digest).await.unwrap();
    let third = stage.hub.push(&image(3).tag("latest"));
    stage.assert_cools().await;
    assert_eq!(stage.hub.manifest_gets(&third.digest), 0);
    assert_eq!(stage.logged("a tag moved and cools"), 2);
}

#[tokio::test]
async fn a_tag_that_moves_back_is_there_at_once() {
    let mut stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    stage.hub.tag(NAME, "latest", &stage.old.digest);
    stage.assert_serves(&stage.old).await;
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    stage.assert_serves(&stage.old).await;
    assert_eq!(stage.hub.stats().counted, 0);
    assert_eq!(stage.logged("a tag has cooled"), 1);
    // And the next move cools as the first did.
    stage.hub.tag(NAME, "latest", &stage.new.digest);
    stage.assert_cools().await;
}

#[tokio::test]
async fn a_step_back_from_what_has_cooled_is_taken_at_once() {
    let mut stage = Stage::set("0s").await;
    stage.assert_serves(&stage.new).await;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart_with(|setup| setup.with("tags.cooldown", "1ms")).await;
    stage.assert_serves(&stage.new).await;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart_with(|setup| setup.with("tags.cooldown", LONG)).await;
    stage.hub.tag(NAME, "latest", &stage.old.digest);
    stage.assert_serves(&stage.old).await;
    stage.hub.push(&image(3).tag("latest"));
    stage.assert_cools().await;
}

#[tokio::test]
async fn what_a_cooling_tag_names_is_obtained_by_digest_if_it_is_gone() {
    let stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    stage.purge(&stage.old.digest);
    // A HEAD is free, and agrees.
    let headed = stage.head().await;
    assert_eq!((digest(&headed), is_cooling(&headed)), (stage.old.digest.clone(), true));
    assert_eq!(stage.hub.stats().counted, 0);
    for _ in 0..3 {
        stage.assert_cools().await;
    }
    assert_eq!(stage.hub.manifest_gets(&stage.old.digest), 1);
    stage.assert_new_cost_nothing();
}

#[tokio::test]
async fn a_digest_before_that_upstream_lost_ends_the_cooling() {
    for first in ["GET", "HEAD"] {
        let mut stage = Stage::set(LONG).await;
        stage.assert_cools().await;
        stage.purge(&stage.old.digest);
        stage.hub.fault(Fault::new(Target::manifest(&stage.old.digest), Action::Status(404)));
        let reply = match first {
            "GET" => stage.get().await,
            _ => stage.head().await,
        };
        assert_eq!((reply.status, digest(&reply)), (200, stage.new.digest.clone()), "{reply:?}");
        stage.assert_serves(&stage.new).await;
        let asked = stage.hub.manifest_gets(&stage.old.digest);
        stage.roadstead.kill9();
        stage.roadstead.restart().await;
        stage.assert_serves(&stage.new).await;
        assert_eq!(stage.hub.manifest_gets(&stage.old.digest), asked, "it is let go for good");
        assert_eq!(stage.logged("a digest that upstream no longer has"), 1, "{first}");
    }
}

#[tokio::test]
async fn a_fresh_tag_that_cools_is_served_without_a_word_to_upstream() {
    let mut stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    // Its record is written at once where it moves.
    stage.roadstead.kill9();
    stage.roadstead.restart_with(|setup| setup.with("tags.fresh_for", LONG)).await;
    stage.hub.reset_stats();
    stage.assert_cools().await;
    let status = stage.get().await.cache_status().to_owned();
    assert!(status.starts_with("roadstead; hit; ttl=3"), "{status}");
    assert_eq!(stage.hub.stats().requests(), 0);
}

#[tokio::test]
async fn an_immutable_tag_neither_moves_nor_cools() {
    let immutable = json!(["latest"]);
    let stage = Stage::with(|setup| {
        setup.with("tags.cooldown", LONG).with("tags.immutable", immutable.clone())
    });
    let stage = stage.await;
    stage.assert_serves(&stage.old).await;
    assert_eq!(stage.hub.stats().requests(), 0);

    // One that cools when it is called immutable is what it names.
    let mut stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    stage.roadstead.kill9();
    stage.roadstead.restart_with(|setup| setup.with("tags.immutable", immutable)).await;
    stage.assert_serves(&stage.new).await;
}

#[tokio::test]
async fn a_herd_at_a_tag_that_cools_gets_one_answer() {
    let stage = Stage::set(LONG).await;
    let at = stage.roadstead.at();
    let asking = (0..50).map(|_| get_manifest(at, NAME, "latest").send());
    for reply in asking.collect::<JoinSet<Reply>>().join_all().await {
        assert_eq!((reply.status, digest(&reply)), (200, stage.old.digest.clone()));
        assert!(is_cooling(&reply), "{reply:?}");
    }
    assert_eq!(stage.hub.stats().counted, 0);
    assert_eq!(stage.logged("a tag moved and cools"), 1);
}

#[tokio::test]
async fn a_tag_known_by_head_alone_cools_too() {
    let hub = Hub::start().await;
    let old = hub.push(&image(1).tag("latest"));
    let roadstead = Setup::of(&hub).with("tags.cooldown", LONG).start().await;
    let path = manifest_path(NAME, "latest");
    let headed = accepting(head(roadstead.at(), &path)).send().await;
    assert_eq!(digest(&headed), old.digest);
    let new = hub.push(&image(2).tag("latest"));
    let stage = Stage { hub, roadstead, old, new };
    let headed = stage.head().await;
    assert_eq!((digest(&headed), is_cooling(&headed)), (stage.old.digest.clone(), true));
    assert_eq!(stage.hub.stats().counted, 0);
    stage.assert_cools().await;
    assert_eq!(stage.hub.manifest_gets(&stage.old.digest), 1);
    stage.assert_new_cost_nothing();
}

#[tokio::test]
async fn a_client_that_reads_no_index_gets_the_child_of_the_digest_before() {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let stage = Stage::set(LONG).await;
    let path = manifest_path(NAME, "latest");
    let reply = get(stage.roadstead.at(), path).header("Accept", MANIFEST).send().await;
    assert_eq!(reply.header("content-type"), Some(MANIFEST));
    let children: Vec<_> = stage.old.manifests.iter().map(|child| &child.digest).collect();
    assert!(children.contains(&&digest(&reply)), "{reply:?}");
    assert!(is_cooling(&reply), "{reply:?}");
    stage.assert_new_cost_nothing();
}

#[tokio::test]
async fn purging_a_tag_that_cools_takes_the_new_one() {
    let stage = Stage::set(LONG).await;
    stage.assert_cools().await;
    stage.purge(&format!("{NAME}:latest"));
    stage.assert_serves(&stage.new).await;
}
