//! The budget: several accounts that take turns, what is left, who spent it, and what a 429 means.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hub::{Account, Action, Fault, Hub, Image, ImageSpec, Options, Target};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Reply, get, head};
use crate::pull::{accepting, blob_path, digest, get_manifest, manifest_path};
use crate::roadstead::{Roadstead, Setup, eventually, free_address};

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: u64 = 3600;

/// Images of one manifest each.
fn push(hub: &Hub, name: &str) -> Image {
    hub.push(&ImageSpec::new(name).tag("latest").single().layers(1).layer_size(3 << 10))
}

async fn hub_with(accounts: Vec<Account>, limit: u64) -> Hub {
    let options = Options {
        accounts,
        limit: Some(limit),
        window: Duration::from_secs(6 * HOUR),
        ..Options::default()
    };
    Hub::start_with(options).await.unwrap()
}

async fn get_tag(roadstead: &Roadstead, name: &str) -> Reply {
    get_manifest(roadstead.at(), name, "latest").send().await
}

async fn budget(roadstead: &Roadstead) -> Value {
    let reply = get(roadstead.admin(), "/api/v1/budget").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["upstreams"][0].clone()
}

/// The report of one account.
fn of<'a>(budget: &'a Value, account: &str) -> &'a Value {
    let accounts = budget["accounts"].as_array().unwrap();
    let found = accounts.iter().find(|one| one["account"] == account);
    found.unwrap_or_else(|| panic!("no {account} in {budget}"))
}

// === several accounts ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_manifests_are_paid_from_two_accounts_and_from_none() {
    let hub = hub_with(vec![Account::new("alice", "a"), Account::new("bob", "b")], 100).await;
    let images: Vec<_> = (0..501).map(|n| push(&hub, &format!("library/i{n}"))).collect();
    let accounts = json!([
        { "username": "alice", "password": "a" },
        { "username": "bob", "password": "b" },
    ]);
    let roadstead = Setup::of(&hub).with("credentials.accounts", accounts).start().await;
    let roadstead = Arc::new(roadstead);
    let mut clients = JoinSet::new();
    for client in 0..20 {
        let (images, roadstead) = (images.clone(), Arc::clone(&roadstead));
        clients.spawn(async move {
            for image in images.iter().take(500).skip(client).step_by(20) {
                let reply = get_tag(&roadstead, &image.repository).await;
                assert_eq!(reply.status, 200, "{}: {}", image.repository, reply.text());
                assert_eq!(digest(&image.digest, &reply.body), image.digest);
            }
        });
    }
    clients.join_all().await;
    let stats = hub.stats();
    assert_eq!((stats.counted, stats.refused_429), (500, 0), "{stats:?}");
    let left: Vec<_> = ["alice", "bob", "127.0.0.1"].map(|who| stats.remaining[who]).to_vec();
    assert_eq!(left, [0, 0, 0]);

    // The order of spending: both alike, and nobody's last.
    let spent = async |account: &str| {
        let account = format!("account=\"{account}\"");
        roadstead.metric(&["roadstead_pulls_spent_total", &account]).await
    };
    assert_eq!((spent("alice").await, spent("bob").await), (200.0, 200.0));
    assert_eq!(spent("anonymous").await, 100.0);
    assert_eq!(roadstead.metric(&["roadstead_ratelimit_remaining"]).await, 0.0);

    // One more is refused here, with the hour of the reset.
    let refused = get_tag(&roadstead, "library/i500").await;
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "TOOMANYREQUESTS"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((6 * HOUR - 600..=6 * HOUR).contains(&wait), "{wait}");
    assert!(refused.text().contains("GMT"), "{}", refused.text());
    assert_eq!(hub.stats().refused_429, 0, "the registry was asked for what it had not left");
    assert_eq!(hub.manifest_gets(&images[500].digest), 0);

    // What is cached goes on, and a tag that moves is noticed: a HEAD is free.
    let moved = hub.push(&ImageSpec::new("library/i7").tag("latest").single().layers(2));
    hub.reset_stats();
    for image in &images[..10] {
        let reply = get_tag(&roadstead, &image.repository).await;
        assert_eq!(reply.status, 200);
        assert_eq!(digest(&image.digest, &reply.body), image.digest);
    }
    assert_eq!((hub.stats().counted, hub.stats().refused_429), (0, 0));
    assert_eq!(hub.manifest_heads("latest"), 10);
    let reply = accepting(head(roadstead.at(), manifest_path("library/i7", "latest"))).send().await;
    let named = reply.header("docker-content-digest").unwrap();
    assert_eq!((reply.status, named), (200, moved.digest.as_str()), "a HEAD tells the new one");
    let reply = get_tag(&roadstead, "library/i7").await;
    assert_eq!(reply.cache_status(), "roadstead; hit; detail=upstream-429");

    // The registry says that there is more: it is used at once.
    hub.set_budget(Some("bob"), 3);
    let deadline = Instant::now() + PATIENCE;
    while get_tag(&roadstead, "library/i500").await.status != 200 {
        assert!(Instant::now() < deadline, "what is left is not noticed");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_spent_and_who_saved_is_told() {
    let hub = hub_with(vec![Account::new("alice", "a")], 100).await;
    push(&hub, "library/busy");
    push(&hub, "library/once");
    let account = json!([{ "username": "alice", "password": "a" }]);
    let roadstead = Setup::of(&hub).with("credentials.accounts", account).start().await;
    for _ in 0..5 {
        get_tag(&roadstead, "library/busy").await;
    }
    let reply = get_tag(&roadstead, "library/once").await;
    let told = ["ratelimit-limit", "ratelimit-remaining"].map(|name| reply.header(name).unwrap());
    assert_eq!(told, ["200;w=21600", "198;w=21600"], "as the registry says it");
    let budget = budget(&roadstead).await;
    assert_eq!((&budget["spent"], &budget["saved"]), (&json!(2), &json!(4)), "{budget}");
    assert_eq!((&budget["remaining"], &budget["limit"]), (&json!(198), &json!(200)));
    let alice = of(&budget, "alice");
    assert_eq!((&alice["spent"], &alice["source"]), (&json!(2), &json!("alice")));
    assert_eq!((&alice["window_seconds"], &alice["state"]), (&json!(21600), &json!("ready")));
    assert_eq!(
        budget["repositories"][0],
        json!({ "name": "library/busy", "spent": 1, "saved": 4 })
    );
    assert_eq!(budget["clients"], json!([{ "name": "127.0.0.1", "spent": 2, "saved": 4 }]));
    eventually("the access line says so", Duration::from_secs(5), || {
        let log = roadstead.log();
        let mut lines = log.lines().filter(|line| line.contains("library/once"));
        lines.any(|line| line.contains("spent=1") && line.contains("left=198"))
    })
    .await;
}

/// The accounts are the clients' own then, and what they spend is told all the same.
#[tokio::test]
async fn who_spent_is_told_where_clients_bring_their_own_credentials() {
    let options = Options { require_token: false, ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    push(&hub, "library/a");
    let roadstead = Setup::of(&hub).with("credentials.mode", "client").start().await;
    for _ in 0..3 {
        assert_eq!(get_tag(&roadstead, "library/a").await.status, 200);
    }
    assert_eq!(hub.stats().counted, 1);
    let budget = budget(&roadstead).await;
    assert_eq!((&budget["spent"], &budget["saved"]), (&json!(1), &json!(2)), "{budget}");
}

#[tokio::test]
async fn the_budget_is_known_before_anybody_has_pulled() {
    let hub = hub_with(vec![Account::new("alice", "a")], 100).await;
    hub.set_budget(Some("alice"), 77);
    let account = json!([{ "username": "alice", "password": "a" }]);
    let setup = Setup::of(&hub).with("credentials.accounts", account).with("budget", json!({}));
    let roadstead = setup.start().await;
    let deadline = Instant::now() + PATIENCE;
    while of(&budget(&roadstead).await, "alice")["remaining"] != json!(77) {
        assert!(Instant::now() < deadline, "it is not asked for");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(roadstead.metric(&["roadstead_ratelimit_remaining", "alice"]).await, 77.0);
    assert_eq!(hub.stats().counted, 0, "it cost a pull");
}

/// A machine that starts everything at once: the registry comes a moment later.
#[tokio::test]
async fn a_registry_that_is_not_up_yet_when_its_budget_is_asked_is_not_held_against_it() {
    let hub = hub_with(Vec::new(), 100).await;
    push(&hub, "library/a");
    let at = free_address();
    let setup = Setup::upstream(&format!("http://{at}"), &hub.token_realm());
    let roadstead = setup.with("budget", json!({})).start().await;
    let deadline = Instant::now() + PATIENCE;
    // One HEAD and its retries.
    while roadstead.metric(&["roadstead_upstream_requests_total", "status=\"none\""]).await < 3.0 {
        assert!(Instant::now() < deadline, "its budget is not asked for");
        sleep(Duration::from_millis(20)).await;
    }
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let registry = hub.registry();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut plain = tokio::net::TcpStream::connect(registry).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut plain).await;
            });
        }
    });
    let reply = get_tag(&roadstead, "library/a").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn headers_that_can_not_be_read_change_nothing() {
    let hub = hub_with(Vec::new(), 100).await;
    push(&hub, "library/a");
    push(&hub, "library/b");
    let roadstead = Roadstead::start(&hub).await;
    assert_eq!(get_tag(&roadstead, "library/a").await.status, 200);
    hub.fault(Fault::new(Target::manifests(), Action::BadHeaders));
    assert_eq!(get_tag(&roadstead, "library/b").await.status, 200);
    assert_eq!(of(&budget(&roadstead).await, "anonymous")["remaining"], json!(99));
}

/// The way to a blob was signed for one account, and is refused where it leads to.
#[tokio::test]
async fn a_cdn_that_refuses_is_no_word_of_the_registry() {
    let hub = hub_with(vec![Account::new("alice", "a"), Account::new("bob", "b")], 100).await;
    let image = push(&hub, "library/a");
    let accounts = json!([
        { "username": "alice", "password": "a" },
        { "username": "bob", "password": "b" },
    ]);
    let roadstead = Setup::of(&hub).with("credentials.accounts", accounts).start().await;
    assert_eq!(get_tag(&roadstead, "library/a").await.status, 200);
    for status in [401, 403] {
        hub.clear_faults();
        hub.reset_stats();
        hub.fault(Fault::new(Target::cdn(), Action::Status(status)));
        let path = blob_path("library/a", &image.layers[0].digest);
        let reply = get(roadstead.at(), &path).send().await;
        assert_eq!((reply.status, reply.error_code().as_str()), (502, "UNAVAILABLE"), "{status}");
        assert!(reply.text().contains("where it sent us"), "{}", reply.text());
        let budget = budget(&roadstead).await;
        for account in ["alice", "bob", "anonymous"] {
            assert_eq!(of(&budget, account)["state"], "ready", "{status}: {budget}");
        }
        assert!(hub.stats().cdn_get <= 4, "every account asked: {:?}", hub.stats());
    }
    hub.clear_faults();
    let reply = get(roadstead.at(), blob_path("library/a", &image.layers[0].digest)).send().await;
    assert!(reply.status == 200 && reply.complete, "{}", reply.status);
}

#[tokio::test]
async fn below_the_reserve_tags_stay_fresh_for_longer() {
    let hub = hub_with(Vec::new(), 10).await;
    push(&hub, "library/a");
    let setup = Setup::of(&hub).with("tags.fresh_for", "1h");
    let keys = json!({ "probe": "none", "reserve": "9", "stretch": 24 });
    let roadstead = setup.with("budget", keys).start().await;
    get_tag(&roadstead, "library/a").await;
    let reply = get_tag(&roadstead, "library/a").await;
    let ttl: u64 = reply.cache_status().rsplit_once("ttl=").unwrap().1.parse().unwrap();
    assert!(ttl > 23 * HOUR && ttl <= 24 * HOUR, "{ttl}");
    assert_eq!(budget(&roadstead).await["is_sparing"], json!(true));
}

// === 429 ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_at_once_leaves_the_registry_alone_for_as_long_as_it_asks() {
    let hub = hub_with(Vec::new(), 100).await;
    push(&hub, "library/known");
    push(&hub, "library/unseen");
    let roadstead = Roadstead::start(&hub).await;
    get_tag(&roadstead, "library/known").await;
    hub.fault(Fault::new(Target::manifests(), Action::Abuse));
    assert_eq!(get_tag(&roadstead, "library/unseen").await.status, 429);
    hub.reset_stats();
    let roadstead = Arc::new(roadstead);
    let mut clients = JoinSet::new();
    for client in 0..40 {
        let roadstead = Arc::clone(&roadstead);
        let name = if client % 2 == 0 { "library/known" } else { "library/unseen" };
        clients.spawn(async move { (name, get_tag(&roadstead, name).await) });
    }
    for (name, reply) in clients.join_all().await {
        if name == "library/known" {
            assert_eq!(reply.cache_status(), "roadstead; hit; detail=upstream-429");
            continue;
        }
        assert_eq!((reply.status, reply.error_code().as_str()), (429, "TOOMANYREQUESTS"));
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=66).contains(&wait), "{wait}");
    }
    assert_eq!(hub.stats().requests(), 0, "it wanted to be left alone");
    // The accounts have nothing to do with it.
    assert_eq!(of(&budget(&roadstead).await, "anonymous")["state"], json!("ready"));
}

#[tokio::test]
async fn a_registry_that_wanted_to_be_left_alone_is_probed_and_not_stormed() {
    let hub = hub_with(Vec::new(), 100).await;
    push(&hub, "library/unseen");
    let abuse = Action::StatusWith {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "1".to_owned())],
        content_type: "text/plain".to_owned(),
        body: "Too Many Requests (HAP429).\n".to_owned(),
    };
    let fault = hub.fault(Fault::new(Target::any(), abuse));
    let roadstead = Setup::of(&hub).impatient().start().await;
    assert_eq!(get_tag(&roadstead, "library/unseen").await.status, 429);
    hub.remove_fault(fault);
    hub.reset_stats();
    let deadline = Instant::now() + PATIENCE;
    while get_tag(&roadstead, "library/unseen").await.status != 200 {
        assert!(Instant::now() < deadline, "it is left alone for ever");
        sleep(Duration::from_millis(10)).await;
    }
    // The probe, a challenge, a token, HEAD and GET.
    assert!(hub.stats().requests() <= 6, "{:?}", hub.stats());
}

// === credentials that fail ===

/// A bad account before a good one; the pull must succeed, and the log say `line` exactly once.
async fn carried_by_bob(bad: Value, line: &str, secret: &str) -> (Hub, Roadstead) {
    let hub = hub_with(vec![Account::new("alice", "right"), Account::new("bob", "b")], 100).await;
    for n in 0..3 {
        push(&hub, &format!("library/i{n}"));
    }
    let accounts = json!([bad, { "username": "bob", "password": "b" }]);
    let setup = Setup::of(&hub).with("credentials.accounts", accounts);
    let roadstead = setup.with("credentials.anonymous", false).start().await;
    for n in 0..3 {
        let reply = get_tag(&roadstead, &format!("library/i{n}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let said = || roadstead.log().lines().filter(|log| log.contains(line)).count();
    eventually(line, PATIENCE, || said() > 0).await;
    for n in 0..3 {
        get_tag(&roadstead, &format!("library/i{n}")).await;
    }
    assert_eq!(said(), 1, "{line}");
    assert!(!roadstead.whole_log().await.contains(secret), "the log tells {secret}");
    assert_eq!(roadstead.metric(&["roadstead_pulls_spent_total", "bob"]).await, 3.0);
    (hub, roadstead)
}

fn script(folder: &Path, text: &str) -> String {
    let path = folder.join("docker-credential-test");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn an_account_that_is_refused_steps_aside_and_comes_back_when_its_file_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "revoked-secret\n").unwrap();
    let alice = json!({ "username": "alice", "password_file": file });
    let line = "an account is refused and stands aside";
    let (hub, roadstead) = carried_by_bob(alice, line, "revoked-secret").await;
    let report = budget(&roadstead).await;
    assert_eq!(of(&report, "alice")["state"], json!("aside"), "{report}");
    let usable = ["roadstead_account_usable", "alice"];
    assert_eq!(roadstead.metric(&usable).await, 0.0);
    fs::write(&file, "right\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while roadstead.metric(&usable).await == 0.0 {
        assert!(Instant::now() < deadline, "the new password is not seen");
        sleep(Duration::from_millis(50)).await;
    }
    push(&hub, "library/new");
    assert_eq!(get_tag(&roadstead, "library/new").await.status, 200);
    // alice has spent less.
    assert_eq!(roadstead.metric(&["roadstead_pulls_spent_total", "alice"]).await, 1.0);
    assert!(roadstead.log().contains("an account is accepted again"));
}

#[tokio::test]
async fn a_helper_that_hangs_is_told_once_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let helper = json!({ "helper": script(folder.path(), "sleep 600"), "timeout": "2s" });
    let begun = Instant::now();
    carried_by_bob(helper, "did not answer within 2s", "no secret at all").await;
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_helper_that_prints_rubbish_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let helper = json!({ "helper": script(folder.path(), "echo geheim") });
    carried_by_bob(helper, "answers something else than a login", "geheim").await;
}

#[tokio::test]
async fn a_broken_config_json_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    fs::write(&file, "{\"auths\": {\"docker.io\": {\"auth\": \"geheim").unwrap();
    carried_by_bob(json!({ "docker_config": file }), "is not docker's JSON", "geheim").await;
}

/// Both logins are in docker's file. Docker Hub's own is for Docker Hub's own address, which the
/// simulator has not.
#[tokio::test]
async fn docker_hub_s_login_goes_to_no_stand_in_of_its_name() {
    let accounts = vec![Account::new("alice", "a"), Account::new("bob", "b")];
    let options = Options { accounts, private: vec!["acme/one".to_owned()], ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    push(&hub, "acme/one");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    // alice:a and bob:b
    let logins = json!({ "auths": {
        "https://index.docker.io/v1/": { "auth": "YWxpY2U6YQ==" },
        "docker.io": { "auth": "YWxpY2U6YQ==" },
        hub.registry().to_string(): { "auth": "Ym9iOmI=" },
    } });
    fs::write(&file, logins.to_string()).unwrap();
    let accounts = json!([{ "docker_config": file }]);
    let roadstead = Setup::of(&hub).with("credentials.accounts", accounts).start().await;
    let reply = get_tag(&roadstead, "acme/one").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(hub.requests().iter().all(|request| request.account.as_deref() != Some("alice")));
    assert!(hub.requests().iter().any(|request| request.account.as_deref() == Some("bob")));
}

#[tokio::test]
async fn docker_s_configuration_and_a_helper_are_enough_for_a_private_repository() {
    let options = Options {
        accounts: vec![Account::new("alice", "a"), Account::new("bob", "b")],
        private: vec!["acme/one".to_owned(), "acme/two".to_owned()],
        ..Options::default()
    };
    let hub = Hub::start_with(options).await.unwrap();
    push(&hub, "acme/one");
    push(&hub, "acme/two");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    // alice:a
    let login = json!({ "auths": { hub.registry_url(): { "auth": "YWxpY2U6YQ==" } } });
    fs::write(&file, login.to_string()).unwrap();
    let answer = r#"read server; echo "{\"Username\":\"bob\",\"Secret\":\"b\"}""#;
    let accounts = [
        (json!({ "docker_config": file }), "acme/one"),
        (json!({ "helper": script(folder.path(), answer) }), "acme/two"),
    ];
    for (account, name) in accounts {
        let accounts = json!([account]);
        let roadstead = Setup::of(&hub).with("credentials.accounts", accounts).start().await;
        let reply = get_tag(&roadstead, name).await;
        assert_eq!(reply.status, 200, "{account}: {}", reply.text());
    }
}

#[tokio::test]
async fn with_no_account_left_what_is_known_is_served_stale() {
    let options = Options {
        accounts: vec![Account::new("alice", "a")],
        private: vec!["acme/one".to_owned()],
        ..Options::default()
    };
    let hub = Hub::start_with(options).await.unwrap();
    let image = push(&hub, "acme/one");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "a").unwrap();
    let account = json!([{ "username": "alice", "password_file": file }]);
    let roadstead = Setup::of(&hub).with("credentials.accounts", account).start().await;
    assert_eq!(get_tag(&roadstead, "acme/one").await.status, 200);
    fs::write(&file, "wrong").unwrap();
    hub.expire_tokens();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = get_tag(&roadstead, "acme/one").await;
        assert_eq!((reply.status, digest(&image.digest, &reply.body)), (200, image.digest.clone()));
        if reply.cache_status() == "roadstead; hit; detail=no-account" {
            break;
        }
        assert!(Instant::now() < deadline, "{}", reply.cache_status());
        sleep(Duration::from_millis(50)).await;
    }
}
