//! Lists: of tags, of referrers, of repositories; upstream's, and what is left of them in an outage.

use hub::{Account, Action, Fault, Hub, ImageSpec, Options, Target};
use serde_json::json;

use crate::client::{Reply, get, request};
use crate::conformance::{
    INDEX, MANIFEST, Registry, descriptor, digest_of, manifest_path, writable,
};
use crate::pull::{accepting, get_manifest, pull};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "acme/app";
const TAGS: &str = "/v2/acme/app/tags/list";

async fn hub() -> Hub {
    let hub = Hub::start().await;
    let spec = ImageSpec::new(NAME).tag("t0").tag("t1").tag("t2").layer_size(1024);
    hub.push(&spec);
    hub
}

fn down(hub: &Hub) {
    hub.fault(Fault::new(Target::any(), Action::Drop));
}

async fn list(roadstead: &Roadstead, path: &str) -> Reply {
    get(roadstead.at(), path).send().await
}

// === tags ===

#[tokio::test]
async fn tags_are_asked_for_each_time_and_given_again_in_an_outage() {
    let hub = hub().await;
    let roadstead = Setup::of(&hub).impatient().start().await;
    let page = list(&roadstead, &format!("{TAGS}?n=2")).await;
    assert_eq!(page.json(), json!({ "name": NAME, "tags": ["t0", "t1"] }));
    assert_eq!(page.header("link"), Some(&*format!("<{TAGS}?last=t1&n=2>; rel=\"next\"")));
    assert_eq!(page.cache_status(), "roadstead; fwd=miss; fwd-status=200");
    hub.delete_tag(NAME, "t1");
    assert_eq!(list(&roadstead, TAGS).await.json()["tags"], json!(["t0", "t2"]));
    down(&hub);
    let stale = list(&roadstead, &format!("{TAGS}?n=2")).await;
    assert_eq!((stale.status, stale.text()), (200, page.text()));
    assert_eq!(stale.header("link"), page.header("link"));
    assert!(stale.header("age").is_some());
    assert!(stale.cache_status().starts_with("roadstead; hit; detail=upstream-"), "{stale:?}");
    let unseen = list(&roadstead, &format!("{TAGS}?n=1")).await;
    assert!(unseen.status >= 500, "another page was never asked for: {unseen:?}");
}

#[tokio::test]
async fn tags_that_were_never_asked_for_are_those_that_were_pulled() {
    let hub = hub().await;
    let roadstead = Setup::of(&hub).impatient().start().await;
    for tag in ["t0", "t2"] {
        pull(roadstead.at(), NAME, tag).await;
    }
    down(&hub);
    let first = list(&roadstead, &format!("{TAGS}?n=1")).await;
    assert_eq!((first.status, first.json()), (200, json!({ "name": NAME, "tags": ["t0"] })));
    assert!(first.cache_status().contains("+known-tags"), "{first:?}");
    assert_eq!(first.header("link"), Some(&*format!("<{TAGS}?last=t0&n=1>; rel=\"next\"")));
    let rest = list(&roadstead, &format!("{TAGS}?n=1&last=t0")).await;
    assert_eq!((rest.json()["tags"].clone(), rest.header("link")), (json!(["t2"]), None));
    let nobody = list(&roadstead, "/v2/acme/unknown/tags/list").await;
    assert!(nobody.status >= 500, "{nobody:?}");
}

#[tokio::test]
async fn a_tag_list_of_nobody_is_what_upstream_says() {
    let hub = writable().await;
    let roadstead = Roadstead::start(&hub).await;
    let reply = list(&roadstead, TAGS).await;
    assert_eq!((reply.status, &*reply.error_code()), (404, "NAME_UNKNOWN"));
}

/// P6, also while upstream can't say no.
#[tokio::test]
async fn what_one_caller_was_told_no_other_is() {
    let accounts = vec![Account::new("alice", "secret"), Account::new("bob", "secret")];
    let private = vec![NAME.to_owned()];
    let hub = Hub::start_with(Options { accounts, private, ..Options::default() }).await.unwrap();
    let image = hub.push(&ImageSpec::new(NAME).tag("t0"));
    let setup = Setup::of(&hub).with("credentials.mode", "client");
    let roadstead = setup.impatient().start().await;
    let bearer = async |user: &str| {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:secret"));
        let path = format!("/token?service=x&scope=repository:{NAME}:pull");
        let reply = get(hub.token(), path).header("Authorization", format!("Basic {basic}"));
        format!("Bearer {}", reply.send().await.json()["token"].as_str().unwrap())
    };
    let (alice, bob) = (bearer("alice").await, bearer("bob").await);
    let ask = async |path: &str, token: &str| {
        get(roadstead.at(), path).header("Authorization", token).send().await
    };
    let referrers = format!("/v2/{NAME}/referrers/{}", image.digest);
    assert_eq!(ask(TAGS, &alice).await.status, 200);
    assert_eq!(ask(&referrers, &alice).await.status, 200);
    assert_eq!(ask(&referrers, "Bearer forged").await.status, 401);
    down(&hub);
    assert_eq!(ask(TAGS, &alice).await.status, 200);
    assert_eq!(ask(&referrers, &alice).await.status, 200);
    for token in [&*bob, "Bearer forged"] {
        for path in [TAGS, &referrers] {
            let reply = ask(path, token).await;
            assert!(reply.status >= 500, "{path}: {reply:?}");
        }
    }
}

/// P6: who may list need not be who may pull.
#[tokio::test]
async fn a_list_lets_nobody_pull() {
    let hub = Hub::start().await;
    let digest = hub.push(&ImageSpec::new(NAME).tag("t0").single()).digest;
    let setup = Setup::of(&hub).with("credentials.mode", "client");
    let roadstead = setup.impatient().start().await;
    let bearer = async || {
        let path = format!("/token?service=x&scope=repository:{NAME}:pull");
        let reply = get(hub.token(), path).send().await;
        format!("Bearer {}", reply.json()["token"].as_str().unwrap())
    };
    let (first, second) = (bearer().await, bearer().await);
    assert_ne!(first, second);
    let pull = async |token: &str| {
        let get = accepting(get(roadstead.at(), manifest_path(NAME, &digest)));
        get.header("Authorization", token).send().await.status
    };
    assert_eq!(pull(&first).await, 200);
    hub.fault(Fault::new(Target::manifests().authorized(), Action::Status(403)));
    let list = get(roadstead.at(), TAGS).header("Authorization", &*second);
    assert_eq!(list.send().await.status, 200);
    assert_eq!(pull(&first).await, 200, "it was served a moment ago");
    assert_eq!(pull(&second).await, 403);
}

#[tokio::test]
async fn what_was_only_pushed_or_is_gone_is_no_known_tag() {
    let hub = writable().await;
    let setup = Setup::of(&hub).with("writes", "forward").with("tags.cooldown", "1h");
    let roadstead = setup.with("catalog", "cached").impatient().start().await;
    let mut registry = Registry::at(roadstead.at());
    for tag in ["gone", "pulled", "pushed"] {
        registry.push_image(NAME, tag).await;
    }
    let other = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    registry.push_manifest(NAME, "pushed", INDEX, &other).await;
    registry.push_manifest("acme/pushed", "latest", INDEX, &other).await;
    assert_eq!(get_manifest(roadstead.at(), NAME, "pulled").send().await.status, 200);
    let delete = request(roadstead.at(), "DELETE", manifest_path(NAME, "gone"));
    assert_eq!(delete.send().await.status, 202);
    down(&hub);
    assert_eq!(list(&roadstead, TAGS).await.json()["tags"], json!(["pulled"]));
    let catalog = list(&roadstead, "/v2/_catalog").await;
    assert_eq!(catalog.json(), json!({ "repositories": [NAME] }));
}

// === referrers ===

#[tokio::test]
async fn referrers_are_asked_for_once_in_a_while_and_at_once_after_a_push() {
    let hub = writable().await;
    let roadstead = Setup::of(&hub).with("writes", "forward").impatient().start().await;
    let mut registry = Registry::at(roadstead.at());
    let image = registry.push_image(NAME, "latest").await;
    let path = format!("/v2/{NAME}/referrers/{}", digest_of(&image));
    for _ in 0..3 {
        let reply = registry.get(&path).await;
        assert_eq!(reply.json()["manifests"], json!([]));
        assert_eq!(reply.header("content-type"), Some(INDEX));
    }
    let filtered = format!("{path}?artifactType=application/vnd.a");
    let reply = registry.get(&filtered).await;
    assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(hub.stats().referrers, 2, "{:#?}", hub.requests());
    let mut artifact = image.clone();
    artifact["subject"] = descriptor(MANIFEST, image.to_string().as_bytes());
    registry.push_manifest(NAME, "artifact", MANIFEST, &artifact).await;
    let reply = registry.get(&path).await;
    assert_eq!(reply.json()["manifests"][0]["digest"], digest_of(&artifact));
    assert!(registry.get(&path).await.cache_status().starts_with("roadstead; hit; ttl="));
    assert_eq!(hub.stats().referrers, 3);
}

/// It may have been done all the same.
#[tokio::test]
async fn referrers_are_asked_for_after_a_push_that_failed() {
    let hub = writable().await;
    let roadstead = Setup::of(&hub).with("writes", "forward").impatient().start().await;
    let mut registry = Registry::at(roadstead.at());
    let image = registry.push_image(NAME, "latest").await;
    let path = format!("/v2/{NAME}/referrers/{}", digest_of(&image));
    assert_eq!(registry.get(&path).await.json()["manifests"], json!([]));
    hub.fault(Fault::new(Target::any().method("PUT"), Action::Status(500)).times(1));
    let put = request(roadstead.at(), "PUT", manifest_path(NAME, "artifact")).body("{}");
    assert_eq!(put.send().await.status, 500);
    assert_eq!(registry.get(&path).await.json()["manifests"], json!([]));
    assert_eq!(hub.stats().referrers, 2, "{:#?}", hub.requests());
}

#[tokio::test]
async fn a_registry_without_referrers_says_so() {
    let hub = hub().await;
    let roadstead = Roadstead::start(&hub).await;
    hub.fault(Fault::new(Target::referrers().authorized(), Action::Status(404)));
    let path = format!("/v2/{NAME}/referrers/{}", hub::sha256(b"x"));
    for _ in 0..2 {
        assert_eq!(list(&roadstead, &path).await.status, 404);
    }
    let asked = hub.requests().into_iter().filter(|one| one.path == path && one.status == 404);
    assert_eq!(asked.count(), 1);
}

// === the catalog ===

#[tokio::test]
async fn a_catalog_is_upstream_s_unless_the_operator_allows_ours() {
    let hub = hub().await;
    for name in ["acme/base", "acme/secret", "library/alpine"] {
        hub.push(&ImageSpec::new(name).tag("latest").layer_size(1024));
    }
    let mut roadstead = Setup::of(&hub).impatient().start().await;
    for name in ["acme/base", "acme/secret", "library/alpine"] {
        pull(roadstead.at(), name, "latest").await;
    }
    let reply = list(&roadstead, "/v2/_catalog").await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, None));
    roadstead.terminate().await;
    let ours = |setup: Setup| setup.with("catalog", "cached").with("deny", json!(["*/secret"]));
    roadstead.restart_with(ours).await;
    let all = list(&roadstead, "/v2/_catalog").await;
    assert_eq!(all.status, 200);
    assert_eq!(all.json(), json!({ "repositories": ["acme/base", "library/alpine"] }));
    assert_eq!(all.cache_status(), "roadstead; hit; detail=cached-repositories");
    let page = list(&roadstead, "/v2/_catalog?n=1").await;
    assert_eq!(page.json(), json!({ "repositories": ["acme/base"] }));
    let next = "</v2/_catalog?last=acme%2Fbase&n=1>; rel=\"next\"";
    assert_eq!(page.header("link"), Some(next));
    let rest = list(&roadstead, "/v2/_catalog?last=acme%2Fbase&n=1").await;
    assert_eq!(rest.json(), json!({ "repositories": ["library/alpine"] }));
    down(&hub);
    assert_eq!(list(&roadstead, "/v2/_catalog").await.json(), all.json());
}
