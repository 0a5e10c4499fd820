//! The operator's listener: who may use it, what it tells of repositories and tags, what it streams.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hub::{Hub, ImageSpec};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::client::{Connection, Reply, get, request};
use crate::pull::{get_manifest, pull};
use crate::roadstead::{BINARY, Roadstead, Setup, eventually};
use crate::secure::{self, Signer, Speaker};

const NAME: &str = "library/alpine";

/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn image(seed: u64) -> ImageSpec {
    ImageSpec::new(NAME).layer_size(4 << 10).seed(seed)
}

async fn api(roadstead: &Roadstead, path: &str) -> Value {
    let reply = get(roadstead.admin(), format!("/api/v1/{path}")).send().await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

async fn change(roadstead: &Roadstead, method: &str, path: &str, body: &Value) -> Reply {
    let request = request(roadstead.admin(), method, format!("/api/v1/{path}"));
    request.header("X-Roadstead", "1").body(body.to_string()).send().await
}

// === repositories and tags ===

#[tokio::test]
async fn repositories_are_found_by_a_part_of_their_names() {
    let hub = Hub::start().await;
    hub.push(&image(1).tag("3").tag("edge").single());
    hub.push(&ImageSpec::new("org/app").tag("1").single());
    let roadstead = Roadstead::start(&hub).await;
    for (name, tag) in [(NAME, "3"), (NAME, "edge"), ("org/app", "1")] {
        pull(roadstead.at(), name, tag).await;
    }
    roadstead.settled().await;
    let found = async |query: &str| {
        let page = api(&roadstead, &format!("repositories?{query}")).await;
        let names = page["repositories"].as_array().unwrap().iter();
        let names = names.map(|it| it["repository"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page)
    };
    let (names, page) = found("").await;
    assert_eq!(names, [NAME, "org/app"]);
    let alpine = &page["repositories"][0];
    assert_eq!((&alpine["tags"], &alpine["at_least"]), (&json!(2), &json!(false)));
    assert!(alpine["bytes"].as_u64().unwrap() > 4 << 10 && alpine["used_at"].is_u64());
    assert_eq!(found("match=ALP").await.0, [NAME]);
    assert_eq!(found("match=org/**").await.0, ["org/app"]);
    let (first, page) = found("limit=1").await;
    let next = page["next"].as_str().unwrap();
    assert_eq!(
        (first, found(&format!("after={next}")).await.0),
        (vec![NAME.to_owned()], vec!["org/app".to_owned()])
    );
    let reply = get(roadstead.admin(), "/api/v1/repositories?limits=1").send().await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("bad_request")));
}

#[tokio::test]
async fn tags_tell_how_fresh_they_are_and_can_be_asked_for_at_once() {
    let hub = Hub::start().await;
    let old = hub.push(&image(1).tag("3").tag("edge").single());
    let fresh_for = json!({ "3": "1h", "edge": "0s" });
    let roadstead = Setup::of(&hub).with("tags.fresh_for", fresh_for).start().await;
    for tag in ["3", "edge"] {
        pull(roadstead.at(), NAME, tag).await;
    }
    roadstead.settled().await;
    let page = api(&roadstead, "tags?repository=alpine").await;
    assert_eq!(page["repository"]["repository"], NAME);
    let (three, edge) = (&page["tags"][0], &page["tags"][1]);
    assert_eq!((&three["tag"], &three["digest"]), (&json!("3"), &json!(old.digest)));
    assert_eq!((&three["state"], &three["missing"]), (&json!("complete"), &json!(0)));
    assert_eq!(three["platforms"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&three["freshness"]["state"], &edge["freshness"]["state"]),
        (&json!("fresh"), &json!("due"))
    );
    let left = three["freshness"]["fresh_for"].as_u64().unwrap();
    assert!((3000..=3600).contains(&left) && edge["freshness"]["fresh_for"].is_null());

    let new = hub.push(&image(2).tag("3").single());
    let references = json!({ "references": ["alpine:*", "busybox"] });
    hub.reset_stats();
    let report = change(&roadstead, "POST", "refresh", &references).await.json();
    assert_eq!(hub.stats().counted, 0, "a check is free");
    let found = report["tags"].as_array().unwrap();
    let word = |at: usize| {
        (found[at]["reference"].as_str().unwrap(), found[at]["found"].as_str().unwrap())
    };
    assert_eq!(word(0), ("docker.io/library/alpine:3", "moved"));
    assert_eq!(word(1), ("docker.io/library/alpine:edge", "unchanged"));
    assert_eq!(found[0]["digest"], json!(new.digest));
    assert_eq!(report["problems"][0]["reference"], "busybox");
    assert_eq!(pull(roadstead.at(), NAME, "3").await.digest, new.digest, "the next pull knows");

    let offline = json!({ "offline": true });
    assert_eq!(change(&roadstead, "POST", "offline", &offline).await.status, 200);
    let page = api(&roadstead, "tags?repository=alpine&after=3").await;
    assert_eq!(page["tags"][0]["freshness"]["state"], "stale", "upstream is not asked now");
    let report = change(&roadstead, "POST", "refresh", &references).await.json();
    assert_eq!(
        (report["tags"].as_array().unwrap().len(), report["problems"].as_array().unwrap().len()),
        (0, 3)
    );
}

// === the log ===

#[tokio::test]
async fn more_is_logged_at_once_but_not_what_could_show_credentials() {
    let hub = Hub::start().await;
    hub.push(&image(1).tag("3").single());
    let roadstead = Setup::of(&hub).log("warn,roadstead=info,access=info").start().await;
    assert_eq!(api(&roadstead, "log-level").await["levels"], "warn,roadstead=info,access=info");
    pull(roadstead.at(), NAME, "3").await;
    assert!(!roadstead.whole_log().await.contains("DEBUG"));
    let levels = json!({ "levels": "warn,roadstead=debug,access=info" });
    assert_eq!(change(&roadstead, "PUT", "log-level", &levels).await.status, 200);
    assert_eq!(api(&roadstead, "log-level").await, levels);
    assert_eq!(get_manifest(roadstead.at(), NAME, "none").send().await.status, 404);
    eventually("more is logged", PATIENCE, || roadstead.log().contains("DEBUG")).await;
    for wrong in ["", "roadstead=loud", "warn,pingora_core=trace", " h2=debug", "[x{y=1}]=trace"] {
        let reply = change(&roadstead, "PUT", "log-level", &json!({ "levels": wrong })).await;
        assert_eq!(reply.status, 400, "{wrong:?}: {}", reply.text());
        assert!(reply.text().contains("write levels like"), "{}", reply.text());
    }
    assert_eq!(api(&roadstead, "log-level").await, levels);
}

// === the stream ===

#[tokio::test]
async fn the_state_is_streamed_until_the_server_stops() {
    let hub = Hub::start().await;
    let mut roadstead = Setup::of(&hub).key("shutdown.drain", "60s").start().await;
    let bare = request(roadstead.admin(), "HEAD", "/api/v1/stream").send().await;
    assert_eq!((bare.status, bare.header("allow")), (405, Some("GET")));
    let mut stream = get(roadstead.admin(), "/api/v1/stream").open().await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let mut seen = String::new();
    while seen.matches("event: status\ndata: {").count() < 2 {
        let piece = stream.next(64 << 10).await.unwrap().expect("it goes on");
        seen.push_str(&String::from_utf8(piece).unwrap());
    }
    let first = seen.lines().nth(1).unwrap().strip_prefix("data: ").unwrap();
    serde_json::from_str::<Value>(first).unwrap();
    // It is not waited for as long as the drain: nobody's stream keeps it.
    assert!(roadstead.terminate().await.success());
    while let Ok(Some(_)) = stream.next(64 << 10).await {}
}

// === what keeps others out ===

#[tokio::test]
async fn connections_that_ask_nothing_leave_probes_a_place() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let at = roadstead.admin();
    let mut idle = Vec::new();
    for _ in 0..256 {
        idle.push(TcpStream::connect(at).await.unwrap());
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut probe = socket.connect(at).await.unwrap();
    let said = secure::get(&mut probe, "127.0.0.1", "/readyz").await.unwrap();
    assert_eq!(said.status, 200, "{}", said.head);
    // Those that have a place lose it soon.
    for mut connection in idle {
        let read = timeout(PATIENCE, connection.read(&mut [0; 1])).await.expect("it is closed");
        assert!(!matches!(read, Ok(1..)), "it was not asked");
    }
    assert_eq!(get(at, "/readyz").send().await.status, 200);
    let told = roadstead.whole_log().await;
    assert_eq!(told.matches("a connection to the admin listener was closed").count(), 1, "{told}");
}

#[tokio::test]
async fn answers_say_what_a_browser_may_do_with_them() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    for (path, status) in [("/healthz", 200), ("/api/v1/usage", 200), ("/nothing", 404)] {
        let reply = get(roadstead.admin(), path).send().await;
        assert_eq!(reply.status, status, "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let reply = request(roadstead.admin(), "HEAD", "/api/v1/usage").send().await;
    assert!(reply.status == 200 && reply.length().unwrap() > 0 && reply.body.is_empty());
    let reply = request(roadstead.admin(), "DELETE", "/metrics").header("X-Roadstead", "1").send();
    let reply = reply.await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET,HEAD")));
}

#[tokio::test]
async fn a_name_that_somebody_points_here_sees_nothing() {
    let hub = Hub::start().await;
    let roadstead = Setup::of(&hub).key("admin.hosts", json!(["cache.corp"])).start().await;
    let status = async |host: &str, path: &str| {
        let at = roadstead.admin();
        let mut connection = Connection::open(at).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        connection.write(head.as_bytes()).await.unwrap();
        connection.answer(false).await.unwrap().finish().await.status
    };
    for (host, path, expected) in [
        ("evil.example", "/api/v1/usage", 403),
        ("cache.corp:5001", "/api/v1/usage", 200),
        ("localhost", "/api/v1/usage", 200),
        ("roadstead.monitoring", "/metrics", 200),
        ("10-0-0-1.pod", "/readyz", 200),
    ] {
        assert_eq!(status(host, path).await, expected, "{path} at {host}");
    }
}

/// `roadstead cache du` on the running server, with these variables.
fn du(roadstead: &Roadstead, variables: &[(&str, String)]) -> Output {
    cache(roadstead, &["du", "--json"], variables)
}

/// The same for any part of `roadstead cache`.
fn cache(roadstead: &Roadstead, arguments: &[&str], variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("cache").args(arguments).arg("--config").arg(roadstead.config());
    command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap()
}

#[tokio::test]
async fn users_log_in_where_there_are_any_and_so_does_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let users = format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap());
    fs::write(path("operators"), users).unwrap();
    let hub = Hub::start().await;
    let roadstead = Setup::of(&hub).key("admin.htpasswd", path("operators")).start().await;
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/", 401), ("/api/v1/", 401)]
    {
        let reply = get(roadstead.admin(), path).send().await;
        assert_eq!(reply.status, status, "{path}");
        let challenge = reply.header("www-authenticate").unwrap_or_default();
        assert_eq!(challenge.starts_with("Basic realm="), status == 401);
    }
    let ask = async |pair: &str| {
        let value = format!("Basic {}", STANDARD.encode(pair));
        get(roadstead.admin(), "/api/v1/usage").header("Authorization", value).send().await.status
    };
    assert_eq!((ask("ann:secret").await, ask("ann:guess").await), (200, 401));
    assert_eq!((ask("eve:guess").await, ask("eve:secret").await), (401, 401));
    let told = roadstead.whole_log().await.matches("a wrong password for the admin").count();
    assert_eq!(told, 1, "a client's are told of once a minute");

    fs::write(path("right"), "secret\n").unwrap();
    fs::write(path("wrong"), "guess").unwrap();
    let login = |file: &str| {
        let user = ("ROADSTEAD_ADMIN_USER", "ann".to_owned());
        [user, ("ROADSTEAD_ADMIN_PASSWORD_FILE", path(file))]
    };
    let output = du(&roadstead, &login("right"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [user, file] = login("wrong");
    for (variables, code, word) in [
        (vec![], 1, "ROADSTEAD_ADMIN_PASSWORD_FILE"),
        (vec![user.clone(), file], 1, "ROADSTEAD_ADMIN_PASSWORD_FILE"),
        (vec![user], 2, "ROADSTEAD_ADMIN_PASSWORD_FILE"),
        (login("nowhere").to_vec(), 2, "nowhere"),
    ] {
        let output = du(&roadstead, &variables);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(word) && !said.contains("guess"), "{said}");
    }
    assert!(!roadstead.whole_log().await.contains("guess"), "no password is logged");
}

#[tokio::test]
async fn a_user_who_is_removed_is_out_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("operators");
    let line = |user: &str| format!("{user}:{}\n", bcrypt::hash("secret", 4).unwrap());
    fs::write(&path, line("ann")).unwrap();
    let hub = Hub::start().await;
    let users = path.display().to_string();
    let roadstead = Setup::of(&hub).key("admin.htpasswd", users).start().await;
    let ask = async |method: &str, path: &str, user: &str| {
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:secret")));
        let request = request(roadstead.admin(), method, path).header("X-Roadstead", "1");
        request.header("Authorization", value).header("Content-Length", "0").send().await.status
    };
    let usage = "/api/v1/usage";
    assert_eq!((ask("GET", usage, "ann").await, ask("GET", usage, "ben").await), (200, 401));
    fs::write(&path, line("ben")).unwrap();
    assert_eq!(ask("POST", "/api/v1/reload", "ann").await, 200);
    assert_eq!((ask("GET", usage, "ann").await, ask("GET", usage, "ben").await), (401, 200));
    fs::write(&path, "nobody").unwrap();
    assert_eq!(ask("POST", "/api/v1/reload", "ben").await, 422, "the file is none of users");
    assert_eq!(ask("GET", usage, "ben").await, 200, "those before stay");
}

#[tokio::test]
async fn certificates_are_asked_for_but_by_probes() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Signer::new("ours"), Signer::new("theirs"));
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, theirs.pem()).unwrap();
    let (mut served, ann) = (ours.issue("cache.corp"), theirs.issue("ann"));
    // The chain up to its authority: by that the command line knows it.
    served.certificate.push_str(&ours.pem());
    let (certificate, key) = served.write(folder.path(), "server");
    let (own_certificate, own_key) = ann.write(folder.path(), "ann");
    let tls = json!({ "certificate": certificate, "key": key, "client_ca": ca });
    let hub = Hub::start().await;
    hub.push(&image(1).tag("3").single());
    let roadstead = Setup::of(&hub).key("admin.tls", tls).start().await;
    pull(roadstead.at(), NAME, "3").await;
    let anybody = Speaker::trusting(&[&ours.pem()]);
    let known = anybody.clone().showing(&ann);
    for (speaker, path, status) in [
        (&anybody, "/readyz", 200),
        (&anybody, "/metrics", 403),
        (&anybody, "/api/v1/", 403),
        (&known, "/api/v1/", 200),
        (&known, "/metrics", 200),
    ] {
        let said = speaker.get(roadstead.admin(), "cache.corp", path).await.unwrap();
        assert_eq!(said.status, status, "{path}: {}", said.head);
    }
    let stranger = anybody.showing(&ours.issue("ann"));
    let said = stranger.get(roadstead.admin(), "cache.corp", "/readyz").await;
    assert!(said.is_err(), "another authority's certificate is none");

    let shown = [
        ("ROADSTEAD_ADMIN_CLIENT_CERTIFICATE", own_certificate.display().to_string()),
        ("ROADSTEAD_ADMIN_CLIENT_KEY", own_key.display().to_string()),
    ];
    let output = du(&roadstead, &shown);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for what in ["pin", "unpin", "purge"] {
        let is_done = || cache(&roadstead, &[what, "alpine:3"], &shown).status.success();
        eventually(what, PATIENCE, is_done).await;
    }
    let output = du(&roadstead, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("certificate") && !said.contains("--admin"), "{said}");
}

// === what can't be read ===

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_as_anything_else_is() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    for method in ["GET", "DELETE"] {
        let request = request(roadstead.admin(), method, "/api/v1/warm/%ff");
        let reply = request.header("X-Roadstead", "1").send().await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("bad_request")));
    }
}

// === the description ===

#[tokio::test]
async fn every_endpoint_that_is_described_is_there() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let document = api(&roadstead, "openapi.json").await;
    let mut count = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let (at, method) = (roadstead.admin(), method.to_uppercase());
            let mut request = request(at, &method, path.clone());
            if method != "GET" {
                request = request.header("Content-Length", "0");
                let refused = request.clone().send().await;
                let code = &refused.json()["error"]["code"];
                assert_eq!((refused.status, code), (403, &json!("forbidden")), "{method} {path}");
                request = request.header("X-Roadstead", "1");
            }
            count += 1;
            // Where the path names one of many things, that there is no such thing is an answer.
            if path.contains('{') {
                let reply = request.send().await;
                assert!(reply.text().contains("there is no job"), "{method} {path}: {reply:?}");
                continue;
            }
            let status = request.open().await.status;
            assert!(![404, 405, 500, 501].contains(&status), "{method} {path}: {status}");
        }
    }
    assert!(count >= 20, "{count}");
}
