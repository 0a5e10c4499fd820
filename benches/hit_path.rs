//! The hit path's own steps, one by one: route, plan, head of an answer, lookup in the store.
//!
//! `cargo bench --bench hit_path`. Figures are for comparing one change with another on one
//! machine; side by side with other caches is the bench `side_by_side`.

#![expect(missing_docs, reason = "criterion's macros write functions without any")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use roadstead::{
    config::Config,
    manifest::{Health, plan},
    protocol::{Algorithm, Digest, Route, accept::Accept, range::resolve},
    store::{Kind, Link, LinkKey, Store, TagRecord},
};

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

fn store(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::parse("", "bench").expect("the defaults are valid").store;
    config.directory = folder.path().to_owned();
    let store = Arc::new(Store::open(&config).expect("an empty store opens"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let body = Bytes::from(vec![b'x'; 1260]);
    let digest = Digest::of(Algorithm::Sha256, &body);
    let route = Route::parse("/v2/library/alpine/manifests/latest").expect("a route");
    let repository = route.repository().expect("it names a repository").clone();
    let key = LinkKey { upstream: "docker.io".into(), repository, digest };
    runtime.block_on(async {
        store.put(digest, body, Kind::Manifest).await.expect("it is stored");
        let link = Link { media_type: Some(ACCEPT[0].into()) };
        store.link(key.clone(), link).await.expect("it is linked");
    });
    c.bench_function("store: link and body in memory", |b| {
        b.iter(|| (store.linked_in_memory(black_box(&key)), store.in_memory(black_box(&digest))));
    });
}

criterion_group!(benches, protocol, tag_plan, store);
criterion_main!(benches);
