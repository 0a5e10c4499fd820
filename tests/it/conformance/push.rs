//! Push: blobs whole, in two requests and in chunks, mounts, manifests.

use serde_json::json;

use super::{
    INDEX, MANIFEST, NAME, OTHER, blob_path, conforms, descriptor, digest_of, image, manifest_path,
    with_digest,
};

const BLOB: &[u8] = b"0123456789abcdef";

fn uploads(name: &str) -> String {
    format!("/v2/{name}/blobs/uploads/")
}

mod post_then_put {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_put_where_the_post_says() {
        conforms(async |registry| {
            let digest = registry.push_blob(NAME, BLOB).await;
            let reply = registry.get(&blob_path(NAME, &digest)).await;
            assert_eq!((reply.status, &*reply.body), (200, BLOB));
        })
        .await;
    }

    #[tokio::test]
    async fn the_answer_says_where_the_blob_is() {
        conforms(async |registry| {
            let (digest, location) = (hub::sha256(BLOB), registry.begin(NAME).await);
            let put = registry.request("PUT", &with_digest(&location, &digest)).body(BLOB);
            let reply = registry.send(put).await;
            assert_eq!(reply.status, 201);
            let place = reply.header("location").unwrap().to_owned();
            assert_eq!(registry.get(&place).await.body, BLOB);
        })
        .await;
    }

    #[tokio::test]
    async fn another_digest_is_refused() {
        conforms(async |registry| {
            let location = registry.begin(NAME).await;
            let other = with_digest(&location, &hub::sha256(b"other"));
            let reply = registry.send(registry.request("PUT", &other).body(BLOB)).await;
            assert_eq!((reply.status, &*reply.error_code()), (400, "DIGEST_INVALID"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_blob_of_sha512_and_an_empty_one_are_blobs() {
        conforms(async |registry| {
            for (blob, digest) in [(BLOB, hub::sha512(BLOB)), (b"", hub::sha256(b""))] {
                let location = registry.begin(NAME).await;
                let put = registry.request("PUT", &with_digest(&location, &digest)).body(blob);
                assert_eq!(registry.send(put).await.status, 201, "{digest}");
                let reply = registry.get(&blob_path(NAME, &digest)).await;
                assert_eq!((reply.status, &*reply.body), (200, blob), "{digest}");
            }
        })
        .await;
    }
}

mod single_post {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_posted_whole() {
        conforms(async |registry| {
            let digest = hub::sha256(BLOB);
            let post = registry.request("POST", &with_digest(&uploads(NAME), &digest));
            let reply = registry.send(post.body(BLOB)).await;
            // Or 202, where a registry knows no such uploads.
            assert_eq!(reply.status, 201);
            let place = reply.header("location").unwrap().to_owned();
            assert_eq!(registry.get(&place).await.body, BLOB);
        })
        .await;
    }
}

mod pushing_a_blob_in_chunks {
    use super::*;

    async fn patch(
        registry: &mut super::super::Registry,
        location: &str,
        range: Option<&str>,
        piece: &[u8],
    ) -> crate::client::Reply {
        let mut patch = registry.request("PATCH", location).body(piece);
        if let Some(range) = range {
            patch = patch.header("Content-Range", range);
        }
        registry.send(patch.header("Content-Type", "application/octet-stream")).await
    }

    #[tokio::test]
    async fn chunks_come_in_order_and_the_last_one_with_the_digest() {
        conforms(async |registry| {
            let location = registry.begin(NAME).await;
            let reply = patch(registry, &location, Some("0-9"), &BLOB[..10]).await;
            assert_eq!((reply.status, reply.header("range")), (202, Some("0-9")));
            let location = reply.header("location").unwrap().to_owned();
            let reply = registry.get(&location).await;
            assert_eq!((reply.status, reply.header("range")), (204, Some("0-9")));
            let location = reply.header("location").unwrap().to_owned();
            let digest = hub::sha256(BLOB);
            let put = registry.request("PUT", &with_digest(&location, &digest)).body(&BLOB[10..]);
            let reply = registry.send(put.header("Content-Range", "10-15")).await;
            assert_eq!(reply.status, 201, "{reply:?}");
            assert_eq!(registry.get(&blob_path(NAME, &digest)).await.body, BLOB);
        })
        .await;
    }

    #[tokio::test]
    async fn a_chunk_out_of_order_is_a_416() {
        conforms(async |registry| {
            let location = registry.begin(NAME).await;
            let reply = patch(registry, &location, Some("10-15"), &BLOB[10..]).await;
            assert_eq!(reply.status, 416);
            let reply = patch(registry, &location, Some("0-9"), &BLOB[..10]).await;
            let location = reply.header("location").unwrap().to_owned();
            assert_eq!(patch(registry, &location, Some("0-9"), &BLOB[..10]).await.status, 416);
        })
        .await;
    }

    #[tokio::test]
    async fn a_stream_is_a_chunk_of_no_said_length() {
        conforms(async |registry| {
            let location = registry.begin(NAME).await;
            let reply = patch(registry, &location, None, BLOB).await;
            assert_eq!(reply.status, 202);
            let location = reply.header("location").unwrap().to_owned();
            let digest = hub::sha256(BLOB);
            let put = registry.request("PUT", &with_digest(&location, &digest)).body("");
            assert_eq!(registry.send(put).await.status, 201);
            assert_eq!(registry.get(&blob_path(NAME, &digest)).await.body, BLOB);
        })
        .await;
    }

    #[tokio::test]
    async fn the_smallest_chunk_is_said() {
        conforms(async |registry| {
            let post = registry.request("POST", &uploads(NAME)).body("");
            let reply = registry.send(post).await;
            assert_eq!(reply.header("oci-chunk-min-length"), Some("1024"));
            assert!(reply.header("docker-upload-uuid").is_some());
        })
        .await;
    }

    #[tokio::test]
    async fn an_upload_of_nobody_is_unknown() {
        conforms(async |registry| {
            let place = format!("{}00000000?_state=1", uploads(NAME));
            let reply = patch(registry, &place, Some("0-9"), &BLOB[..10]).await;
            assert_eq!((reply.status, &*reply.error_code()), (404, "BLOB_UPLOAD_UNKNOWN"));
        })
        .await;
    }
}

mod cancel_a_blob_upload {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_upload_is_unknown() {
        conforms(async |registry| {
            let location = registry.begin(NAME).await;
            assert_eq!(registry.delete(&location).await.status, 204);
            assert_eq!(registry.get(&location).await.status, 404);
        })
        .await;
    }
}

mod mounting_a_blob_from_another_repository {
    use super::*;

    #[tokio::test]
    async fn a_blob_that_is_there_is_mounted() {
        conforms(async |registry| {
            let digest = registry.push_blob(OTHER, BLOB).await;
            let path = format!("{}?mount={digest}&from={OTHER}", uploads(NAME));
            let reply = registry.send(registry.request("POST", &path).body("")).await;
            assert_eq!(reply.status, 201);
            let place = reply.header("location").unwrap().to_owned();
            assert_eq!(registry.get(&place).await.body, BLOB);
        })
        .await;
    }

    #[tokio::test]
    async fn a_blob_that_is_not_is_uploaded() {
        conforms(async |registry| {
            let digest = hub::sha256(BLOB);
            let path = format!("{}?mount={digest}&from={OTHER}", uploads(NAME));
            let reply = registry.send(registry.request("POST", &path).body("")).await;
            assert_eq!(reply.status, 202);
            let location = reply.header("location").unwrap().to_owned();
            let put = registry.request("PUT", &with_digest(&location, &digest)).body(BLOB);
            assert_eq!(registry.send(put).await.status, 201);
        })
        .await;
    }
}

mod pushing_manifests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_is_put_under_tags_and_digest() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "one").await;
            let digest = digest_of(&manifest);
            for reference in ["two", &digest] {
                let reply = registry.push_manifest(NAME, reference, MANIFEST, &manifest).await;
                assert_eq!(reply.status, 201);
                assert_eq!(reply.header("docker-content-digest"), Some(&*digest));
                let place = reply.header("location").unwrap().to_owned();
                assert_eq!(registry.get(&place).await.text(), manifest.to_string());
            }
        })
        .await;
    }

    #[tokio::test]
    async fn an_index_is_a_manifest_too() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "one").await.to_string();
            let index = json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [descriptor(MANIFEST, manifest.as_bytes())],
            });
            assert_eq!(registry.push_manifest(NAME, "all", INDEX, &index).await.status, 201);
            let get = registry.request("GET", &manifest_path(NAME, "all"));
            let reply = registry.send(get.header("Accept", INDEX)).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some(INDEX)));
        })
        .await;
    }

    #[tokio::test]
    async fn another_digest_and_missing_blobs_are_refused() {
        conforms(async |registry| {
            let manifest = registry.push_image(NAME, "one").await;
            let other = hub::sha256(b"other");
            let reply = registry.push_manifest(NAME, &other, MANIFEST, &manifest).await;
            assert_eq!((reply.status, &*reply.error_code()), (400, "DIGEST_INVALID"));
            let reply = registry.push_manifest(NAME, "two", MANIFEST, &image("two")).await;
            assert_eq!((reply.status, &*reply.error_code()), (400, "MANIFEST_BLOB_UNKNOWN"));
        })
        .await;
    }
}

mod pushing_manifests_with_subject {
    use super::*;

    #[tokio::test]
    async fn a_layer_that_lies_elsewhere_need_not_be_there() {
        conforms(async |registry| {
            let config = descriptor("application/vnd.oci.image.config.v1+json", b"{}");
            registry.push_blob(NAME, b"{}").await;
            let media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
            let mut layer = descriptor(media_type, b"elsewhere");
            layer["urls"] = json!(["https://store.example/layer"]);
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
            });
            let digest = digest_of(&manifest);
            let reply = registry.push_manifest(NAME, &digest, MANIFEST, &manifest).await;
            assert_eq!(reply.status, 201);
            let reply = registry.get(&manifest_path(NAME, &digest)).await;
            assert_eq!((reply.status, reply.text()), (200, manifest.to_string()));
        })
        .await;
    }

    #[tokio::test]
    async fn the_subject_is_said_even_where_it_is_missing() {
        conforms(async |registry| {
            let mut manifest = registry.push_image(NAME, "one").await;
            let subject = descriptor(MANIFEST, b"not pushed");
            manifest["subject"] = subject.clone();
            let digest = digest_of(&manifest);
            let reply = registry.push_manifest(NAME, &digest, MANIFEST, &manifest).await;
            assert_eq!(reply.status, 201);
            assert_eq!(reply.header("oci-subject"), subject["digest"].as_str());
        })
        .await;
    }
}
