//! Made-up traces of pulls, the same for the same seed.
//!
//! An image is a base, which others share, and layers of its own; a pull reads them all. Sizes are
//! log-normal around 3 MiB, from 1 KiB to 1 GiB.

#![expect(clippy::indexing_slicing, reason = "a bench may panic")]

use std::{cmp::Ordering, iter};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Mean time between two pulls: some 20 000 a day.
const GAP_S: f64 = 4.0;

/// One in this many of a trace's pulls only warms the cache, and isn't counted.
const WARM_UP: usize = 5;

/// How popular images are, where a trace doesn't say otherwise.
const ALPHA: f64 = 0.9;

/// `Request::next` of an object that is not asked for again.
pub(crate) const NEVER: u32 = u32::MAX;

/// One read of one blob.
#[derive(Clone)]
pub(crate) struct Request {
    /// The place in the trace, which also orders requests of the same second.
    pub(crate) position: u32,
    pub(crate) at_s: u64,
    pub(crate) object: u32,
    pub(crate) bytes: u64,
    /// Whether a hit is worth anything: not while warming up, and not to a scanner.
    pub(crate) counted: bool,
    /// Position of the object's next request, if that one counts. Only offline policies may look.
    pub(crate) next: u32,
}

pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) requests: Vec<Request>,
    pub(crate) distinct_bytes: u64,
}

#[derive(Clone, Copy)]
pub(crate) struct Scale {
    images: usize,
    pulls: usize,
    scanned: usize,
}

pub(crate) type Maker = fn(Scale, u64) -> Trace;

pub(crate) const MAKERS: [Maker; 7] = [
    |scale, seed| zipf("Zipf 0.8", 0.8, scale, seed),
    |scale, seed| zipf("Zipf 1.0", 1.0, scale, seed),
    scan,
    drift,
    turnover,
    builds,
    rollouts,
];

/// SplitMix64.
struct Random(u64);

/// Ranks from 0 on, the first the most likely.
struct Zipf {
    cumulated: Vec<f64>,
}

/// Images by rank, each the layers of a base and some of its own.
struct Catalogue {
    images: Vec<Image>,
    bases: Vec<Vec<u32>>,
    popular_bases: Zipf,
    sizes: Vec<u64>,
    random: Random,
}

#[derive(Clone)]
struct Image {
    layers: Vec<u32>,
    /// How many of the layers are the base's.
    base: usize,
}

/// A trace in the making.
struct Recorder {
    catalogue: Catalogue,
    requests: Vec<Request>,
    clock_s: f64,
}

// === impl Scale ===

impl Scale {
    pub(crate) const FULL: Self = Self { images: 3_000, pulls: 30_000, scanned: 4_000 };
    pub(crate) const QUICK: Self = Self { images: 300, pulls: 3_000, scanned: 400 };

    /// Whether the cache is warm by then.
    fn counts(self, pull: usize) -> bool {
        pull >= self.pulls / WARM_UP
    }
}

// === impl Random, Zipf ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Above 0, up to 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.next().is_multiple_of(chances)
    }

    /// Log-normal, drawn again until it lies between `least` and 1 GiB.
    fn size(&mut self, median: u64, sigma: f64, least: u64) -> u64 {
        loop {
            let radius = (-2.0 * self.unit().ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
            let size = (median as f64 * (sigma * normal).exp()) as u64;
            if (least..=GIB).contains(&size) {
                return size;
            }
        }
    }
}

impl Zipf {
    fn new(ranks: usize, alpha: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=ranks).map(|rank| (rank as f64).powf(-alpha));
        let cumulated = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit() * self.cumulated.last().copied().unwrap_or_default();
        let order = |sum: &f64| sum.partial_cmp(&at).unwrap_or(Ordering::Equal);
        self.cumulated.partition_point(|sum| order(sum) == Ordering::Less)
    }
}

// === impl Catalogue ===

impl Catalogue {
    fn new(images: usize, seed: u64) -> Self {
        let bases = images / 10;
        let popular_bases = Zipf::new(bases, 1.0);
        let random = Random(seed);
        let mut catalogue = Self {
            images: Vec::new(),
            bases: Vec::new(),
            popular_bases,
            sizes: Vec::new(),
            random,
        };
        for _ in 0..bases {
            let layers = catalogue.random.between(1, 4);
            let base = iter::repeat_with(|| catalogue.layer()).take(layers).collect();
            catalogue.bases.push(base);
        }
        for _ in 0..images {
            let image = catalogue.image();
            catalogue.images.push(image);
        }
        catalogue
    }

    fn object(&mut self, size: u64) -> u32 {
        self.sizes.push(size);
        (self.sizes.len() - 1) as u32
    }

    fn layer(&mut self) -> u32 {
        let size = self.random.size(3 * MIB, 2.2, KIB);
        self.object(size)
    }

    fn image(&mut self) -> Image {
        let mut layers = self.bases[self.popular_bases.draw(&mut self.random)].clone();
        let base = layers.len();
        for _ in 0..self.random.between(2, 8) {
            layers.push(self.layer());
        }
        Image { layers, base }
    }

    /// A new version: up to three of the top layers are replaced by about as large ones.
    fn release(&mut self, rank: usize) {
        let Image { layers, base } = &self.images[rank];
        let (count, own) = (layers.len(), layers.len() - base);
        for index in count - self.random.between(1, own.min(3))..count {
            let size = self.sizes[self.images[rank].layers[index] as usize];
            let size = (size as f64 * (0.9 + 0.2 * self.random.unit())) as u64;
            self.images[rank].layers[index] = self.object(size.clamp(KIB, GIB));
        }
    }
}

// === impl Recorder, Trace ===

impl Recorder {
    fn new(scale: Scale, seed: u64) -> Self {
        Self { catalogue: Catalogue::new(scale.images, seed), requests: Vec::new(), clock_s: 0.0 }
    }

    /// Lets some time pass, `mean_s` on average.
    fn tick(&mut self, mean_s: f64) {
        self.clock_s -= mean_s * self.catalogue.random.unit().ln();
    }

    fn read(&mut self, object: u32, counted: bool) {
        let position = self.requests.len() as u32;
        let (at_s, bytes) = (self.clock_s as u64, self.catalogue.sizes[object as usize]);
        self.requests.push(Request { position, at_s, object, bytes, counted, next: NEVER });
    }

    fn pull(&mut self, image: &Image, counted: bool) {
        for layer in &image.layers {
            self.read(*layer, counted);
        }
    }

    fn pull_ranked(&mut self, popular: &Zipf, counted: bool) {
        let rank = popular.draw(&mut self.catalogue.random);
        self.pull(&self.catalogue.images[rank].clone(), counted);
    }
}

impl Trace {
    /// Reads of these objects, each one byte large, `gap_s` apart.
    pub(crate) fn of_units(objects: &[u32], gap_s: u64) -> Self {
        let request = |(position, object): (u32, &u32)| {
            let at_s = u64::from(position) * gap_s;
            Request { position, at_s, object: *object, bytes: 1, counted: true, next: NEVER }
        };
        Self::new("by hand", (0..).zip(objects).map(request).collect())
    }

    /// Adds what only the future knows.
    fn new(name: &'static str, mut requests: Vec<Request>) -> Self {
        let objects = requests.iter().map(|request| request.object).max().unwrap_or_default();
        let mut next = vec![None; objects as usize + 1];
        let mut distinct_bytes = 0;
        for request in requests.iter_mut().rev() {
            let later = next[request.object as usize].replace((request.position, request.counted));
            match later {
                None => distinct_bytes += request.bytes,
                Some((position, true)) => request.next = position,
                Some((_, false)) => {}
            }
        }
        Self { name, requests, distinct_bytes }
    }
}

// === the traces ===

/// Images by popularity, nothing else.
fn zipf(name: &'static str, alpha: f64, scale: Scale, seed: u64) -> Trace {
    let mut recorder = Recorder::new(scale, seed);
    let popular = Zipf::new(scale.images, alpha);
    for pull in 0..scale.pulls {
        recorder.tick(GAP_S);
        recorder.pull_ranked(&popular, scale.counts(pull));
    }
    Trace::new(name, recorder.requests)
}

/// In the middle a scanner pulls images that nobody else wants, once each, as fast as all the others
/// together. Only the others are counted.
fn scan(scale: Scale, seed: u64) -> Trace {
    let mut recorder = Recorder::new(scale, seed);
    let popular = Zipf::new(scale.images, ALPHA);
    for pull in 0..scale.pulls {
        recorder.tick(GAP_S);
        recorder.pull_ranked(&popular, scale.counts(pull));
        if (scale.pulls / 2..scale.pulls / 2 + scale.scanned).contains(&pull) {
            let image = recorder.catalogue.image();
            recorder.pull(&image, false);
        }
    }
    Trace::new("scan", recorder.requests)
}

/// New versions replace old ones, of popular images more often; now and then a popular image and
/// another one change places.
fn drift(scale: Scale, seed: u64) -> Trace {
    let mut recorder = Recorder::new(scale, seed);
    let (popular, released) = (Zipf::new(scale.images, ALPHA), Zipf::new(scale.images, 0.5));
    for pull in 0..scale.pulls {
        recorder.tick(GAP_S);
        recorder.pull_ranked(&popular, scale.counts(pull));
        let Catalogue { images, random, .. } = &mut recorder.catalogue;
        if random.one_in(100) {
            images.swap(popular.draw(random), random.between(0, scale.images - 1));
        }
        if random.one_in(5) {
            let rank = released.draw(random);
            recorder.catalogue.release(rank);
        }
    }
    Trace::new("drift", recorder.requests)
}

/// At half time what was popular no longer is: the worst case for what protects old favourites.
fn turnover(scale: Scale, seed: u64) -> Trace {
    let mut recorder = Recorder::new(scale, seed);
    let popular = Zipf::new(scale.images, ALPHA);
    for pull in 0..scale.pulls {
        recorder.tick(GAP_S);
        recorder.pull_ranked(&popular, scale.counts(pull));
        if pull == scale.pulls / 2 {
            recorder.catalogue.images.reverse();
        }
    }
    Trace::new("turnover", recorder.requests)
}

/// A build pulls three images, and one large layer that nobody reads again.
fn builds(scale: Scale, seed: u64) -> Trace {
    let mut recorder = Recorder::new(scale, seed);
    let popular = Zipf::new(scale.images, 1.0);
    for build in 0..scale.pulls / 3 {
        let counted = scale.counts(build * 3);
        recorder.tick(GAP_S * 3.0);
        for _ in 0..3 {
            recorder.pull_ranked(&popular, counted);
        }
        let size = recorder.catalogue.random.size(64 * MIB, 1.0, 8 * MIB);
        let layer = recorder.catalogue.object(size);
        recorder.read(layer, counted);
    }
    Trace::new("builds", recorder.requests)
}

/// Up to twelve machines pull the same image, one after the other within some two minutes: reads
/// that come together say little about reads to come.
fn rollouts(scale: Scale, seed: u64) -> Trace {
    let mut recorder = Recorder::new(scale, seed);
    let popular = Zipf::new(scale.images, ALPHA);
    let mut pulls = Vec::new();
    while pulls.len() < scale.pulls {
        let machines = recorder.catalogue.random.between(1, 12);
        recorder.tick(GAP_S * 6.5);
        let rank = popular.draw(&mut recorder.catalogue.random);
        pulls.extend((0..machines).map(|machine| (recorder.clock_s + 10.0 * machine as f64, rank)));
    }
    pulls.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    for (pull, (at_s, rank)) in pulls.into_iter().enumerate() {
        recorder.clock_s = at_s;
        recorder.pull(&recorder.catalogue.images[rank].clone(), scale.counts(pull));
    }
    Trace::new("rollouts", recorder.requests)
}
