//! `roadstead cache`, on a running server and on a stopped one: the same words, the same effect.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output, Stdio};

use hub::{Hub, Image, ImageSpec};
use serde_json::{Value, json};

use crate::client::{Connection, Reply, get};
use crate::pull::pull;
use crate::roadstead::{BINARY, Roadstead, free_address};

/// Two images that share their first layer.
struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    one: Image,
    two: Image,
}

/// Who has the store open when a command comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Runs,
    Stopped,
}

const BOTH: [Server; 2] = [Server::Runs, Server::Stopped];

// === impl Stage ===

impl Stage {
    async fn set(server: Server) -> Self {
        let hub = Hub::start().await;
        let spec = |name: &str| ImageSpec::new(name).tag("1").seed(7);
        let one = hub.push(&spec("library/one").layers(1));
        let two = hub.push(&spec("org/two").layers(2));
        assert_eq!(one.layers[0], two.layers[0], "they share a layer");
        let roadstead = Roadstead::start(&hub).await;
        let mut stage = Self { hub, roadstead, one, two };
        stage.pull_both().await;
        if server == Server::Stopped {
            assert!(stage.roadstead.terminate().await.success());
        }
        stage
    }

    async fn pull_both(&mut self) {
        pull(self.roadstead.at(), "library/one", "1").await;
        pull(self.roadstead.at(), "org/two", "1").await;
        self.roadstead.settled().await;
    }

    /// Has the server run, whether it was stopped or not.
    async fn run(&mut self, server: Server) {
        if server == Server::Stopped {
            self.roadstead.restart().await;
        }
    }

    fn cache(&self, args: &[&str]) -> Output {
        command(args).arg("--config").arg(self.roadstead.config()).output().unwrap()
    }

    /// The one document that a command prints, which must end well.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.cache(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The documents that a command prints, a line each.
    fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.cache(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn has(&self, digest: &str) -> bool {
        self.roadstead.stored().contains_key(digest)
    }

    /// Changes a byte of a stored file.
    fn rot(&self, digest: &str) {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        let file = self.roadstead.data().join("blobs").join(algorithm).join(&hex[..2]).join(hex);
        let file = fs::File::options().read(true).write(true).open(file).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 2000).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], 2000).unwrap();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("cache").args(args).env_remove("RUST_LOG");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Times of use are written down lazily, and the index grows as it likes.
fn without(mut value: Value, fields: &[&str]) -> Value {
    for field in fields {
        if let Some(object) = value.as_object_mut() {
            object.remove(*field);
        }
    }
    value
}

// === seeing ===

#[tokio::test]
async fn a_running_server_and_its_directory_tell_the_same() {
    let mut stage = Stage::set(Server::Runs).await;
    assert!(stage.cache(&["pin", "org/two:1"]).status.success());
    let look = |stage: &Stage| {
        let drop_time = |value| without(value, &["used_at"]);
        let images: Vec<_> = stage.json_lines(&["ls"]).into_iter().map(drop_time).collect();
        let objects = stage.json_lines(&["ls", "--objects"]);
        let objects: Vec<_> = objects.into_iter().map(drop_time).collect();
        let mut usage = stage.json(&["du"]);
        usage = without(usage, &["as_of"]);
        usage["store"] = without(usage["store"].take(), &["index", "used", "staged"]);
        (images, objects, usage, stage.json(&["pin", "--list"]))
    };
    let running = look(&stage);
    assert!(stage.roadstead.terminate().await.success());
    let stopped = look(&stage);
    assert_eq!(running, stopped);

    let (images, objects, usage, pins) = stopped;
    let names: Vec<_> = images.iter().map(|image| image["reference"].as_str().unwrap()).collect();
    assert_eq!(names, ["docker.io/library/one:1", "docker.io/org/two:1"]);
    assert_eq!(images[0]["digest"], stage.one.digest);
    assert_eq!((&images[0]["state"], &images[0]["objects"]), (&json!("complete"), &json!(4)));
    let platforms = &images[0]["platforms"];
    assert_eq!(platforms[0]["platform"], "linux/amd64");
    assert_eq!(
        (&platforms[0]["state"], &platforms[1]["state"]),
        (&json!("complete"), &json!("absent"))
    );
    assert_eq!((&images[0]["pinned"], &images[1]["pinned"]), (&json!(false), &json!(true)));
    assert_eq!(objects.len(), 8, "4 and 5, one of them shared");
    assert_eq!(pins["pins"][0]["name"], "docker.io/org/two:1");
    let bytes = |value: &Value| value["bytes"].as_u64().unwrap();
    let shared = stage.one.layers[0].size;
    let repositories = usage["repositories"].as_array().unwrap();
    let sum: u64 = repositories.iter().map(bytes).sum();
    assert_eq!(bytes(&usage["upstreams"][0]), sum - shared);
    assert_eq!(usage["store"]["published"], sum - shared);
}

#[tokio::test]
async fn tables_are_for_people_and_patterns_for_both() {
    for server in BOTH {
        let stage = Stage::set(server).await;
        let table = stdout(&stage.cache(&["ls"]));
        assert!(table.starts_with("IMAGE") && table.lines().count() == 3, "{table}");
        assert!(table.contains("docker.io/library/one:1") && table.contains("KiB"), "{table}");
        assert!(table.contains("amd64 of 2"), "{table}");
        for (pattern, count) in
            [("one", 1), ("one:2", 0), ("library/*", 1), ("**", 2), ("docker.io", 2)]
        {
            assert_eq!(stage.json_lines(&["ls", pattern]).len(), count, "{pattern} {server:?}");
        }
        assert!(stdout(&stage.cache(&["du"])).contains("docker.io/org/two"));
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let stage = Stage::set(Server::Stopped).await;
    let mut child = command(&["ls", "--objects", "--json", "--config"])
        .arg(stage.roadstead.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}

// === changing ===

#[tokio::test]
async fn purging_an_image_keeps_what_others_need() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        let planned = stage.json(&["purge", "one:1", "--dry-run"]);
        assert!(stage.has(&stage.one.digest), "a dry run touches nothing");
        let done = stage.json(&["purge", "one:1"]);
        assert_eq!(without(planned, &["dry_run"]), without(done.clone(), &["dry_run"]));
        assert_eq!(done["tags"], json!(["docker.io/library/one:1"]));
        assert_eq!(done["objects"].as_array().unwrap().len(), 3);
        assert_eq!(done["kept"]["bytes"], stage.one.layers[0].size);
        assert!(!stage.has(&stage.one.digest) && stage.has(&stage.two.digest));
        assert!(stage.has(&stage.one.layers[0].digest), "the other image needs it");
        assert_eq!(stage.json_lines(&["ls"]).len(), 1);

        stage.run(server).await;
        stage.hub.reset_stats();
        stage.pull_both().await;
        assert_eq!(stage.hub.manifest_gets(&stage.one.digest), 1, "{server:?}: it is fetched anew");
        assert_eq!(stage.hub.manifest_gets(&stage.two.digest), 0);
        assert_eq!(stage.hub.blob_gets(&stage.one.layers[0].digest), 0);
        assert_eq!(stage.json_lines(&["ls"]).len(), 2);
    }
}

#[tokio::test]
async fn globs_and_all_tags_purge_many() {
    for server in BOTH {
        let stage = Stage::set(server).await;
        let all = stage.json(&["purge", "one", "--all-tags", "--dry-run"]);
        assert_eq!(all["tags"], json!(["docker.io/library/one:1"]));
        let done = stage.json(&["purge", "**"]);
        assert_eq!(done["tags"].as_array().unwrap().len(), 2);
        assert_eq!(stage.roadstead.stored().len(), 0);
        let output = stage.cache(&["purge", "one:1"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("one:1: nothing is cached"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn what_is_pinned_is_not_purged_until_it_is_unpinned() {
    for server in BOTH {
        let stage = Stage::set(server).await;
        assert!(stage.cache(&["pin", "one:1"]).status.success());
        let listed = stdout(&stage.cache(&["pin", "--list"]));
        assert!(listed.contains("docker.io/library/one:1"), "{listed}");
        let refused = stage.cache(&["purge", "one:1"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("unpin"), "{}", stderr(&refused));
        assert!(stage.has(&stage.one.digest));
        assert!(stage.cache(&["unpin", "one:1"]).status.success());
        assert_eq!(stage.cache(&["unpin", "one:1"]).status.code(), Some(1));
        assert!(stage.cache(&["purge", "one:1"]).status.success());
        assert!(!stage.has(&stage.one.digest));
    }
}

#[tokio::test]
async fn a_flipped_byte_is_found_repaired_and_fetched_again() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        let report = stage.json(&["verify"]);
        assert_eq!(
            (&report["state"], &report["good"], &report["bad"]),
            (&json!("done"), &json!(8), &json!(0))
        );
        let layer = stage.two.layers[1].digest.clone();
        stage.rot(&layer);
        let found = stage.cache(&["verify"]);
        assert_eq!(found.status.code(), Some(1), "{}", stderr(&found));
        assert!(stdout(&found).contains(&layer), "{}", stdout(&found));
        assert!(stderr(&found).contains("--repair"), "{}", stderr(&found));
        assert!(stage.has(&layer), "without --repair nothing is touched");

        let repaired = stage.json(&["verify", "--repair"]);
        assert_eq!((&repaired["bad"], &repaired["repaired"]), (&json!(1), &json!(1)));
        assert!(!stage.has(&layer));
        stage.run(server).await;
        stage.pull_both().await;
        assert!(stage.has(&layer), "{server:?}");
        stage.roadstead.assert_all_stored_is_right();
        assert_eq!(stage.json(&["verify"])["bad"], 0);
    }
}

// === asking wrongly ===

#[tokio::test]
async fn a_bad_reference_is_wrong_usage() {
    for server in BOTH {
        let stage = Stage::set(server).await;
        for args in [&["purge", "quay.io/org/app"][..], &["pin", "Not A Name"], &["ls", "a["]] {
            let output = stage.cache(args);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
            assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        }
        assert_eq!(stage.cache(&["purge"]).status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_wrong_admin_address_is_told_with_its_remedy() {
    let stage = Stage::set(Server::Runs).await;
    let nobody = free_address().to_string();
    let output = stage.cache(&["ls", "--admin", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&nobody) && said.contains("--admin"), "{said}");

    let other = Roadstead::start(&stage.hub).await;
    let output = stage.cache(&["purge", "one:1", "--admin", &other.admin().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(other.data().to_str().unwrap()) && said.contains("--admin"), "{said}");
    assert!(stage.has(&stage.one.digest), "another server's cache was not touched");
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("nothing");
    let output = command(&["ls", "--data", data.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--data"), "{}", stderr(&output));
    assert!(!data.exists());
}

// === the API itself ===

async fn post(stage: &Stage, path: &str, headers: &[&str], body: &str) -> Reply {
    let at = stage.roadstead.admin();
    let mut connection = Connection::open(at).await.unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("POST /api/v1/{path} HTTP/1.1\r\nHost: {at}\r\n{headers}");
    let length = body.len();
    let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    // What is refused by its head may be answered before all of it is read.
    let _ = connection.write(request.as_bytes()).await;
    connection.answer(false).await.unwrap().finish().await
}

#[tokio::test]
async fn only_programs_and_our_own_pages_may_change_something() {
    const OURS: &str = "X-Roadstead: 1";
    let stage = Stage::set(Server::Runs).await;
    let body = r#"{"references": ["one:1"]}"#;
    for headers in
        [&[][..], &[OURS, "Origin: http://evil.example"], &[OURS, "Sec-Fetch-Site: cross-site"]]
    {
        let reply = post(&stage, "purge", headers, body).await;
        assert_eq!(reply.status, 403, "{headers:?}");
        assert_eq!(reply.json()["error"]["code"], "forbidden");
    }
    assert!(stage.has(&stage.one.digest));
    let own = format!("Origin: http://{}", stage.roadstead.admin());
    let reply = post(&stage, "purge", &[OURS, &own], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!stage.has(&stage.one.digest));
}

#[tokio::test]
async fn the_api_says_what_is_wrong() {
    const OURS: [&str; 1] = ["X-Roadstead: 1"];
    let stage = Stage::set(Server::Runs).await;
    let code = |reply: &Reply| reply.json()["error"]["code"].as_str().unwrap().to_owned();
    let large = format!(r#"{{"references": ["{}"]}}"#, "a".repeat(70 << 10));
    for (path, body, status, word) in [
        ("purge", r#"{"references": ["quay.io/a/b"]}"#, 400, "bad_reference"),
        ("purge", r#"{"refs": []}"#, 400, "bad_request"),
        ("purge", &large, 413, "too_large"),
        ("usage", "", 405, "method_not_allowed"),
        ("nothing", "", 404, "not_found"),
    ] {
        let reply = post(&stage, path, &OURS, body).await;
        assert_eq!((reply.status, &*code(&reply)), (status, word), "{path} {}", reply.text());
    }
    let get =
        async |path: &str| get(stage.roadstead.admin(), format!("/api/v1/{path}")).send().await;
    assert_eq!(get("images?limit=1001").await.status, 400);
    let first = get("images?limit=1").await.json();
    let next = first["next"].as_str().unwrap();
    let second = get(&format!("images?limit=1&after={next}")).await.json();
    assert_eq!(second["images"][0]["reference"], "docker.io/org/two:1");
    assert_eq!(second["next"], Value::Null);
    assert_eq!(get("verify").await.json()["state"], "idle");
    let started = post(&stage, "verify", &OURS, "").await;
    assert_eq!(started.status, 202);
}
