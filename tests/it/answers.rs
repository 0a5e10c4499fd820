//! What upstream says is passed on, and never asked twice in a dearer way (P1).

use std::time::Duration;

use hub::{Action, Fault, Hub, ImageSpec, Target};
use tokio::time::Instant;

use crate::client::{Reply, get, head};
use crate::pull::{accepting, blob_path, get_manifest, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, together};

const NAME: &str = "library/alpine";

fn spec() -> ImageSpec {
    ImageSpec::new(NAME).tag("latest").layer_size(4 << 10)
}

async fn tag(roadstead: &Roadstead, tag: &str) -> Reply {
    get_manifest(roadstead.at(), NAME, tag).send().await
}

/// A status that upstream gives reaches the client, for a tag known or not, and is not followed
/// by a GET.
async fn passed_on(status: u16, code: &str) {
    let hub = Hub::start().await;
    hub.push(&spec());
    let roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    hub.reset_stats();
    hub.fault(Fault::new(Target::manifests().authorized(), Action::Status(status)));
    for name in ["latest", "unseen"] {
        let reply = tag(&roadstead, name).await;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        assert_eq!(reply.error_code(), code, "{name}");
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
    let reply = accepting(head(roadstead.at(), manifest_path(NAME, "other"))).send().await;
    assert_eq!((reply.status, reply.body.len()), (status, 0));
    assert_eq!(hub.stats().manifest_get, 0, "HEAD, then GET");
    // It was an answer, not trouble: nothing is held against upstream.
    hub.clear_faults();
    if status != 404 {
        assert_eq!(tag(&roadstead, "latest").await.status, 200);
    }
}

#[tokio::test]
async fn upstream_s_401_is_passed_on() {
    passed_on(401, "UNAUTHORIZED").await;
}

#[tokio::test]
async fn upstream_s_403_is_passed_on() {
    passed_on(403, "DENIED").await;
}

#[tokio::test]
async fn upstream_s_404_is_passed_on() {
    passed_on(404, "MANIFEST_UNKNOWN").await;
}

#[tokio::test]
async fn a_missing_repository_says_what_upstream_says_to_strangers() {
    let hub = Hub::start().await;
    let roadstead = Roadstead::start(&hub).await;
    let reply = get_manifest(roadstead.at(), "nobody/nothing", "latest").send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHORIZED"));
    assert_eq!(hub.stats().manifest_get, 0);
}

#[tokio::test]
async fn a_blob_that_upstream_lacks_is_a_404() {
    let hub = Hub::start().await;
    hub.push(&spec());
    let roadstead = Roadstead::start(&hub).await;
    let absent = hub::sha256(b"absent");
    let reply = get(roadstead.at(), blob_path(NAME, &absent)).send().await;
    assert_eq!((reply.status, reply.error_code().as_str()), (404, "BLOB_UNKNOWN"));
    let reply = head(roadstead.at(), blob_path(NAME, &absent)).send().await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn a_404_is_remembered_for_ten_seconds_at_most() {
    let hub = Hub::start().await;
    hub.push(&spec());
    let roadstead = Roadstead::start(&hub).await;
    let begun = Instant::now();
    let absent = hub::sha256(b"absent");
    for reference in ["sha256-0000.sig", absent.as_str()] {
        for _ in 0..4 {
            let reply = tag(&roadstead, reference).await;
            assert_eq!((reply.status, reply.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
        }
        let asked = hub.manifest_heads(reference) + hub.manifest_gets(reference);
        assert_eq!(asked, 1, "{reference}");
    }
    // Another reference is another question.
    assert_eq!(tag(&roadstead, "latest").await.status, 200);
    hub.push(&spec().tag("sha256-0000.sig"));
    let deadline = begun + Duration::from_secs(11);
    while tag(&roadstead, "sha256-0000.sig").await.status != 200 {
        assert!(Instant::now() < deadline, "remembered for more than 10 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_tag_that_is_deleted_upstream_is_gone_here() {
    let hub = Hub::start().await;
    hub.push(&spec());
    let roadstead = Roadstead::start(&hub).await;
    pull(roadstead.at(), NAME, "latest").await;
    hub.delete_tag(NAME, "latest");
    assert_eq!(tag(&roadstead, "latest").await.status, 404);
    // Nor does it come back when upstream falls ill.
    hub.fault(Fault::new(Target::any(), Action::Status(500)));
    assert_eq!(tag(&roadstead, "latest").await.status, 404);
}

/// Where HEAD does not tell the digest, a GET does.
async fn asked_by_get(action: Action) {
    let hub = Hub::start().await;
    let image = hub.push(&spec());
    let setup = Setup::of(&hub).with("tags.fresh_for", "1h");
    let roadstead = setup.start().await;
    let heads = Target::manifests().method("HEAD").authorized();
    hub.fault(Fault::new(heads, action));
    assert_eq!(pull(roadstead.at(), NAME, "latest").await.digest, image.digest);
    assert_eq!(hub.manifest_gets("latest"), 1);
    assert_eq!(hub.manifest_gets(&image.digest), 0, "the index was fetched twice");
    assert_eq!(hub.stats().counted, 2);
}

#[tokio::test]
async fn a_registry_without_head_405_is_asked_by_get() {
    asked_by_get(Action::Status(405)).await;
}

#[tokio::test]
async fn a_registry_without_head_501_is_asked_by_get() {
    asked_by_get(Action::Status(501)).await;
}

#[tokio::test]
async fn a_head_without_digest_is_followed_by_a_get() {
    asked_by_get(Action::NoDigestHeader).await;
}

/// HEAD→GET never after trouble.
async fn never_asked_by_get(action: Action) {
    let hub = Hub::start().await;
    hub.push(&spec());
    let roadstead = Setup::of(&hub).impatient().start().await;
    let name = format!("{action:?}");
    hub.fault(Fault::new(Target::manifests().method("HEAD").authorized(), action));
    for _ in 0..4 {
        assert_ne!(tag(&roadstead, "latest").await.status, 200, "{name}");
    }
    assert_eq!(hub.stats().manifest_get, 0, "{name}: HEAD, then GET");
}

#[tokio::test]
async fn a_head_in_trouble_is_never_followed_by_a_get() {
    let statuses = [400, 401, 403, 404, 408, 418, 429, 500, 502, 503, 504];
    let others = [Action::RateLimited, Action::Abuse, Action::Hang, Action::Drop];
    let actions = statuses.map(Action::Status).into_iter().chain(others);
    together(actions.map(never_asked_by_get)).await;
}
