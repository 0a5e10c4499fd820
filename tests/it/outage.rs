//! The outage drill: fifty clients before a registry that breaks in every way and comes back.
//!
//! What is cached never fails; what is not fails soon, once the trouble is known; and the return is
//! no stampede.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub::{Action, Fault, Hub, Image, ImageSpec, Target};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::get;
use crate::outbound::tls::{Authority, Clients, TlsFront};
use crate::pull::{accepting, blob_path, digest, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, free_address};

const CLIENTS: usize = 50;
const KNOWN: &str = "library/known";
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients that pull what is cached, and now and then what is not.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: JoinSet<Vec<String>>,
}

// === impl Load ===

impl Load {
    fn start(at: SocketAddr, image: &Image) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let wanted: Arc<[(String, String)]> = [
            (manifest_path(KNOWN, "latest"), image.digest.clone()),
            (manifest_path(KNOWN, &image.digest), image.digest.clone()),
            (blob_path(KNOWN, &image.layers[0].digest), image.layers[0].digest.clone()),
        ]
        .into();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (stop, done, wanted) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&wanted));
            clients.spawn(client(at, number, stop, done, wanted));
        }
        Self { stop, done, clients }
    }

    /// Waits until so many more pulls have been answered.
    async fn goes_on(&self, pulls: u64) {
        let (before, deadline) = (self.done.load(Ordering::Acquire), Instant::now() + PATIENCE);
        while self.done.load(Ordering::Acquire) < before + pulls {
            assert!(Instant::now() < deadline, "clients are held up");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        let failed = self.clients.join_all().await.concat();
        assert!(failed.is_empty(), "{} failed, such as {}", failed.len(), failed[0]);
    }
}

async fn client(
    at: SocketAddr,
    number: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    wanted: Arc<[(String, String)]>,
) -> Vec<String> {
    let mut failed = Vec::new();
    for (path, expected) in wanted.iter().cycle().skip(number) {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let reply = accepting(get(at, path)).send().await;
        if reply.status != 200 || !reply.complete || digest(expected, &reply.body) != *expected {
            failed.push(format!("{path}: {} {}", reply.status, reply.text()));
        }
        done.fetch_add(1, Ordering::AcqRel);
    }
    failed
}

/// What nobody has seen is asked for until the trouble is known; then it must fail within a second.
async fn fails_soon(at: SocketAddr, image: &Image, what: &str) {
    let blob = blob_path(&image.repository, &image.layers[0].digest);
    all_fail_soon(at, vec![manifest_path(&image.repository, "latest"), blob], what).await;
}

async fn all_fail_soon(at: SocketAddr, paths: Vec<String>, what: &str) {
    for path in &paths {
        accepting(get(at, path)).send().await;
    }
    for path in paths {
        let begun = Instant::now();
        let reply = accepting(get(at, &path)).send().await;
        assert!(matches!(reply.status, 429 | 502..=504), "{what}: {path}: {}", reply.status);
        assert!(!reply.error_code().is_empty(), "{what}: {}", reply.text());
        assert!(reply.header("retry-after").is_some(), "{what}: {path}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}: {path}: {:?}", begun.elapsed());
    }
}

async fn drill(what: &'static str, target: Target, action: Action) {
    let hub = Hub::start_with(hub::Options { limit: None, ..hub::Options::default() });
    let hub = hub.await.unwrap();
    let spec = |name: &str| ImageSpec::new(name).tag("latest").single().layer_size(8 << 10);
    let known = hub.push(&spec(KNOWN));
    let roadstead = Setup::of(&hub).impatient().with("tags.fresh_for", "200ms").start().await;
    pull(roadstead.at(), KNOWN, "latest").await;
    roadstead.settled().await;
    let load = Load::start(roadstead.at(), &known);
    load.goes_on(CLIENTS as u64).await;

    let unseen = hub.push(&spec("library/unseen"));
    // Whoever has a token already needs no token server.
    let is_blob_only = target == Target::cdn();
    if target == Target::token() {
        hub.expire_tokens();
    }
    hub.fault(Fault::new(target, action));
    load.goes_on(CLIENTS as u64).await;
    let marked = is_marked_stale(&roadstead, what, is_blob_only).await;
    assert!(marked, "{what}: no stale answer says so");
    if is_blob_only {
        let blob = blob_path(&unseen.repository, &unseen.layers[0].digest);
        all_fail_soon(roadstead.at(), vec![blob], what).await;
    } else {
        fails_soon(roadstead.at(), &unseen, what).await;
    }
    load.goes_on(4 * CLIENTS as u64).await;

    hub.clear_faults();
    hub.reset_stats();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let path = manifest_path(KNOWN, "latest");
        let reply = accepting(get(roadstead.at(), path)).send().await;
        let is_fresh = !reply.cache_status().contains("detail=");
        if is_fresh && get_blob(&roadstead, &unseen).await {
            break;
        }
        assert!(Instant::now() < deadline, "{what}: {}", reply.cache_status());
        sleep(Duration::from_millis(20)).await;
    }
    load.goes_on(CLIENTS as u64).await;
    load.stop().await;
    // Fifty clients for a tag that is checked five times a second: probes, tokens, checks.
    let asked = hub.stats().requests();
    assert!(asked < 120, "{what}: a stampede of {asked}");
}

/// Where tags can't be checked, an answer soon says that it is stale.
async fn is_marked_stale(roadstead: &Roadstead, what: &str, is_blob_only: bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_blob_only && Instant::now() < deadline {
        let path = manifest_path(KNOWN, "latest");
        let reply = accepting(get(roadstead.at(), path)).send().await;
        assert_eq!(reply.status, 200, "{what}");
        if reply.cache_status().contains("hit; detail=") && reply.header("age").is_some() {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    is_blob_only
}

async fn get_blob(roadstead: &Roadstead, image: &Image) -> bool {
    let layer = &image.layers[0].digest;
    let reply = get(roadstead.at(), blob_path(&image.repository, layer)).send().await;
    reply.status == 200 && reply.complete
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_drops_connections() {
    drill("dropped", Target::any(), Action::Drop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_hangs() {
    drill("hanging", Target::any(), Action::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_is_slower_than_anybody_waits() {
    drill("slow", Target::any(), Action::Delay(Duration::from_secs(3))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_answers_500() {
    drill("500", Target::any(), Action::Status(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_answers_429_of_a_spent_budget() {
    drill("429", Target::any(), Action::RateLimited).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_answers_429_of_too_many_at_once() {
    let abuse = Action::StatusWith {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "2".to_owned())],
        content_type: "text/plain".to_owned(),
        body: "Too Many Requests (HAP429).\n".to_owned(),
    };
    drill("HAP429", Target::any(), abuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_server_is_down() {
    drill("tokens", Target::token(), Action::Drop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cdn_is_down() {
    drill("the CDN is down", Target::cdn(), Action::Drop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cdn_is_limited() {
    let limited = Action::StatusWith {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "2".to_owned())],
        content_type: "text/plain".to_owned(),
        body: "slow down\n".to_owned(),
    };
    drill("the CDN is limited", Target::cdn(), limited).await;
}

/// A name that can't be resolved, a port that nobody listens on, no TLS where TLS is wanted, a
/// certificate of a stranger, and one of another name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_can_not_be_reached_any_more() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(KNOWN).tag("latest").single().layer_size(8 << 10));
    let mut roadstead = Setup::of(&hub).impatient().start().await;
    pull(roadstead.at(), KNOWN, "latest").await;
    roadstead.settled().await;
    let unseen = hub.push(&ImageSpec::new("library/unseen").tag("latest").single());
    let (stranger, known) = (Authority::new(), Authority::new());
    let strange = TlsFront::start(&stranger, "localhost", Clients::Anonymous, hub.registry());
    let misnamed = TlsFront::start(&known, "elsewhere", Clients::Anonymous, hub.registry());
    let urls = [
        "http://registry.invalid".to_owned(),
        format!("http://{}", free_address()),
        format!("https://{}", hub.registry()),
        format!("https://localhost:{}", strange.await.at.port()),
        format!("https://localhost:{}", misnamed.await.at.port()),
    ];
    for url in urls {
        assert!(roadstead.terminate().await.success());
        let (moved, ca) = (json!(url), json!(known.file()));
        roadstead.restart_with(|setup| setup.with("url", moved).with("ca_file", ca)).await;
        let load = Load::start(roadstead.at(), &image);
        load.goes_on(CLIENTS as u64).await;
        fails_soon(roadstead.at(), &unseen, &url).await;
        load.goes_on(4 * CLIENTS as u64).await;
        load.stop().await;
    }
}
