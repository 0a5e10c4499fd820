//! Whether a 200 body is a manifest at all.
//!
//! What passes `inspect` is a JSON object of one kind, never an error page. That its digest is
//! right, and what it lists (`listing`), is left to others.

use serde_json::{Map, Value};

use super::media_type::{
    DOCKER_MANIFEST, ManifestKind, OCI_INDEX, OCI_MANIFEST, essence, kind_of, known,
};

/// A body that is a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The type to serve it as, without parameters.
    pub media_type: String,
    /// What it is.
    pub kind: ManifestKind,
}

/// What a body turned out to be instead of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAManifest {
    /// Nothing at all.
    #[error("the body is empty")]
    Empty,
    /// A web page, most often a login or an error of something in between.
    #[error("the body is an HTML or XML page")]
    Html,
    /// JSON that ends too early.
    #[error("the body is JSON cut off after {0} bytes")]
    Truncated(usize),
    /// Neither JSON nor markup.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("the body is JSON, but {0} instead of an object")]
    NotAnObject(&'static str),
    /// A schema 1 manifest: a manifest, but of a format that clients no longer accept.
    #[error("the body is a Docker schema 1 manifest, which is not supported")]
    Schema1,
    /// An object without `schemaVersion: 2`.
    #[error("the body is a JSON object, but its schemaVersion is not 2")]
    SchemaVersion,
    /// A manifest's Content-Type would be another.
    #[error("the body is served as {0:?}, which is not a manifest type")]
    ForeignType(String),
    /// Content-Type, `mediaType` and content contradict each other (CVE-2021-41190).
    #[error("the body cannot be told apart: {0} by its type, {1} by its content")]
    Ambiguous(&'static str, &'static str),
    /// Nothing tells what kind it is.
    #[error("the body is a JSON object, but neither its type nor its fields are a manifest's")]
    Unrecognised,
}

/// The top level of a JSON document.
pub(super) type Object = Map<String, Value>;

// === inspecting ===

/// Decides whether `body` is a manifest, and of which type.
///
/// A specific `Content-Type` decides; under a generic one (`application/json`, `text/plain`,
/// `application/octet-stream`, none) the document's own `mediaType` does, else its fields. Any
/// contradiction is refused, as image-spec asks ("Image Index", `mediaType`).
pub fn inspect(content_type: Option<&str>, body: &[u8]) -> Result<Inspected, NotAManifest> {
    let object = parse_object(body)?;
    let declared = essence(content_type.unwrap_or_default());
    let own = object.get("mediaType").and_then(Value::as_str).map(essence).unwrap_or_default();
    let inspected = match (is_generic(declared), own) {
        (false, _) => by_type(declared, own, &object)?,
        (true, "") => by_fields(&object)?,
        (true, own) => by_type(own, own, &object)?,
    };
    check_schema_version(inspected.kind, &object)?;
    check_fields(inspected.kind, &object)?;
    Ok(inspected)
}

pub(super) fn parse_object(body: &[u8]) -> Result<Object, NotAManifest> {
    match body.trim_ascii_start().first() {
        None => return Err(NotAManifest::Empty),
        Some(b'<') => return Err(NotAManifest::Html),
        Some(_) => {}
    }
    let value = serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            NotAManifest::Truncated(body.len())
        } else {
            NotAManifest::NotJson(error.to_string())
        }
    })?;
    match value {
        Value::Object(object) => Ok(object),
        Value::Array(_) => Err(NotAManifest::NotAnObject("an array")),
        Value::String(_) => Err(NotAManifest::NotAnObject("a string")),
        Value::Number(_) => Err(NotAManifest::NotAnObject("a number")),
        Value::Bool(_) => Err(NotAManifest::NotAnObject("a boolean")),
        Value::Null => Err(NotAManifest::NotAnObject("null")),
    }
}

/// Types that servers and object stores give to anything.
fn is_generic(media_type: &str) -> bool {
    const GENERIC: [&str; 5] =
        ["", "application/json", "text/plain", "application/octet-stream", "binary/octet-stream"];
    GENERIC.iter().any(|generic| generic.eq_ignore_ascii_case(media_type))
}

fn by_type(decisive: &str, own: &str, object: &Object) -> Result<Inspected, NotAManifest> {
    if let Some((media_type, kind)) = known(decisive) {
        return match kind_of(own) {
            Some(other) if other != kind => Err(NotAManifest::Ambiguous(kind.noun(), other.noun())),
            _ => Ok(Inspected { media_type: media_type.to_owned(), kind }),
        };
    }
    if !decisive.to_ascii_lowercase().ends_with("+json") {
        return Err(NotAManifest::ForeignType(decisive.to_owned()));
    }
    // A type of tomorrow: its kind is what its fields say, and opaque if they say nothing.
    let kind = by_fields(object).map_or(ManifestKind::Artifact, |inferred| inferred.kind);
    Ok(Inspected { media_type: decisive.to_owned(), kind })
}

fn by_fields(object: &Object) -> Result<Inspected, NotAManifest> {
    let found = |media_type: &str, kind| Ok(Inspected { media_type: media_type.to_owned(), kind });
    if has(object, "manifests") {
        found(OCI_INDEX, ManifestKind::Index)
    } else if has(object, "config") && has(object, "layers") {
        let config_type = object.get("config").and_then(|config| config.get("mediaType"));
        let is_docker = config_type.and_then(Value::as_str).is_some_and(is_docker_config);
        found(if is_docker { DOCKER_MANIFEST } else { OCI_MANIFEST }, ManifestKind::Image)
    } else if schema_version(object) == Some(1) || has(object, "fsLayers") {
        Err(NotAManifest::Schema1)
    } else if schema_version(object) == Some(2) {
        Err(NotAManifest::Unrecognised)
    } else {
        Err(NotAManifest::SchemaVersion)
    }
}

fn is_docker_config(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.container.image.")
}

fn check_schema_version(kind: ManifestKind, object: &Object) -> Result<(), NotAManifest> {
    match (kind, schema_version(object)) {
        (ManifestKind::Schema1, _) | (_, Some(1)) => Err(NotAManifest::Schema1),
        (_, Some(2)) => Ok(()),
        // The artifact manifest never had a schemaVersion, but it must say what it is.
        (ManifestKind::Artifact, None) if says_known_type(object) => Ok(()),
        _ => Err(NotAManifest::SchemaVersion),
    }
}

fn says_known_type(object: &Object) -> bool {
    object.get("mediaType").and_then(Value::as_str).is_some_and(|own| kind_of(own).is_some())
}

/// Refuses a document that reads as another kind than it is served as: a client that trusts the
/// fields and one that trusts the type would see two different images (CVE-2021-41190).
fn check_fields(kind: ManifestKind, object: &Object) -> Result<(), NotAManifest> {
    let other = match kind {
        ManifestKind::Index if has(object, "config") || has(object, "layers") => {
            ManifestKind::Image
        }
        ManifestKind::Image if has(object, "manifests") => ManifestKind::Index,
        ManifestKind::Index | ManifestKind::Image if has(object, "fsLayers") => {
            ManifestKind::Schema1
        }
        _ => return Ok(()),
    };
    Err(NotAManifest::Ambiguous(kind.noun(), other.noun()))
}

/// Whether the field is there and not null, which Go prints for an empty list.
fn has(object: &Object, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

fn schema_version(object: &Object) -> Option<u64> {
    object.get("schemaVersion")?.as_u64()
}

// === impl ManifestKind ===

impl ManifestKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Index => "an index",
            Self::Image => "an image",
            Self::Artifact => "an artifact",
            Self::Schema1 => "a schema 1 manifest",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::{Algorithm, Digest};
    use crate::protocol::media_type::{DOCKER_LIST, DOCKER_SCHEMA1_SIGNED, OCI_ARTIFACT};
    use proptest::prelude::*;
    use serde_json::json;

    fn look(content_type: &str, body: &Value) -> Result<Inspected, NotAManifest> {
        inspect(Some(content_type), body.to_string().as_bytes())
    }

    fn found(media_type: &str, kind: ManifestKind) -> Result<Inspected, NotAManifest> {
        Ok(Inspected { media_type: media_type.to_owned(), kind })
    }

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
        json!({"schemaVersion": 2, "manifests": [{"digest": digest("a"), "size": 1}]})
    }

    fn with(mut document: Value, field: &str, value: Value) -> Value {
        let object = document.as_object_mut().expect("documents are objects");
        object.insert(field.to_owned(), value);
        document
    }

    #[test]
    fn a_known_content_type_decides() {
        assert_eq!(look(OCI_MANIFEST, &image()), found(OCI_MANIFEST, ManifestKind::Image));
        let spelled = format!("{}; charset=utf-8", DOCKER_LIST.to_uppercase());
        assert_eq!(look(&spelled, &index()), found(DOCKER_LIST, ManifestKind::Index));
    }

    #[test]
    fn under_a_generic_type_the_document_speaks_for_itself() {
        let list = with(index(), "mediaType", json!(DOCKER_LIST));
        assert_eq!(
            look("text/plain; charset=utf-8", &list),
            found(DOCKER_LIST, ManifestKind::Index)
        );
        assert_eq!(look("application/json", &index()), found(OCI_INDEX, ManifestKind::Index));
        assert_eq!(
            inspect(None, image().to_string().as_bytes()),
            found(OCI_MANIFEST, ManifestKind::Image)
        );
        let config = json!({"mediaType": "application/vnd.docker.container.image.v1+json"});
        let docker = with(image(), "config", config);
        assert_eq!(look("", &docker), found(DOCKER_MANIFEST, ManifestKind::Image));
    }

    #[test]
    fn a_json_type_of_tomorrow_is_taken_by_its_fields() {
        let tomorrow = "application/vnd.example.new.v1+json";
        assert_eq!(look(tomorrow, &image()), found(tomorrow, ManifestKind::Image));
        assert_eq!(
            look(tomorrow, &json!({"schemaVersion": 2})),
            found(tomorrow, ManifestKind::Artifact)
        );
        assert_eq!(look(tomorrow, &json!({"title": "no"})), Err(NotAManifest::SchemaVersion));
    }

    #[test]
    fn an_artifact_manifest_has_no_schema_version() {
        let artifact =
            json!({"mediaType": OCI_ARTIFACT, "blobs": [{"digest": digest("x"), "size": 5}]});
        assert_eq!(look(OCI_ARTIFACT, &artifact), found(OCI_ARTIFACT, ManifestKind::Artifact));
        assert_eq!(look(OCI_ARTIFACT, &json!({})), Err(NotAManifest::SchemaVersion));
    }

    #[test]
    fn pages_and_fragments_are_called_what_they_are() {
        let look = |body: &str| inspect(Some(OCI_MANIFEST), body.as_bytes());
        assert_eq!(look(" \n"), Err(NotAManifest::Empty));
        assert_eq!(look("\n<!doctype html><title>Login"), Err(NotAManifest::Html));
        assert_eq!(look("[1]"), Err(NotAManifest::NotAnObject("an array")));
        assert_eq!(look("null"), Err(NotAManifest::NotAnObject("null")));
        assert!(matches!(look("upstream timed out"), Err(NotAManifest::NotJson(_))));
        assert!(matches!(look("{} trailing"), Err(NotAManifest::NotJson(_))));
        assert_eq!(look("{\"errors\":[]}"), Err(NotAManifest::SchemaVersion));
        assert!(matches!(look(&"[".repeat(100_000)), Err(NotAManifest::NotJson(_))));
    }

    #[test]
    fn a_manifest_cut_anywhere_is_truncated() {
        let body = image().to_string();
        for end in 1..body.len() {
            let cut = body.as_bytes().get(..end).expect("inside the body");
            assert_eq!(inspect(Some(OCI_MANIFEST), cut), Err(NotAManifest::Truncated(end)));
        }
    }

    #[test]
    fn schema_1_has_its_own_error() {
        let old = json!({"schemaVersion": 1, "name": "library/alpine", "fsLayers": []});
        for content_type in [DOCKER_SCHEMA1_SIGNED, "application/json", OCI_MANIFEST, ""] {
            assert_eq!(look(content_type, &old), Err(NotAManifest::Schema1), "{content_type}");
        }
    }

    #[test]
    fn a_document_that_reads_in_two_ways_is_refused() {
        let both = with(image(), "manifests", json!([]));
        assert_eq!(look(OCI_MANIFEST, &both), Err(NotAManifest::Ambiguous("an image", "an index")));
        assert_eq!(look(OCI_INDEX, &both), Err(NotAManifest::Ambiguous("an index", "an image")));
        let typed = with(index(), "mediaType", json!(OCI_INDEX));
        assert_eq!(
            look(OCI_MANIFEST, &typed),
            Err(NotAManifest::Ambiguous("an image", "an index"))
        );
    }

    #[test]
    fn a_foreign_content_type_is_refused() {
        let html = Err(NotAManifest::ForeignType("text/html".to_owned()));
        assert_eq!(look("text/html; charset=utf-8", &image()), html);
    }

    proptest! {
        #[test]
        fn no_body_panics(content_type: Option<String>, body: Vec<u8>) {
            let _ = inspect(content_type.as_deref(), &body);
        }

        #[test]
        fn a_flipped_byte_does_not_panic(at in 0_usize..2000, to: u8) {
            for document in [image(), index()] {
                let mut body = document.to_string().into_bytes();
                let at = at % body.len();
                body.splice(at..=at, [to]);
                let _ = inspect(None, &body);
                }
        }
    }
}
