//! P4: DESIGN's table "What an upstream's trouble means to a client", cell by cell.

use std::time::Duration;

use hub::{Action, Fault, Hub, Image, ImageSpec, Target};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::{Reply, get, head};
use crate::pull::{accepting, blob_path, get_manifest, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup};

/// Its tag `latest` is known when the trouble begins.
const KNOWN: &str = "library/alpine";
/// Nothing of it is.
const UNSEEN: &str = "library/busybox";

/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One row: what upstream does, and what clients are told.
struct Row {
    /// What upstream does; `None`: it is gone.
    faults: Vec<Fault>,
    gone: bool,
    /// `detail` in `Cache-Status` of the stale answer.
    detail: &'static str,
    /// For what nobody has seen.
    status: u16,
    code: &'static str,
    retry_after: Option<u64>,
}

/// A hub and a Roadstead that knows one image of it.
struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    known: Image,
    unseen: Image,
}

fn spec(name: &str) -> ImageSpec {
    ImageSpec::new(name).tag("latest").layer_size(4 << 10)
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        Self::with(Setup::impatient).await
    }

    async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let hub = Hub::start().await;
        let known = hub.push(&spec(KNOWN));
        let unseen = hub.push(&spec(UNSEEN));
        let roadstead = change(Setup::of(&hub)).start().await;
        pull(roadstead.at(), KNOWN, "latest").await;
        roadstead.settled().await;
        hub.reset_stats();
        Self { hub, roadstead, known, unseen }
    }

    fn break_it(&self, action: Action) {
        self.hub.fault(Fault::new(Target::any(), action));
    }

    async fn get_known(&self) -> Reply {
        get_manifest(self.roadstead.at(), KNOWN, "latest").send().await
    }

    async fn head_known(&self) -> Reply {
        let path = manifest_path(KNOWN, "latest");
        accepting(head(self.roadstead.at(), path)).send().await
    }

    async fn get_unseen(&self) -> Reply {
        get_manifest(self.roadstead.at(), UNSEEN, "latest").send().await
    }

    fn assert_stale(&self, reply: &Reply, detail: &str) {
        assert_eq!(reply.status, 200, "{reply:?}");
        let said = reply.header("docker-content-digest");
        assert_eq!(said, Some(self.known.digest.as_str()));
        let expected = format!("roadstead; hit; detail={detail}");
        assert_eq!(reply.cache_status(), expected);
        let age: u64 = reply.header("age").unwrap().parse().unwrap();
        assert!(age < 60, "{age}");
    }
}

// === impl Row ===

impl Row {
    fn new(faults: Vec<Fault>, detail: &'static str, status: u16) -> Self {
        let code = match status {
            429 => "TOOMANYREQUESTS",
            _ => "UNAVAILABLE",
        };
        Self { faults, gone: false, detail, status, code, retry_after: None }
    }

    fn any(action: Action, detail: &'static str, status: u16) -> Self {
        Self::new(vec![Fault::new(Target::any(), action)], detail, status)
    }

    fn token(action: Action, status: u16) -> Self {
        let fault = Fault::new(Target::token(), action);
        Self::new(vec![fault], "token-unavailable", status)
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Every cell of the row, each before a Roadstead that has not met the trouble yet.
    async fn check(self) {
        self.check_known().await;
        self.check_unseen(|_| manifest_path(UNSEEN, "latest")).await;
        self.check_unseen(|unseen| manifest_path(UNSEEN, &unseen.digest)).await;
        self.check_unseen(|unseen| blob_path(UNSEEN, &unseen.layers[0].digest)).await;
    }

    async fn begin(&self) -> (Roadstead, Option<Hub>, Image, Image) {
        let Stage { hub, roadstead, known, unseen } = Stage::set().await;
        hub.expire_tokens();
        for fault in &self.faults {
            hub.fault(fault.clone());
        }
        if !self.gone {
            return (roadstead, Some(hub), known, unseen);
        }
        let address = hub.registry();
        drop(hub);
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(address).await.is_ok() {
            assert!(Instant::now() < deadline, "the hub does not end");
            tokio::task::yield_now().await;
        }
        (roadstead, None, known, unseen)
    }

    async fn check_known(&self) {
        let (roadstead, hub, known, unseen) = self.begin().await;
        let reply = get_manifest(roadstead.at(), KNOWN, "latest").send().await;
        let gets = hub.as_ref().map_or(0, |hub| hub.stats().manifest_get);
        assert_eq!(gets, 0, "HEAD, then GET");
        let stage = Stage {
            hub: match hub {
                Some(hub) => hub,
                None => Hub::start().await,
            },
            roadstead,
            known,
            unseen,
        };
        stage.assert_stale(&reply, self.detail);
        assert_eq!(hub::sha256(&reply.body), stage.known.digest);
        assert!(reply.took < Duration::from_secs(5), "{:?}", reply.took);
        // A HEAD is answered as well, by now perhaps without asking.
        let reply = stage.head_known().await;
        assert_eq!(reply.status, 200);
        assert!(reply.cache_status().contains("; hit; detail="), "{reply:?}");
        assert_eq!(stage.hub.stats().manifest_get, 0, "HEAD, then GET");
        // What digests name needs no upstream at all.
        let pulled = pull(stage.roadstead.at(), KNOWN, "latest").await;
        assert_eq!(pulled.digest, stage.known.digest);
    }

    async fn check_unseen(&self, path: impl Fn(&Image) -> String) {
        let (roadstead, hub, _, unseen) = self.begin().await;
        let path = path(&unseen);
        let reply = accepting(get(roadstead.at(), &path)).send().await;
        assert_eq!(reply.status, self.status, "{path}: {} {reply:?}", reply.text());
        assert_eq!(reply.error_code(), self.code, "{path}");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        match self.retry_after {
            Some(seconds) => assert_eq!(wait, seconds, "{path}"),
            None => assert!((1..=60).contains(&wait), "{path}: {wait}"),
        }
        if let Some(hub) = hub.filter(|_| path.ends_with("latest")) {
            assert_eq!(hub.stats().manifest_get, 0, "HEAD, then GET");
        }
    }
}

#[tokio::test]
async fn upstream_hangs() {
    Row::any(Action::Hang, "upstream-timeout", 504).check().await;
}

#[tokio::test]
async fn upstream_is_gone() {
    let row = Row::new(Vec::new(), "upstream-unreachable", 502);
    Row { gone: true, ..row }.check().await;
}

#[tokio::test]
async fn upstream_drops_connections() {
    Row::any(Action::Drop, "upstream-unreachable", 502).check().await;
}

#[tokio::test]
async fn upstream_answers_500() {
    Row::any(Action::Status(500), "upstream-5xx", 502).check().await;
}

#[tokio::test]
async fn upstream_answers_502() {
    Row::any(Action::Status(502), "upstream-5xx", 502).check().await;
}

#[tokio::test]
async fn upstream_answers_503_and_says_when_to_retry() {
    let action = Action::StatusWith {
        status: 503,
        headers: vec![("Retry-After".to_owned(), "7".to_owned())],
        content_type: "text/plain".to_owned(),
        body: "down for maintenance".to_owned(),
    };
    Row::any(action, "upstream-5xx", 503).retry_after(7).check().await;
}

#[tokio::test]
async fn upstream_s_budget_is_spent() {
    Row::any(Action::RateLimited, "upstream-429", 429).check().await;
}

#[tokio::test]
async fn upstream_s_abuse_limit_is_reached() {
    Row::any(Action::Abuse, "upstream-429", 429).retry_after(60).check().await;
}

#[tokio::test]
async fn the_token_server_answers_500() {
    Row::token(Action::Status(500), 502).check().await;
}

#[tokio::test]
async fn the_token_server_hangs() {
    // The whole check ran out of time, the token included.
    let row = Row::token(Action::Hang, 504);
    let detail = "upstream-timeout";
    Row { detail, ..row }.check().await;
}

#[tokio::test]
async fn the_token_server_drops_connections() {
    Row::token(Action::Drop, 502).check().await;
}

#[tokio::test]
async fn the_token_server_is_limited_too() {
    Row::token(Action::Abuse, 429).retry_after(60).check().await;
}

#[tokio::test]
async fn the_budget_of_the_hub_is_spent_for_unseen_images_only() {
    let stage = Stage::set().await;
    stage.hub.set_budget(None, 0);
    let reply = stage.get_unseen().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (429, "TOOMANYREQUESTS"));
    assert!(reply.header("retry-after").is_some());
    let reply = stage.get_known().await;
    assert_eq!(reply.cache_status(), "roadstead; fwd=stale; fwd-status=200");
}

#[tokio::test]
async fn a_hanging_cdn_fails_the_unseen_blob_alone() {
    let stage = Stage::set().await;
    let layer = &stage.unseen.layers[0].digest;
    stage.hub.fault(Fault::new(Target::cdn(), Action::Hang));
    let reply = get(stage.roadstead.at(), blob_path(UNSEEN, layer)).send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (504, "UNAVAILABLE"));
    let reply = stage.get_unseen().await;
    assert_eq!(reply.status, 200, "the registry answers all the while");
    let reply = stage.get_known().await;
    assert_eq!(reply.cache_status(), "roadstead; fwd=stale; fwd-status=200");
}

// === the clock, with the default timeouts ===

#[tokio::test]
async fn a_known_tag_waits_for_a_hanging_upstream_once_and_briefly() {
    let stage = Stage::with(|setup| setup).await;
    stage.break_it(Action::Hang);
    let reply = stage.get_known().await;
    stage.assert_stale(&reply, "upstream-timeout");
    assert!(reply.took <= Duration::from_secs(5), "{:?}", reply.took);
    for _ in 0..5 {
        let reply = stage.get_known().await;
        stage.assert_stale(&reply, "upstream-held-back");
        // 100 ms is promised; the rest is for a loaded machine.
        assert!(reply.took <= Duration::from_millis(500), "{:?}", reply.took);
    }
}

/// Who is not asked anyway is not queued for either.
#[tokio::test]
async fn nobody_waits_for_a_turn_at_an_upstream_that_is_held_back() {
    let slowly = |setup: Setup| setup.impatient().with("max_requests_per_second", 20);
    let stage = Stage::with(|setup| slowly(setup).with("breaker.open_for", "1h")).await;
    stage.break_it(Action::Hang);
    let deadline = Instant::now() + PATIENCE;
    while !stage.get_unseen().await.text().contains("failed a moment ago") {
        assert!(Instant::now() < deadline, "it is asked on and on");
    }
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..60 {
        // Each wants a token of its own.
        let (name, digest) = (format!("library/i{number}"), format!("sha256:{number:064x}"));
        let request = get(stage.roadstead.at(), blob_path(&name, &digest));
        clients.spawn(async move { request.send().await });
    }
    for reply in clients.join_all().await {
        assert!(reply.text().contains("failed a moment ago"), "{}", reply.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Slower than anybody should wait, and yet in time: the first to ask finds out, and from then on
/// what is known is served first, and checked beside that.
#[tokio::test]
async fn a_known_tag_waits_for_a_slow_upstream_once() {
    let mut stage = Stage::with(|setup| setup).await;
    stage.break_it(Action::Delay(Duration::from_millis(1500)));
    let reply = stage.get_known().await;
    assert_eq!((reply.status, reply.cache_status()), (200, "roadstead; fwd=stale; fwd-status=200"));
    for _ in 0..3 {
        let begun = Instant::now();
        stage.assert_stale(&stage.get_known().await, "upstream-slow");
        stage.assert_stale(&stage.head_known().await, "upstream-slow");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    // A tag that moved is noticed all the same.
    stage.known = stage.hub.push(&spec(KNOWN).seed(2));
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A client that asks by HEAD first does not keep the manifest from being fetched.
        stage.head_known().await;
        let reply = stage.get_known().await;
        if reply.header("docker-content-digest") == Some(&*stage.known.digest) {
            break;
        }
        assert!(Instant::now() < deadline, "it is not noticed that the tag moved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.hub.clear_faults();
    while stage.get_known().await.cache_status().contains("detail") {
        assert!(Instant::now() < deadline, "it is slow for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_known_tag_waits_for_a_hanging_token_server_once_and_briefly() {
    let stage = Stage::with(|setup| setup).await;
    stage.hub.expire_tokens();
    stage.hub.fault(Fault::new(Target::token(), Action::Hang));
    let reply = stage.get_known().await;
    stage.assert_stale(&reply, "upstream-timeout");
    assert!(reply.took <= Duration::from_secs(5), "{:?}", reply.took);
    for _ in 0..5 {
        let reply = stage.get_known().await;
        assert!(reply.cache_status().contains("; hit; detail="), "{reply:?}");
        assert!(reply.took <= Duration::from_millis(500), "{:?}", reply.took);
    }
}

/// The first answer within 15 s, the next within 1 s, each 504.
async fn unseen_waits(target: Target, path: impl Fn(&Image) -> String) {
    let stage = Stage::with(|setup| setup).await;
    let path = path(&stage.unseen);
    stage.hub.fault(Fault::new(target, Action::Hang));
    for limit in [Duration::from_secs(15), Duration::from_secs(1)] {
        let reply = accepting(get(stage.roadstead.at(), &path)).send().await;
        assert_eq!(reply.status, 504, "{path}: {}", reply.text());
        assert_eq!(reply.error_code(), "UNAVAILABLE");
        assert!(reply.took <= limit, "{path}: {:?}", reply.took);
    }
}

/// One test for all, since each waits for 14 s.
#[tokio::test]
async fn the_unseen_of_a_hanging_upstream_is_a_504_in_time() {
    let by_tag = |_: &Image| manifest_path(UNSEEN, "latest");
    let by_digest = |unseen: &Image| manifest_path(UNSEEN, &unseen.digest);
    let blob = |unseen: &Image| blob_path(UNSEEN, &unseen.layers[0].digest);
    tokio::join!(
        unseen_waits(Target::any(), by_tag),
        unseen_waits(Target::any(), by_digest),
        unseen_waits(Target::any(), blob),
        unseen_waits(Target::cdn(), blob),
        unseen_waits(Target::token(), by_tag),
    );
}

#[tokio::test]
async fn a_herd_before_a_hanging_upstream_waits_no_longer_than_one() {
    let stage = Stage::with(|setup| setup).await;
    stage.break_it(Action::Hang);
    let one = || get_manifest(stage.roadstead.at(), KNOWN, "latest").send();
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    (0..32).for_each(|_| drop(clients.spawn(one())));
    for reply in clients.join_all().await {
        assert_eq!(reply.status, 200);
    }
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
}

// === afterwards ===

/// Waits for an answer that upstream has confirmed.
async fn recovered(stage: &Stage, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let reply = stage.get_known().await;
        if reply.cache_status().contains("fwd=stale") {
            break;
        }
        assert!(Instant::now() < deadline, "still {}", reply.cache_status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stage.get_unseen().await.status, 200);
}

#[tokio::test]
async fn a_hang_that_ends_is_noticed_within_a_probe_interval() {
    let stage = Stage::set().await;
    stage.break_it(Action::Hang);
    stage.assert_stale(&stage.get_known().await, "upstream-timeout");
    stage.assert_stale(&stage.get_known().await, "upstream-held-back");
    stage.hub.clear_faults();
    // open_for is 1 s, and a probe that hangs takes its own time to end.
    recovered(&stage, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn errors_that_end_are_noticed_within_a_probe_interval() {
    let stage = Stage::set().await;
    stage.break_it(Action::Status(503));
    for _ in 0..5 {
        assert_eq!(stage.get_known().await.status, 200);
    }
    stage.assert_stale(&stage.get_known().await, "upstream-held-back");
    stage.hub.clear_faults();
    recovered(&stage, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_rate_limit_that_ends_is_noticed() {
    let stage = Stage::set().await;
    stage.break_it(Action::RateLimited);
    stage.assert_stale(&stage.get_known().await, "upstream-429");
    stage.hub.clear_faults();
    recovered(&stage, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_token_server_that_answers_again_is_noticed() {
    let stage = Stage::set().await;
    stage.hub.expire_tokens();
    stage.hub.fault(Fault::new(Target::token(), Action::Hang));
    stage.assert_stale(&stage.get_known().await, "upstream-timeout");
    stage.assert_stale(&stage.get_known().await, "token-unavailable");
    stage.hub.clear_faults();
    recovered(&stage, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_tag_too_old_to_be_served_stale_is_as_good_as_unseen() {
    let stage = Stage::with(|setup| setup.impatient().with("tags.serve_stale_for", "1s")).await;
    stage.break_it(Action::Status(500));
    assert_eq!(stage.get_known().await.status, 200);
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        let reply = stage.get_known().await;
        if reply.status != 200 {
            break reply;
        }
        assert!(Instant::now() < deadline, "served stale for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // 503 where the breaker is open by now, 502 where it isn't.
    assert!(matches!(refused.status, 502 | 503), "{refused:?}");
    assert_eq!(refused.error_code(), "UNAVAILABLE");
    // Pulling by digest goes on.
    let digest = stage.known.digest.clone();
    let reply = get_manifest(stage.roadstead.at(), KNOWN, &digest).send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_restart_during_an_outage_serves_what_was_known() {
    let mut stage = Stage::set().await;
    stage.break_it(Action::Drop);
    stage.roadstead.kill9();
    stage.roadstead.restart().await;
    let pulled = pull(stage.roadstead.at(), KNOWN, "latest").await;
    assert_eq!(pulled.digest, stage.known.digest);
}
