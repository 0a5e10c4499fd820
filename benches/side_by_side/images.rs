//! Images as clients meet them, of several layers.

use anyhow::Result;

use crate::args::Plan;
use crate::content::{Builder, Object};

const KIB: u64 = 1 << 10;
/// 60 MiB in the mixture and disorder of a real image, in KiB.
const LAYERS_KIB: [u64; 10] = [14_336, 16, 20_480, 640, 112, 7168, 2560, 10_240, 1280, 4608];

/// What a client pulls: the manifest by its tag and by its digest, and the blobs that it names.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) tagged: Object,
    pub(crate) manifest: Object,
    /// The config first.
    pub(crate) blobs: Vec<Object>,
}

// === impl Image ===

impl Image {
    /// Body bytes of one pull.
    pub(crate) fn pulled_bytes(&self) -> u64 {
        self.manifest.size_bytes + self.blobs.iter().map(|blob| blob.size_bytes).sum::<u64>()
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        [&self.tagged, &self.manifest].into_iter().chain(&self.blobs)
    }
}

/// The image for the slow link.
pub(crate) fn layered(builder: &mut Builder<'_>, plan: &Plan) -> Result<Image> {
    let repository = "bench/layered";
    let layers = LAYERS_KIB
        .iter()
        .zip(500..)
        .map(|(kib, seed)| builder.noise(repository, seed, kib * KIB / plan.link_image_shrunk_by));
    let layers = layers.collect::<Result<_>>()?;
    builder.manifest(repository, layers)
}
