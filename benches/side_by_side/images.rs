//! Images as clients meet them, of several layers: a large one for the slow link, and a crowd of small ones that share
//! base layers, with the order in which the crowd is asked for.

use anyhow::{Context, Result};

use crate::args::Plan;
use crate::content::{Builder, Noise, Object};

const KIB: u64 = 1 << 10;
/// 60 MiB in the mixture and disorder of a real image, in KiB.
const LAYERS_KIB: [u64; 10] = [14_336, 16, 20_480, 640, 112, 7168, 2560, 10_240, 1280, 4608];
/// Layers that images of the crowd have in common, and how large those are.
const BASES: u64 = 8;
const BASE_BYTES: u64 = 768 * KIB;
const SMALLEST_BYTES: u64 = 16 * KIB;
/// 16 KiB doubled six times is 1 MiB.
const DOUBLINGS: u64 = 6;

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

/// Images of 3 to 5 layers of 16 KiB to 1 MiB; the lowest layer is one of a few that all share.
pub(crate) fn crowd(builder: &mut Builder<'_>, plan: &Plan) -> Result<Vec<Image>> {
    let bases = (0..BASES).map(|n| builder.noise("bench/crowd/base", 600 + n, BASE_BYTES));
    let bases: Vec<Object> = bases.collect::<Result<_>>()?;
    let mut random = Noise::new(700);
    (0..plan.crowd_images as u64)
        .map(|n| {
            let repository = format!("bench/crowd/app{n}");
            let lowest = bases.get((random.next() % BASES) as usize).context("a base")?;
            let mut layers = vec![builder.mounted(&repository, lowest)?];
            for layer in 0..2 + random.next() % 3 {
                let size_bytes = small_layer(&mut random);
                layers.push(builder.noise(&repository, 1000 + 10 * n + layer, size_bytes)?);
            }
            builder.manifest(&repository, layers)
        })
        .collect()
}

/// As many between 16 and 32 KiB as between 512 KiB and 1 MiB.
fn small_layer(random: &mut Noise) -> u64 {
    let least = SMALLEST_BYTES << (random.next() % DOUBLINGS);
    least + random.next() % least
}

/// `pulls` draws out of `images`, of which the first comes twice as often as the second, three times as often as the
/// third, and so on (Zipf's law, exponent 1). The same in every run.
pub(crate) fn popularity(images: usize, pulls: usize) -> Vec<usize> {
    let mut random = Noise::new(800);
    let total: f64 = (1..=images).map(|rank| 1.0 / rank as f64).sum();
    let mut draw = || {
        let mut left = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let drawn = (1..images).find(|rank| {
            left -= 1.0 / *rank as f64;
            left < 0.0
        });
        drawn.unwrap_or(images) - 1
    };
    (0..pulls).map(|_| draw()).collect()
}
