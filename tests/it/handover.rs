//! SIGQUIT: a new process takes over, and no client notices.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub::{Hub, ImageSpec, Target};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::client::{Connection, get};
use crate::pull::{accepting, blob_path, digest, manifest_path, pull};
use crate::roadstead::{BINARY, Roadstead, Setup, eventually, free_address, signal};
use crate::secure::{Signer, Speaker};

const NAME: &str = "library/alpine";
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A server whose process changes; each of its processes is ended when it is dropped.
struct Dynasty {
    roadstead: Roadstead,
    /// Those that came after the first.
    successors: Vec<u32>,
    /// A path that leads to the program, and may be made to lead elsewhere.
    program: (TempDir, PathBuf),
}

// === impl Dynasty ===

impl Dynasty {
    async fn found(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roadstead");
        symlink(BINARY, &path).unwrap();
        let roadstead = setup.binary(path.clone()).start().await;
        Self { roadstead, successors: Vec::new(), program: (folder, path) }
    }

    /// The process that serves now.
    fn pid(&self) -> u32 {
        self.successors.last().copied().unwrap_or_else(|| self.roadstead.pid())
    }

    /// All that have ever said that they are ready, by the log.
    fn pids(&self) -> Vec<u32> {
        let log = self.roadstead.log();
        let lines = log.lines().filter(|line| line.contains(" ready "));
        lines.map(|line| number_after(line, "pid=")).collect()
    }

    /// How often the log says this.
    fn logged(&self, text: &str) -> usize {
        self.roadstead.log().matches(text).count()
    }

    async fn logs(&self, text: &str, times: usize) {
        let said = || self.logged(text) >= times;
        eventually(&format!("the log says `{text}`"), PATIENCE, said).await;
    }

    fn quit(&self) {
        signal(self.pid(), "QUIT");
    }

    /// Hands over, and waits until the new process serves.
    async fn succeed(&mut self) {
        let before = self.pids().len();
        self.quit();
        eventually("a new process is ready", PATIENCE, || self.pids().len() > before).await;
        let pid = *self.pids().last().unwrap();
        assert_ne!(pid, self.pid());
        self.successors.push(pid);
    }

    /// Makes the program's path lead to a script.
    fn replace_by_script(&self, script: &str) {
        let path = &self.program.1;
        let new = path.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Makes it lead to the program again.
    fn replace_by_program(&self) {
        fs::remove_file(&self.program.1).unwrap();
        symlink(BINARY, &self.program.1).unwrap();
    }

    /// Ends the process that serves now by SIGTERM.
    async fn terminate(&mut self) {
        signal(self.pid(), "TERM");
        let pid = self.pid();
        eventually("it ends", PATIENCE, || has_ended(pid)).await;
    }

    fn is_one_of_ours(&self, pid: u32) -> bool {
        let config = self.roadstead.config().display().to_string();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&config)
    }
}

impl Drop for Dynasty {
    fn drop(&mut self) {
        let pids: HashSet<u32> = self.pids().into_iter().chain(self.successors.clone()).collect();
        for pid in pids {
            // The first is a child, and ended as one. A number may have another owner by now.
            if pid != self.roadstead.pid() && self.is_one_of_ours(pid) && !has_ended(pid) {
                signal(pid, "KILL");
            }
        }
    }
}

fn number_after(line: &str, key: &str) -> u32 {
    let rest = line.split_once(key).unwrap_or_else(|| panic!("no {key} in {line}")).1;
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Gone, or a zombie that nobody has asked about.
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Folders of hand-overs that a process has left behind.
fn left_behind(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("roadstead-{pid}-");
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok);
    let ours = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    entries.map(|entry| entry.path()).filter(|path| ours(path)).collect()
}

/// What the clients of a load are doing, and did.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    done: AtomicU64,
}

/// Asks for `paths` in turn until told to stop; each answer must be whole and right.
async fn client(
    load: Arc<Load>,
    at: std::net::SocketAddr,
    paths: Vec<String>,
    keeps: bool,
) -> Vec<String> {
    let mut failed = Vec::new();
    let mut kept: Option<Connection> = None;
    for path in paths.iter().cycle() {
        if load.stop.load(Ordering::Acquire) {
            break;
        }
        let is_kept = kept.is_some();
        let answered = async {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(at).await?,
            };
            connection.exchange(&accepting(get(at, path))).await
        };
        let (reply, connection) = match answered.await {
            Ok(answer) => answer.finish_and_keep().await,
            Err(error) => {
                failed.push(format!("{path}: {error}; on a kept connection: {is_kept}"));
                continue;
            }
        };
        let named = reply.header("docker-content-digest").unwrap_or_default().to_owned();
        if reply.status != 200 || !reply.complete || digest(&named, &reply.body) != named {
            failed.push(format!("{path}: {} complete: {}", reply.status, reply.complete));
        }
        if keeps && reply.header("connection") != Some("close") {
            kept = Some(connection);
        }
        load.done.fetch_add(1, Ordering::AcqRel);
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_a_new_process_takes_over() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(300 << 10));
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    let at = dynasty.roadstead.at();
    let pulled = pull(at, NAME, "latest").await;
    dynasty.roadstead.settled().await;
    hub.reset_stats();
    let mut paths = vec![manifest_path(NAME, "latest"), manifest_path(NAME, &pulled.manifest)];
    paths.extend(pulled.blobs.iter().map(|blob| blob_path(NAME, blob)));
    let load = Arc::new(Load::default());
    let clients = (0..8).map(|n| client(Arc::clone(&load), at, paths.clone(), n % 2 == 0));
    let clients: JoinSet<_> = clients.collect();
    let done = || load.done.load(Ordering::Acquire);
    eventually("the load runs", PATIENCE, || done() > 100).await;

    dynasty.succeed().await;
    assert!(dynasty.roadstead.ended().await.success());
    let then = done();
    eventually("the new process serves the load", PATIENCE, || done() > then + 100).await;

    load.stop.store(true, Ordering::Release);
    let failed: Vec<_> = clients.join_all().await.concat();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), done(), failed.first());
    let stats = hub.stats();
    let blobs: u64 = pulled.blobs.iter().map(|blob| hub.blob_gets(blob)).sum();
    assert_eq!(blobs, 0, "{stats:?}");
    assert_eq!(hub.manifest_gets("latest") + hub.manifest_gets(&pulled.manifest), 0, "{stats:?}");
    assert!(!has_ended(dynasty.pid()));
    assert!(left_behind(dynasty.roadstead.pid()).is_empty());
}

#[tokio::test]
async fn a_download_that_began_before_ends_whole_in_the_old_process() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(8 << 20));
    let layer = image.layers[0].digest.clone();
    let mut dynasty = Dynasty::found(Setup::of(&hub).key("shutdown.drain", "30s")).await;
    let gate = hub.gate(Target::blob(&layer), 2 * MIB);
    let path = blob_path(NAME, &layer);
    let mut answer = get(dynasty.roadstead.at(), &path).open().await;
    let begun = answer.read(MIB).await.unwrap();
    dynasty.succeed().await;
    dynasty.logs("handed over; requests may end", 1).await;
    assert!(!has_ended(dynasty.roadstead.pid()), "it left a client alone");
    gate.open();
    let rest = answer.finish().await;
    assert!(rest.complete, "cut by the hand-over");
    assert_eq!(digest(&layer, &[begun, rest.body].concat()), layer);
    assert!(dynasty.roadstead.ended().await.success());
    let reply = get(dynasty.roadstead.at(), &path).send().await;
    assert!(reply.complete);
    assert_eq!(digest(&layer, &reply.body), layer);
    dynasty.roadstead.settled().await;
    dynasty.roadstead.assert_all_stored_is_right();
}

#[tokio::test]
async fn a_successor_that_can_t_start_leaves_the_old_process_serving() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    let at = dynasty.roadstead.at();
    pull(at, NAME, "latest").await;
    let file = dynasty.roadstead.config();
    let good = fs::read(&file).unwrap();
    fs::write(&file, "listen: nowhere\n").unwrap();
    dynasty.quit();
    dynasty.logs("not handed over; this process goes on", 1).await;
    assert_eq!(dynasty.logged("exit status: 2"), 1);
    pull(at, NAME, "latest").await;
    assert!(left_behind(dynasty.pid()).is_empty());

    fs::write(&file, good).unwrap();
    dynasty.succeed().await;
    assert!(dynasty.roadstead.ended().await.success());
    pull(at, NAME, "latest").await;
}

#[tokio::test]
async fn a_successor_that_ends_after_it_got_the_store_gives_it_back() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    // It waits for the store, and then goes away.
    let wait = "touch $ROADSTEAD_HANDOVER/waiting; sleep 0.3; exit 3";
    dynasty.replace_by_script(wait);
    dynasty.quit();
    dynasty.logs("not handed over; this process goes on", 1).await;
    assert_eq!(dynasty.logged("exit status: 3"), 1);
    pull(dynasty.roadstead.at(), NAME, "latest").await;
    dynasty.roadstead.settled().await;
    assert!(!dynasty.roadstead.stored().is_empty(), "nothing is kept any more");
    // What looks after the store looks after it again.
    fs::remove_dir_all(dynasty.roadstead.data()).unwrap();
    hub.push(&ImageSpec::new("library/busybox").tag("latest"));
    let new = pull(dynasty.roadstead.at(), "library/busybox", "latest").await;
    let data = dynasty.roadstead.data();
    eventually("the store comes back", PATIENCE, || data.join("index.redb").exists()).await;
    eventually("the disk is used again", PATIENCE, || {
        dynasty.roadstead.log().contains("the store has recovered")
    })
    .await;
    let again = pull(dynasty.roadstead.at(), "library/busybox", "latest").await;
    assert_eq!(again, new);
    let kept = || again.blobs.iter().all(|blob| dynasty.roadstead.stored().contains_key(blob));
    eventually("blobs are kept again", PATIENCE, kept).await;

    dynasty.replace_by_program();
    dynasty.succeed().await;
    assert!(dynasty.roadstead.ended().await.success());
}

#[tokio::test]
async fn a_stop_during_a_hand_over_ends_both_processes() {
    let hub = Hub::start().await;
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    dynasty.replace_by_script("echo the script is $$; exec sleep 600");
    dynasty.quit();
    dynasty.logs("the script is ", 1).await;
    dynasty.quit();
    dynasty.logs("a hand-over is under way already", 1).await;
    let script = number_after(&dynasty.roadstead.log().replace('\n', " "), "the script is ");
    assert!(!has_ended(script));
    dynasty.roadstead.signal_term();
    assert!(dynasty.roadstead.ended().await.success());
    eventually("the script is ended", PATIENCE, || has_ended(script)).await;
    assert_eq!(dynasty.logged("a signal to stop came before the new process served"), 1);
    assert!(left_behind(dynasty.roadstead.pid()).is_empty());
}

#[tokio::test]
async fn a_process_that_begins_remembers_that_it_is_to_read_its_configuration_again() {
    let hub = Hub::start().await;
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    // As soon as it waits for the store, long before it serves.
    dynasty.replace_by_script(&format!(
        "(until test -e $ROADSTEAD_HANDOVER/waiting; do kill -0 $$ || exit; done; kill -HUP $$) &\n\
         exec {BINARY} \"$@\""
    ));
    dynasty.succeed().await;
    dynasty.logs("the configuration was reloaded", 1).await;
    assert!(dynasty.roadstead.ended().await.success());
    assert_eq!(dynasty.logged("the configuration was reloaded"), 1);
    dynasty.terminate().await;
}

#[tokio::test]
async fn a_reload_that_is_asked_for_during_a_hand_over_comes_after_it() {
    let hub = Hub::start().await;
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script = |then: &str| {
        let wait = format!("until test -e {}; do sleep 0.02; done", go.display());
        format!("echo the script is $$; {wait}; {then}")
    };
    // The old process reloads if it goes on, and the new one if it serves.
    for (times, then) in [(1, "exit 3"), (2, &*format!("exec {BINARY} \"$@\""))] {
        dynasty.replace_by_script(&script(then));
        dynasty.quit();
        dynasty.logs("the script is ", times).await;
        signal(dynasty.pid(), "HUP");
        dynasty.logs("the configuration is read again after it", times).await;
        assert_eq!(dynasty.logged("the configuration was reloaded"), times - 1);
        fs::write(&go, "").unwrap();
        dynasty.logs("the configuration was reloaded", times).await;
        fs::remove_file(&go).unwrap();
    }
    assert_eq!(dynasty.logged("not handed over; this process goes on"), 1);
    assert!(dynasty.roadstead.ended().await.success());
    dynasty.successors.extend(dynasty.pids().last());
    dynasty.terminate().await;
}

#[tokio::test]
async fn the_new_process_writes_the_store_and_hands_over_in_turn() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let mut dynasty = Dynasty::found(Setup::of(&hub)).await;
    let at = dynasty.roadstead.at();
    pull(at, NAME, "latest").await;
    dynasty.succeed().await;
    assert!(dynasty.roadstead.ended().await.success());
    hub.push(&ImageSpec::new("library/busybox").tag("latest"));
    let new = pull(at, "library/busybox", "latest").await;
    dynasty.roadstead.settled().await;
    let stored = dynasty.roadstead.stored();
    assert!(new.blobs.iter().all(|blob| stored.contains_key(blob)), "{stored:?}");
    let second = dynasty.pid();
    dynasty.succeed().await;
    eventually("the second process ends", PATIENCE, || has_ended(second)).await;
    assert_eq!(pull(at, "library/busybox", "latest").await, new);
    dynasty.terminate().await;
    assert_eq!(dynasty.logged(" stopped"), 3);
    dynasty.roadstead.assert_all_stored_is_right();
}

#[tokio::test]
async fn a_unix_socket_is_handed_over_too() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roadstead.sock");
    let listen = json!([{ "address": format!("unix:{}", path.display()), "mode": "0640" }]);
    let mut dynasty = Dynasty::found(Setup::of(&hub).key("listen", listen)).await;
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o640);
    dynasty.succeed().await;
    assert!(dynasty.roadstead.ended().await.success());
    assert_eq!(mode(), 0o640);
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_listener_is_handed_over_with_its_certificate() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    let (signer, folder) = (Signer::new("test"), tempfile::tempdir().unwrap());
    let (certificate, key) = signer.issue("mirror.test").write(folder.path(), "tls");
    let at = free_address();
    let tls = json!({ "certificate": certificate, "key": key });
    let listen = json!([{ "address": at.to_string(), "tls": tls }]);
    let mut dynasty = Dynasty::found(Setup::of(&hub).key("listen", listen)).await;
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let (load, speaker) = (Arc::clone(&load), Speaker::trusting(&[&signer.pem()]));
        clients.spawn(async move {
            while !load.stop.load(Ordering::Acquire) {
                let path = manifest_path(NAME, "latest");
                let said = speaker.get(at, "mirror.test", &path).await.unwrap();
                assert_eq!(said.status, 200);
                load.done.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    let done = || load.done.load(Ordering::Acquire);
    eventually("requests are answered", PATIENCE, || done() > 5).await;
    let first = dynasty.pid();
    dynasty.succeed().await;
    eventually("the old process ends", PATIENCE, || has_ended(first)).await;
    let before = done();
    eventually("the new process answers", PATIENCE, || done() > before + 5).await;
    load.stop.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}
