//! Answers as RFC 9110 and the distribution specification want them.

use std::collections::BTreeMap;

use bytes::Bytes;
use hub::{Account, Hub, Image, ImageSpec, Options, Target};

use crate::client::{Reply, get, head, request};
use crate::pull::{accepting, blob_path, digest, get_manifest, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "library/alpine";
const MIB: usize = 1 << 20;
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

struct Stage {
    hub: Hub,
    roadstead: Roadstead,
    image: Image,
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        Self::of(ImageSpec::new(NAME).tag("latest")).await
    }

    async fn of(spec: ImageSpec) -> Self {
        let hub = Hub::start().await;
        let image = hub.push(&spec);
        let roadstead = Roadstead::start(&hub).await;
        Self { hub, roadstead, image }
    }

    /// A blob of these bytes, cached already.
    async fn warm(&self, body: &Bytes) -> String {
        let digest = self.hub.put_blob(NAME, body.clone());
        let reply = get(self.roadstead.at(), blob_path(NAME, &digest)).send().await;
        assert_eq!((reply.status, reply.complete), (200, true));
        assert_eq!(&reply.body, body, "the first answer");
        self.roadstead.settled().await;
        digest
    }

    async fn range(&self, digest: &str, range: &str) -> Reply {
        let request = get(self.roadstead.at(), blob_path(NAME, digest));
        request.header("Range", range).send().await
    }
}

/// Bytes of which no two pieces look alike.
fn numbers(count: usize) -> Bytes {
    (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn object_headers(reply: &Reply, digest: &str) {
    assert_eq!(reply.header("docker-content-digest"), Some(digest));
    assert_eq!(reply.header("etag"), Some(format!("\"{digest}\"").as_str()));
    assert!(reply.cache_status().starts_with("roadstead; "), "{reply:?}");
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
}

// === manifests ===

#[tokio::test]
async fn the_api_s_root_answers_an_empty_object() {
    let stage = Stage::set().await;
    for path in ["/v2/", "/v2"] {
        let reply = get(stage.roadstead.at(), path).send().await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(reply.text(), "{}", "{path}");
    }
    assert_eq!(stage.hub.stats().requests(), 0);
}

#[tokio::test]
async fn head_and_get_of_a_manifest_are_alike() {
    let stage = Stage::set().await;
    for warm in [false, true] {
        for reference in ["latest", &stage.image.digest] {
            let path = manifest_path(NAME, reference);
            let headed = accepting(head(stage.roadstead.at(), &path)).send().await;
            assert_eq!((headed.status, headed.body.len()), (200, 0));
            if !warm {
                assert_eq!(stage.hub.stats().counted, u64::from(reference != "latest"));
            }
            let got = accepting(get(stage.roadstead.at(), &path)).send().await;
            assert_eq!(hub::sha256(&got.body), stage.image.digest);
            for reply in [&headed, &got] {
                object_headers(reply, &stage.image.digest);
                assert_eq!(reply.header("content-type"), Some(&*stage.image.media_type));
                assert_eq!(reply.length(), Some(got.body.len() as u64));
                let expected = if reference == "latest" { "no-cache" } else { IMMUTABLE };
                assert_eq!(reply.header("cache-control"), Some(expected));
            }
        }
    }
    assert_eq!(stage.hub.stats().counted, 1);
}

#[tokio::test]
async fn a_head_of_what_is_not_cached_spends_nothing() {
    let stage = Stage::set().await;
    for reference in ["latest", &stage.image.digest] {
        let path = manifest_path(NAME, reference);
        let reply = accepting(head(stage.roadstead.at(), &path)).send().await;
        assert_eq!(reply.status, 200);
        object_headers(&reply, &stage.image.digest);
    }
    assert_eq!((stage.hub.stats().counted, stage.hub.stats().manifest_get), (0, 0));
}

#[tokio::test]
async fn a_client_that_has_it_gets_a_304() {
    let stage = Stage::set().await;
    pull(stage.roadstead.at(), NAME, "latest").await;
    stage.roadstead.settled().await;
    let (index, layer) = (&stage.image.digest, &stage.image.layers[0].digest);
    let paths = [
        (manifest_path(NAME, "latest"), index),
        (manifest_path(NAME, index), index),
        (blob_path(NAME, layer), layer),
    ];
    for (path, digest) in &paths {
        for method in ["GET", "HEAD"] {
            for tags in [format!("\"{digest}\""), format!("W/\"x\", W/\"{digest}\""), "*".into()] {
                let ask = accepting(request(stage.roadstead.at(), method, path));
                let reply = ask.header("If-None-Match", &tags).send().await;
                assert_eq!((reply.status, reply.body.len()), (304, 0), "{path} {tags}");
                assert_eq!(reply.header("etag"), Some(format!("\"{digest}\"").as_str()));
            }
            let ask = accepting(request(stage.roadstead.at(), method, path));
            let reply = ask.header("If-None-Match", "\"other\"").send().await;
            assert_eq!(reply.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn an_old_client_gets_the_manifest_for_linux_amd64() {
    let stage = Stage::of(ImageSpec::new(NAME).tag("latest").docker()).await;
    let amd64 = &stage.image.manifests[0];
    for method in ["GET", "HEAD", "GET"] {
        let ask = request(stage.roadstead.at(), method, manifest_path(NAME, "latest"));
        let reply = ask.header("Accept", &amd64.media_type).send().await;
        assert_eq!(reply.status, 200);
        if method == "GET" {
            object_headers(&reply, &amd64.digest);
            assert_eq!(hub::sha256(&reply.body), amd64.digest);
            assert_eq!(reply.header("content-type"), Some(&*amd64.media_type));
        }
    }
    // Whoever accepts the list gets it, in whatever order and lines it says so.
    let reply = get_manifest(stage.roadstead.at(), NAME, "latest").send().await;
    object_headers(&reply, &stage.image.digest);
}

#[tokio::test]
async fn an_old_client_s_head_tells_what_its_get_will_bring() {
    let stage = Stage::of(ImageSpec::new(NAME).tag("latest").docker()).await;
    pull(stage.roadstead.at(), NAME, "latest").await;
    let amd64 = &stage.image.manifests[0];
    let ask = head(stage.roadstead.at(), manifest_path(NAME, "latest"));
    let reply = ask.header("Accept", &amd64.media_type).send().await;
    object_headers(&reply, &amd64.digest);
}

#[tokio::test]
async fn a_manifest_above_the_limit_is_refused_with_its_size() {
    let stage = Stage::set().await;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut body = br#"{"schemaVersion":2,"layers":[],"annotations":{"a":""#.to_vec();
    body.resize(4 * MIB + 1, b'x');
    body.extend(b"\"}}");
    let big = stage.hub.put_manifest(NAME, Some("big"), media_type, body.into());
    for reference in ["big", &big] {
        let reply = get_manifest(stage.roadstead.at(), NAME, reference).send().await;
        assert_eq!(reply.error_code(), "SIZE_INVALID", "{reply:?}");
        assert!((400..600).contains(&reply.status));
    }
    stage.roadstead.settled().await;
    assert!(stage.roadstead.stored().is_empty());
}

#[tokio::test]
async fn the_namespace_is_echoed() {
    let stage = Stage::set().await;
    for path in [manifest_path(NAME, "latest"), blob_path(NAME, &stage.image.layers[0].digest)] {
        let path = format!("{path}?ns=docker.io");
        let reply = accepting(get(stage.roadstead.at(), path)).send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("oci-namespace"), Some("docker.io"));
    }
    let path = format!("{}?ns=example.com", manifest_path(NAME, "latest"));
    let reply = get(stage.roadstead.at(), path).send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "NAME_UNKNOWN"));
}

#[tokio::test]
async fn a_short_name_means_the_library_and_a_first_part_the_upstream() {
    let stage = Stage::set().await;
    for name in ["alpine", "docker.io/alpine", "docker.io/library/alpine"] {
        let pulled = pull(stage.roadstead.at(), name, "latest").await;
        assert_eq!(pulled.digest, stage.image.digest, "{name}");
    }
    assert_eq!(stage.hub.stats().counted, 2);
}

// === blobs ===

#[tokio::test]
async fn head_and_get_of_a_blob_are_alike() {
    let stage = Stage::set().await;
    let layer = &stage.image.layers[0];
    let path = blob_path(NAME, &layer.digest);
    for _ in 0..2 {
        let headed = head(stage.roadstead.at(), &path).send().await;
        assert_eq!((headed.status, headed.body.len()), (200, 0));
        let got = get(stage.roadstead.at(), &path).send().await;
        assert_eq!(digest(&layer.digest, &got.body), layer.digest);
        for reply in [&headed, &got] {
            object_headers(reply, &layer.digest);
            assert_eq!(reply.length(), Some(layer.size));
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
            assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
            assert_eq!(reply.header("cache-control"), Some(IMMUTABLE));
        }
        stage.roadstead.settled().await;
    }
    assert_eq!(stage.hub.blob_gets(&layer.digest), 1);
}

#[tokio::test]
async fn a_head_of_a_cold_blob_fetches_nothing() {
    let stage = Stage::of(ImageSpec::new(NAME).layers(1).layer_size(4 * MIB)).await;
    let layer = &stage.image.layers[0];
    let reply = head(stage.roadstead.at(), blob_path(NAME, &layer.digest)).send().await;
    assert_eq!((reply.status, reply.length()), (200, Some(layer.size)));
    let requests = stage.hub.requests();
    let gets = requests.iter().filter(|one| one.kind == hub::Kind::CdnGet);
    for one in gets {
        assert_eq!(one.range.as_deref(), Some("bytes=0-0"));
    }
    assert!(stage.hub.stats().bytes_sent < 64 << 10);
    assert!(stage.roadstead.stored().is_empty());
}

#[tokio::test]
async fn blobs_of_every_awkward_size_arrive() {
    let stage = Stage::set().await;
    let held_back = 64 << 10;
    for size in [0, 1, held_back - 1, held_back, held_back + 1, 2 * held_back, MIB + 1] {
        let body = numbers(size);
        let digest = stage.warm(&body).await;
        let path = blob_path(NAME, &digest);
        let reply = get(stage.roadstead.at(), &path).send().await;
        assert_eq!((reply.status, reply.length()), (200, Some(size as u64)), "{size}");
        assert_eq!(reply.body, body, "{size}");
        assert_eq!(reply.cache_status(), "roadstead; hit", "{size}");
        let reply = head(stage.roadstead.at(), &path).send().await;
        assert_eq!(reply.length(), Some(size as u64), "{size}");
        let reply = stage.range(&digest, "bytes=0-").await;
        let expected = if size == 0 { 200 } else { 206 };
        assert_eq!(reply.status, expected, "{size}");
        assert_eq!(reply.body, body, "{size}");
    }
    stage.roadstead.assert_all_stored_is_right();
}

#[tokio::test]
async fn sha512_blobs_are_served_and_stored_as_such() {
    let spec = ImageSpec::new(NAME).tag("latest").sha512_layers();
    let mut stage = Stage::of(spec).await;
    let pulled = pull(stage.roadstead.at(), NAME, "latest").await;
    assert!(pulled.blobs[1].starts_with("sha512:"));
    stage.roadstead.settled().await;
    stage.roadstead.assert_all_stored_is_right();
    assert!(stage.roadstead.stored().contains_key(&pulled.blobs[1]));
    let gets = stage.hub.stats().cdn_get;
    assert!(stage.roadstead.terminate().await.success());
    stage.roadstead.restart().await;
    assert_eq!(pull(stage.roadstead.at(), NAME, "latest").await, pulled);
    assert_eq!(stage.hub.stats().cdn_get, gets);
}

#[tokio::test]
async fn single_ranges_of_a_blob() {
    let stage = Stage::set().await;
    for body in [numbers(1000), numbers(MIB)] {
        let size = body.len();
        let digest = stage.warm(&body).await;
        let cases = [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=10-19".to_owned(), 10, 20),
            ("bytes=500-".to_owned(), 500, size),
            ("bytes=-100".to_owned(), size - 100, size),
            (format!("bytes=-{}", size + 5), 0, size),
            (format!("bytes=900-{}", size + 5), 900, size),
            (format!("bytes={}-", size - 1), size - 1, size),
        ];
        for (range, from, to) in cases {
            let reply = stage.range(&digest, &range).await;
            assert_eq!(reply.status, 206, "{range}");
            assert_eq!(reply.body, body.slice(from..to), "{range}");
            let expected = format!("bytes {from}-{}/{size}", to - 1);
            assert_eq!(reply.header("content-range"), Some(expected.as_str()));
            object_headers(&reply, &digest);
        }
        for range in [format!("bytes={size}-"), "bytes=-0".to_owned()] {
            let reply = stage.range(&digest, &range).await;
            assert_eq!((reply.status, reply.body.len()), (416, 0), "{range}");
            assert_eq!(reply.header("content-range"), Some(format!("bytes */{size}").as_str()));
        }
        // What is no range of bytes is ignored (RFC 9110 §14.2).
        for range in ["bytes=5-2", "lines=1-2", "bytes=a-b", "bytes"] {
            let reply = stage.range(&digest, range).await;
            assert_eq!((reply.status, reply.body.len()), (200, size), "{range}");
        }
    }
}

#[tokio::test]
async fn several_ranges_of_a_blob() {
    let stage = Stage::set().await;
    let body = numbers(MIB);
    let digest = stage.warm(&body).await;
    let reply = stage.range(&digest, "bytes=0-9,1000-1999,-5").await;
    assert_eq!(reply.status, 206);
    assert_eq!(reply.length(), Some(reply.body.len() as u64));
    let content_type = reply.header("content-type").unwrap().to_owned();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let expected = [(0, 10), (1000, 2000), (MIB - 5, MIB)];
    let parts: BTreeMap<_, _> = parts(&reply.body, boundary.trim_matches('"'));
    assert_eq!(parts.len(), 3);
    for (from, to) in expected {
        let range = format!("bytes {from}-{}/{MIB}", to - 1);
        assert_eq!(parts[&range], body.slice(from..to), "{range}");
    }
}

/// The parts by their `Content-Range`.
fn parts(body: &[u8], boundary: &str) -> BTreeMap<String, Vec<u8>> {
    let delimiter = format!("--{boundary}");
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what);
    let mut rest = &body[find(body, delimiter.as_bytes()).unwrap() + delimiter.len()..];
    let mut parts = BTreeMap::new();
    while !rest.starts_with(b"--") {
        let end = find(rest, format!("\r\n{delimiter}").as_bytes()).unwrap();
        let part = &rest[2..end];
        let head = find(part, b"\r\n\r\n").unwrap();
        let range = String::from_utf8_lossy(&part[..head])
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-range"))
            .map(|(_, value)| value.to_owned());
        parts.insert(range.unwrap(), part[head + 4..].to_vec());
        rest = &rest[end + 2 + delimiter.len()..];
    }
    parts
}

#[tokio::test]
async fn if_range_makes_a_range_void_where_the_blob_is_another() {
    let stage = Stage::set().await;
    let body = numbers(5000);
    let digest = stage.warm(&body).await;
    for (tag, status) in [
        (format!("\"{digest}\""), 206),
        (format!("W/\"{digest}\""), 200),
        ("\"other\"".to_owned(), 200),
        ("Tue, 24 Nov 2026 00:00:00 GMT".to_owned(), 200),
    ] {
        let ask = get(stage.roadstead.at(), blob_path(NAME, &digest));
        let reply = ask.header("Range", "bytes=10-19").header("If-Range", &tag).send().await;
        assert_eq!(reply.status, status, "{tag}");
        let expected = if status == 206 { body.slice(10..20) } else { body.clone() };
        assert_eq!(reply.body, expected, "{tag}");
    }
}

#[tokio::test]
async fn ranges_of_a_running_fill_wait_for_their_bytes() {
    let stage = Stage::set().await;
    let body = numbers(2 * MIB);
    let digest = stage.hub.put_blob(NAME, body.clone());
    let gate = stage.hub.gate(Target::blob(&digest), MIB as u64);
    let path = blob_path(NAME, &digest);
    let whole = tokio::spawn(get(stage.roadstead.at(), &path).send());
    gate.waiting().await;

    // What is there is served while the rest is held back.
    let reply = stage.range(&digest, "bytes=1000-1999").await;
    assert_eq!((reply.status, reply.body.as_slice()), (206, &body[1000..2000]));
    let size = 2 * MIB;
    let later = format!("bytes={}-{}", size - 1000, size - 1);
    let ask = get(stage.roadstead.at(), &path).header("Range", later);
    let waiting = tokio::spawn(ask.send());
    let ask = get(stage.roadstead.at(), &path).header("Range", format!("bytes={size}-"));
    assert_eq!(ask.send().await.status, 416);
    let headed = head(stage.roadstead.at(), &path).send().await;
    assert_eq!(headed.length(), Some(size as u64));
    assert!(!waiting.is_finished(), "bytes that upstream has not sent");
    gate.open();
    let reply = waiting.await.unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (206, &body[size - 1000..]));
    assert_eq!(whole.await.unwrap().body, body);
    assert_eq!(stage.hub.blob_gets(&digest), 1);
}

#[tokio::test]
async fn eight_ranges_of_a_cold_blob_cost_its_bytes_once() {
    let stage = Stage::set().await;
    let body = numbers(4 * MIB);
    let digest = stage.hub.put_blob(NAME, body.clone());
    let ask = |part: usize| {
        let (from, to) = (part * MIB / 2, (part + 1) * MIB / 2 - 1);
        get(stage.roadstead.at(), blob_path(NAME, &digest))
            .header("Range", format!("bytes={from}-{to}"))
            .send()
    };
    let mut asked = tokio::task::JoinSet::new();
    for part in 0..8 {
        let reply = ask(part);
        asked.spawn(async move { (part, reply.await) });
    }
    for (part, reply) in asked.join_all().await {
        assert_eq!((reply.status, reply.complete), (206, true));
        assert_eq!(reply.body, body.slice(part * MIB / 2..(part + 1) * MIB / 2));
    }
    let sent = stage.hub.stats().bytes_sent;
    assert!(sent < 5 * MIB as u64, "{sent} bytes of 4 MiB");
}

#[tokio::test]
async fn a_blob_known_elsewhere_costs_a_free_head_and_never_leaks() {
    let stage = Stage::set().await;
    let body = numbers(MIB);
    for name in ["team/has", "team/lacks"] {
        stage.hub.push(&ImageSpec::new(name).tag("latest"));
    }
    let digest = stage.warm(&body).await;
    stage.hub.put_blob("team/has", body.clone());
    let gets = stage.hub.stats().cdn_get;

    for _ in 0..2 {
        let path = blob_path("team/has", &digest);
        let reply = get(stage.roadstead.at(), path).send().await;
        assert_eq!((reply.status, reply.body.len()), (200, MIB));
        assert_eq!(stage.hub.stats().cdn_get, gets, "it was fetched again");
    }
    assert_eq!(stage.hub.stats().cdn_head, 1, "asked for more than once");
    for method in ["GET", "HEAD"] {
        let path = blob_path("team/lacks", &digest);
        let reply = request(stage.roadstead.at(), method, path).send().await;
        assert_eq!(reply.status, 404, "{method}");
    }
}

#[tokio::test]
async fn a_manifest_known_elsewhere_costs_a_free_head() {
    let stage = Stage::set().await;
    pull(stage.roadstead.at(), NAME, "latest").await;
    stage.hub.push(&ImageSpec::new("team/copy").tag("latest").seed(3));
    let shared = ImageSpec::new("team/one").tag("latest").seed(5);
    let one = stage.hub.push(&shared);
    let copy = ImageSpec::new("team/two").tag("latest").seed(5);
    let two = stage.hub.push(&copy.without_attestations());
    assert_eq!(one.manifests[0].digest, two.manifests[0].digest);
    pull(stage.roadstead.at(), "team/one", "latest").await;
    let counted = stage.hub.stats().counted;
    let child = &one.manifests[0].digest;
    let reply = get_manifest(stage.roadstead.at(), "team/two", child).send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(stage.hub.stats().counted, counted, "the child was fetched again");
    let reply = get_manifest(stage.roadstead.at(), "team/copy", child).send().await;
    assert_eq!(reply.status, 404);
}

// === credentials ===

async fn private(password: &str) -> (Hub, Image, Roadstead) {
    let options = Options {
        accounts: vec![Account::new("alice", "correct horse")],
        private: vec!["acme/secret".to_owned()],
        ..Options::default()
    };
    let hub = Hub::start_with(options).await.unwrap();
    let image = hub.push(&ImageSpec::new("acme/secret").tag("latest"));
    let account = serde_json::json!([{ "username": "alice", "password": password }]);
    let setup = Setup::of(&hub).with("credentials.accounts", account);
    let roadstead = setup.start().await;
    (hub, image, roadstead)
}

#[tokio::test]
async fn a_private_repository_is_pulled_with_the_configured_account() {
    let (hub, image, roadstead) = private("correct horse").await;
    let pulled = pull(roadstead.at(), "acme/secret", "latest").await;
    assert_eq!(pulled.digest, image.digest);
    assert_eq!(hub.stats().remaining.get("alice"), Some(&198));
    let requests = hub.requests();
    let leaked = requests.iter().filter(|one| one.path.starts_with("/registry-v2/"));
    assert!(leaked.clone().count() > 0);
    assert_eq!(leaked.filter(|one| one.authorization).count(), 0, "the CDN saw a credential");
    let reply = get_manifest(roadstead.at(), "acme/secret", &image.digest).send().await;
    assert!(reply.header("cache-control").unwrap().starts_with("private"));
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_401() {
    let (_hub, _, roadstead) = private("battery staple").await;
    let reply = get_manifest(roadstead.at(), "acme/secret", "latest").send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHORIZED"));
    assert!(reply.text().contains("alice"), "{}", reply.text());
    assert!(!reply.text().contains("battery"), "{}", reply.text());
}

#[tokio::test]
async fn a_client_s_own_authorization_goes_nowhere() {
    let stage = Stage::set().await;
    for path in [
        manifest_path(NAME, "latest"),
        blob_path(NAME, &stage.image.layers[0].digest),
        format!("/v2/{NAME}/tags/list"),
    ] {
        let ask = accepting(get(stage.roadstead.at(), path));
        let reply = ask.header("Authorization", "Basic YWxpY2U6Y29ycmVjdA==").send().await;
        assert_eq!(reply.status, 200);
    }
    // The hub's token server answers 401 to a password it does not know.
    let requests = stage.hub.requests();
    let tokens = requests.iter().filter(|one| one.kind == hub::Kind::Token);
    assert_eq!(tokens.filter(|one| one.authorization).count(), 0);
}

#[tokio::test]
async fn tag_lists_and_referrers_pass_through() {
    let stage = Stage::set().await;
    let reply = get(stage.roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["tags"], serde_json::json!(["latest"]));
    let path = format!("/v2/{NAME}/referrers/{}", stage.image.digest);
    let reply = get(stage.roadstead.at(), path).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
}
