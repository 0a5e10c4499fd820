//! Chains: a Roadstead behind a Roadstead, as a branch office has it, or behind a `docker-registry`.

use std::env;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hub::{Account, Action, Fault, Hub, ImageSpec, Options, Target};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::pull::{get_manifest, pull};
use crate::roadstead::{Roadstead, Setup, eventually, free_address};

/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

const NAME: &str = "library/alpine";

/// The outer of two, whose upstream is the inner one, whose upstream is the hub.
async fn chain(hub: &Hub) -> (Roadstead, Roadstead) {
    let account = json!([{ "username": "alice", "password": "a" }]);
    let inner = Setup::of(hub).with("credentials.accounts", account).start().await;
    let url = format!("http://{}", inner.at());
    let outer = Setup::upstream(&url, &format!("{url}/token")).start().await;
    (inner, outer)
}

async fn hub() -> Hub {
    let accounts = vec![Account::new("alice", "a").limit(10)];
    Hub::start_with(Options { accounts, ..Options::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_through_two_costs_what_one_costs() {
    let hub = hub().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(300 << 10));
    let (_inner, outer) = chain(&hub).await;
    let mut pulls = JoinSet::new();
    for _ in 0..8 {
        let at = outer.at();
        pulls.spawn(async move { pull(at, NAME, "latest").await });
    }
    for pulled in pulls.join_all().await {
        assert_eq!(pulled.digest, image.digest);
    }
    // The index and one child; each blob once.
    let stats = hub.stats();
    assert_eq!((stats.counted, stats.cdn_get), (2, 4), "{stats:?}");
    outer.settled().await;
    outer.assert_all_stored_is_right();
}

#[tokio::test]
async fn the_budget_is_told_through_a_chain_and_so_is_its_end() {
    let hub = hub().await;
    for n in 0..11 {
        hub.push(&ImageSpec::new(format!("library/i{n}")).tag("latest").single());
    }
    let (_inner, outer) = chain(&hub).await;
    let told = async |name: &str| {
        let reply = get_manifest(outer.at(), name, "latest").send().await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let told = ["ratelimit-limit", "ratelimit-remaining"].map(|name| reply.header(name));
        told.map(|header| header.unwrap_or_default().to_owned())
    };
    assert_eq!(told("library/i0").await, ["10;w=21600", "9;w=21600"]);
    assert_eq!(told("library/i1").await, ["10;w=21600", "8;w=21600"]);
    hub.set_budget(Some("alice"), 0);
    hub.set_budget(None, 0);
    let refused = get_manifest(outer.at(), "library/i10", "latest").send().await;
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "TOOMANYREQUESTS"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 5 * 3600, "{wait}");
    // Neither has left the other alone for that: what is known goes on being checked.
    let reply = get_manifest(outer.at(), "library/i0", "latest").send().await;
    assert_eq!((reply.status, reply.cache_status()), (200, "roadstead; fwd=stale; fwd-status=200"));
}

/// One image that the inner one can't have is no outage of all that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broken_image_of_the_inner_holds_up_no_other() {
    let hub = hub().await;
    let names = ["library/good", "library/bad"];
    let [good, _] = names.map(|name| hub.push(&ImageSpec::new(name).tag("latest").single()));
    let (inner, outer) = chain(&hub).await;
    pull(inner.at(), names[0], "latest").await;
    hub.fault(Fault::new(Target::manifests().repository(names[1]), Action::Status(503)));
    for _ in 0..12 {
        let bad = get_manifest(outer.at(), names[1], "latest").send().await;
        assert_eq!((bad.status, bad.error_code().as_str()), (503, "UNAVAILABLE"), "{bad:?}");
    }
    // The breaker that these may have opened is closed by the ping, and soon.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = get_manifest(outer.at(), names[0], "latest").send().await;
        if reply.status == 200 {
            assert_eq!(reply.header("docker-content-digest"), Some(good.digest.as_str()));
            break;
        }
        assert!(Instant::now() < deadline, "the other one is not served: {reply:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A `docker-registry` in its proxy mode.
struct Distribution {
    process: Child,
    url: String,
    _folder: TempDir,
}

// === impl Distribution ===

impl Distribution {
    /// In front of `hub`; `None` where it is not installed.
    async fn start(hub: &Hub) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (at, file) = (free_address(), folder.path().join("config.yml"));
        let config = json!({
            "version": 0.1,
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": folder.path().join("data") } },
            "http": { "addr": at.to_string(), "secret": "tests" },
            "proxy": { "remoteurl": hub.registry_url(), "username": "alice", "password": "a" },
        });
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        let started = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(process) = started.spawn() else {
            let is_required = env::var_os("ROADSTEAD_REQUIRE").is_some();
            assert!(!is_required, "docker-registry is not installed");
            eprintln!(
                "SKIPPED: docker-registry is not installed (apt-get install docker-registry)"
            );
            return None;
        };
        let this = Self { process, url: format!("http://{at}"), _folder: folder };
        eventually("docker-registry answers", PATIENCE, || {
            std::net::TcpStream::connect(at).is_ok()
        })
        .await;
        Some(this)
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_registry_in_proxy_mode_is_an_upstream_like_another() {
    let hub = hub().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(300 << 10));
    let Some(inner) = Distribution::start(&hub).await else { return };
    let setup = Setup::upstream(&inner.url, &format!("{}/token", inner.url));
    let outer = setup.start().await;
    for _ in 0..2 {
        assert_eq!(pull(outer.at(), NAME, "latest").await.digest, image.digest);
    }
    outer.settled().await;
    outer.assert_all_stored_is_right();
    // The inner one may ask for a blob twice, once to answer and once to keep it.
    let asked = outer.metric(&["roadstead_upstream_requests_total", "kind=\"blob\"", "GET"]).await;
    assert!((asked - 4.0).abs() < 0.5, "each blob once: {asked}");
    let counted = hub.stats().counted;
    assert_eq!(counted, 2);
    // What it has cached is asked of it, and of nobody else.
    hub.fault(Fault::new(Target::any(), Action::Drop));
    assert_eq!(pull(outer.at(), NAME, "latest").await.digest, image.digest);
    assert_eq!(hub.stats().counted, counted);
}
