//! A catalogue in memory, and images to fill it with.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::json;

use super::{Inventory, Names, catalogue::Catalogue};
use crate::{
    config::Config,
    protocol::{Algorithm, Digest, Repository, Tag, media_type::OCI_MANIFEST},
    store::{
        Error, Kind, Link, LinkKey, ObjectInfo, Pin, Share, TagKey, TagRecord, Usage, Verdict,
    },
};

/// A store that is a few maps; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    objects: BTreeMap<Digest, (Bytes, Kind)>,
    tags: BTreeMap<(Arc<str>, Repository, Tag), TagRecord>,
    links: BTreeMap<(Arc<str>, Repository, Digest), Link>,
    pins: BTreeMap<String, Vec<Digest>>,
    rotten: BTreeSet<Digest>,
    unrecorded: BTreeMap<Digest, (Bytes, bool)>,
}

/// An image of one platform: its layers' bytes.
pub(super) struct Shape(Vec<&'static [u8]>);

const CONFIG: &[u8] = br#"{"os":"linux","architecture":"amd64"}"#;

// === impl Shape ===

impl Shape {
    pub(super) fn new(layers: &[&'static str]) -> Self {
        Self(layers.iter().map(|layer| layer.as_bytes()).collect())
    }

    /// The size of the config that all share.
    pub(super) fn config_bytes() -> u64 {
        CONFIG.len() as u64
    }
}

// === impl Fake: filling it ===

impl Fake {
    pub(super) fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// An inventory of it, before docker.io and ghcr.io.
    pub(super) fn inventory(&self) -> Inventory {
        let text = "upstreams: [{name: docker.io}, {name: ghcr.io}]";
        let config = Config::parse(text, "test").unwrap();
        Inventory::over(Arc::new(self.clone()), Names::new(&config.upstreams), 1 << 22)
    }

    /// Stores an image, tagged and linked.
    pub(super) fn image(
        &self,
        upstream: &str,
        repository: &str,
        tag: &str,
        shape: &Shape,
    ) -> Digest {
        let digest = self.manifest(shape);
        self.tag(upstream, repository, tag, digest);
        let layers = shape.0.iter().map(|layer| Self::digest(layer));
        for linked in layers.chain([digest, Self::digest(CONFIG)]) {
            let key = (upstream.into(), Repository::parse(repository).unwrap(), linked);
            self.maps().links.insert(key, Link { media_type: None });
        }
        digest
    }

    /// Stores a manifest, its config and its layers.
    pub(super) fn manifest(&self, shape: &Shape) -> Digest {
        let describe = |body: &[u8]| json!({ "digest": Self::digest(body), "size": body.len() });
        let layers: Vec<_> = shape.0.iter().map(|layer| describe(layer)).collect();
        let body = json!({ "schemaVersion": 2, "config": describe(CONFIG), "layers": layers });
        self.put(CONFIG, Kind::Blob);
        for layer in &shape.0 {
            self.put(layer, Kind::Blob);
        }
        self.put(body.to_string().as_bytes(), Kind::Manifest)
    }

    /// Stores an index of manifests, each with its architecture.
    pub(super) fn index(&self, children: &[(Digest, &str)]) -> Digest {
        let child = |(digest, architecture): &(Digest, &str)| {
            let platform = json!({ "os": "linux", "architecture": architecture });
            json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "platform": platform })
        };
        let children: Vec<_> = children.iter().map(child).collect();
        let body = json!({ "schemaVersion": 2, "manifests": children });
        self.put(body.to_string().as_bytes(), Kind::Manifest)
    }

    pub(super) fn tag(&self, upstream: &str, repository: &str, tag: &str, digest: Digest) {
        let at = UNIX_EPOCH + Duration::from_secs(1);
        let record = TagRecord { digest, previous: None, validated: at, moved: at };
        self.maps().tags.insert(key(upstream, repository, tag), record);
    }

    pub(super) fn previous(&self, upstream: &str, repository: &str, tag: &str, digest: Digest) {
        let key = key(upstream, repository, tag);
        self.maps().tags.get_mut(&key).unwrap().previous = Some(digest);
    }

    pub(super) fn lose(&self, body: &[u8]) {
        self.lose_digest(&Self::digest(body));
    }

    pub(super) fn lose_digest(&self, digest: &Digest) {
        self.maps().objects.remove(digest).unwrap();
    }

    pub(super) fn rot(&self, body: &[u8]) {
        self.maps().rotten.insert(Self::digest(body));
    }

    /// A file that the index misses.
    pub(super) fn unrecorded(&self, body: &[u8], is_good: bool) {
        let body = Bytes::copy_from_slice(body);
        self.maps().unrecorded.insert(Self::digest(&body), (body, is_good));
    }

    pub(super) fn has(&self, body: &[u8]) -> bool {
        self.maps().objects.contains_key(&Self::digest(body))
    }

    fn put(&self, body: &[u8], kind: Kind) -> Digest {
        let digest = Self::digest(body);
        self.maps().objects.insert(digest, (Bytes::copy_from_slice(body), kind));
        digest
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap()
    }
}

fn key(upstream: &str, repository: &str, tag: &str) -> (Arc<str>, Repository, Tag) {
    (upstream.into(), Repository::parse(repository).unwrap(), Tag::parse(tag).unwrap())
}

// === impl Catalogue for Fake ===

impl Catalogue for Fake {
    fn object(&self, digest: &Digest) -> Result<Option<ObjectInfo>, Error> {
        let maps = self.maps();
        let is_pinned = maps.pins.values().flatten().any(|pinned| pinned == digest);
        Ok(maps.objects.get(digest).map(|(body, kind)| ObjectInfo {
            digest: *digest,
            size: body.len() as u64,
            kind: *kind,
            used: UNIX_EPOCH,
            is_pinned,
        }))
    }

    fn objects(&self, after: Option<&Digest>, count: usize) -> Result<Vec<ObjectInfo>, Error> {
        let digests: Vec<_> = self.maps().objects.keys().copied().collect();
        let behind = digests.iter().filter(|digest| after.is_none_or(|after| *digest > after));
        behind.take(count).filter_map(|digest| self.object(digest).transpose()).collect()
    }

    fn tags(
        &self,
        after: Option<&TagKey>,
        count: usize,
    ) -> Result<Vec<(TagKey, TagRecord)>, Error> {
        let after =
            after.map(|key| (key.upstream.clone(), key.repository.clone(), key.tag.clone()));
        let maps = self.maps();
        let behind =
            maps.tags.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let row = |((upstream, repository, tag), record): (&(_, _, _), &TagRecord)| {
            let (upstream, repository, tag): (&Arc<str>, &Repository, &Tag) =
                (upstream, repository, tag);
            let (upstream, repository, tag) = (upstream.clone(), repository.clone(), tag.clone());
            (TagKey { upstream, repository, tag }, record.clone())
        };
        Ok(behind.take(count).map(row).collect())
    }

    fn links(&self, after: Option<&LinkKey>, count: usize) -> Result<Vec<(LinkKey, Link)>, Error> {
        let after = after.map(|key| (key.upstream.clone(), key.repository.clone(), key.digest));
        let maps = self.maps();
        let behind =
            maps.links.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let row = |((upstream, repository, digest), link): (&(_, _, _), &Link)| {
            let (upstream, repository, digest): (&Arc<str>, &Repository, &Digest) =
                (upstream, repository, digest);
            let (upstream, repository) = (upstream.clone(), repository.clone());
            (LinkKey { upstream, repository, digest: *digest }, link.clone())
        };
        Ok(behind.take(count).map(row).collect())
    }

    fn all_repositories(
        &self,
        after: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        let maps = self.maps();
        let tagged = maps.tags.keys().map(|(upstream, repository, _)| (upstream, repository));
        let linked = maps.links.keys().map(|(upstream, repository, _)| (upstream, repository));
        let names: BTreeSet<_> = tagged
            .chain(linked)
            .map(|(upstream, repository)| (upstream.to_string(), repository.to_string()))
            .collect();
        let is_behind = |name: &(String, String)| {
            after.is_none_or(|after| (name.0.as_str(), name.1.as_str()) > after)
        };
        Ok(names.into_iter().filter(is_behind).take(count).collect())
    }

    fn share(&self, upstream: &str, repository: &Repository, _: usize) -> Result<Share, Error> {
        let maps = self.maps();
        let is_its = |owner: &str, name: &Repository| owner == upstream && name == repository;
        let tags = maps.tags.iter().filter(|((owner, name, _), _)| is_its(owner, name));
        let mut share = Share { tags: tags.count() as u64, ..Share::default() };
        for (_, _, digest) in maps.links.keys().filter(|(owner, name, _)| is_its(owner, name)) {
            let Some((body, _)) = maps.objects.get(digest) else { continue };
            share.objects += 1;
            share.bytes += body.len() as u64;
            share.used = Some(UNIX_EPOCH);
        }
        Ok(share)
    }

    fn tags_in(
        &self,
        upstream: &str,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, Error> {
        let maps = self.maps();
        let its = maps.tags.iter().filter(|((owner, name, tag), _)| {
            **owner == *upstream && name == repository && tag.as_str() > after
        });
        Ok(its.take(count).map(|((_, _, tag), record)| (tag.clone(), record.clone())).collect())
    }

    fn usage(&self) -> Result<Usage, Error> {
        let maps = self.maps();
        let published = maps.objects.values().map(|(body, _)| body.len() as u64).sum();
        Ok(Usage {
            capacity: 1 << 30,
            used: published,
            objects: maps.objects.len() as u64,
            published,
            staged: 0,
            index: 0,
            quarantine: 0,
            history: 0,
            pinned: 0,
        })
    }

    fn peek(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, Error> {
        let body = self.maps().objects.get(digest).map(|(body, _)| body.clone());
        Ok(body.filter(|body| body.len() as u64 <= limit))
    }

    fn purge(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.maps().objects.remove(digest).map(|(body, _)| body.len() as u64))
    }

    fn purge_tag(&self, key: &TagKey) -> Result<bool, Error> {
        let key = (key.upstream.clone(), key.repository.clone(), key.tag.clone());
        Ok(self.maps().tags.remove(&key).is_some())
    }

    fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), Error> {
        self.maps().pins.insert(name.to_owned(), digests.to_vec());
        Ok(())
    }

    fn unpin(&self, name: &str) -> Result<bool, Error> {
        Ok(self.maps().pins.remove(name).is_some())
    }

    fn pins(&self) -> Result<Vec<Pin>, Error> {
        let pins = self.maps().pins.clone();
        Ok(pins.into_iter().map(|(name, digests)| Pin { name, digests }).collect())
    }

    fn verify(&self, digest: &Digest, repair: bool) -> Result<Verdict, Error> {
        let mut maps = self.maps();
        let Some((body, _)) = maps.objects.get(digest) else { return Ok(Verdict::Gone) };
        let size = body.len() as u64;
        if !maps.rotten.contains(digest) {
            return Ok(Verdict::Good { size });
        }
        if repair {
            maps.objects.remove(digest);
        }
        Ok(Verdict::Bad { problem: "rotten".to_owned() })
    }

    fn unrecorded(&self) -> Result<Vec<Digest>, Error> {
        Ok(self.maps().unrecorded.keys().copied().collect())
    }

    fn adopt(&self, digest: &Digest) -> Result<Verdict, Error> {
        let mut maps = self.maps();
        match maps.unrecorded.remove(digest) {
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
            Some((_, false)) => Ok(Verdict::Bad { problem: "rotten".to_owned() }),
            Some((body, true)) => {
                let size = body.len() as u64;
                maps.objects.insert(*digest, (body, Kind::Blob));
                Ok(Verdict::Good { size })
            }
        }
    }
}
