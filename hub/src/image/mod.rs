//! What to publish (`ImageSpec`) and what was published (`Image`).

pub(crate) mod build;
mod layer;

use serde::{Deserialize, Serialize};

/// A description of an image to build. Equal specs give equal bytes.
///
/// ```
/// use hub::ImageSpec;
/// let spec = ImageSpec::new("library/alpine").tag("latest").layers(3).layer_size(1 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSpec {
    /// Full name, such as `library/alpine`.
    pub repository: String,
    /// Tags that will name the image; none: reachable by digest only.
    pub tags: Vec<String>,
    /// One image manifest each; a `single` image takes the first.
    pub platforms: Vec<Platform>,
    /// Layers per platform.
    pub layers: usize,
    /// Compressed size of each layer in bytes, met to within a few hundred bytes; at least 3 KiB.
    pub layer_size: usize,
    /// The family of media types.
    pub format: Format,
    /// A lone manifest in place of an index.
    pub single: bool,
    /// Add to an OCI index one attestation manifest (platform unknown/unknown) per platform; a
    /// Docker list never has them.
    pub attestations: bool,
    /// Picks the content. 0, the default, stands for a seed made from the repository's name; two
    /// repositories given the same seed share their blobs.
    pub seed: u64,
    /// Name layers by sha512; all else stays sha256.
    pub sha512_layers: bool,
}

/// `os/architecture[/variant]`, as an index writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`, as Go names it.
    pub architecture: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Which family of media types manifests, configs and layers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `application/vnd.oci.image.…`
    Oci,
    /// `application/vnd.docker.…`, schema 2.
    Docker,
}

/// What [`Hub::push`](crate::Hub::push) published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Full name.
    pub repository: String,
    /// Digest of what the tags name: the index, or the manifest of a single image.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// The index's children in order, attestations last; or the manifest itself if single.
    pub manifests: Vec<Descriptor>,
    /// The children that are attestations.
    pub attestations: Vec<Descriptor>,
    /// One config per platform, in the order of the platforms.
    pub configs: Vec<Descriptor>,
    /// The layers of the first platform, lowest first.
    pub layers: Vec<Descriptor>,
    /// Every blob of every platform, attestations included.
    pub all_blobs: Vec<Descriptor>,
}

/// Type, digest and size of one manifest or blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// `sha256:<hex>` or `sha512:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

// === impl ImageSpec ===

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            repository: "library/test".to_owned(),
            tags: Vec::new(),
            platforms: vec![Platform::new("linux", "amd64"), Platform::arm64()],
            layers: 3,
            layer_size: 64 << 10,
            format: Format::Oci,
            single: false,
            attestations: true,
            seed: 0,
            sha512_layers: false,
        }
    }
}

impl ImageSpec {
    /// An OCI index for amd64 and arm64 with attestations; three layers of 64 KiB each; no tag.
    pub fn new(repository: impl Into<String>) -> Self {
        Self { repository: repository.into(), ..Self::default() }
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Layers per platform.
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// Bytes per layer, compressed.
    pub fn layer_size(mut self, bytes: usize) -> Self {
        self.layer_size = bytes;
        self
    }

    /// Docker schema 2 media types; no attestations.
    pub fn docker(mut self) -> Self {
        self.format = Format::Docker;
        self
    }

    /// A lone manifest for the first platform.
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }

    /// Replaces the platforms.
    pub fn platforms(mut self, platforms: Vec<Platform>) -> Self {
        self.platforms = platforms;
        self
    }

    /// An index without attestation manifests.
    pub fn without_attestations(mut self) -> Self {
        self.attestations = false;
        self
    }

    /// Other content under the same name, as when a tag moves.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Layers named by sha512.
    pub fn sha512_layers(mut self) -> Self {
        self.sha512_layers = true;
        self
    }
}

// === impl Platform ===

impl Platform {
    /// A platform without variant.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self { os: os.into(), architecture: architecture.into(), variant: None }
    }

    fn arm64() -> Self {
        Self { variant: Some("v8".to_owned()), ..Self::new("linux", "arm64") }
    }
}
