//! The hit path's own steps, one by one: route, plan, head of an answer, lookups in memory and in the index.
//!
//! `cargo bench --bench hit_path`. Figures are for comparing one change with another on one
//! machine; whole requests are counted by the bench `instructions`, and put side by side with other
//! caches by `side_by_side`.

#![expect(missing_docs, reason = "criterion's macros write functions without any")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderName, HeaderValue, StatusCode, header};
use roadstead::{
    config::Config,
    filter::{Answer, Body},
    manifest::{Health, plan},
    protocol::{
        Algorithm, Digest, Route,
        accept::Accept,
        cache_status::CacheStatus,
        conditional::{etag, if_none_match},
        range::resolve,
    },
    store::{Kind, Link, LinkKey, Store, TagRecord},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Objects in the index. What is looked up goes round all of them, so that no page is always at hand.
const INDEXED: u64 = 100_000;

/// What docker sends.
const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "*/*",
];

fn protocol(c: &mut Criterion) {
    c.bench_function("route: manifest by tag", |b| {
        b.iter(|| Route::parse(black_box("/v2/library/alpine/manifests/latest")));
    });
    let digest = Digest::of(Algorithm::Sha256, b"layer");
    let path = format!("/v2/library/alpine/blobs/{digest}");
    c.bench_function("route: blob by digest", |b| b.iter(|| Route::parse(black_box(&path))));
    c.bench_function("accept: docker's lines", |b| b.iter(|| Accept::parse(black_box(ACCEPT))));
    c.bench_function("range: one", |b| {
        b.iter(|| resolve(black_box(Some("bytes=8388608-")), black_box(1 << 28)));
    });
}

fn tag_plan(c: &mut Criterion) {
    let config = Config::parse("", "bench").expect("the defaults are valid");
    let tags = config.upstreams.first().expect("there is a default upstream").tags.clone();
    let now = SystemTime::now();
    let digest = Digest::of(Algorithm::Sha256, b"index");
    let record = TagRecord { digest, previous: None, validated: now, moved: now };
    let later = now + Duration::from_secs(30);
    c.bench_function("plan: a fresh tag", |b| {
        b.iter(|| plan("latest", black_box(Some(&record)), &tags, 1, later, Health::Up));
    });
}

fn head(c: &mut Criterion) {
    let digest = Digest::of(Algorithm::Sha256, b"index");
    let body = Bytes::from(vec![b'x'; 1260]);
    c.bench_function("head: digest, ETag, Cache-Status", |b| {
        b.iter(|| {
            let status = CacheStatus::hit().ttl(black_box(270));
            (black_box(&digest).to_string(), etag(&digest), status.to_string())
        });
    });
    c.bench_function("head: a cached tag", |b| {
        b.iter(|| tag_answer(black_box(&digest), body.clone()));
    });
    let other = etag(&Digest::of(Algorithm::Sha256, b"another"));
    c.bench_function("head: If-None-Match, another digest", |b| {
        b.iter(|| if_none_match(black_box([other.as_str()]), black_box(&digest)));
    });
}

/// The headers that the filter `cache` gives a tag, in its order.
fn tag_answer(digest: &Digest, body: Bytes) -> Answer {
    Answer::new(StatusCode::OK)
        .with_text(HeaderName::from_static("docker-content-digest"), &digest.to_string())
        .with_text(header::ETAG, &etag(digest))
        .with(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
        .with_text(
            HeaderName::from_static("cache-status"),
            &CacheStatus::hit().ttl(270).to_string(),
        )
        .with(header::AGE, HeaderValue::from(30))
        .with_text(header::CONTENT_TYPE, ACCEPT[0])
        .with(header::CONTENT_LENGTH, HeaderValue::from(body.len()))
        .body(Body::Bytes(body))
}

fn memory(c: &mut Criterion) {
    let (store, _folder) = empty_store();
    let runtime = Runtime::new().expect("a runtime");
    let body = Bytes::from(vec![b'x'; 1260]);
    let digest = Digest::of(Algorithm::Sha256, &body);
    let key = link_key(digest);
    runtime.block_on(async {
        store.put(digest, body, Kind::Manifest).await.expect("it is stored");
        let link = Link { media_type: Some(ACCEPT[0].into()) };
        store.link(key.clone(), link).await.expect("it is linked");
    });
    c.bench_function("store: link and body in memory", |b| {
        b.iter(|| (store.linked_in_memory(black_box(&key)), store.in_memory(black_box(&digest))));
    });
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    c.bench_function("store: neither in memory", |b| {
        let key = link_key(absent);
        b.iter(|| (store.linked_in_memory(black_box(&key)), store.in_memory(black_box(&absent))));
    });
}

fn index(c: &mut Criterion) {
    let (store, _folder) = empty_store();
    let digest = |number: u64| Digest::of(Algorithm::Sha256, &number.to_le_bytes());
    let digests: Vec<_> = (0..INDEXED).map(digest).collect();
    store.pretend(digests.iter().map(|digest| (*digest, 1 << 20))).expect("they are recorded");
    let mut known = digests.iter().cycle();
    c.bench_function("index: a digest among 100 000", |b| {
        b.iter(|| store.object(known.next().expect("it goes round")));
    });
    let mut unknown = (INDEXED..).map(digest);
    c.bench_function("index: a digest that it does not have", |b| {
        b.iter_batched_ref(
            || unknown.next().expect("there is no end"),
            |digest| store.object(digest),
            BatchSize::SmallInput,
        );
    });
    let runtime = Runtime::new().expect("a runtime");
    // As a request does it, for the disk may be slow.
    c.bench_function("index: a digest among 100 000, on another thread", |b| {
        b.iter(|| runtime.block_on(store.contains(*known.next().expect("it goes round"))));
    });
    store.close();
}

/// A store in a directory that goes with the second.
fn empty_store() -> (Arc<Store>, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::parse("", "bench").expect("the defaults are valid").store;
    config.directory = folder.path().to_owned();
    // Room for what is pretended.
    config.disk = u64::MAX / 2;
    (Arc::new(Store::open(&config).expect("an empty store opens")), folder)
}

fn link_key(digest: Digest) -> LinkKey {
    let route = Route::parse("/v2/library/alpine/manifests/latest").expect("a route");
    let repository = route.repository().expect("it names a repository").clone();
    LinkKey { upstream: "docker.io".into(), repository, digest }
}

criterion_group!(benches, protocol, tag_plan, head, memory, index);
criterion_main!(benches);
