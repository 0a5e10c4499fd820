//! `roadstead doctor client` on a host without any client program, where it asks as each client would,
//! and with a docker made for the test. (With real ones, `tests/clients/doctor.sh`.)

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hub::{Hub, ImageSpec, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pull::{get_manifest, pull};
use crate::roadstead::{BINARY, Roadstead, Setup, free_address};

const CLIENTS: [&str; 3] = ["docker", "containerd", "podman"];

/// A host: what stands for `/` there, and a `PATH` with nothing in it at first.
struct Host {
    folder: TempDir,
    upstream: String,
}

// === impl Host ===

impl Host {
    fn new(hub: &Hub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root", "empty"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, upstream: format!("docker.io={}", hub.registry_url()) }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.env("PATH", self.folder.path().join("empty")).env("HOME", self.folder.path());
        command.env_remove("RUST_LOG").env_remove("CONTAINERS_REGISTRIES_CONF");
        command
    }

    /// Writes what each client must be told.
    fn tell(&self, mirror: SocketAddr) {
        for client in CLIENTS {
            let mut command = self.command();
            command.args(["client", client, "--apply", "--upstream", &self.upstream]);
            command.arg("--address").arg(format!("http://{mirror}"));
            let output = command.arg("--root").arg(self.root()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// A docker that asks `mirror` for alpine and says that it went well, whatever is answered. What
    /// it has of alpine is in the file `id`, what it was told in `calls`.
    fn install_docker(&self, mirror: SocketAddr, version: &str) {
        let folder = self.folder.path().display();
        let port = mirror.port();
        let script = format!(
            r#"#!/bin/bash
echo "$*" >>{folder}/calls
case "$1 $2" in
"version ") {version} ;;
"image inspect") read -r id <{folder}/id && echo "$id" || {{ echo "No such image" >&2; exit 1; }} ;;
"image rm" | "tag "*) ;;
"pull "*)
  exec 3<>/dev/tcp/127.0.0.1/{port}
  printf 'GET /v2/library/alpine/manifests/latest HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' >&3
  while read -r _ <&3; do :; done
  echo new >{folder}/id ;;
*) exit 1 ;;
esac
"#
        );
        let path = self.folder.path().join("empty/docker");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// What docker was told, but for questions.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap();
        let is_order =
            |call: &&str| ["pull", "tag", "image rm"].iter().any(|order| call.starts_with(order));
        calls.lines().filter(is_order).map(str::to_owned).collect()
    }

    /// What the doctor says of the host's clients, with its exit code.
    async fn ask(&self, admin: SocketAddr, more: &[&str]) -> (Option<i32>, Value) {
        let mut command = self.command();
        command.args(["doctor", "client", "--json", "--upstream", &self.upstream]);
        command.arg("--admin").arg(format!("http://{admin}")).arg("--root").arg(self.root());
        command.args(more);
        let output = tokio::process::Command::from(command).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let document = serde_json::from_str(&said).unwrap_or_else(|error| {
            panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code(), document)
    }

    /// Of all clients, with a tag to pull.
    async fn ask_all(&self, server: &Roadstead, more: &[&str]) -> (Option<i32>, Value) {
        let more: Vec<_> = CLIENTS.iter().chain(more).copied().collect();
        self.ask(server.admin(), &more).await
    }
}

fn finding<'a>(document: &'a Value, group: &str, check: &str) -> &'a Value {
    let all = document["findings"].as_array().unwrap();
    let found = all.iter().find(|it| it["group"] == group && it["check"] == check);
    found.unwrap_or_else(|| panic!("no {group}/{check} in {document:#}"))
}

fn says(finding: &Value, words: &str) -> bool {
    finding["found"].as_str().unwrap().contains(words)
}

async fn hub_with_alpine() -> Hub {
    let hub = Hub::start_with(Options::default()).await.unwrap();
    hub.push(&ImageSpec::new("library/alpine").tag("latest"));
    hub
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_told_come_through_and_a_cached_tag_costs_nothing() {
    let hub = hub_with_alpine().await;
    let server = Roadstead::start(&hub).await;
    pull(server.at(), "library/alpine", "latest").await;
    server.settled().await;
    let counted = hub.stats().counted;
    let host = Host::new(&hub);
    host.tell(server.at());
    let (code, document) = host.ask_all(&server, &[]).await;
    assert_eq!(code, Some(0), "{document:#}");
    for client in CLIENTS {
        let pull = finding(&document, client, "pull");
        assert!(says(pull, "came through Roadstead"), "{document:#}");
        assert!(pull["about"].as_str().unwrap().contains("library/alpine:latest"), "{pull}");
        assert_eq!(finding(&document, client, "files")["level"], "ok", "{document:#}");
        assert_eq!(finding(&document, client, "mirrors")["level"], "ok", "{document:#}");
    }
    assert_eq!(hub.stats().counted, counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_goes_another_way_is_named_as_the_silent_fallback() {
    let hub = hub_with_alpine().await;
    let (server, other) = (Roadstead::start(&hub).await, Roadstead::start(&hub).await);
    let host = Host::new(&hub);
    host.tell(other.at());
    let mirror = format!("http://{}", server.at());
    let more = ["--mirror", &mirror, "--probe", "alpine"];
    let (code, document) = host.ask_all(&server, &more).await;
    assert_eq!(code, Some(1), "{document:#}");
    for client in CLIENTS {
        let pull = finding(&document, client, "pull");
        assert_eq!(pull["level"], "fault", "{document:#}");
        assert!(says(pull, "silent fallback"), "{document:#}");
        assert_eq!(finding(&document, client, "mirrors")["level"], "fault", "{document:#}");
        let all = document["findings"].as_array().unwrap();
        let lacks =
            |it: &&Value| it["group"] == client && it["check"] == "files" && it["level"] == "fault";
        let remedy = all.iter().find(lacks).unwrap()["commands"][0].as_str().unwrap();
        let expected = format!("roadstead client {client} --apply --address {mirror}");
        assert!(remedy.starts_with(&expected), "{remedy}");
    }
    // Told of it, they come through it first.
    host.tell(server.at());
    let (code, document) = host.ask_all(&server, &more).await;
    assert_eq!(code, Some(0), "{document:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_told_and_who_can_not_be_watched_is_said() {
    let hub = hub_with_alpine().await;
    let server = Roadstead::start(&hub).await;
    let host = Host::new(&hub);
    let (code, document) = host.ask_all(&server, &["--probe", "alpine"]).await;
    assert_eq!(code, Some(1), "{document:#}");
    assert!(says(finding(&document, "docker", "mirrors"), "no mirror is named"), "{document:#}");
    assert!(says(finding(&document, "podman", "pull"), "name no mirror"), "{document:#}");

    host.tell(server.at());
    let (code, document) = host.ask(free_address(), &["containerd", "--probe", "alpine"]).await;
    assert_eq!(code, Some(0), "{document:#}");
    let counters = finding(&document, "server", "counters");
    assert_eq!(counters["level"], "warning", "{document:#}");
    assert!(counters["commands"][0].as_str().unwrap().starts_with("ssh "), "{counters}");
    assert_eq!(finding(&document, "containerd", "pull")["level"], "warning", "{document:#}");

    let (code, document) = host.ask(server.admin(), &[]).await;
    assert_eq!(code, Some(0), "{document:#}");
    assert_eq!(finding(&document, "server", "clients")["level"], "note", "{document:#}");

    let before = hub.stats().requests();
    let (_, document) = host.ask_all(&server, &["--no-pull"]).await;
    assert!(!document.to_string().contains("\"pull\""), "{document:#}");
    assert_eq!(hub.stats().requests(), before);

    let mut command = host.command();
    command.args(["doctor", "client", "--probe", "--no-such image"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_settings_is_told_with_its_remedy() {
    let hub = hub_with_alpine().await;
    let server = Roadstead::start(&hub).await;
    let host = Host::new(&hub);
    let daemon: &Path = &host.root().join("etc/docker/daemon.json");
    fs::create_dir_all(daemon.parent().unwrap()).unwrap();
    fs::write(daemon, "{ \"registry-mirrors\": ").unwrap();
    let (code, document) = host.ask(server.admin(), &["docker", "--no-pull"]).await;
    assert_eq!(code, Some(1), "{document:#}");
    let files = finding(&document, "docker", "files");
    assert!(says(files, "is not JSON") && files["level"] == "fault", "{document:#}");
}

const ALPINE: &str = "docker.io/library/alpine:latest";

/// A host with a docker that is told of a Roadstead, which does as `change` says.
async fn with_docker(version: &str, change: impl FnOnce(Setup) -> Setup) -> (Hub, Roadstead, Host) {
    let hub = hub_with_alpine().await;
    let server = change(Setup::of(&hub)).start().await;
    let host = Host::new(&hub);
    host.tell(server.at());
    host.install_docker(server.at(), version);
    (hub, server, host)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_roadstead_refused_and_that_went_well_is_the_silent_fallback() {
    let deny = |setup: Setup| setup.with("deny", json!(["library/alpine"]));
    let (_hub, server, host) = with_docker("exit 0", deny).await;
    let (code, document) = host.ask(server.admin(), &["docker", "--probe", "alpine"]).await;
    assert_eq!(code, Some(1), "{document:#}");
    let pull = finding(&document, "docker", "pull");
    assert_eq!(pull["level"], "fault", "{document:#}");
    assert!(says(pull, "refused all 1 requests") && says(pull, "silent fallback"), "{pull}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_to_pull_during_the_pull_does_not_vouch_for_it() {
    let (hub, server, host) = with_docker("exit 0", |setup| setup).await;
    hub.push(&ImageSpec::new("library/other").tag("1"));
    let elsewhere = Roadstead::start(&hub).await;
    host.install_docker(elsewhere.at(), "exit 0");
    let (at, pulled) = (server.at(), host.folder.path().join("id"));
    let other = tokio::spawn(async move {
        loop {
            if pulled.exists() {
                assert_eq!(get_manifest(at, "library/other", "1").send().await.status, 200);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (_, document) = host.ask(server.admin(), &["docker", "--probe", "alpine"]).await;
    other.abort();
    let pull = finding(&document, "docker", "pull");
    assert_eq!(pull["level"], "warning", "{document:#}");
    assert!(says(pull, "others pull at the same time"), "{pull}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_had_it_has_after_the_pull() {
    let (_hub, server, host) = with_docker("exit 0", |setup| setup).await;
    let (code, document) = host.ask(server.admin(), &["docker", "--probe", "alpine"]).await;
    assert_eq!(code, Some(0), "{document:#}");
    let pull = format!("pull --quiet {ALPINE}");
    assert_eq!(host.calls(), [pull.clone(), format!("image rm {ALPINE}")]);

    fs::remove_file(host.folder.path().join("calls")).unwrap();
    fs::write(host.folder.path().join("id"), "old\n").unwrap();
    host.ask(server.admin(), &["docker", "--probe", "alpine"]).await;
    assert_eq!(host.calls(), [pull, format!("tag old {ALPINE}"), "image rm new".to_owned()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_in_for_a_client_that_can_not_be_asked_proves_nothing() {
    let (_hub, server, host) =
        with_docker("echo permission denied >&2; exit 1", |setup| setup).await;
    let (_, document) = host.ask(server.admin(), &["docker", "--probe", "alpine"]).await;
    let pull = finding(&document, "docker", "pull");
    assert_eq!(pull["level"], "warning", "{document:#}");
    assert!(says(pull, "can't be asked: docker version: permission denied"), "{pull}");
    assert!(pull["remedy"].as_str().unwrap().contains("as root"), "{pull}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_beside_docker_and_podman_s_docker_are_not_looked_at_by_themselves() {
    let (_hub, server, host) = with_docker("exit 0", |setup| setup).await;
    let programs = host.folder.path().join("empty");
    let install = |name: &str, text: &str| {
        fs::write(programs.join(name), text).unwrap();
        fs::set_permissions(programs.join(name), Permissions::from_mode(0o755)).unwrap();
    };
    install("containerd", "#!/bin/sh\n");
    let groups = async || {
        let (_, document) = host.ask(server.admin(), &["--no-pull"]).await;
        let all = document["findings"].as_array().unwrap().iter();
        all.map(|it| it["group"].as_str().unwrap().to_owned()).collect::<HashSet<_>>()
    };
    assert_eq!(groups().await, ["server", "docker"].map(str::to_owned).into());
    install("docker", "#!/bin/sh\nexec /usr/bin/podman \"$@\"\n");
    assert_eq!(groups().await, ["server", "containerd"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_containerd_without_config_path_is_warned_of_though_its_hosts_are_told() {
    let hub = hub_with_alpine().await;
    let server = Roadstead::start(&hub).await;
    let host = Host::new(&hub);
    host.tell(server.at());
    fs::remove_file(host.root().join("etc/containerd/config.toml")).unwrap();
    let (_, document) = host.ask(server.admin(), &["containerd", "--no-pull"]).await;
    let all = document["findings"].as_array().unwrap();
    let lacks = all.iter().find(|it| it["check"] == "files" && it["level"] != "ok");
    let lacks = lacks.unwrap_or_else(|| panic!("{document:#}"));
    assert_eq!(lacks["level"], "warning", "{document:#}");
    assert!(lacks["about"].as_str().unwrap().contains("config.toml"), "{lacks}");
}
