//! The admin listener before a large store: how long each endpoint and page takes, and how large its
//! answer is.
//!
//! Fifty thousand repositories with a million objects; the records are real, and so are the manifests
//! of the repositories that are looked at, the layers' files are not. `--quick` takes a twentieth. What
//! takes longer than [`LIMIT`] in the median, or answers more than [`MOST_BYTES`], ends it with 1.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

#[path = "../shared/server.rs"]
mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use roadstead::{
    config,
    protocol::{Algorithm, Digest, Repository, Tag},
    store::{Kind, Link, LinkKey, Store, TagKey, TagRecord},
};
use serde_json::{Value, json};
use server::Server;
use tokio::task::JoinSet;

const REPOSITORIES: u64 = 50_000;
const OBJECTS_EACH: u64 = 20;
const QUICK: u64 = 20;

/// Tags of the one repository that has many.
const MANY_TAGS: u64 = 5_000;

/// Repositories whose manifests are there, the first in the order of their names among them.
const REAL: u64 = 500;

/// Records written at a time.
const AT_ONCE: usize = 4096;

const ROUNDS: usize = 11;

/// What the slowest answer may take, in the median of its rounds.
const LIMIT: Duration = Duration::from_millis(200);

/// What the largest answer may have.
const MOST_BYTES: usize = 2 << 20;

/// Besides every endpoint that can be asked without parameters.
const ASKED: [&str; 15] = [
    "/",
    "/repositories",
    "/repositories?match=app04",
    "/repositories?match=no-such-name",
    "/repositories/docker.io/org00/app000000",
    "/repositories/docker.io/many/tags",
    "/metrics",
    "/readyz",
    "/api/v1/repositories?limit=1000",
    "/api/v1/repositories?match=app04&limit=100",
    "/api/v1/repositories?match=no-such-name",
    "/api/v1/images?limit=1000",
    "/api/v1/blobs?limit=1000",
    "/api/v1/tags?repository=docker.io/many/tags&limit=1000",
    "/api/v1/tags?repository=docker.io/org00/app000000",
];

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let repositories = if quick { REPOSITORIES / QUICK } else { REPOSITORIES };
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    generate(folder.path(), repositories).await;
    let objects = repositories * OBJECTS_EACH;
    println!(
        "{repositories} repositories, {objects} objects, generated in {:.1?}",
        began.elapsed()
    );
    let server = Server::start(folder.path());
    let mut is_good = true;
    for path in paths(&server) {
        is_good &= measure(&server, &path);
    }
    counted(&server);
    if !is_good && !quick {
        std::process::exit(1);
    }
}

/// What to ask: the endpoints that describe themselves, and what is known to be large.
fn paths(server: &Server) -> Vec<String> {
    let document: Value =
        serde_json::from_slice(&server.try_get("/api/v1/openapi.json").unwrap().1).unwrap();
    let mut paths: Vec<String> = ASKED.iter().map(|path| (*path).to_owned()).collect();
    for (path, operations) in document.get("paths").and_then(Value::as_object).unwrap() {
        let Some(get) = operations.get("get") else { continue };
        let parameters = get.get("parameters").and_then(Value::as_array);
        let needs =
            parameters.into_iter().flatten().any(|it| it.get("required") == Some(&json!(true)));
        // A stream does not end.
        if !needs && !path.contains('{') && !path.ends_with("/stream") {
            paths.push(path.clone());
        }
    }
    paths
}

fn measure(server: &Server, path: &str) -> bool {
    let mut times = Vec::new();
    let (mut status, mut bytes) = (0, 0);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let (said, body) = server.try_get(path).unwrap();
        times.push(began.elapsed());
        (status, bytes) = (said, bytes.max(body.len()));
    }
    times.sort();
    let (median, worst) = (*times.get(ROUNDS / 2).unwrap(), *times.last().unwrap());
    let is_good = median <= LIMIT && bytes <= MOST_BYTES;
    let word = if is_good { "" } else { "  TOO MUCH" };
    println!(
        "{status} {median:>9.1?} median {worst:>9.1?} worst {:>6} KiB  {path}{word}",
        bytes >> 10
    );
    is_good
}

/// How long it takes until usage is known.
fn counted(server: &Server) {
    let began = Instant::now();
    loop {
        let usage: Value =
            serde_json::from_slice(&server.try_get("/api/v1/usage").unwrap().1).unwrap();
        if usage.get("as_of").is_some_and(Value::is_u64) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("usage is known {:.1?} after the last question", began.elapsed());
}

// === the store ===

fn object(number: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_le_bytes())
}

fn repository(number: u64) -> Repository {
    Repository::parse(&format!("org{:02}/app{number:06}", number % 100)).unwrap()
}

async fn generate(directory: &std::path::Path, repositories: u64) {
    let config = config::Store {
        directory: directory.to_owned(),
        disk: u64::MAX / 2,
        ..config::Store::default()
    };
    let store = Arc::new(Store::open(&config).unwrap());
    let objects = repositories * OBJECTS_EACH;
    for start in (0..objects).step_by(20_000) {
        let numbers = start..(start + 20_000).min(objects);
        let objects = numbers.map(|number| (object(number), 1 << 20));
        tokio::task::block_in_place(|| store.pretend(objects)).unwrap();
    }
    let mut writing = JoinSet::new();
    for number in 0..repositories {
        let store = Arc::clone(&store);
        // Every hundredth is of the organisation that comes first.
        let is_real = number % 100 == 0 || number < REAL;
        writing.spawn(async move { write(&store, number, is_real).await });
        while writing.len() >= AT_ONCE / OBJECTS_EACH as usize {
            writing.join_next().await.unwrap().unwrap();
        }
    }
    writing.join_all().await;
    let mut writing = JoinSet::new();
    for number in 0..MANY_TAGS.min(objects / OBJECTS_EACH) {
        let store = Arc::clone(&store);
        writing.spawn(async move {
            let repository = Repository::parse("many/tags").unwrap();
            let digest = manifest(&store, number, number < 1500).await;
            tag(&store, repository, &format!("v{number}"), digest).await;
        });
        if writing.len() >= AT_ONCE {
            writing.join_next().await.unwrap().unwrap();
        }
    }
    writing.join_all().await;
    tokio::task::block_in_place(|| store.close());
}

/// A repository: its links, and a tag.
async fn write(store: &Arc<Store>, number: u64, is_real: bool) {
    let repository = repository(number);
    let mut linking = JoinSet::new();
    for linked in number * OBJECTS_EACH..(number + 1) * OBJECTS_EACH {
        let (store, repository) = (Arc::clone(store), repository.clone());
        linking.spawn(async move {
            let key = LinkKey { upstream: "docker.io".into(), repository, digest: object(linked) };
            store.link(key, Link { media_type: None }).await.unwrap();
        });
    }
    linking.join_all().await;
    let digest = manifest(store, number, is_real).await;
    tag(store, repository, "latest", digest).await;
}

/// An image of a few of a repository's objects; one that is not real can't be followed.
async fn manifest(store: &Arc<Store>, number: u64, is_real: bool) -> Digest {
    let first = number * OBJECTS_EACH;
    if !is_real {
        return object(first);
    }
    let layer = |number: u64| json!({ "digest": object(number).to_string(), "size": 1 << 20 });
    let layers: Vec<_> = (first + 1..first + 8).map(layer).collect();
    let body = json!({ "schemaVersion": 2, "config": layer(first), "layers": layers }).to_string();
    let digest = Digest::of(Algorithm::Sha256, body.as_bytes());
    store.put(digest, Bytes::from(body), Kind::Manifest).await.unwrap();
    digest
}

async fn tag(store: &Arc<Store>, repository: Repository, tag: &str, digest: Digest) {
    let now = SystemTime::now();
    let key = TagKey { upstream: "docker.io".into(), repository, tag: Tag::parse(tag).unwrap() };
    let record = TagRecord { digest, previous: None, validated: now, moved: now };
    store.move_tag(key, record).await.unwrap();
}
