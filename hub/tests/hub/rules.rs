//! What Docker Hub does when all goes well.

use std::collections::HashSet;
use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use hub::{Account, Counting, Hub, ImageSpec, Options, sha256, sha512};
use serde_json::json;

use crate::client::{bearer, bearer_as, cdn_path, get, manifest, send};

const ALPINE: &str = "library/alpine";

async fn hub_with(options: Options) -> Hub {
    let hub = Hub::start_with(options).await.unwrap();
    hub.push(&ImageSpec::new(ALPINE).tag("latest"));
    hub
}

#[tokio::test]
async fn head_is_free_and_get_is_counted_even_at_304() {
    let hub = hub_with(Options { limit: Some(3), ..Options::default() }).await;
    let head = manifest(&hub, "HEAD", ALPINE, "latest").await;
    assert_eq!(head.header("ratelimit-remaining"), Some("3;w=21600"));
    assert_eq!(head.header("ratelimit-limit"), Some("3;w=21600"));
    assert_eq!(head.header("docker-ratelimit-source"), Some("127.0.0.1"));

    let got = manifest(&hub, "GET", ALPINE, "latest").await;
    assert_eq!(got.header("ratelimit-remaining"), Some("2;w=21600"));
    let digest = got.header("docker-content-digest").unwrap();
    assert_eq!((digest, head.length()), (&*sha256(&got.body), got.body.len() as u64));

    let bearer = bearer(&hub, ALPINE).await;
    let headers = [("Authorization", &*bearer), ("If-None-Match", got.header("etag").unwrap())];
    let same = get(hub.registry(), "/v2/library/alpine/manifests/latest", &headers).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(same.header("ratelimit-remaining"), Some("1;w=21600"));
    assert_eq!(hub.stats().counted, 2);
}

#[tokio::test]
async fn at_zero_get_is_refused_and_head_still_answers() {
    let hub = hub_with(Options::default()).await;
    hub.set_budget(None, 0);
    let refused = manifest(&hub, "GET", ALPINE, "latest").await;
    assert_eq!((refused.status, refused.header("content-type")), (429, Some("application/json")));
    assert_eq!(refused.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(manifest(&hub, "HEAD", ALPINE, "latest").await.status, 200);
    assert_eq!(hub.stats().refused_429, 1);
}

#[tokio::test]
async fn each_source_and_each_account_has_its_own_budget() {
    let accounts = vec![Account::new("ann", "pw"), Account::new("paid", "pw").unlimited()];
    let hub = hub_with(Options { limit: Some(1), accounts, ..Options::default() }).await;
    let anonymous = bearer(&hub, ALPINE).await;
    let ann = bearer_as(&hub, "ann", "pw", ALPINE).await;
    let paid = bearer_as(&hub, "paid", "pw", ALPINE).await;
    let mut remaining = Vec::new();
    for (bearer, source) in
        [(&anonymous, "a"), (&anonymous, "a"), (&anonymous, "b"), (&ann, "a"), (&paid, "a")]
    {
        let headers = [("Authorization", bearer.as_str()), ("X-Hub-Source", source)];
        let reply = get(hub.registry(), "/v2/library/alpine/manifests/latest", &headers).await;
        let left = reply.header("ratelimit-remaining").map(|text| text.replace(";w=21600", ""));
        remaining.push((reply.status, left.unwrap_or_default()));
    }
    let wanted = [(200, "0"), (429, "0"), (200, "0"), (200, "199"), (200, "")];
    assert_eq!(remaining, wanted.map(|(status, left)| (status, left.to_owned())));
}

#[tokio::test]
async fn an_index_and_its_child_are_one_pull_where_images_are_counted() {
    let options = Options { counting: Counting::PerImage, ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    let image = hub.push(&ImageSpec::new(ALPINE).tag("latest"));
    manifest(&hub, "GET", ALPINE, "latest").await;
    manifest(&hub, "GET", ALPINE, &image.manifests[0].digest).await;
    assert_eq!((hub.stats().counted, hub.stats().manifest_get), (1, 2));
}

#[tokio::test]
async fn a_token_opens_its_own_repository_until_it_expires() {
    let hub = hub_with(Options::default()).await;
    hub.push(&ImageSpec::new("library/ubuntu").tag("latest"));
    let path = "/v2/library/alpine/manifests/latest";
    let none = get(hub.registry(), path, &[]).await;
    let realm = hub.token_realm();
    let challenge = format!(
        "Bearer realm=\"{realm}\",service=\"registry.docker.io\",scope=\"repository:library/alpine:pull\""
    );
    assert_eq!((none.status, none.header("www-authenticate")), (401, Some(&*challenge)));

    let other = bearer(&hub, "library/ubuntu").await;
    assert_eq!(get(hub.registry(), path, &[("Authorization", &other)]).await.status, 401);
    let own = bearer(&hub, ALPINE).await;
    assert_eq!(get(hub.registry(), path, &[("Authorization", &own)]).await.status, 200);
    assert_eq!(get(hub.registry(), "/v2/", &[("Authorization", &own)]).await.status, 200);
    hub.expire_tokens();
    assert_eq!(get(hub.registry(), path, &[("Authorization", &own)]).await.status, 401);
    assert_eq!((hub.manifest_gets("latest"), hub.stats().manifest_get), (1, 4));
}

#[tokio::test]
async fn a_token_outlives_its_lifetime_by_nothing() {
    let hub = hub_with(Options { token_lifetime: Duration::ZERO, ..Options::default() }).await;
    let bearer = bearer(&hub, ALPINE).await;
    assert_eq!(get(hub.registry(), "/v2/", &[("Authorization", &bearer)]).await.status, 401);
}

#[tokio::test]
async fn the_unknown_and_the_private_look_alike_to_strangers() {
    let options = Options {
        accounts: vec![Account::new("ann", "pw")],
        private: vec!["ann/secret".to_owned()],
        ..Options::default()
    };
    let hub = hub_with(options).await;
    hub.push(&ImageSpec::new("ann/secret").tag("latest"));
    assert_eq!(manifest(&hub, "GET", "ann/secret", "latest").await.status, 401);
    assert_eq!(manifest(&hub, "GET", "library/nothing", "latest").await.status, 401);
    assert_eq!(manifest(&hub, "GET", ALPINE, "nothing").await.status, 404);
    for (name, status) in [("ann/secret", 200), ("library/nothing", 404)] {
        let ann = bearer_as(&hub, "ann", "pw", name).await;
        let path = format!("/v2/{name}/manifests/latest");
        let reply = get(hub.registry(), &path, &[("Authorization", &ann)]).await;
        assert_eq!(reply.status, status, "{name}");
    }
    let wrong = get(hub.token(), "/token", &[("Authorization", "Basic YW5uOm5v")]).await;
    assert_eq!(wrong.status, 401);
}

#[tokio::test]
async fn the_cdn_takes_its_own_signature_and_no_credentials() {
    let hub = Hub::start().await;
    let digest = hub.put_blob(ALPINE, Bytes::from_static(b"0123456789"));
    let path = cdn_path(&hub, ALPINE, &digest).await;
    assert_eq!(get(hub.cdn(), &path, &[]).await.body, b"0123456789");
    let bearer = bearer(&hub, ALPINE).await;
    assert_eq!(get(hub.cdn(), &path, &[("Authorization", &bearer)]).await.status, 400);
    assert_eq!(get(hub.cdn(), &path.replace("sig=", "sig=0"), &[]).await.status, 403);
    let part = get(hub.cdn(), &path, &[("Range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 2-4/10")));
    assert_eq!(part.body, b"234");
    assert_eq!(get(hub.cdn(), &path, &[("Range", "bytes=10-")]).await.status, 416);
    let head = send(hub.cdn(), "HEAD", &path, &[], "").await.unwrap();
    assert_eq!((head.status, head.length(), head.body.len()), (200, 10, 0));
    hub.expire_urls();
    assert_eq!(get(hub.cdn(), &path, &[]).await.status, 403);
    assert_eq!((hub.blob_gets(&digest), hub.stats().blob_get), (6, 1));
}

#[tokio::test]
async fn a_signed_url_expires() {
    let hub = hub_with(Options { url_lifetime: Duration::ZERO, ..Options::default() }).await;
    let digest = hub.put_blob(ALPINE, Bytes::from_static(b"late"));
    let path = cdn_path(&hub, ALPINE, &digest).await;
    assert_eq!(get(hub.cdn(), &path, &[]).await.status, 403);
}

#[tokio::test]
async fn an_image_hangs_together_from_tag_to_unpacked_layer() {
    let oci = ImageSpec::new(ALPINE);
    for (spec, children) in [(oci.clone(), 4), (oci.clone().sha512_layers(), 4), (oci.docker(), 2)]
    {
        let hub = Hub::start().await;
        let image = hub.push(&spec.tag("latest"));
        let index = manifest(&hub, "GET", ALPINE, "latest").await;
        assert_eq!(index.header("content-type"), Some(&*image.media_type));
        assert_eq!(index.json()["manifests"].as_array().unwrap().len(), children);

        let child = manifest(&hub, "GET", ALPINE, &image.manifests[0].digest).await.json();
        let config = blob(&hub, &child["config"]).await;
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        for number in 0..3 {
            let packed = blob(&hub, &child["layers"][number]).await;
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&*packed).read_to_end(&mut tar).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][number], sha256(&tar));
            assert_eq!(tar::Archive::new(&*tar).entries().unwrap().count(), 3);
        }
    }
}

#[tokio::test]
async fn an_index_ends_with_attestations_of_its_children() {
    let hub = Hub::start().await;
    let image = hub.push(&ImageSpec::new(ALPINE).tag("latest"));
    let index = manifest(&hub, "GET", ALPINE, "latest").await.json();
    for number in [0, 1] {
        let entry = &index["manifests"][2 + number];
        assert_eq!(entry["platform"], json!({ "os": "unknown", "architecture": "unknown" }));
        let notes = &entry["annotations"];
        assert_eq!(notes["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(notes["vnd.docker.reference.digest"], image.manifests[number].digest);
        let digest = &image.attestations[number].digest;
        let attestation = manifest(&hub, "GET", ALPINE, digest).await.json();
        assert_eq!(attestation["layers"][0]["mediaType"], "application/vnd.in-toto+json");
    }
}

async fn blob(hub: &Hub, descriptor: &serde_json::Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let path = cdn_path(hub, ALPINE, digest).await;
    let body = get(hub.cdn(), &path, &[]).await.body;
    let found = if digest.starts_with("sha512:") { sha512(&body) } else { sha256(&body) };
    assert_eq!((found.as_str(), json!(body.len())), (digest, descriptor["size"].clone()));
    body
}

#[tokio::test]
async fn two_repositories_share_blobs_only_when_given_one_seed() {
    let hub = Hub::start().await;
    let digests = |spec: ImageSpec| -> HashSet<String> {
        hub.push(&spec).layers.into_iter().map(|layer| layer.digest).collect()
    };
    let (a, b) = (digests(ImageSpec::new("a/a")), digests(ImageSpec::new("b/b")));
    assert!(a.is_disjoint(&b));
    let (a, b) = (digests(ImageSpec::new("a/a").seed(7)), digests(ImageSpec::new("b/b").seed(7)));
    assert_eq!(a, b);
}

#[tokio::test]
async fn tags_come_in_pages_and_referrers_by_subject() {
    let hub =
        Hub::start_with(Options { require_token: false, ..Options::default() }).await.unwrap();
    let image = hub.push(&ImageSpec::new(ALPINE).tag("1").tag("2").tag("3").single());
    let page = get(hub.registry(), "/v2/library/alpine/tags/list?n=2", &[]).await;
    assert_eq!(page.json()["tags"], json!(["1", "2"]));
    let link = page.header("link").unwrap();
    assert_eq!(link, "</v2/library/alpine/tags/list?last=2&n=2>; rel=\"next\"");
    let rest = get(hub.registry(), "/v2/library/alpine/tags/list?last=2&n=2", &[]).await;
    assert_eq!((rest.json()["tags"].clone(), rest.header("link")), (json!(["3"]), None));

    let path = format!("/v2/library/alpine/referrers/{}", image.digest);
    assert_eq!(get(hub.registry(), &path, &[]).await.json()["manifests"], json!([]));
    let body = json!({ "artifactType": "a/b", "subject": { "digest": image.digest } }).to_string();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let digest = hub.put_manifest(ALPINE, None, media_type, Bytes::from(body));
    let listed = get(hub.registry(), &path, &[]).await.json();
    assert_eq!(listed["manifests"][0]["digest"], digest);
    assert_eq!(get(hub.registry(), "/v2/_catalog", &[]).await.status, 401);
}

#[tokio::test]
async fn the_control_endpoints_do_what_the_library_does_and_are_not_counted() {
    let hub = Hub::start().await;
    let spec = json!({ "repository": ALPINE, "tags": ["latest"], "layers": 1 }).to_string();
    let fault =
        json!({ "target": { "scope": "manifests" }, "action": { "status": 503 }, "times": 1 });
    let budget = json!({ "remaining": 5 }).to_string();
    for (path, body) in [("images", &*spec), ("faults", &*fault.to_string()), ("budget", &*budget)]
    {
        let json = [("Content-Type", "application/json")];
        let reply =
            send(hub.registry(), "POST", &format!("/_hub/{path}"), &json, body).await.unwrap();
        assert!(reply.status < 300, "{path}: {reply:?}");
    }
    assert_eq!(hub.stats().requests(), 0);
    assert_eq!(manifest(&hub, "GET", ALPINE, "latest").await.status, 503);
    assert_eq!(manifest(&hub, "GET", ALPINE, "latest").await.status, 200);
    let stats = get(hub.registry(), "/_hub/stats", &[]).await.json();
    assert_eq!((&stats["manifest_get"], &stats["remaining"]["127.0.0.1"]), (&json!(2), &json!(4)));
    let log = get(hub.registry(), "/_hub/requests", &[]).await.json();
    assert_eq!((&log[1]["kind"], &log[1]["status"]), (&json!("manifest_get"), &json!(503)));
}

#[tokio::test]
async fn the_last_handle_to_go_ends_the_servers() {
    let hub = Hub::start().await;
    let (address, again) = (hub.registry(), hub.clone());
    drop(hub);
    assert_eq!(get(address, "/v2/", &[]).await.status, 401);
    drop(again);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
