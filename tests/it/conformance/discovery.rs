//! Content discovery: tags and referrers.

use serde_json::Value;

use super::{INDEX, MANIFEST, NAME, Registry, conforms, descriptor, digest_of};

mod listing_tags {
    use super::*;

    const PATH: &str = "/v2/conformance/one/tags/list";

    async fn tagged(registry: &mut Registry) {
        let manifest = registry.push_image(NAME, "t0").await;
        for tag in ["t1", "t2", "t3"] {
            registry.push_manifest(NAME, tag, MANIFEST, &manifest).await;
        }
    }

    async fn tags(registry: &mut Registry, path: &str) -> Vec<String> {
        let reply = registry.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let json = reply.json();
        assert_eq!(json["name"], NAME);
        json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().into()).collect()
    }

    #[tokio::test]
    async fn all_tags_are_listed_in_order() {
        conforms(async |registry| {
            tagged(registry).await;
            assert_eq!(tags(registry, PATH).await, ["t0", "t1", "t2", "t3"]);
        })
        .await;
    }

    #[tokio::test]
    async fn n_limits_and_last_begins() {
        conforms(async |registry| {
            tagged(registry).await;
            assert_eq!(tags(registry, &format!("{PATH}?n=2")).await, ["t0", "t1"]);
            assert_eq!(tags(registry, &format!("{PATH}?n=2&last=t1")).await, ["t2", "t3"]);
            assert_eq!(tags(registry, &format!("{PATH}?last=t2")).await, ["t3"]);
            assert_eq!(tags(registry, &format!("{PATH}?n=0")).await, [""; 0]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_page_links_to_the_next() {
        conforms(async |registry| {
            tagged(registry).await;
            let reply = registry.get(&format!("{PATH}?n=3")).await;
            let link = reply.header("link").unwrap().to_owned();
            let next = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0;
            assert_eq!(tags(registry, next).await, ["t3"]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_repository_of_nobody_is_a_404() {
        conforms(async |registry| {
            let reply = registry.get("/v2/conformance/nobody/tags/list").await;
            assert_eq!((reply.status, &*reply.error_code()), (404, "NAME_UNKNOWN"));
        })
        .await;
    }
}

mod listing_referrers {
    use super::*;

    /// An image, and two manifests of two types that refer to it.
    async fn referred(registry: &mut Registry) -> (String, Vec<String>) {
        let image = registry.push_image(NAME, "latest").await;
        let subject = descriptor(MANIFEST, image.to_string().as_bytes());
        let mut digests = Vec::new();
        for kind in ["application/vnd.a", "application/vnd.b"] {
            let mut manifest = image.clone();
            manifest["subject"] = subject.clone();
            manifest["artifactType"] = kind.into();
            manifest["annotations"] = serde_json::json!({ "org.example.kind": kind });
            let digest = digest_of(&manifest);
            let reply = registry.push_manifest(NAME, &digest, MANIFEST, &manifest).await;
            assert_eq!(reply.header("oci-subject"), subject["digest"].as_str());
            digests.push(digest);
        }
        digests.sort();
        (digest_of(&image), digests)
    }

    async fn referrers(registry: &mut Registry, path: &str) -> Vec<Value> {
        let reply = registry.get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(INDEX)), "{path}");
        reply.json()["manifests"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn those_that_name_the_subject_are_listed() {
        conforms(async |registry| {
            let (subject, digests) = referred(registry).await;
            let found = referrers(registry, &format!("/v2/{NAME}/referrers/{subject}")).await;
            let listed: Vec<_> = found.iter().map(|one| one["digest"].as_str().unwrap()).collect();
            assert_eq!(listed, digests);
            for one in &found {
                assert_eq!(one["artifactType"], one["annotations"]["org.example.kind"]);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_filter_is_applied_and_said() {
        conforms(async |registry| {
            let (subject, _) = referred(registry).await;
            let path = format!("/v2/{NAME}/referrers/{subject}?artifactType=application/vnd.a");
            let reply = registry.get(&path).await;
            assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
            let found = referrers(registry, &path).await;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0]["artifactType"], "application/vnd.a");
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_refers_to_what_is_missing() {
        conforms(async |registry| {
            registry.push_image(NAME, "latest").await;
            let absent = hub::sha256(b"absent");
            let path = format!("/v2/{NAME}/referrers/{absent}");
            assert!(referrers(registry, &path).await.is_empty());
        })
        .await;
    }
}

mod referrers_tag_schema {
    use super::*;

    #[tokio::test]
    async fn an_index_under_the_fallback_tag_is_an_index_like_another() {
        conforms(async |registry| {
            let image = registry.push_image(NAME, "latest").await;
            let tag = digest_of(&image).replace(':', "-");
            let path = super::super::manifest_path(NAME, &tag);
            assert_eq!(registry.get(&path).await.status, 404);
            let index = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [descriptor(MANIFEST, image.to_string().as_bytes())],
            });
            assert_eq!(registry.push_manifest(NAME, &tag, INDEX, &index).await.status, 201);
            let get = registry.request("GET", &path).header("Accept", INDEX);
            let reply = registry.send(get).await;
            assert_eq!((reply.status, reply.text()), (200, index.to_string()));
        })
        .await;
    }
}
