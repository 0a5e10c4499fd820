//! From an `ImageSpec` to bytes: layers, configs, manifests, attestations and the index.

use bytes::Bytes;
use serde_json::{Value, json};

use super::layer::Layer;
use super::{Descriptor, Format, Image, ImageSpec, Platform};
use crate::digest::{sha256, sha512};
use crate::random::{Random, seed_of};

/// An image with the bytes to publish: blobs by digest, manifests by media type.
pub(crate) struct Build {
    pub(crate) image: Image,
    pub(crate) blobs: Vec<(String, Bytes)>,
    pub(crate) manifests: Vec<(String, Bytes)>,
}

struct MediaTypes {
    index: &'static str,
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const OCI: MediaTypes = MediaTypes {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};

const DOCKER: MediaTypes = MediaTypes {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

const IN_TOTO: &str = "application/vnd.in-toto+json";
const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";

/// Builds everything the spec asks for.
pub(crate) fn build(spec: &ImageSpec) -> Build {
    let mut builder = Builder::new(spec);
    if spec.single {
        builder.single();
    } else {
        builder.index();
    }
    builder.build
}

struct Builder<'a> {
    spec: &'a ImageSpec,
    types: MediaTypes,
    seed: u64,
    build: Build,
}

// === impl Builder ===

impl<'a> Builder<'a> {
    fn new(spec: &'a ImageSpec) -> Self {
        let types = match spec.format {
            Format::Oci => OCI,
            Format::Docker => DOCKER,
        };
        let seed = match spec.seed {
            0 => seed_of(&[&spec.repository]),
            seed => seed,
        };
        let image = Image {
            repository: spec.repository.clone(),
            digest: String::new(),
            media_type: String::new(),
            manifests: Vec::new(),
            attestations: Vec::new(),
            configs: Vec::new(),
            layers: Vec::new(),
            all_blobs: Vec::new(),
        };
        let build = Build { image, blobs: Vec::new(), manifests: Vec::new() };
        Self { spec, types, seed, build }
    }

    fn single(&mut self) {
        let default = Platform::new("linux", "amd64");
        let manifest = self.platform(self.spec.platforms.first().unwrap_or(&default));
        self.build.image.digest = manifest.digest.clone();
        self.build.image.media_type = manifest.media_type.clone();
        self.build.image.manifests.push(manifest);
    }

    fn index(&mut self) {
        let mut entries = Vec::new();
        for platform in &self.spec.platforms {
            let manifest = self.platform(platform);
            entries.push(with(&manifest, json!({ "platform": platform })));
            self.build.image.manifests.push(manifest);
        }
        // buildx attaches provenance to OCI indexes only; skopeo refuses in-toto in Docker types.
        if self.spec.attestations && self.spec.format == Format::Oci {
            for subject in self.build.image.manifests.clone() {
                let manifest = self.attestation(&subject);
                entries.push(with(&manifest, attestation_entry(&subject)));
                self.build.image.attestations.push(manifest.clone());
                self.build.image.manifests.push(manifest);
            }
        }
        let index = self.manifest(
            self.types.index,
            json!({
                "schemaVersion": 2,
                "mediaType": self.types.index,
                "manifests": entries,
            }),
        );
        self.build.image.digest = index.digest;
        self.build.image.media_type = index.media_type;
    }

    fn platform(&mut self, platform: &Platform) -> Descriptor {
        let first = self.build.image.configs.is_empty();
        let seed = Random::new(self.seed ^ platform_seed(platform)).next();
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for number in 0..self.spec.layers {
            let layer = Layer::build(number, self.spec.layer_size, seed ^ number as u64);
            diff_ids.push(layer.diff_id);
            layers.push(self.layer(layer.body));
        }
        let config = self.blob(self.types.config, &config(platform, &diff_ids));
        self.build.image.configs.push(config.clone());
        if first {
            self.build.image.layers.clone_from(&layers);
        }
        self.image_manifest(&config, json!(layers))
    }

    /// As buildx attaches provenance: an image manifest whose layer is an in-toto statement.
    fn attestation(&mut self, subject: &Descriptor) -> Descriptor {
        let statement = statement(&self.spec.repository, subject);
        let diff_id = sha256(&statement.to_string().into_bytes());
        let layer = self.blob(IN_TOTO, &statement);
        let config = self.blob(self.types.config, &config(&unknown(), &[diff_id]));
        let annotations = json!({ "annotations": { "in-toto.io/predicate-type": PROVENANCE } });
        self.image_manifest(&config, json!([with(&layer, annotations)]))
    }

    fn image_manifest(&mut self, config: &Descriptor, layers: Value) -> Descriptor {
        let body = json!({
            "schemaVersion": 2,
            "mediaType": self.types.manifest,
            "config": config,
            "layers": layers,
        });
        self.manifest(self.types.manifest, body)
    }

    fn manifest(&mut self, media_type: &str, body: Value) -> Descriptor {
        let body = Bytes::from(body.to_string());
        let descriptor = describe(media_type, sha256(&body), &body);
        self.build.manifests.push((media_type.to_owned(), body));
        descriptor
    }

    fn layer(&mut self, body: Bytes) -> Descriptor {
        let digest = if self.spec.sha512_layers { sha512(&body) } else { sha256(&body) };
        self.publish(self.types.layer, digest, body)
    }

    fn blob(&mut self, media_type: &str, body: &Value) -> Descriptor {
        let body = Bytes::from(body.to_string());
        self.publish(media_type, sha256(&body), body)
    }

    fn publish(&mut self, media_type: &str, digest: String, body: Bytes) -> Descriptor {
        let descriptor = describe(media_type, digest.clone(), &body);
        self.build.image.all_blobs.push(descriptor.clone());
        self.build.blobs.push((digest, body));
        descriptor
    }
}

fn describe(media_type: &str, digest: String, body: &Bytes) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size: body.len() as u64 }
}

/// The descriptor as JSON with further members.
fn with(descriptor: &Descriptor, further: Value) -> Value {
    let mut entry = json!(descriptor);
    if let (Value::Object(entry), Value::Object(further)) = (&mut entry, further) {
        entry.extend(further);
    }
    entry
}

fn attestation_entry(subject: &Descriptor) -> Value {
    json!({
        "platform": unknown(),
        "annotations": {
            "vnd.docker.reference.digest": subject.digest,
            "vnd.docker.reference.type": "attestation-manifest",
        },
    })
}

fn statement(repository: &str, subject: &Descriptor) -> Value {
    let hex = subject.digest.split_once(':').map_or("", |(_, hex)| hex);
    json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": PROVENANCE,
        "subject": [{ "name": repository, "digest": { "sha256": hex } }],
        "predicate": { "builder": { "id": "hub" }, "buildType": "https://mobyproject.org/buildkit@v1" },
    })
}

fn config(platform: &Platform, diff_ids: &[String]) -> Value {
    let history: Vec<_> = (0..diff_ids.len())
        .map(|number| json!({ "created": EPOCH, "created_by": format!("hub layer {number}") }))
        .collect();
    let mut config = json!({
        "created": EPOCH,
        "config": { "Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    if let (Value::Object(config), Value::Object(platform)) = (&mut config, json!(platform)) {
        config.extend(platform);
    }
    config
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn unknown() -> Platform {
    Platform::new("unknown", "unknown")
}

fn platform_seed(platform: &Platform) -> u64 {
    let variant = platform.variant.as_deref().unwrap_or("");
    seed_of(&[&platform.os, &platform.architecture, variant])
}
