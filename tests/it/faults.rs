//! P2: whatever upstream does to a body, no client holds a complete wrong one, and none is stored.

use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Descriptor, Fault, Hub, Image, ImageSpec, Options, Target};

use tokio::time::{Instant, sleep};

use crate::client::{Reply, get};
use crate::pull::{accepting, blob_path, digest, get_manifest, pull};
use crate::roadstead::{Roadstead, Setup, together};

const NAME: &str = "library/alpine";
const MIB: usize = 1 << 20;

/// The size of the layer, with enough behind and before each offset below.
const SIZE: usize = MIB + 123;

/// How a faulty blob reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Right, though upstream had to be asked again.
    Right,
    /// Cut short of its length, or an error.
    NotWhole,
}

struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    image: Image,
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let hub = Hub::start_with(options).await.unwrap();
        let spec = ImageSpec::new(NAME).tag("latest");
        let image = hub.push(&spec.layers(1).layer_size(SIZE));
        let setup = Setup::of(&hub).impatient();
        let roadstead = setup.with("timeouts.fetch", "5s").start().await;
        Self { hub, roadstead, image }
    }

    fn layer(&self) -> &Descriptor {
        &self.image.layers[0]
    }

    async fn get_layer(&self) -> Reply {
        get(self.roadstead.at(), blob_path(NAME, &self.layer().digest)).send().await
    }

    /// What a tag names now, if anything; its body is what it says.
    async fn tag_of(&self, name: &str) -> Option<String> {
        let reply = get_manifest(self.roadstead.at(), name, "latest").send().await;
        let said = reply.header("docker-content-digest")?;
        assert_eq!(hub::sha256(&reply.body), said);
        Some(said.to_owned())
    }

    /// The blob came whole and right, or is known not to be whole.
    fn check(&self, reply: &Reply, what: &str) -> Expect {
        if reply.status == 200 && reply.complete {
            let found = digest(&self.layer().digest, &reply.body);
            let right = found == self.layer().digest;
            let (length, headers) = (reply.body.len(), &reply.headers);
            assert!(right, "{what}: completed with {length} wrong bytes: {headers:?}");
            return Expect::Right;
        }
        if reply.status == 200 {
            let length = reply.length();
            assert!(
                length.is_none_or(|length| (reply.body.len() as u64) < length),
                "{what}: complete, whatever the connection did"
            );
        } else {
            assert!(matches!(reply.status, 502..=504), "{what}: {reply:?}");
            assert_eq!(reply.error_code(), "UNAVAILABLE", "{what}");
        }
        Expect::NotWhole
    }

    /// Once upstream is well, so is everything.
    async fn check_afterwards(&self, what: &str) {
        self.hub.clear_faults();
        self.roadstead.settled().await;
        let reply = self.get_layer().await;
        assert_eq!(self.check(&reply, what), Expect::Right, "{what}: afterwards: {reply:?}");
        assert_eq!(reply.length(), Some(self.layer().size));
        self.roadstead.settled().await;
        self.roadstead.assert_all_stored_is_right();
        assert!(self.roadstead.partial().is_empty(), "{what}: {:?}", self.roadstead.partial());
    }
}

async fn blob_fault(action: Action, times: u32, expected: Expect) {
    let stage = Stage::set().await;
    let what = format!("{action:?}, {times} times");
    let target = Target::blob(&stage.layer().digest).method("GET");
    stage.hub.fault(Fault::new(target, action).times(times));
    let reply = stage.get_layer().await;
    assert_eq!(stage.check(&reply, &what), expected, "{what}");
    stage.check_afterwards(&what).await;
}

const FOR_EVER: u32 = u32::MAX;

#[tokio::test]
async fn a_blob_cut_anywhere_once_is_resumed() {
    let size = Stage::set().await.layer().size;
    let offsets = [0, 1, 65_535, 65_536, 500_000, size - 65_537, size - 1];
    let case = |offset| blob_fault(Action::CutAfter(offset), 1, Expect::Right);
    together(offsets.map(case)).await;
}

#[tokio::test]
async fn a_blob_cut_twice_is_resumed_twice() {
    blob_fault(Action::CutAfter(400_000), 2, Expect::Right).await;
}

#[tokio::test]
async fn a_blob_that_never_comes_is_given_up() {
    blob_fault(Action::CutAfter(0), FOR_EVER, Expect::NotWhole).await;
}

#[tokio::test]
async fn a_flipped_byte_is_never_completed() {
    let size = Stage::set().await.layer().size;
    let case = |offset| blob_fault(Action::FlipByte(offset), FOR_EVER, Expect::NotWhole);
    together([0, size / 2, size - 1].map(case)).await;
}

#[tokio::test]
async fn a_wrong_length_is_never_completed() {
    let case = |off| blob_fault(Action::Length(off), FOR_EVER, Expect::NotWhole);
    together([-1, -70_000, 1, 70_000].map(case)).await;
}

#[tokio::test]
async fn a_body_without_length_is_as_good_as_one_with() {
    blob_fault(Action::NoLength, FOR_EVER, Expect::Right).await;
}

#[tokio::test]
async fn a_body_without_length_that_ends_early_is_never_completed() {
    let action = Action::EndEarlyWithoutLength;
    let case = |offset| blob_fault(action(offset), FOR_EVER, Expect::NotWhole);
    together([0, 1, 65_536, 500_000, SIZE as u64 - 200_000].map(case)).await;
}

#[tokio::test]
async fn a_body_that_hangs_is_resumed() {
    blob_fault(Action::HangBodyAfter(300_000), 1, Expect::Right).await;
}

#[tokio::test]
async fn a_dripping_body_arrives() {
    let drip = Action::Drip { bytes: 16 << 10, every: Duration::from_millis(10) };
    blob_fault(drip, FOR_EVER, Expect::Right).await;
}

#[tokio::test]
async fn a_login_page_is_no_blob() {
    blob_fault(Action::Html, FOR_EVER, Expect::NotWhole).await;
}

#[tokio::test]
async fn another_body_of_any_length_is_no_blob() {
    let action = |length| Action::Substitute(Bytes::from(vec![7; length]));
    let case = |length| blob_fault(action(length), FOR_EVER, Expect::NotWhole);
    together([SIZE, SIZE / 2, 2 * SIZE, 0].map(case)).await;
}

#[tokio::test]
async fn a_wrong_digest_header_of_a_blob_does_not_matter_its_bytes_do() {
    let options = Options { redirect_blobs: false, ..Options::default() };
    let stage = Stage::with(options).await;
    stage.hub.fault(Fault::new(Target::blobs(), Action::WrongDigestHeader));
    let reply = stage.get_layer().await;
    stage.check(&reply, "a wrong digest header");
    stage.check_afterwards("a wrong digest header").await;
}

#[tokio::test]
async fn a_resume_that_is_answered_with_the_whole_is_understood() {
    let stage = Stage::set().await;
    let blob = || Target::blob(&stage.layer().digest);
    stage.hub.fault(Fault::new(blob(), Action::CutAfter(700_000)).times(1));
    stage.hub.fault(Fault::new(blob(), Action::IgnoreRange));
    let reply = stage.get_layer().await;
    assert_eq!(stage.check(&reply, "ignore range"), Expect::Right);
    assert_eq!(stage.hub.blob_gets(&stage.layer().digest), 2);
    stage.check_afterwards("ignore range").await;
}

#[tokio::test]
async fn a_resume_with_other_bytes_is_never_completed() {
    let stage = Stage::set().await;
    let blob = || Target::blob(&stage.layer().digest);
    stage.hub.fault(Fault::new(blob(), Action::CutAfter(700_000)).times(1));
    stage.hub.fault(Fault::new(blob(), Action::FlipByte(1000)).times(1));
    let reply = stage.get_layer().await;
    assert_eq!(stage.check(&reply, "flipped resume"), Expect::NotWhole);
    stage.check_afterwards("flipped resume").await;
}

#[tokio::test]
async fn an_expired_cdn_url_is_asked_for_anew() {
    let stage = Stage::set().await;
    let layer = stage.layer().digest.clone();
    let cut = Fault::new(Target::blob(&layer), Action::CutAfter(500_000)).times(1);
    stage.hub.fault(cut);
    let gate = stage.hub.gate(Target::blob(&layer), 400_000);
    let path = blob_path(NAME, &layer);
    let reading = tokio::spawn(get(stage.roadstead.at(), path).send());
    gate.waiting().await;
    stage.hub.expire_urls();
    gate.open();
    let reply = reading.await.unwrap();
    assert_eq!(stage.check(&reply, "expired URL"), Expect::Right);
    stage.check_afterwards("expired URL").await;
}

#[tokio::test]
async fn expired_tokens_cost_one_refresh() {
    let stage = Stage::set().await;
    pull(stage.roadstead.at(), NAME, "latest").await;
    let before = stage.hub.stats().token;
    stage.hub.expire_tokens();
    for _ in 0..5 {
        let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
        assert!(reply.cache_status().contains("fwd-status=200"), "{reply:?}");
    }
    assert_eq!(stage.hub.stats().token, before + 1);
}

// === redirects ===

/// A GET of the blob is redirected there, and must not be followed.
async fn redirect_refused(to: &'static str) {
    let stage = Stage::set().await;
    stage.hub.fault(Fault::new(Target::redirect(), Action::Redirect(to.to_owned())));
    let reply = stage.get_layer().await;
    assert_eq!(reply.status, 502, "{to}: {reply:?}");
    assert_eq!(reply.error_code(), "UNAVAILABLE");
    stage.check_afterwards(to).await;
}

#[tokio::test]
async fn redirects_to_private_places_and_without_tls_are_refused() {
    let targets = [
        "http://10.0.0.1/blob",
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.1.1/blob",
        "http://[fd00::1]/blob",
        "https://10.0.0.1/blob",
        "https://[::ffff:10.0.0.1]/blob",
        "http://example.com/blob",
        "ftp://example.com/blob",
        "file:///etc/passwd",
        "http://user:password@127.0.0.1/blob",
    ];
    together(targets.map(redirect_refused)).await;
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let stage = Stage::set().await;
    let here = format!("{}{}", stage.hub.registry_url(), blob_path(NAME, &stage.layer().digest));
    stage.hub.fault(Fault::new(Target::redirect(), Action::Redirect(here)));
    let reply = stage.get_layer().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (502, "UNAVAILABLE"));
    assert!(stage.hub.stats().blob_get < 20, "{:?}", stage.hub.stats());
    stage.check_afterwards("a loop").await;
}

// === manifests ===

/// A known tag moves, and the new manifest can't be had: the good one stays. An unseen image is
/// a clean error.
async fn manifest_fault(action: Action) {
    let stage = Stage::set().await;
    let what = format!("{action:?}");
    pull(stage.roadstead.at(), NAME, "latest").await;
    let moved = stage.hub.push(&ImageSpec::new(NAME).tag("latest").seed(9));
    let other = stage.hub.push(&ImageSpec::new("library/busybox").tag("latest"));
    stage.hub.fault(Fault::new(Target::manifests().method("GET"), action));

    let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    assert_eq!(hub::sha256(&reply.body), stage.image.digest, "{what}");
    assert!(reply.cache_status().contains("; hit; detail="), "{what}: {reply:?}");

    let reply = get_manifest(stage.roadstead.at(), "library/busybox", "latest").send().await;
    assert!(matches!(reply.status, 502..=504), "{what}: {reply:?}");
    assert_eq!(reply.error_code(), "UNAVAILABLE", "{what}");
    let request = get_manifest(stage.roadstead.at(), "library/busybox", &other.digest);
    let reply = request.send().await;
    assert!(matches!(reply.status, 502..=504), "{what}: {reply:?}");

    stage.hub.clear_faults();
    // A body that was wrong is not asked for again at once; that ends after 10 s.
    let deadline = Instant::now() + Duration::from_secs(15);
    for (name, expected) in [(NAME, &moved.digest), ("library/busybox", &other.digest)] {
        while stage.tag_of(name).await.as_ref() != Some(expected) {
            assert!(Instant::now() < deadline, "{what}: {name} never moves");
            sleep(Duration::from_millis(100)).await;
        }
    }
    pull(stage.roadstead.at(), "library/busybox", "latest").await;
    stage.roadstead.settled().await;
    stage.roadstead.assert_all_stored_is_right();
}

/// They run at once: each may wait for ten seconds.
#[tokio::test]
async fn a_manifest_that_arrives_wrong_leaves_the_good_one_in_place() {
    let garbage = Bytes::from_static(b"{\"schemaVersion\":2}");
    tokio::join!(
        manifest_fault(Action::Html),
        manifest_fault(Action::FlipByte(0)),
        manifest_fault(Action::FlipByte(300)),
        manifest_fault(Action::CutAfter(100)),
        manifest_fault(Action::Length(-1)),
        manifest_fault(Action::Length(1)),
        manifest_fault(Action::EndEarlyWithoutLength(100)),
        manifest_fault(Action::HangBodyAfter(100)),
        manifest_fault(Action::Substitute(garbage)),
        manifest_fault(Action::WrongDigestHeader),
    );
}

#[tokio::test]
async fn a_manifest_without_digest_header_or_length_is_verified_all_the_same() {
    for action in [Action::NoDigestHeader, Action::NoLength, Action::BadHeaders] {
        let stage = Stage::set().await;
        stage.hub.fault(Fault::new(Target::manifests(), action));
        let pulled = pull(stage.roadstead.at(), NAME, "latest").await;
        assert_eq!(pulled.digest, stage.image.digest);
        stage.roadstead.settled().await;
        stage.roadstead.assert_all_stored_is_right();
    }
}

#[tokio::test]
async fn a_head_that_lies_about_the_digest_fetches_nothing_wrong() {
    let stage = Stage::set().await;
    let heads = Target::manifests().method("HEAD").authorized();
    stage.hub.fault(Fault::new(heads, Action::WrongDigestHeader));
    let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    // The digest that HEAD named does not exist: upstream's own 404.
    assert!(matches!(reply.status, 404 | 502), "{reply:?}");
    let path = crate::pull::manifest_path(NAME, &stage.image.digest);
    let reply = accepting(get(stage.roadstead.at(), path)).send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_401_without_challenge_is_a_clean_error() {
    let stage = Stage::set().await;
    stage.hub.fault(Fault::new(Target::manifests(), Action::MissingAuthenticate));
    let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHORIZED"));
    stage.hub.clear_faults();
    pull(stage.roadstead.at(), NAME, "latest").await;
}

#[tokio::test]
async fn a_token_answer_that_is_no_token_is_a_clean_error() {
    let stage = Stage::set().await;
    stage.hub.fault(Fault::new(Target::token(), Action::Html));
    let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (502, "UNAVAILABLE"));
    stage.hub.clear_faults();
    pull(stage.roadstead.at(), NAME, "latest").await;
}
