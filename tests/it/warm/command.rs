//! `roadstead warm`: the real program, its output and its exit codes.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use hub::{Descriptor, Hub, Image, ImageSpec, Kind, Platform, Target};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{MIB, PATIENCE, api, bytes, manifest_gets};
use crate::roadstead::{BINARY, Roadstead, Setup, free_address, signal};

/// The program with these arguments, asking the server at `admin`.
fn command(admin: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("warm")
        .args(["--admin", &admin.to_string()])
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end, beside the server.
async fn run(roadstead: &Roadstead, args: &[&str]) -> Output {
    let child = command(roadstead.admin(), args).spawn().unwrap();
    ended(child).await
}

async fn ended(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn code(output: &Output, expected: i32) {
    let said = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(expected), "{said}");
}

/// A hub with a layer that takes long, and a server that keeps what was left unfinished.
async fn slow() -> (Hub, Roadstead, Image) {
    let hub = Hub::start().await;
    let spec = ImageSpec::new("library/big").tag("1").single().layers(1).layer_size(16 << 20);
    let image = hub.push(&spec);
    let setup = Setup::of(&hub).key("fill.finish_below", "1MiB");
    let roadstead = setup.key("fill.finish_above_percent", 90).start().await;
    (hub, roadstead, image)
}

/// What upstream was asked for of the layer.
fn ranges(hub: &Hub, layer: &Descriptor) -> Vec<Option<String>> {
    let requests = hub.requests();
    let of_layer = requests.iter().filter(|it| {
        it.kind == Kind::CdnGet && it.reference.as_deref() == Some(layer.digest.as_str())
    });
    of_layer.map(|it| it.range.clone()).collect()
}

/// Waits until something of the layer is on disk.
async fn staged(roadstead: &Roadstead) {
    let deadline = Instant::now() + PATIENCE;
    while roadstead.partial().iter().map(|(_, len)| len).sum::<u64>() < MIB {
        assert!(Instant::now() < deadline, "nothing is staged");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn images_of_all_sources_are_warmed_and_told_of() {
    let hub = Hub::start().await;
    let push = |name: &str, tag: &str| hub.push(&ImageSpec::new(name).tag(tag).single().layers(1));
    let image = push("library/named", "1");
    push("library/listed", "1");
    push("library/db", "16");
    push("library/job", "1");
    push("library/init", "1");
    let roadstead = Roadstead::start(&hub).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let list = write("list", "listed:1 # this one\n");
    write(".env", "DB=16\n");
    let compose = write("compose.yaml", "services: { db: { image: \"db:${DB}\", profiles: [x] } }");
    let job = "{ kind: CronJob, spec: { containers: [{ image: \"job:1\" }], initContainers: [{ image: \"init:1\" }] } }";
    write("manifests/deep/job.yaml", job);
    let manifests = folder.path().join("manifests");
    let args = [
        "named:1",
        "--list",
        &list,
        "--compose",
        &compose,
        "--kubernetes",
        manifests.to_str().unwrap(),
    ];
    let output = run(&roadstead, &args).await;
    code(&output, 0);
    let said = stdout(&output);
    for image in ["named:1", "listed:1", "db:16", "job:1", "init:1"] {
        assert!(said.contains(&format!("{image}: fetched ")), "no {image} in {said}");
    }
    assert!(said.contains("5 of 5 images are there"), "{said}");
    assert!(said.contains("5 pulls spent"), "{said}");
    assert_eq!(manifest_gets(&hub), 5);
    assert!(!said.contains('\u{1b}') && !stderr(&output).contains('\u{1b}'));

    let output = run(&roadstead, &args[..1]).await;
    code(&output, 0);
    assert!(stdout(&output).starts_with("named:1: cached, "), "{}", stdout(&output));
    assert_eq!((manifest_gets(&hub), hub.blob_gets(&image.layers[0].digest)), (5, 1));
}

#[tokio::test]
async fn a_platform_that_is_named_is_the_only_one_that_is_fetched() {
    let hub = Hub::start().await;
    let platforms = ["amd64", "arm64", "s390x"].map(|one| Platform::new("linux", one));
    let image = hub.push(&ImageSpec::new("library/app").tag("1").platforms(platforms.into()));
    let roadstead = Roadstead::start(&hub).await;
    let output = run(&roadstead, &["app:1", "--platform", "linux/s390x"]).await;
    code(&output, 0);
    let gets =
        |of: &[Descriptor]| of.iter().map(|blob| hub.blob_gets(&blob.digest)).collect::<Vec<_>>();
    assert_eq!(gets(&image.configs), [0, 0, 1]);
    assert_eq!(gets(&image.layers), [0; 3], "they are those for amd64");
    // The index and one child.
    assert_eq!(manifest_gets(&hub), 2);
}

#[tokio::test]
async fn a_list_may_come_from_standard_input() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    let roadstead = Roadstead::start(&hub).await;
    let mut command = command(roadstead.admin(), &["--list", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"# one\napp:1\n").unwrap();
    let output = ended(child).await;
    code(&output, 0);
    let job: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&job["state"], &job["images"][0]["reference"]), (&"done".into(), &"app:1".into()));
}

#[tokio::test]
async fn an_image_that_fails_stops_no_other_and_is_told_by_the_exit_code() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new("library/app").tag("1").single());
    let roadstead = Roadstead::start(&hub).await;
    let output = run(&roadstead, &["none:1", "app:1", "quay.io/a/b"]).await;
    code(&output, 1);
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(out.contains("app:1: fetched") && out.contains("1 of 3 images are there"), "{out}");
    assert!(err.contains("roadstead: none:1: upstream refused"), "{err}");
    assert!(err.contains("roadstead: quay.io/a/b: quay.io is not an upstream"), "{err}");
}

#[tokio::test]
async fn a_dry_run_prints_what_it_would_cost() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new("library/app").tag("1").single());
    let roadstead = Roadstead::start(&hub).await;
    let output = run(&roadstead, &["app:1", "--dry-run"]).await;
    code(&output, 0);
    let said = stdout(&output);
    assert!(said.contains("IMAGE") && said.contains("PULLS"), "{said}");
    assert!(said.contains("a run would cost 1 pull, and fetch at least 0 B"), "{said}");
    assert!(stderr(&output).contains("--read-manifests"), "{}", stderr(&output));
    assert_eq!(hub.stats().counted, 0);

    let output = run(&roadstead, &["app:1", "--dry-run", "--read-manifests", "--json"]).await;
    code(&output, 0);
    let job: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(job["totals"]["to_fetch"], bytes(&image));
    assert_eq!(hub.stats().counted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_the_job_and_the_next_run_resumes() {
    let (hub, roadstead, image) = slow().await;
    let layer = &image.layers[0];
    let gate = hub.gate(Target::blob(&layer.digest), 8 * MIB);
    let child = command(roadstead.admin(), &["big:1"]).spawn().unwrap();
    let pid = child.id();
    gate.waiting().await;
    staged(&roadstead).await;
    signal(pid, "INT");
    let output = ended(child).await;
    code(&output, 130);
    assert!(stderr(&output).contains("interrupted; run it again"), "{}", stderr(&output));
    assert!(stdout(&output).contains("0 of 1 images are there"), "{}", stdout(&output));
    let jobs = api(&roadstead, "GET", "warm", Value::Null, 200).await;
    assert_eq!(jobs["jobs"][0]["state"], "cancelled", "{jobs:#}");
    gate.open();
    roadstead.settled().await;
    let partial = roadstead.partial();
    assert_eq!(partial.len(), 1, "{partial:?}");

    let output = run(&roadstead, &["big:1", "--json"]).await;
    code(&output, 0);
    let asked = ranges(&hub, layer);
    assert_eq!(asked.len(), 2, "{asked:?}");
    let from = asked[1].as_deref().and_then(|range| range.strip_prefix("bytes="));
    let from: u64 = from.and_then(|range| range.strip_suffix('-')).unwrap().parse().unwrap();
    assert!(from >= MIB, "{from}");
    let job: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(job["totals"]["fetched"], layer.size - from, "{job:#}");
    assert_eq!(manifest_gets(&hub), 1);
    roadstead.assert_all_stored_is_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_told_of_and_the_next_run_resumes() {
    let (hub, mut roadstead, image) = slow().await;
    let layer = &image.layers[0];
    let gate = hub.gate(Target::blob(&layer.digest), 8 * MIB);
    let child = command(roadstead.admin(), &["big:1"]).spawn().unwrap();
    gate.waiting().await;
    staged(&roadstead).await;
    roadstead.kill9();
    let output = ended(child).await;
    code(&output, 1);
    assert!(stderr(&output).contains("run this again, and it goes on"), "{}", stderr(&output));
    gate.open();
    roadstead.restart().await;
    let output = run(&roadstead, &["big:1"]).await;
    code(&output, 0);
    let asked = ranges(&hub, layer);
    assert!(asked.len() == 2 && asked[1].is_some(), "{asked:?}");
    assert_eq!(manifest_gets(&hub), 1);
    roadstead.assert_all_stored_is_right();
}

#[tokio::test]
async fn without_a_server_the_remedy_is_told() {
    let child = command(free_address(), &["app:1"]).spawn().unwrap();
    let output = ended(child).await;
    code(&output, 1);
    let said = stderr(&output);
    assert!(said.starts_with("roadstead: the server can't be asked ("), "{said}");
    assert!(said.contains("roadstead serve") && said.contains("--admin"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn wrong_usage_is_found_before_a_server_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
    };
    write("empty", "# nothing\n");
    write("compose.yaml", "services: { a: { image: \"a:${NOT_SET_ANYWHERE}\" } }");
    write("chart.yaml", "containers: [{ image: \"{{ .Values.image }}\" }]");
    let there = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (empty, compose, chart) = (there("empty"), there("compose.yaml"), there("chart.yaml"));
    assert!(Path::new(&empty).exists());
    for (args, said) in [
        (vec![], "no image is named"),
        (vec!["--list", &*empty], "no image in what was named"),
        (vec!["--list", "/nowhere"], "/nowhere: "),
        (vec!["--compose", &*compose], "services.a.image: NOT_SET_ANYWHERE is not set"),
        (vec!["--kubernetes", &*chart], "chart.yaml: "),
        (vec!["a", "--platform", "linux"], "--platform: \"linux\" is not a platform"),
        (vec!["a", "--parallel", "0"], "--parallel 0"),
    ] {
        let output = ended(command(free_address(), &args).spawn().unwrap()).await;
        code(&output, 2);
        let error = stderr(&output);
        assert!(error.contains(said), "{args:?}: {error}");
        assert!(error.contains("; "), "no remedy in {error}");
    }
}
