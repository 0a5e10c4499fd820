//! Content management: deleting tags, manifests and blobs.

use super::{NAME, blob_path, conforms, digest_of, manifest_path};

mod deleting_tags {
    use super::*;

    #[tokio::test]
    async fn a_deleted_tag_is_gone_and_its_manifest_is_not() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "latest").await;
            let (by_tag, by_digest) =
                (manifest_path(NAME, "latest"), manifest_path(NAME, &digest_of(&manifest)));
            assert_eq!(registry.get(&by_tag).await.status, 200);
            assert_eq!(registry.delete(&by_tag).await.status, 202);
            assert_eq!(registry.get(&by_tag).await.status, 404);
            assert_eq!(registry.get(&by_digest).await.status, 200);
            let tags = registry.get(&format!("/v2/{NAME}/tags/list")).await.json();
            assert_eq!(tags["tags"], serde_json::json!([]));
        })
        .await;
    }
}

mod deleting_manifests {
    use super::*;

    #[tokio::test]
    async fn a_deleted_manifest_is_gone_with_its_tags() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "latest").await;
            let (by_tag, by_digest) =
                (manifest_path(NAME, "latest"), manifest_path(NAME, &digest_of(&manifest)));
            assert_eq!(registry.get(&by_tag).await.status, 200);
            assert_eq!(registry.get(&by_digest).await.status, 200);
            assert_eq!(registry.delete(&by_digest).await.status, 202);
            for path in [&by_tag, &by_digest] {
                assert_eq!(registry.get(path).await.status, 404, "{path}");
                assert_eq!(registry.head(path).await.status, 404, "{path}");
            }
            assert_eq!(registry.delete(&by_digest).await.status, 404);
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_deleted_can_be_pushed_again() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "latest").await;
            let by_digest = manifest_path(NAME, &digest_of(&manifest));
            assert_eq!(registry.get(&by_digest).await.status, 200);
            assert_eq!(registry.delete(&by_digest).await.status, 202);
            assert_eq!(registry.get(&by_digest).await.status, 404);
            registry.push_image(NAME, "again").await;
            assert_eq!(registry.get(&by_digest).await.status, 200);
        })
        .await;
    }
}

mod deleting_blobs {
    use super::*;

    #[tokio::test]
    async fn a_deleted_blob_is_gone() {
        conforms(async |registry| {
            let path = blob_path(NAME, &registry.push_blob(NAME, b"a blob").await);
            assert_eq!(registry.get(&path).await.status, 200);
            assert_eq!(registry.delete(&path).await.status, 202);
            assert_eq!(registry.get(&path).await.status, 404);
            assert_eq!(registry.head(&path).await.status, 404);
            assert_eq!(registry.delete(&path).await.status, 404);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_missing_is_found_once_it_is_pushed() {
        conforms(async |registry| {
            registry.push_blob(NAME, b"another").await;
            let path = blob_path(NAME, &hub::sha256(b"a blob"));
            assert_eq!(registry.get(&path).await.status, 404);
            registry.push_blob(NAME, b"a blob").await;
            assert_eq!(registry.get(&path).await.status, 200);
            assert_eq!(registry.delete(&path).await.status, 202);
            assert_eq!(registry.get(&path).await.status, 404);
        })
        .await;
    }
}
