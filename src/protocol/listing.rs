//! What a manifest lists: the manifests of an index, the blobs of an image.
//!
//! Reads leniently and gives only usable digests; a body that is no manifest lists nothing. Whether
//! the body may be believed at all is left to `inspect`.

use std::collections::HashSet;

use serde_json::Value;

use super::digest::Digest;
use super::inspect::{Object, parse_object};

/// One entry of an index (image-spec, "Image Index").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The manifest that it names.
    pub digest: Digest,
    /// Its media type; empty if the index does not say.
    pub media_type: String,
    /// Operating system and architecture; `unknown`, `unknown` for BuildKit's attestations.
    pub platform: Option<(String, String)>,
    /// The variant of the architecture, such as `v7`.
    pub variant: Option<String>,
    /// The size of the manifest in bytes.
    pub size: u64,
}

/// The manifests that an index lists, in its order; entries without a usable digest are left out,
/// and a body that is no index has none.
pub fn children(body: &[u8]) -> Vec<Child> {
    let Ok(object) = parse_object(body) else {
        return Vec::new();
    };
    descriptors(&object, "manifests").filter_map(Child::parse).collect()
}

/// The config and the layers of an image manifest, or the blobs of an artifact manifest, with their
/// sizes in bytes: each digest once, in the document's order, foreign layers included. A body that
/// is neither has none.
pub fn blobs(body: &[u8]) -> Vec<(Digest, u64)> {
    let Ok(object) = parse_object(body) else {
        return Vec::new();
    };
    let listed = descriptors(&object, "layers").chain(descriptors(&object, "blobs"));
    let mut seen = HashSet::new();
    let all = object.get("config").into_iter().chain(listed);
    all.filter_map(|it| Some((digest_of(it)?, size_of(it))))
        .filter(|(digest, _)| seen.insert(*digest))
        .collect()
}

/// The layers of an image that clients fetch from elsewhere (image-spec, "Descriptors", `urls`): its
/// registry need not have them.
pub fn foreign(body: &[u8]) -> HashSet<Digest> {
    let Ok(object) = parse_object(body) else {
        return HashSet::new();
    };
    let has_urls = |layer: &&Value| {
        let urls = layer.get("urls").and_then(Value::as_array);
        urls.is_some_and(|urls| !urls.is_empty())
    };
    descriptors(&object, "layers").filter(has_urls).filter_map(digest_of).collect()
}

fn descriptors<'a>(object: &'a Object, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn digest_of(descriptor: &Value) -> Option<Digest> {
    Digest::parse(descriptor.get("digest")?.as_str()?).ok()
}

fn size_of(descriptor: &Value) -> u64 {
    descriptor.get("size").and_then(Value::as_u64).unwrap_or_default()
}

fn text_of(value: &Value, field: &str) -> Option<String> {
    Some(value.get(field)?.as_str()?.to_owned())
}

// === impl Child ===

impl Child {
    /// Whether it is a BuildKit attestation about another child, not something to run.
    pub fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|(os, arch)| os == "unknown" && arch == "unknown")
    }

    fn parse(descriptor: &Value) -> Option<Self> {
        let platform = descriptor.get("platform");
        Some(Self {
            digest: digest_of(descriptor)?,
            media_type: text_of(descriptor, "mediaType").unwrap_or_default(),
            platform: platform
                .and_then(|it| Some((text_of(it, "os")?, text_of(it, "architecture")?))),
            variant: platform.and_then(|it| text_of(it, "variant")),
            size: size_of(descriptor),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::Algorithm;
    use crate::protocol::media_type::{OCI_ARTIFACT, OCI_MANIFEST};
    use proptest::prelude::*;
    use serde_json::json;

    fn digest(seed: &str) -> Digest {
        Digest::of(Algorithm::Sha256, seed.as_bytes())
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("c"), "size": 3},
            "layers": [
                {"digest": digest("l"), "size": 10},
                {"digest": digest("m"), "size": 20},
                {"digest": digest("l"), "size": 10},
            ],
        })
    }

    fn index() -> Value {
        json!({
            "schemaVersion": 2,
            "manifests": [
                {"mediaType": OCI_MANIFEST, "digest": digest("a"), "size": 1,
                 "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
                {"mediaType": OCI_MANIFEST, "digest": digest("b"), "size": 2,
                 "platform": {"os": "unknown", "architecture": "unknown"}},
                {"digest": digest("c")},
                {"digest": "sha256:short", "size": 4},
            ],
        })
    }

    #[test]
    fn an_index_lists_its_children() {
        let children = children(index().to_string().as_bytes());
        let [arm, attestation, bare] = children.as_slice() else {
            panic!("three usable entries, not {children:?}");
        };
        assert_eq!(arm.platform, Some(("linux".to_owned(), "arm".to_owned())));
        assert_eq!((arm.variant.as_deref(), arm.size, arm.digest), (Some("v7"), 1, digest("a")));
        assert!(attestation.is_attestation() && !arm.is_attestation());
        assert_eq!((bare.media_type.as_str(), &bare.platform, bare.size), ("", &None, 0));
    }

    #[test]
    fn an_image_lists_config_and_layers_once() {
        let body = image().to_string();
        let expected = [(digest("c"), 3), (digest("l"), 10), (digest("m"), 20)];
        assert_eq!(blobs(body.as_bytes()), expected);
        assert!(children(body.as_bytes()).is_empty());
    }

    #[test]
    fn layers_with_urls_are_foreign() {
        let mut image = image();
        assert!(foreign(image.to_string().as_bytes()).is_empty());
        image["layers"][0]["urls"] = json!([]);
        image["layers"][1]["urls"] = json!(["https://elsewhere.example/m"]);
        assert_eq!(foreign(image.to_string().as_bytes()), HashSet::from([digest("m")]));
    }

    #[test]
    fn an_artifact_lists_its_blobs() {
        let artifact =
            json!({"mediaType": OCI_ARTIFACT, "blobs": [{"digest": digest("x"), "size": 5}]});
        assert_eq!(blobs(artifact.to_string().as_bytes()), [(digest("x"), 5)]);
    }

    #[test]
    fn fields_of_another_shape_list_nothing() {
        let odd =
            json!({"config": 1, "layers": {"digest": digest("l")}, "manifests": [null, 1, []]});
        let body = odd.to_string();
        assert!(blobs(body.as_bytes()).is_empty() && children(body.as_bytes()).is_empty());
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = (children(&body), blobs(&body));
        }

        #[test]
        fn a_flipped_byte_does_not_panic(at in 0_usize..2000, to: u8) {
            for document in [image(), index()] {
                let mut body = document.to_string().into_bytes();
                let at = at % body.len();
                body.splice(at..=at, [to]);
                let _ = (children(&body), blobs(&body));
            }
        }
    }
}
