//! Pushes and deletions through us: with whose credentials, under which name, and what is known
//! afterwards.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub::{Account, Action, Fault, Hub, ImageSpec, Options, Target};
use serde_json::json;

use crate::client::{Reply, get, request};
use crate::conformance::{
    MANIFEST, Registry, blob_path, config, digest_of, image, manifest_path, with_digest, writable,
};
use crate::pull::{accepting, get_manifest};
use crate::roadstead::{Roadstead, Setup};
use crate::uploads::scripted;

const NAME: &str = "acme/app";
const PASSWORD: &str = "correct-horse-battery";

/// A registry that takes pushes from an account, and anonymous pulls.
async fn guarded() -> Hub {
    let accounts = vec![Account::new("alice", PASSWORD).unlimited()];
    let options = Options { writable: true, accounts, ..Options::default() };
    Hub::start_with(options).await.unwrap()
}

fn forwarding(hub: &Hub) -> Setup {
    Setup::of(hub).with("writes", "forward")
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("alice:{PASSWORD}")))
}

/// What a client does with a challenge.
async fn token(hub: &Hub, scope: &str) -> String {
    let path = format!("/token?service=registry.docker.io&scope={scope}");
    let reply = get(hub.token(), path).header("Authorization", basic()).send().await;
    format!("Bearer {}", reply.json()["token"].as_str().unwrap())
}

/// An image pushed with a token.
async fn push(roadstead: &Roadstead, token: &str, name: &str, tag: &str, author: &str) -> String {
    for blob in [config(author), b"a layer".to_vec()] {
        let path = with_digest(&format!("/v2/{name}/blobs/uploads/"), &hub::sha256(&blob));
        let post = request(roadstead.at(), "POST", path).header("Authorization", token);
        assert_eq!(post.body(blob).send().await.status, 201);
    }
    let manifest = image(author);
    let put = request(roadstead.at(), "PUT", manifest_path(name, tag))
        .header("Authorization", token)
        .header("Content-Type", MANIFEST)
        .body(manifest.to_string());
    let reply = put.send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    digest_of(&manifest)
}

async fn tag(roadstead: &Roadstead, tag: &str) -> Reply {
    get_manifest(roadstead.at(), NAME, tag).send().await
}

fn digest(reply: &Reply) -> Option<&str> {
    reply.header("docker-content-digest")
}

// === credentials ===

/// docker, skopeo and crane look at this answer alone.
#[tokio::test]
async fn a_ping_says_how_upstream_wants_a_login_and_needs_none_while_it_is_down() {
    let hub = guarded().await;
    let roadstead = forwarding(&hub).impatient().start().await;
    let ping = || get(roadstead.at(), "/v2/");
    for _ in 0..2 {
        let reply = ping().send().await;
        assert_eq!((reply.status, &*reply.error_code()), (401, "UNAUTHORIZED"));
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(challenge.contains(&hub.token_realm()), "{challenge}");
    }
    assert_eq!(hub.stats().ping, 1, "the challenge is the same for a while");
    let token = token(&hub, "repository:acme/app:pull,push").await;
    assert_eq!(ping().header("Authorization", token).send().await.status, 200);
    assert_eq!(ping().header("Authorization", "Bearer forged").send().await.status, 401);
    hub.fault(Fault::new(Target::any(), Action::Drop));
    assert_eq!(ping().header("Authorization", "Bearer forged").send().await.status, 200);
}

#[tokio::test]
async fn a_push_goes_with_the_client_s_credentials_and_a_pull_without() {
    let hub = guarded().await;
    let roadstead = forwarding(&hub).start().await;
    let uploads = format!("/v2/{NAME}/blobs/uploads/");
    let reply = request(roadstead.at(), "POST", &uploads).body("").send().await;
    assert_eq!((reply.status, &*reply.error_code()), (401, "UNAUTHORIZED"));
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"repository:acme/app:pull,push\""), "{challenge}");
    let token = token(&hub, "repository:acme/app:pull,push").await;
    let pushed = push(&roadstead, &token, NAME, "latest", "one").await;
    let writers: Vec<_> = hub
        .requests()
        .into_iter()
        .filter(|one| one.method != "GET" && one.method != "HEAD" && one.status < 300)
        .collect();
    assert_eq!(writers.len(), 3, "{writers:#?}");
    assert!(writers.iter().all(|one| one.account.as_deref() == Some("alice")), "{writers:#?}");
    hub.reset_stats();
    let pull = get_manifest(roadstead.at(), NAME, "latest").header("Authorization", token);
    let reply = pull.send().await;
    assert_eq!((reply.status, digest(&reply)), (200, Some(&*pushed)));
    assert!(hub.requests().iter().all(|one| one.account.is_none()), "{:#?}", hub.requests());
    for (part, count) in [("\"PUT\"", 1.0), ("\"POST\"", 2.0)] {
        let labels = ["roadstead_upstream_requests_total", "\"write\"", "\"201\"", part];
        assert_eq!(roadstead.metric(&labels).await, count, "{part}");
    }
    let brought = roadstead.metric(&["roadstead_request_bytes_total", "\"upload\""]).await;
    assert_eq!(brought as usize, config("one").len() + b"a layer".len());
    let log = roadstead.whole_log().await;
    assert!(log.contains(&format!(" received={}", image("one").to_string().len())), "{log}");
    assert!(log.contains("method=PUT") && log.contains("cache=\"forward\""), "{log}");
    assert!(!log.contains("Bearer"), "{log}");
}

#[tokio::test]
async fn a_password_that_is_for_us_is_not_taken_along() {
    let hub = guarded().await;
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, format!("alice:{}\n", bcrypt::hash(PASSWORD, 4).unwrap())).unwrap();
    let setup = forwarding(&hub).key("access", json!({ "htpasswd": users }));
    let roadstead = setup.start().await;
    let post = request(roadstead.at(), "POST", format!("/v2/{NAME}/blobs/uploads/"));
    let reply = post.header("Authorization", basic()).body("").send().await;
    assert_eq!((reply.status, &*reply.error_code()), (403, "DENIED"));
    assert_eq!(reply.header("www-authenticate"), None);
    assert_eq!(
        get(roadstead.at(), "/v2/").header("Authorization", basic()).send().await.status,
        200
    );
    let requests = hub.requests();
    assert!(requests.iter().any(|one| one.method == "POST"), "{requests:#?}");
    assert!(requests.iter().all(|one| !one.authorization), "{requests:#?}");
}

#[tokio::test]
async fn credentials_do_not_go_over_the_network_in_plain_text() {
    let setup = Setup::upstream("http://192.0.2.1:5000", "https://192.0.2.1/token");
    let roadstead = setup.with("writes", "forward").start().await;
    let post = request(roadstead.at(), "POST", format!("/v2/{NAME}/blobs/uploads/"));
    let reply = post.header("Authorization", basic()).body("").send().await;
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("plain text"), "{}", reply.text());
}

/// A proxy on this machine sees what would go over the network.
#[tokio::test]
async fn no_question_before_a_push_takes_them_along_in_plain_text() {
    let unknown = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (proxy, heads) = scripted(vec![unknown; 12]).await;
    let setup = Setup::upstream("http://registry.test:5000", "https://registry.test/token");
    let setup = setup.with("writes", "forward").with("proxy", format!("http://{proxy}"));
    let roadstead = setup.impatient().start().await;
    let digest = hub::sha256(b"x");
    for (method, path) in [
        ("GET", "/v2/".to_owned()),
        ("HEAD", manifest_path(NAME, &digest)),
        ("HEAD", manifest_path(NAME, "latest")),
        ("HEAD", blob_path(NAME, &digest)),
    ] {
        let ask = request(roadstead.at(), method, path).header("Authorization", basic());
        accepting(ask).send().await;
    }
    let heads = heads.lock().unwrap().clone();
    assert!(heads.len() >= 3, "{heads:#?}");
    let told = heads.iter().find(|head| head.to_ascii_lowercase().contains("\nauthorization"));
    assert_eq!(told, None);
}

// === names ===

#[tokio::test]
async fn an_upload_stays_under_the_name_by_which_the_client_began_it() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).with("prefix", "team").start().await;
    let digest = hub::sha256(b"a blob");
    for (begin, place) in [
        ("/v2/app/blobs/uploads/", "/v2/app/blobs/"),
        ("/v2/docker.io/app/blobs/uploads/", "/v2/docker.io/app/blobs/"),
        ("/v2/library/app/blobs/uploads/?ns=docker.io", "/v2/library/app/blobs/"),
    ] {
        let mut client = Registry::at(roadstead.at());
        let post = client.request("POST", begin).body("");
        let location = client.send(post).await.header("location").unwrap().to_owned();
        assert!(location.starts_with(&format!("{place}uploads/")), "{location}");
        assert_eq!(location.ends_with("&ns=docker.io"), begin.contains("ns="), "{location}");
        let put = client.request("PUT", &with_digest(&location, &digest)).body("a blob");
        let reply = client.send(put).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let at = reply.header("location").unwrap();
        assert!(at.starts_with(&format!("{place}{digest}")), "{at}");
    }
    let written: Vec<_> = hub.requests().into_iter().filter(|one| one.method != "GET").collect();
    assert_eq!(written.len(), 6);
    for one in written {
        assert_eq!(one.repository.as_deref(), Some("team/library/app"), "{one:?}");
        assert!(!one.query.unwrap_or_default().contains("ns="), "{}", one.path);
    }
}

#[tokio::test]
async fn a_mount_names_its_source_as_upstream_knows_it() {
    let hub = writable().await;
    let digest = hub.put_blob("team/library/base", "a blob".into());
    hub.put_blob("team/library/secret", "a blob".into());
    let setup = forwarding(&hub).with("prefix", "team").with("deny", json!(["library/secret"]));
    let roadstead = setup.also("other.example", &hub, json!({})).start().await;
    let mount = async |query: &str| {
        let path = format!("/v2/docker.io/app/blobs/uploads/?mount={digest}{query}");
        request(roadstead.at(), "POST", path).body("").send().await.status
    };
    assert_eq!(mount("&from=docker.io/base").await, 201);
    assert_eq!(mount("&from=library/base").await, 201);
    // What can't be a source begins an upload, as where upstream does not have it.
    for from in ["other.example/base", "docker.io/secret", "docker.io/absent", "NoName"] {
        assert_eq!(mount(&format!("&from={from}")).await, 202, "{from}");
    }
    // A name is read as upstream reads it, and of two nobody knows which counts.
    for query in [
        "&%66rom=team/library/secret",
        "&%66rom=docker.io/secret",
        "&from=docker.io/base&%66rom=team/library/secret",
        "&from=docker.io/base&from=docker.io/base",
        "&from=docker.io/base&%6dount=sha256:00",
    ] {
        assert_eq!(mount(query).await, 202, "{query}");
    }
    assert_eq!(mount("&fro%6D=docker.io/base").await, 201);
    let told = hub.requests().into_iter().filter_map(|one| one.query);
    let secret: Vec<_> = told.filter(|query| query.contains("rom=team/library/secret")).collect();
    assert!(secret.is_empty(), "{secret:?}");
}

// === policy ===

#[tokio::test]
async fn what_may_not_be_pulled_may_not_be_pushed_and_only_what_the_api_has_is_sent() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).with("deny", json!(["secret/**"])).start().await;
    let digest = hub::sha256(b"x");
    for (method, path) in [
        ("POST", "/v2/secret/app/blobs/uploads/".to_owned()),
        ("PUT", "/v2/secret/app/blobs/uploads/1".to_owned()),
        ("PUT", "/v2/secret/app/manifests/latest".to_owned()),
        ("DELETE", "/v2/secret/app/manifests/latest".to_owned()),
        ("DELETE", blob_path("secret/app", &digest)),
    ] {
        let reply = request(roadstead.at(), method, &path).body("").send().await;
        assert_eq!((reply.status, &*reply.error_code()), (403, "DENIED"), "{method} {path}");
    }
    for (method, path, allowed) in [
        ("POST", "/v2/".to_owned(), "GET, HEAD"),
        ("DELETE", "/v2/_catalog".to_owned(), "GET, HEAD"),
        ("PUT", format!("/v2/{NAME}/tags/list"), "GET, HEAD"),
        ("PATCH", manifest_path(NAME, "latest"), "GET, HEAD, PUT, DELETE"),
        ("PUT", blob_path(NAME, &digest), "GET, HEAD, DELETE"),
        ("GET", format!("/v2/{NAME}/blobs/uploads/"), "POST"),
        ("OPTIONS", format!("/v2/{NAME}/blobs/uploads/1"), "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        let reply = request(roadstead.at(), method, &path).send().await;
        assert_eq!((reply.status, &*reply.error_code()), (405, "UNSUPPORTED"), "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allowed), "{method} {path}");
    }
    assert_eq!(hub.stats().requests(), 0, "{:#?}", hub.requests());
}

// === what is known afterwards ===

#[tokio::test]
async fn a_push_moves_the_tag_at_once_and_a_deletion_takes_it_away() {
    let hub = writable().await;
    let setup = forwarding(&hub).with("tags.fresh_for", "1h").with("tags.cooldown", "1h");
    let roadstead = setup.start().await;
    let first = push(&roadstead, "", NAME, "latest", "one").await;
    assert_eq!(digest(&tag(&roadstead, "latest").await), Some(&*first));
    let second = push(&roadstead, "", NAME, "latest", "two").await;
    let reply = tag(&roadstead, "latest").await;
    assert_eq!(digest(&reply), Some(&*second), "{reply:?}");
    push(&roadstead, "", NAME, "other", "two").await;
    assert_eq!(digest(&tag(&roadstead, "other").await), Some(&*second));

    let delete =
        |reference: &str| request(roadstead.at(), "DELETE", manifest_path(NAME, reference));
    assert_eq!(delete("latest").send().await.status, 202);
    let reply = tag(&roadstead, "latest").await;
    assert_eq!((reply.status, &*reply.error_code()), (404, "MANIFEST_UNKNOWN"));
    assert_eq!(tag(&roadstead, "other").await.status, 200);
    // It takes its tags along.
    assert_eq!(delete(&second).send().await.status, 202);
    for reference in ["other", &second] {
        assert_eq!(tag(&roadstead, reference).await.status, 404, "{reference}");
    }
    assert_eq!(tag(&roadstead, &first).await.status, 200);
}

#[tokio::test]
async fn a_refused_write_changes_nothing() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).with("tags.fresh_for", "1h").start().await;
    let first = push(&roadstead, "", NAME, "latest", "one").await;
    assert_eq!(tag(&roadstead, "latest").await.status, 200);
    hub.fault(Fault::new(Target::any().method("DELETE"), Action::Status(403)));
    hub.fault(Fault::new(Target::any().method("PUT"), Action::Status(500)));
    for method in ["DELETE", "PUT"] {
        let write = request(roadstead.at(), method, manifest_path(NAME, "latest")).body("{}");
        assert!(write.send().await.status >= 400);
    }
    hub.fault(Fault::new(Target::any(), Action::Drop));
    let reply = tag(&roadstead, "latest").await;
    assert_eq!((reply.status, digest(&reply)), (200, Some(&*first)));
}

/// It may have been done all the same.
#[tokio::test]
async fn after_a_write_that_failed_upstream_is_asked_what_the_tag_names() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).with("tags.fresh_for", "1h").start().await;
    let other = push(&roadstead, "", NAME, "other", "two").await;
    for failure in [Action::Status(500), Action::Drop] {
        let first = push(&roadstead, "", NAME, "latest", "one").await;
        assert_eq!(digest(&tag(&roadstead, "latest").await), Some(&*first));
        hub.fault(Fault::new(Target::any().method("PUT"), failure).times(1));
        let put = request(roadstead.at(), "PUT", manifest_path(NAME, "latest"));
        let put = put.header("Content-Type", MANIFEST).body(image("two").to_string());
        assert!(put.send().await.status >= 500);
        hub.tag(NAME, "latest", &other);
        assert_eq!(digest(&tag(&roadstead, "latest").await), Some(&*other));
    }
}

/// A client leaves out what a HEAD says is there.
#[tokio::test]
async fn what_upstream_has_lost_is_not_there_to_a_pusher_though_it_is_cached() {
    let hub = writable().await;
    let roadstead = forwarding(&hub).start().await;
    let manifest = push(&roadstead, "", NAME, "latest", "one").await;
    let (layer, config) = (hub::sha256(b"a layer"), hub::sha256(&config("one")));
    let paths = [manifest_path(NAME, &manifest), blob_path(NAME, &layer), blob_path(NAME, &config)];
    let ask = async |method: &str, path: &str| {
        accepting(request(roadstead.at(), method, path)).send().await.status
    };
    for path in &paths {
        assert_eq!(ask("GET", path).await, 200);
        assert_eq!(ask("HEAD", path).await, 200);
        assert_eq!(request(hub.registry(), "DELETE", path).send().await.status, 202);
        assert_eq!(ask("HEAD", path).await, 404, "{path}");
        assert_eq!(ask("GET", path).await, 200, "{path}: what is cached can be pulled");
    }
    hub.fault(Fault::new(Target::any(), Action::Drop));
    assert_eq!(ask("HEAD", &paths[0]).await, 200, "while upstream is down, the cache answers");
}

#[tokio::test]
async fn a_pusher_learns_what_its_own_credentials_may_see() {
    let accounts = vec![Account::new("alice", PASSWORD).unlimited()];
    let private = vec![NAME.to_owned()];
    let options = Options { writable: true, accounts, private, ..Options::default() };
    let hub = Hub::start_with(options).await.unwrap();
    let pushed = hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = forwarding(&hub).start().await;
    let token = token(&hub, "repository:acme/app:pull,push").await;
    for path in [
        manifest_path(NAME, "latest"),
        manifest_path(NAME, &pushed.digest),
        blob_path(NAME, &pushed.layers[0].digest),
    ] {
        let head = || accepting(request(roadstead.at(), "HEAD", &path));
        assert_eq!(head().header("Authorization", &*token).send().await.status, 200, "{path}");
        // Nobody in particular: told where to log in, where it matters to a push.
        let reply = head().send().await;
        assert_eq!(reply.status, 401, "{path}");
        if !path.ends_with("latest") {
            let challenge = reply.header("www-authenticate").unwrap();
            assert!(challenge.contains(&hub.token_realm()), "{challenge}");
        }
    }
}

/// Nor does what has yet to cool, or may not move, get past that by a HEAD.
#[tokio::test]
async fn who_sends_credentials_is_told_of_a_tag_what_others_are() {
    let hub = guarded().await;
    let first = hub.push(&ImageSpec::new(NAME).tag("latest").tag("v1")).digest;
    let second = hub.push(&ImageSpec::new(NAME).tag("other").seed(2)).digest;
    assert_ne!(first, second);
    let setup = forwarding(&hub).with("tags.fresh_for", "0s").with("tags.cooldown", "1h");
    let roadstead = setup.with("tags.immutable", json!(["v*"])).start().await;
    let token = token(&hub, "repository:acme/app:pull,push").await;
    for name in ["latest", "v1"] {
        assert_eq!(digest(&tag(&roadstead, name).await), Some(&*first));
        hub.tag(NAME, name, &second);
        let head = accepting(request(roadstead.at(), "HEAD", manifest_path(NAME, name)));
        let reply = head.header("Authorization", &*token).send().await;
        assert_eq!((reply.status, digest(&reply)), (200, Some(&*first)), "{name}");
    }
}

#[tokio::test]
async fn a_mirror_does_not_say_what_upstream_has() {
    let (hub, mirror) = (writable().await, Hub::start().await);
    let image = mirror.push(&ImageSpec::new(NAME).tag("latest"));
    let mirrors = json!([{
        "url": mirror.registry_url(), "order": "before", "token_realms": [mirror.token_realm()],
    }]);
    let roadstead = forwarding(&hub).with("mirrors", mirrors).start().await;
    for path in [manifest_path(NAME, &image.digest), blob_path(NAME, &image.layers[0].digest)] {
        let ask = |method| accepting(request(roadstead.at(), method, &path));
        assert_eq!(ask("HEAD").send().await.status, 404, "{path}");
        assert_eq!(ask("GET").send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_head_of_what_is_cached_does_not_wait_long_for_upstream() {
    let hub = writable().await;
    let image = hub.push(&ImageSpec::new(NAME).tag("latest"));
    let roadstead = forwarding(&hub).with("timeouts.validate", "500ms").start().await;
    let path = blob_path(NAME, &image.layers[0].digest);
    assert_eq!(get(roadstead.at(), &path).send().await.status, 200);
    hub.fault(Fault::new(Target::any(), Action::Hang));
    let begun = Instant::now();
    assert_eq!(request(roadstead.at(), "HEAD", &path).send().await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
