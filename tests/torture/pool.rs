//! Images of random bytes, known to the test byte by byte.
//!
//! Layers differ in size by orders of magnitude, and images share some of them; half of the images
//! are indexes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hub::{Hub, Options, sha256};
use serde_json::json;

/// Layers of the images that [`Pool::grow`] makes.
const LAYER_BYTES: std::ops::RangeInclusive<usize> = 10 << 10..=3 << 20;

/// A registry without a budget, and what is in it.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) hub: Hub,
    pub(crate) images: Vec<Arc<Image>>,
    /// Manifests and blobs, by digest.
    pub(crate) objects: BTreeMap<String, Object>,
    random: fastrand::Rng,
}

/// One image, tagged `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    /// What the tag names first; of an index, the child follows.
    pub(crate) manifests: Vec<String>,
    /// Config and layers.
    pub(crate) blobs: Vec<String>,
}

/// A manifest or a blob.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// One that has it.
    pub(crate) repository: String,
    pub(crate) body: Bytes,
    pub(crate) is_manifest: bool,
}

// === impl Pool ===

impl Pool {
    pub(crate) async fn start(random: fastrand::Rng) -> Self {
        let hub = Hub::start_with(Options { limit: None, ..Options::default() }).await.unwrap();
        Self { hub, images: Vec::new(), objects: BTreeMap::new(), random }
    }

    /// Adds an image of one to four layers of any size, some of them shared with others.
    pub(crate) fn grow(&mut self) -> Arc<Image> {
        let (least, most) = (*LAYER_BYTES.start() as f64, *LAYER_BYTES.end() as f64);
        let mut own = Vec::new();
        let mut shared = Vec::new();
        for _ in 0..self.random.usize(1..=4) {
            match self.random.choice(&self.images) {
                Some(image) if self.random.u8(..) < 80 => {
                    shared.push(image.blobs.last().unwrap().clone());
                }
                _ => own.push((least * (most / least).powf(self.random.f64())) as usize),
            }
        }
        self.push(&own, &shared)
    }

    /// Adds an image of one layer.
    pub(crate) fn one_layer(&mut self, bytes: usize) -> Arc<Image> {
        self.push(&[bytes], &[])
    }

    /// Adds an image of new layers of these sizes, and of known ones.
    pub(crate) fn push(&mut self, own: &[usize], shared: &[String]) -> Arc<Image> {
        let number = self.images.len();
        let name = format!("library/image{number}");
        let config = json!({ "architecture": "amd64", "os": "linux", "number": number,
            "noise": self.random.u64(..) });
        let mut bodies = vec![Bytes::from(config.to_string())];
        bodies.extend(shared.iter().map(|digest| self.objects[digest].body.clone()));
        bodies.extend(own.iter().map(|bytes| self.noise(*bytes)));
        let blobs: Vec<_> =
            bodies.into_iter().map(|body| self.put(&name, body, false, None)).collect();
        let oci = |kind: &str| format!("application/vnd.oci.image.{kind}+json");
        let describe = |digest: &String, media_type: String| {
            let size = self.objects[digest].body.len();
            json!({ "mediaType": media_type, "digest": digest, "size": size })
        };
        let layers = blobs[1..].iter().map(|digest| describe(digest, oci("layer.v1.tar")));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci("manifest.v1"),
            "config": describe(&blobs[0], oci("config.v1")),
            "layers": layers.collect::<Vec<_>>(),
        });
        let media_type = oci("manifest.v1");
        let child = self.put(&name, manifest.to_string().into(), true, Some(&media_type));
        let mut manifests = vec![child.clone()];
        if self.random.bool() {
            let size = self.objects[&child].body.len();
            let platform = json!({ "os": "linux", "architecture": "amd64" });
            let index = json!({
                "schemaVersion": 2,
                "mediaType": oci("index.v1"),
                "manifests": [{ "mediaType": media_type, "digest": child, "size": size,
                    "platform": platform }],
            });
            let index = self.put(&name, index.to_string().into(), true, Some(&oci("index.v1")));
            manifests.insert(0, index);
        }
        self.hub.tag(&name, "latest", &manifests[0]);
        let image = Arc::new(Image { name, manifests, blobs });
        self.images.push(Arc::clone(&image));
        image
    }

    /// Any of its images.
    pub(crate) fn any(&mut self) -> Arc<Image> {
        Arc::clone(self.random.choice(&self.images).unwrap())
    }

    /// Fetches of this object that the registry has seen.
    pub(crate) fn gets(&self, digest: &str) -> u64 {
        match self.objects[digest].is_manifest {
            true => self.hub.manifest_gets(digest),
            false => self.hub.blob_gets(digest),
        }
    }

    fn put(&mut self, name: &str, body: Bytes, is_manifest: bool, media: Option<&str>) -> String {
        let digest = sha256(&body);
        match media {
            Some(media_type) => {
                self.hub.put_manifest(name, None, media_type, body.clone());
            }
            None => {
                self.hub.put_blob(name, body.clone());
            }
        }
        let object = Object { repository: name.to_owned(), body, is_manifest };
        self.objects.entry(digest.clone()).or_insert(object);
        digest
    }

    fn noise(&mut self, bytes: usize) -> Bytes {
        let mut noise = vec![0; bytes];
        self.random.fill(&mut noise);
        noise.into()
    }
}

// === impl Image ===

impl Image {
    /// All digests.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &String> {
        self.manifests.iter().chain(&self.blobs)
    }
}
