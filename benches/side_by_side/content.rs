//! What the origin holds: images of incompressible blobs, laid out as files under the URL paths of the registry API.
//!
//! Each round of a cold step has its own blob, so that a server keeps running from first to last step and its memory
//! at the end is that of all the work. The bytes follow from fixed seeds: digests are the same in every run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::args::Plan;
use crate::images::{self, Image};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const BLOB_TYPE: &str = "application/octet-stream";
const CHUNK_BYTES: usize = 1 << 20;
pub(crate) const SMALL_BYTES: u64 = 4096;

/// One resource of the origin.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// The request's path, `/v2/…`.
    pub(crate) path: String,
    pub(crate) file: PathBuf,
    pub(crate) media_type: &'static str,
    /// `sha256:<hex>` of the file.
    pub(crate) digest: String,
    pub(crate) size_bytes: u64,
}

pub(crate) struct Content {
    /// All that the origin serves.
    pub(crate) objects: Vec<Object>,
    /// The manifest behind `bench/tag:latest`.
    pub(crate) tag: Object,
    pub(crate) hot: Object,
    /// One per round.
    pub(crate) cold: Vec<Object>,
    /// One per round.
    pub(crate) herd: Vec<Object>,
    pub(crate) layered: Image,
    pub(crate) crowd: Vec<Image>,
    /// Many blobs of a few KiB.
    pub(crate) small: Vec<Object>,
    /// Blobs that are read from the disk.
    pub(crate) disk: Vec<Object>,
}

/// The bytes of a seed, endless and incompressible (SplitMix64).
pub(crate) struct Noise(u64);

pub(crate) struct Builder<'a> {
    root: &'a Path,
    objects: Vec<Object>,
}

// === impl Content ===

impl Content {
    pub(crate) fn generate(root: &Path, plan: &Plan) -> Result<Self> {
        let mut builder = Builder { root, objects: Vec::new() };
        let rounds = || 0..plan.rounds as u64;
        let (tag, _) = builder.image("bench/tag", 1, 4096)?;
        let (_, hot) = builder.image("bench/hot", 2, plan.hot_bytes)?;
        let cold = rounds()
            .map(|n| Ok(builder.image(&format!("bench/cold{n}"), 100 + n, plan.cold_bytes)?.1))
            .collect::<Result<_>>()?;
        let herd = rounds()
            .map(|n| Ok(builder.image(&format!("bench/herd{n}"), 300 + n, plan.herd_bytes)?.1))
            .collect::<Result<_>>()?;
        let small = builder.blobs("bench/small", 1_000_000, plan.small_blobs, SMALL_BYTES)?;
        let disk = builder.blobs("bench/disk", 2_000_000, plan.disk_blobs, plan.disk_blob_bytes)?;
        let layered = images::layered(&mut builder, plan)?;
        let crowd = images::crowd(&mut builder, plan)?;
        let objects = builder.objects;
        Ok(Self { objects, tag, hot, cold, herd, small, disk, layered, crowd })
    }
}

// === impl Builder ===

impl Builder<'_> {
    /// Blobs that no image names.
    fn blobs(
        &mut self,
        repository: &str,
        seed: u64,
        count: u64,
        bytes: u64,
    ) -> Result<Vec<Object>> {
        (0..count).map(|n| self.noise(repository, seed + n, bytes)).collect()
    }

    /// An image of one layer: answers its manifest (by tag `latest`) and its layer.
    fn image(&mut self, repository: &str, seed: u64, layer_bytes: u64) -> Result<(Object, Object)> {
        let layer = self.noise(repository, seed, layer_bytes)?;
        let image = self.manifest(repository, vec![layer.clone()])?;
        Ok((image.tagged, layer))
    }

    /// The image of these layers, by tag `latest`.
    pub(crate) fn manifest(&mut self, repository: &str, layers: Vec<Object>) -> Result<Image> {
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}});
        let config_bytes = serde_json::to_vec(&config)?;
        let config = self.store(repository, "blobs", None, BLOB_TYPE, &config_bytes)?;
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| json!({"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.size_bytes}))
            .collect();
        let bytes = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size_bytes},
            "layers": descriptors,
        }))?;
        let manifest = self.store(repository, "manifests", None, MANIFEST_TYPE, &bytes)?;
        let tagged = self.store(repository, "manifests", Some("latest"), MANIFEST_TYPE, &bytes)?;
        let blobs = std::iter::once(config).chain(layers).collect();
        Ok(Image { tagged, manifest, blobs })
    }

    /// The blob once more, in another repository.
    pub(crate) fn mounted(&mut self, repository: &str, blob: &Object) -> Result<Object> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let file = self.file(&path)?;
        fs::hard_link(&blob.file, &file).with_context(|| format!("linking {}", file.display()))?;
        Ok(self.add(Object { path, file, ..blob.clone() }))
    }

    /// A small object, named by `name` or else by its digest.
    fn store(
        &mut self,
        repository: &str,
        kind: &str,
        name: Option<&str>,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Result<Object> {
        let digest = digest_of(bytes);
        let path = format!("/v2/{repository}/{kind}/{}", name.unwrap_or(&digest));
        let file = self.file(&path)?;
        fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))?;
        Ok(self.add(Object { path, file, media_type, digest, size_bytes: bytes.len() as u64 }))
    }

    /// A blob of `size_bytes` of noise, hashed while it is written.
    pub(crate) fn noise(&mut self, repository: &str, seed: u64, size_bytes: u64) -> Result<Object> {
        let staged = self.file(&format!("/v2/{repository}/blobs/staged"))?;
        let mut out =
            File::create(&staged).with_context(|| format!("creating {}", staged.display()))?;
        let (mut noise, mut hasher) = (Noise::new(seed), Sha256::new());
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = size_bytes;
        while left > 0 {
            chunk.truncate(usize::try_from(left).unwrap_or(CHUNK_BYTES));
            noise.fill(&mut chunk);
            hasher.update(&chunk);
            out.write_all(&chunk).with_context(|| format!("writing {}", staged.display()))?;
            left -= chunk.len() as u64;
        }
        let digest = format!("sha256:{:x}", hasher.finalize());
        let path = format!("/v2/{repository}/blobs/{digest}");
        let file = self.file(&path)?;
        fs::rename(&staged, &file)?;
        Ok(self.add(Object { path, file, media_type: BLOB_TYPE, digest, size_bytes }))
    }

    fn add(&mut self, object: Object) -> Object {
        self.objects.push(object.clone());
        object
    }

    fn file(&self, path: &str) -> Result<PathBuf> {
        let file = self.root.join(path.trim_start_matches('/'));
        let folder = file.parent().context("a URL path has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(file)
    }
}

// === impl Noise ===

impl Noise {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed << 32)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            for (byte, random) in word.iter_mut().zip(self.next().to_le_bytes()) {
                *byte = random;
            }
        }
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}
