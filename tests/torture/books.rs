//! The store seen from outside: what lies in its directory, what it says about that, and whether
//! it serves what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Reply, get};
use crate::pool::{Object, Pool};
use crate::pull::{Puller, blob_path};
use crate::roadstead::Roadstead;

/// A gauge may lag behind the disk that long: a fill of which only ranges were read waits 30 s for its
/// next reader, and holds room for what that may want, while no fill is active.
const LAG: Duration = Duration::from_secs(45);

/// How far a count of the bytes written to a partial file may be from its blocks on disk: some runs
/// of bytes, each with a block of 4 KiB at either end that is in use only in part, and its map.
const PARTIAL_SLACK_BYTES: u64 = 64 << 10;

/// Requests at a time.
const SIDE_BY_SIDE: usize = 4;

/// The bytes that a state of the store may report.
type States = BTreeMap<&'static str, RangeInclusive<u64>>;

/// The files below a store's directory.
#[derive(Debug, Default)]
struct Inventory {
    published: u64,
    /// On disk, holes left out.
    partial: u64,
    partial_files: u64,
    /// On disk, and by its length.
    index: (u64, u64),
    quarantine: u64,
    history: u64,
    strange: Vec<PathBuf>,
}

/// P8: every file below the store's directory is one of its kinds, and the store's gauges are what
/// is on disk. To be asked while no fill is under way.
pub(crate) async fn assert_accounted(roadstead: &Roadstead, when: &str) {
    let deadline = Instant::now() + LAG;
    loop {
        let inventory = Inventory::of(&roadstead.data());
        let said = roadstead.metrics().await;
        let wrong = inventory.differences(&said);
        if wrong.is_empty() {
            return;
        }
        let patience = Instant::now() < deadline;
        assert!(patience, "{when}: {}\n{inventory:?}", wrong.join("; "));
        sleep(Duration::from_millis(50)).await;
    }
}

/// All of `digests` are served, right, and without a fetch of theirs: in whole where `whole` says
/// so, else the first byte of a blob.
pub(crate) async fn assert_served(
    roadstead: &Roadstead,
    pool: &Pool,
    digests: &BTreeSet<String>,
    mut whole: impl FnMut(&str) -> bool,
    when: &str,
) {
    let before: BTreeMap<_, _> = digests.iter().map(|digest| (digest, pool.gets(digest))).collect();
    let mut asking = JoinSet::new();
    for digest in digests {
        if asking.len() == SIDE_BY_SIDE {
            asking.join_next().await.unwrap().unwrap();
        }
        let (at, object) = (roadstead.at(), pool.objects[digest].clone());
        let whole = whole(digest) || object.is_manifest;
        asking.spawn(assert_right(at, digest.clone(), object, whole, Arc::from(when)));
    }
    asking.join_all().await;
    for (digest, gets) in before {
        assert_eq!(pool.gets(digest), gets, "{when}: {digest} was stored, and is fetched again");
    }
}

async fn assert_right(at: SocketAddr, digest: String, object: Object, whole: bool, when: Arc<str>) {
    let repository = &object.repository;
    let got = if object.is_manifest {
        let reply = Puller::new(at).manifest(repository, &digest).await;
        reply.unwrap_or_else(|failed| panic!("{when}: {digest}: {failed:?}"))
    } else if whole {
        get(at, blob_path(repository, &digest)).send().await
    } else {
        get(at, blob_path(repository, &digest)).header("Range", "bytes=0-0").send().await
    };
    let expected = if whole { &object.body[..] } else { &object.body[..1] };
    let Reply { status, complete, body, headers, .. } = &got;
    assert!(
        matches!(status, 200 | 206) && *complete,
        "{when}: {digest}: {status}, complete: {complete}, {headers:?}"
    );
    assert!(body == expected, "{when}: {digest}: {} wrong bytes, {headers:?}", body.len());
}

// === impl Inventory ===

impl Inventory {
    fn of(data: &Path) -> Self {
        let mut inventory = Self::default();
        inventory.walk(data, data);
        inventory
    }

    fn walk(&mut self, data: &Path, folder: &Path) {
        // What is gone by the time it is looked at was on its way to another place.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => self.walk(data, &path),
                Ok(meta) => self.file(path.strip_prefix(data).unwrap(), &meta),
                Err(_) => {}
            }
        }
    }

    fn file(&mut self, path: &Path, meta: &Metadata) {
        let on_disk = meta.len().min(meta.blocks() * 512);
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap_or("?")).collect();
        match parts[..] {
            ["FORMAT"] => {}
            ["index.redb"] => self.index = (on_disk, meta.len()),
            ["blobs", algorithm, shard, hex]
                if is_hex(algorithm, hex) && hex.starts_with(shard) =>
            {
                self.published += meta.len();
            }
            ["partial", name] if is_partial(name) => {
                self.partial += on_disk;
                self.partial_files += 1;
            }
            ["quarantine", _] => self.quarantine += meta.len(),
            ["history.ring" | "history.new"] => self.history = meta.len(),
            _ => self.strange.push(path.to_owned()),
        }
    }

    /// What the gauge may say of each state.
    fn states(&self) -> States {
        let slack = PARTIAL_SLACK_BYTES * self.partial_files;
        let exactly = |bytes| bytes..=bytes;
        let partial = self.partial.saturating_sub(slack)..=self.partial + slack;
        // A database that has grown has holes; either way to count it is right.
        let index = self.index.0..=self.index.1;
        let rest = self.published + self.quarantine + self.history;
        let used = rest + partial.start() + index.start()..=rest + partial.end() + index.end();
        BTreeMap::from([
            ("published", exactly(self.published)),
            ("staged", partial),
            ("index", index),
            ("quarantine", exactly(self.quarantine)),
            ("history", exactly(self.history)),
            ("used", used),
        ])
    }

    fn differences(&self, said: &BTreeMap<String, f64>) -> Vec<String> {
        let mut wrong: Vec<_> =
            self.strange.iter().map(|path| format!("{} is strange", path.display())).collect();
        for (state, expected) in self.states() {
            match said.get(&format!("roadstead_store_bytes{{state=\"{state}\"}}")) {
                None => wrong.push(format!("the state {state} is not reported")),
                Some(bytes) if expected.contains(&(*bytes as u64)) => {}
                Some(bytes) => wrong.push(format!("{state}: {bytes} said, {expected:?} found")),
            }
        }
        wrong
    }
}

fn is_partial(name: &str) -> bool {
    let name = name.strip_suffix(".map").unwrap_or(name);
    name.split_once('-').is_some_and(|(algorithm, hex)| is_hex(algorithm, hex))
}

fn is_hex(algorithm: &str, hex: &str) -> bool {
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
