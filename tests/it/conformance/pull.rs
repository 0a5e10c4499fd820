//! Pull: the first category, which every registry must have.

use super::{MANIFEST, NAME, blob_path, conforms, digest_of, manifest_path};

mod determining_support {
    use super::*;

    #[tokio::test]
    async fn the_base_answers_200() {
        conforms(async |registry| {
            assert_eq!(registry.get("/v2/").await.status, 200);
        })
        .await;
    }
}

mod pulling_manifests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_is_got_by_tag_and_by_digest() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "latest").await;
            let digest = digest_of(&manifest);
            for reference in ["latest", &digest] {
                let get = registry.request("GET", &manifest_path(NAME, reference));
                let reply = registry.send(get.header("Accept", MANIFEST)).await;
                assert_eq!(reply.status, 200);
                assert_eq!(reply.header("content-type"), Some(MANIFEST));
                assert_eq!(reply.header("docker-content-digest"), Some(&*digest));
                assert_eq!(reply.text(), manifest.to_string());
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_missing_is_a_404() {
        conforms(async |registry| {
            registry.push_image(NAME, "latest").await;
            let absent = hub::sha256(b"absent");
            for reference in ["absent", &absent] {
                let reply = registry.get(&manifest_path(NAME, reference)).await;
                assert_eq!((reply.status, &*reply.error_code()), (404, "MANIFEST_UNKNOWN"));
            }
        })
        .await;
    }
}

mod pulling_blobs {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_got_by_its_digest() {
        conforms(async |registry| {
            let digest = registry.push_blob(NAME, b"a blob").await;
            let reply = registry.get(&blob_path(NAME, &digest)).await;
            assert_eq!((reply.status, &*reply.text()), (200, "a blob"));
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_missing_is_a_404() {
        conforms(async |registry| {
            registry.push_blob(NAME, b"a blob").await;
            let reply = registry.get(&blob_path(NAME, &hub::sha256(b"absent"))).await;
            assert_eq!((reply.status, &*reply.error_code()), (404, "BLOB_UNKNOWN"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_range_of_a_blob_is_a_206() {
        conforms(async |registry| {
            let digest = registry.push_blob(NAME, b"0123456789").await;
            let get = registry.request("GET", &blob_path(NAME, &digest));
            let reply = registry.send(get.header("Range", "bytes=2-4")).await;
            assert_eq!((reply.status, &*reply.text()), (206, "234"));
            assert_eq!(reply.header("content-range"), Some("bytes 2-4/10"));
        })
        .await;
    }
}

mod checking_if_content_exists_in_the_registry {
    use super::*;

    #[tokio::test]
    async fn a_head_says_what_a_get_would() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "latest").await;
            let digest = digest_of(&manifest);
            for reference in ["latest", &digest] {
                let reply = registry.head(&manifest_path(NAME, reference)).await;
                assert_eq!((reply.status, reply.body.len()), (200, 0));
                assert_eq!(reply.length(), Some(manifest.to_string().len() as u64));
                assert_eq!(reply.header("docker-content-digest"), Some(&*digest));
            }
            let layer = hub::sha256(b"a layer");
            let reply = registry.head(&blob_path(NAME, &layer)).await;
            assert_eq!((reply.status, reply.length()), (200, Some(7)));
            assert_eq!(reply.header("docker-content-digest"), Some(&*layer));
        })
        .await;
    }

    #[tokio::test]
    async fn a_head_of_what_is_missing_is_a_404() {
        conforms(async |registry| {
            registry.push_image(NAME, "latest").await;
            let absent = hub::sha256(b"absent");
            for path in [
                manifest_path(NAME, "absent"),
                manifest_path(NAME, &absent),
                blob_path(NAME, &absent),
            ] {
                assert_eq!(registry.head(&path).await.status, 404, "{path}");
            }
        })
        .await;
    }
}
