//! Several registries behind one proxy: which one a request is for, and that they never mix.

use hub::{Account, Hub, Image, ImageSpec, Options};
use serde_json::json;
use tokio::net::TcpListener;

use crate::client::{Reply, get};
use crate::pull::{accepting, blob_path, digest, manifest_path};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";

/// docker.io, other.example and, behind a password, private.example: each with a repository of the
/// same name, and one layer that all share.
struct Stage {
    hubs: [Hub; 3],
    images: [Image; 3],
    roadstead: Roadstead,
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        let private = Options {
            accounts: vec![Account::new("alice", "secret")],
            private: vec![NAME.to_owned()],
            ..Options::default()
        };
        let hubs =
            [Hub::start().await, Hub::start().await, Hub::start_with(private).await.unwrap()];
        let spec = |layers| ImageSpec::new(NAME).tag("latest").layer_size(8 << 10).layers(layers);
        // The first layer is the same in all: equal seeds.
        let images = [1, 2, 3].map(|n| spec(n).seed(7));
        let images = [0, 1, 2].map(|n| hubs[n].push(&images[n]));
        let account = json!({ "accounts": [{ "username": "alice", "password": "secret" }] });
        let keys = json!({ "hosts": ["private.corp"], "credentials": account });
        let setup = Setup::of(&hubs[0])
            .also("other.example", &hubs[1], json!({ "hosts": ["mirror.corp:5000"] }))
            .also("private.example", &hubs[2], keys);
        let roadstead = setup.start().await;
        Self { hubs, images, roadstead }
    }

    async fn get(&self, path: &str, host: Option<&str>) -> Reply {
        let ask = accepting(get(self.roadstead.at(), path));
        match host {
            Some(host) => ask.header("Host", host).send().await,
            None => ask.send().await,
        }
    }

    fn requests(&self) -> u64 {
        self.hubs.iter().map(|hub| hub.stats().requests()).sum()
    }
}

#[tokio::test]
async fn each_way_of_selecting_an_upstream_finds_its_own_image() {
    let stage = Stage::set().await;
    let cases = [
        (0, "/v2/library/alpine/manifests/latest", None),
        (0, "/v2/alpine/manifests/latest", None),
        (0, "/v2/docker.io/library/alpine/manifests/latest", None),
        (0, "/v2/library/alpine/manifests/latest?ns=docker.io", None),
        (1, "/v2/other.example/library/alpine/manifests/latest", None),
        (1, "/v2/library/alpine/manifests/latest?ns=other.example", None),
        (1, "/v2/library/alpine/manifests/latest", Some("mirror.corp:5000")),
        // containerd's override_path says it twice.
        (1, "/v2/other.example/library/alpine/manifests/latest?ns=other.example", None),
        (2, "/v2/library/alpine/manifests/latest", Some("private.corp")),
        (2, "/v2/library/alpine/manifests/latest", Some("PRIVATE.corp:443")),
        // Host wins over ns.
        (2, "/v2/library/alpine/manifests/latest?ns=docker.io", Some("private.corp")),
        (2, "/v2/private.example/library/alpine/manifests/latest", None),
    ];
    for _ in 0..2 {
        for (number, path, host) in cases {
            let reply = stage.get(path, host).await;
            assert_eq!(reply.status, 200, "{path} {host:?}: {}", reply.text());
            let expected = &stage.images[number].digest;
            assert_eq!(digest(expected, &reply.body), *expected, "{path} {host:?}");
            let namespace = path.split_once("?ns=").map(|(_, name)| name);
            assert_eq!(reply.header("oci-namespace"), namespace);
        }
    }
    for (hub, image) in stage.hubs.iter().zip(&stage.images) {
        assert_eq!(hub.stats().counted, 1, "{image:?}");
    }
}

#[tokio::test]
async fn equal_blobs_of_two_upstreams_are_stored_once_and_only_with_leave() {
    let stage = Stage::set().await;
    let shared = &stage.images[0].layers[0].digest;
    assert_eq!(*shared, stage.images[1].layers[0].digest);
    let first = stage.get(&blob_path(NAME, shared), None).await;
    assert_eq!((first.status, digest(shared, &first.body)), (200, shared.clone()));
    stage.roadstead.settled().await;
    let path = blob_path(&format!("other.example/{NAME}"), shared);
    let second = stage.get(&path, None).await;
    assert_eq!(second.body, first.body);
    let gets: Vec<_> = stage.hubs.iter().map(|hub| hub.blob_gets(shared)).collect();
    assert_eq!(gets, [1, 0, 0], "the second upstream's bytes are the first's");
    assert_eq!(
        stage.hubs[1].stats().blob_head,
        2,
        "a challenge, and a free look whether it has it"
    );
    // What only one of them has, the other does not give.
    let own = &stage.images[1].layers[1].digest;
    assert_eq!(stage.get(&blob_path(NAME, own), None).await.status, 404);
    assert_eq!(stage.roadstead.stored().len(), 1);
}

#[tokio::test]
async fn what_selects_no_upstream_is_told_so_and_reaches_nobody() {
    let stage = Stage::set().await;
    let before = stage.requests();
    // Nobody answers there; a connection would be seen.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = elsewhere.local_addr().unwrap();
    for path in [
        "/v2/library/alpine/manifests/latest?ns=quay.io".to_owned(),
        format!("/v2/library/alpine/manifests/latest?ns={stranger}"),
        "/v2/quay.io/library/alpine/manifests/latest".to_owned(),
        "/v2/other.example.evil/library/alpine/manifests/latest".to_owned(),
        format!("/v2/library/alpine/blobs/{}?ns=quay.io", stage.images[0].layers[0].digest),
        "/v2/library/alpine/tags/list?ns=quay.io".to_owned(),
        "/v2/?ns=quay.io".to_owned(),
    ] {
        let reply = stage.get(&path, None).await;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "NAME_UNKNOWN"), "{path}");
        let text = reply.text();
        assert!(
            text.contains("configured are docker.io, other.example, private.example"),
            "{text}"
        );
    }
    assert_eq!(stage.requests(), before);
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(100), elsewhere.accept());
    assert!(quiet.await.is_err(), "a stranger was connected to");
}

// === mirrors ===

fn mirror(hub: &Hub, order: &str) -> serde_json::Value {
    json!({ "url": hub.registry_url(), "order": order, "token_realms": [hub.token_realm()] })
}

#[tokio::test]
async fn a_mirror_before_the_upstream_spares_it() {
    let (hub, first) = (Hub::start().await, Hub::start().await);
    let spec = ImageSpec::new(NAME).tag("latest").layer_size(8 << 10).single();
    let image = hub.push(&spec);
    first.push(&spec);
    let only_here = hub.push(&ImageSpec::new("library/rare").tag("latest").single());
    let account = json!([{ "username": "alice", "password": "secret" }]);
    let setup = Setup::of(&hub)
        .impatient()
        .with("credentials.accounts", account)
        .with("mirrors", json!([mirror(&first, "before")]));
    let roadstead = setup.start().await;
    let reply = get_tag(&roadstead, NAME).await;
    assert_eq!(digest(&image.digest, &reply.body), image.digest);
    let layer = &image.layers[0].digest;
    assert!(get(roadstead.at(), blob_path(NAME, layer)).send().await.complete);
    assert_eq!(hub.stats().requests(), 0, "{:?}", hub.stats());
    assert_eq!(first.blob_gets(layer), 1);
    // The account is the upstream's, and nobody else's.
    assert!(first.requests().iter().all(|request| request.account.is_none()));
    // What the mirror does not have, the upstream is asked for.
    let reply = get_tag(&roadstead, "library/rare").await;
    assert_eq!(digest(&only_here.digest, &reply.body), only_here.digest);
    assert_eq!(hub.stats().counted, 1);
    // What the mirror counts is none of the upstream's budget.
    let budget = get(roadstead.admin(), "/api/v1/budget").send().await.json();
    assert_eq!(budget["upstreams"][0]["spent"], json!(1), "{budget}");
}

#[tokio::test]
async fn a_mirror_that_fails_is_passed_over() {
    let (hub, first) = (Hub::start().await, Hub::start().await);
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
    first.fault(hub::Fault::new(hub::Target::any(), hub::Action::Hang));
    let setup = Setup::of(&hub).impatient().with("mirrors", json!([mirror(&first, "before")]));
    let roadstead = setup.start().await;
    let reply = get_tag(&roadstead, NAME).await;
    assert_eq!(digest(&image.digest, &reply.body), image.digest);
    let before = first.stats().requests();
    let layer = &image.layers[0].digest;
    assert!(get(roadstead.at(), blob_path(NAME, layer)).send().await.complete);
    assert!(first.stats().requests() <= before + 1, "it is asked although it hangs");
}

/// Where a mirror can't tell by HEAD, the upstream can, for free.
#[tokio::test]
async fn a_mirror_whose_head_tells_nothing_costs_no_pull() {
    for action in [hub::Action::Status(405), hub::Action::NoDigestHeader] {
        let (hub, first) = (Hub::start().await, Hub::start().await);
        let spec = ImageSpec::new(NAME).tag("latest").single();
        let image = hub.push(&spec);
        let setup = Setup::of(&hub).impatient().with("mirrors", json!([mirror(&first, "before")]));
        let roadstead = setup.start().await;
        assert_eq!(get_tag(&roadstead, NAME).await.status, 200);
        hub.reset_stats();
        first.push(&spec);
        first.fault(hub::Fault::new(hub::Target::manifests().method("HEAD"), action));
        let reply = get_tag(&roadstead, NAME).await;
        assert_eq!(digest(&image.digest, &reply.body), image.digest);
        assert_eq!((hub.stats().counted, hub.manifest_heads("latest")), (0, 1));
        assert_eq!(first.stats().counted, 0);
    }
}

#[tokio::test]
async fn a_mirror_after_the_upstream_stands_in_for_it() {
    let (hub, after) = (Hub::start().await, Hub::start().await);
    let spec = ImageSpec::new(NAME).tag("latest").single();
    let image = after.push(&spec);
    hub.push(&ImageSpec::new("library/other").tag("latest").single());
    let setup = Setup::of(&hub).impatient().with("mirrors", json!([mirror(&after, "after")]));
    let roadstead = setup.start().await;
    // The upstream's no is an answer.
    assert_eq!(get_tag(&roadstead, "library/other").await.status, 200);
    let reply = get(roadstead.at(), manifest_path("library/other", "none")).send().await;
    assert_eq!(reply.status, 404);
    assert_eq!(after.stats().requests(), 0);
    hub.fault(hub::Fault::new(hub::Target::any(), hub::Action::Drop));
    let reply = get_tag(&roadstead, NAME).await;
    assert_eq!((reply.status, digest(&image.digest, &reply.body)), (200, image.digest.clone()));
}

async fn get_tag(roadstead: &Roadstead, name: &str) -> Reply {
    accepting(get(roadstead.at(), manifest_path(name, "latest"))).send().await
}

// === offline ===

#[tokio::test]
async fn what_is_switched_offline_is_not_asked_and_serves_what_it_has() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest").single());
    hub.push(&ImageSpec::new("library/unseen").tag("latest").single());
    let roadstead = Roadstead::start(&hub).await;
    get_tag(&roadstead, NAME).await;
    let layer = blob_path(NAME, &image.layers[0].digest);
    assert!(get(roadstead.at(), &layer).send().await.complete);
    roadstead.settled().await;
    switch(&roadstead, json!({ "offline": true })).await;
    hub.reset_stats();
    let reply = get_tag(&roadstead, NAME).await;
    assert_eq!(digest(&image.digest, &reply.body), image.digest);
    assert_eq!(reply.cache_status(), "roadstead; hit; detail=offline");
    assert!(get(roadstead.at(), &layer).send().await.complete);
    let reply = get_tag(&roadstead, "library/unseen").await;
    assert_eq!((reply.status, reply.error_code().as_str()), (503, "UNAVAILABLE"));
    assert!(reply.text().contains("offline"), "{}", reply.text());
    assert!(reply.header("retry-after").is_some());
    let reply = get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
    assert_eq!((reply.status, reply.json()["tags"].clone()), (200, json!(["latest"])));
    assert_eq!(reply.cache_status(), "roadstead; hit; detail=offline+known-tags");
    let reply = get(roadstead.at(), "/v2/library/unseen/tags/list").send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (503, "UNAVAILABLE"));
    let reply = get(roadstead.at(), "/v2/_catalog").send().await;
    assert_eq!(reply.status, 503);
    assert_eq!(hub.stats().requests(), 0);

    let refused = switch(&roadstead, json!({ "offline": false, "upstream": "quay.io" })).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    let reply = switch(&roadstead, json!({ "offline": false, "upstream": "docker.io" })).await;
    assert_eq!(reply.json()["upstreams"][0]["offline"], json!(false));
    assert_eq!(get_tag(&roadstead, "library/unseen").await.status, 200);
}

#[tokio::test]
async fn an_upstream_can_be_offline_from_the_start() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let setup = Setup::of(&hub).with("offline", true).with("budget", json!({}));
    let mut roadstead = setup.start().await;
    assert_eq!(get_tag(&roadstead, NAME).await.status, 503);
    assert_eq!(hub.stats().requests(), 0);
    assert!(roadstead.terminate().await.success());
    roadstead.restart_with(|setup| setup.with("offline", false)).await;
    assert_eq!(get_tag(&roadstead, NAME).await.status, 200);
}

async fn switch(roadstead: &Roadstead, body: serde_json::Value) -> Reply {
    let (at, body) = (roadstead.admin(), body.to_string());
    let head = format!(
        "POST /api/v1/offline HTTP/1.1\r\nHost: {at}\r\nX-Roadstead: 1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = crate::client::Connection::open(at).await.unwrap();
    connection.write(head.as_bytes()).await.unwrap();
    connection.answer(false).await.unwrap().finish().await
}

// === prefix ===

#[tokio::test]
async fn a_prefix_stands_before_every_name_there() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new("dockerhub-proxy/library/alpine").tag("latest").single());
    let roadstead = Setup::of(&hub).with("prefix", "dockerhub-proxy").start().await;
    let reply = get_tag(&roadstead, "alpine").await;
    assert_eq!(digest(&image.digest, &reply.body), image.digest);
    let layer = blob_path(NAME, &image.layers[0].digest);
    assert!(get(roadstead.at(), layer).send().await.complete);
    let reply = get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn an_upstream_with_a_prefix_does_not_answer_for_its_host() {
    let (first, harbor) = (Hub::start().await, Hub::start().await);
    harbor.push(&ImageSpec::new("hub/team/app").tag("1"));
    let keys = json!({ "prefix": "hub" });
    let roadstead = Setup::of(&first).also("hub", &harbor, keys).start().await;
    let path = "/v2/team/app/manifests/1";
    let url = harbor.registry_url();
    let (_, host) = url.split_once("://").unwrap();
    let reply = get(roadstead.at(), format!("{path}?ns={host}")).send().await;
    assert_ne!(reply.status, 200, "{host}/team/app is another image than {host}/hub/team/app");
    assert_eq!(get(roadstead.at(), format!("{path}?ns=hub")).send().await.status, 200);
    assert_eq!(get(roadstead.at(), "/v2/hub/team/app/manifests/1").send().await.status, 200);
}
