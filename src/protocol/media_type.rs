//! Manifest media types: their names, their kinds, and what we ask upstream for.
//!
//! Types compare without case and without parameters. What a body really is, is found out by
//! `inspect`, and what it lists by `listing`; both are reached through here.

pub use super::inspect::{Inspected, NotAManifest, inspect};
pub use super::listing::{Child, blobs, children, foreign};

/// OCI image index (image-spec, "Media Types").
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI artifact manifest, of image-spec 1.1's release candidates only, still found in registries.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Docker manifest list (CNCF distribution, "Image Manifest V 2, Schema 2").
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker image manifest, schema 1, signed.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker image manifest, schema 1, unsigned.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";

/// Every manifest type that we serve: all but schema 1.
pub const MANIFEST_TYPES: [&str; 5] =
    [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT];

/// The `Accept` that we always send upstream, whatever the client sent: so that one tag has one
/// answer for all clients. Schema 1 is left out, because naming it invites a conversion whose
/// digest is not the tag's; `*/*` is in for types that do not exist yet.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

/// What a manifest is, whoever's dialect it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// A list of manifests, one per platform.
    Index,
    /// One image: a config and its layers.
    Image,
    /// Something else with a subject or blobs of its own.
    Artifact,
    /// Docker's first format, which is not served.
    Schema1,
}

// === types ===

/// The media type without parameters and surrounding whitespace (RFC 9110 §8.3.1).
pub fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim_ascii()
}

/// The kind of a known manifest type; parameters and case are ignored.
pub fn kind_of(media_type: &str) -> Option<ManifestKind> {
    known(media_type).map(|(_, kind)| kind)
}

/// The canonical spelling and the kind of a known manifest type.
pub(super) fn known(media_type: &str) -> Option<(&'static str, ManifestKind)> {
    const KNOWN: [(&str, ManifestKind); 7] = [
        (OCI_INDEX, ManifestKind::Index),
        (DOCKER_LIST, ManifestKind::Index),
        (OCI_MANIFEST, ManifestKind::Image),
        (DOCKER_MANIFEST, ManifestKind::Image),
        (OCI_ARTIFACT, ManifestKind::Artifact),
        (DOCKER_SCHEMA1_SIGNED, ManifestKind::Schema1),
        (DOCKER_SCHEMA1, ManifestKind::Schema1),
    ];
    let wanted = essence(media_type);
    KNOWN.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::accept::Accept;

    #[test]
    fn kinds_are_known_in_any_case_and_with_parameters() {
        assert_eq!(kind_of(OCI_INDEX), Some(ManifestKind::Index));
        assert_eq!(
            kind_of(&format!(" {} ; charset=utf-8", DOCKER_LIST.to_uppercase())),
            Some(ManifestKind::Index)
        );
        assert_eq!(kind_of(DOCKER_MANIFEST), Some(ManifestKind::Image));
        assert_eq!(kind_of(DOCKER_SCHEMA1_SIGNED), Some(ManifestKind::Schema1));
        assert_eq!(kind_of("application/json"), None);
        assert_eq!(kind_of(""), None);
    }

    #[test]
    fn what_we_ask_upstream_names_every_type_but_schema_1() {
        let accept = Accept::parse([ACCEPT_MANIFESTS]);
        assert!(MANIFEST_TYPES.iter().all(|media_type| accept.names(media_type)));
        assert!(!accept.names(DOCKER_SCHEMA1) && accept.accepts("application/vnd.new+json"));
    }

    #[test]
    fn the_essence_has_no_parameters() {
        assert_eq!(essence(" a/b ;c=d"), "a/b");
        assert_eq!(essence(""), "");
    }
}
