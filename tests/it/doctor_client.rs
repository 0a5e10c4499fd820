//! `roadstead doctor client` on a host without any client program: it asks as each client would. (With
//! real ones, `tests/clients/doctor.sh`.)

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hub::{Hub, ImageSpec, Options};
use serde_json::Value;
use tempfile::TempDir;

use crate::pull::pull;
use crate::roadstead::{BINARY, Roadstead, free_address};

const CLIENTS: [&str; 3] = ["docker", "containerd", "podman"];

/// A host: what stands for `/` there, and a `PATH` with nothing in it.
struct Host {
    folder: TempDir,
    upstream: String,
}

// === impl Host ===

impl Host {
    fn new(hub: &Hub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root", "empty"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
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
    std::fs::create_dir_all(daemon.parent().unwrap()).unwrap();
    std::fs::write(daemon, "{ \"registry-mirrors\": ").unwrap();
    let (code, document) = host.ask(server.admin(), &["docker", "--no-pull"]).await;
    assert_eq!(code, Some(1), "{document:#}");
    let files = finding(&document, "docker", "files");
    assert!(says(files, "is not JSON") && files["level"] == "fault", "{document:#}");
}
