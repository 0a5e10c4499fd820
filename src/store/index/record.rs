//! Keys and values of the index, laid out once.
//!
//! A value begins with the version of its own layout; one of another version,
//! or cut short, decodes to nothing and counts as absent. redb checks its pages
//! with checksums of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::protocol::{Algorithm, Digest, Repository, Tag};

/// The version that every value written now begins with.
const VERSION: u8 = 2;

/// The version before: a blob's record ended after `used_ms`, the others were the same.
const VERSION_BEFORE: u8 = 1;

/// In which order objects go; the first byte of a row in the recency table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Class {
    /// Blobs that were read while they came in, and not since.
    Probation,
    /// Blobs that were read again later.
    Protected,
    /// Manifests: small, and one costs a counted request to get back.
    Manifest,
    /// What the operator pinned never goes.
    Pinned,
}

/// What a published file is; blobs are evicted before manifests, which are
/// small and cost a counted request to get back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A layer, a configuration, any blob.
    Blob,
    /// An image manifest or index.
    Manifest,
}

/// A published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct BlobRecord {
    /// Its length in bytes.
    pub(in crate::store) size: u64,
    /// What it is.
    pub(in crate::store) kind: Kind,
    /// When it was last read, in milliseconds since the epoch.
    pub(in crate::store) used_ms: u64,
    /// It was read again after it had come in.
    pub(in crate::store) reread: bool,
    /// A pin names it.
    pub(in crate::store) pinned: bool,
}

/// A blob's record in the version before.
type BlobRowBefore = (u64, Kind, u64);

/// Where a digest was seen: the repository of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// The upstream's name.
    pub upstream: std::sync::Arc<str>,
    /// The repository there.
    pub repository: Repository,
    /// What it has.
    pub digest: Digest,
}

/// What is known of a digest in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The media type under which the repository serves it; blobs have none.
    pub media_type: Option<std::sync::Arc<str>>,
}

/// A tag of a repository of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TagKey {
    /// The upstream's name.
    pub upstream: std::sync::Arc<str>,
    /// The repository there.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
}

/// When a tag was confirmed that upstream has no more.
const GONE: SystemTime = SystemTime::UNIX_EPOCH;

/// How long after that a tag was confirmed that is in doubt, whatever its policy.
const DOUBT: Duration = Duration::from_secs(1);

/// What a tag named when upstream was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The manifest or index.
    pub digest: Digest,
    /// What it named before: the answer while the new one can't be had, if this one is cached, or
    /// is too young (`tags.cooldown`), cached or not.
    pub previous: Option<Digest>,
    /// When upstream last confirmed it; no time of ours where it is gone or in doubt.
    pub validated: SystemTime,
    /// When it was first seen to name this digest.
    pub moved: SystemTime,
}

/// A tag's row: digest, previous digest, validated and moved in milliseconds.
type TagRow = (String, Option<String>, u64, u64);

// === impl BlobRecord ===

impl BlobRecord {
    pub(in crate::store) fn new(size: u64, kind: Kind, now: SystemTime) -> Self {
        Self { size, kind, used_ms: millis(now), reread: false, pinned: false }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION_BEFORE {
            return decode(bytes);
        }
        let (size, kind, used_ms) = postcard::from_bytes::<BlobRowBefore>(rest).ok()?;
        Some(Self { size, kind, used_ms, reread: false, pinned: false })
    }

    pub(in crate::store) fn class(&self) -> Class {
        match (self.pinned, self.kind, self.reread) {
            (true, _, _) => Class::Pinned,
            (false, Kind::Manifest, _) => Class::Manifest,
            (false, Kind::Blob, true) => Class::Protected,
            (false, Kind::Blob, false) => Class::Probation,
        }
    }

    pub(in crate::store) fn used(&self) -> SystemTime {
        time(self.used_ms).unwrap_or(UNIX_EPOCH)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The row of the recency table that belongs to this record.
    pub(super) fn recency_key(&self, digest: &Digest) -> Vec<u8> {
        let mut key = Vec::with_capacity(80);
        key.push(self.class().first_byte());
        key.extend(self.used_ms.to_be_bytes());
        key.extend(digest_key(digest));
        key
    }
}

// === impl Class ===

impl Class {
    pub(super) fn first_byte(self) -> u8 {
        match self {
            Self::Probation => 0,
            Self::Protected => 1,
            Self::Manifest => 2,
            Self::Pinned => 3,
        }
    }
}

/// The digest of a row of the recency table.
pub(super) fn parse_recency_key(key: &[u8]) -> Option<Digest> {
    parse_digest_key(key.get(9..)?)
}

/// A digest as a key: one byte for the algorithm, then its bytes.
pub(super) fn digest_key(digest: &Digest) -> Vec<u8> {
    let mut key = Vec::with_capacity(65);
    key.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    key.extend(digest.as_bytes());
    key
}

pub(super) fn parse_digest_key(key: &[u8]) -> Option<Digest> {
    let (algorithm, bytes) = key.split_first()?;
    let algorithm = match algorithm {
        1 => Algorithm::Sha256,
        2 => Algorithm::Sha512,
        _ => return None,
    };
    Digest::from_bytes(algorithm, bytes)
}

// === impl LinkKey, TagKey ===

impl LinkKey {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut key = join(&[&self.upstream, self.repository.as_str(), ""]);
        key.extend(digest_key(&self.digest));
        key
    }

    /// The key that `bytes` were encoded from.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(3, |byte| *byte == 0);
        let upstream = std::str::from_utf8(parts.next()?).ok()?;
        let repository = std::str::from_utf8(parts.next()?).ok()?;
        Some(Self {
            upstream: upstream.into(),
            repository: Repository::parse(repository).ok()?,
            digest: parse_digest_key(parts.next()?)?,
        })
    }
}

impl TagKey {
    pub(super) fn encode(&self) -> Vec<u8> {
        join(&[&self.upstream, self.repository.as_str(), self.tag.as_str()])
    }

    /// The key that `bytes` were encoded from.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split('\0');
        Some(Self {
            upstream: parts.next()?.into(),
            repository: Repository::parse(parts.next()?).ok()?,
            tag: Tag::parse(parts.next()?).ok()?,
        })
    }
}

/// NUL stands in no name, so joined names never read alike.
fn join(parts: &[&str]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

// === impl Link, TagRecord ===

impl Link {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

impl TagRecord {
    /// Upstream has it no more: it is on record only for what it named, which stands in for a while
    /// if it comes back with another digest.
    pub fn is_gone(&self) -> bool {
        self.validated == GONE
    }

    /// The same tag, gone since `now`, when it named `digest`.
    pub fn gone(digest: Digest, now: SystemTime) -> Self {
        Self { digest, previous: None, validated: GONE, moved: now }
    }

    /// When upstream last said something of it: also where `validated` is no such time.
    pub fn last_heard(&self) -> SystemTime {
        self.validated.max(self.moved)
    }

    /// Upstream may have moved it although it is not to move: it is checked before it is served.
    pub fn is_doubted(&self) -> bool {
        self.validated == GONE + DOUBT
    }

    /// The same record, in doubt.
    #[must_use]
    pub fn doubted(self) -> Self {
        Self { validated: GONE + DOUBT, ..self }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (digest, previous, validated_ms, moved_ms) = decode::<TagRow>(bytes)?;
        Some(Self {
            digest: Digest::parse(&digest).ok()?,
            previous: previous.and_then(|previous| Digest::parse(&previous).ok()),
            validated: time(validated_ms)?,
            moved: time(moved_ms)?,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let previous = self.previous.map(|digest| digest.to_string());
        encode(&(self.digest.to_string(), previous, millis(self.validated), millis(self.moved)))
    }
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("records of plain values serialize")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    if ![VERSION, VERSION_BEFORE].contains(version) {
        return None;
    }
    postcard::from_bytes(rest).ok()
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    #[test]
    fn records_read_back_and_damage_reads_as_absent() {
        let record = TagRecord {
            digest: digest("a"),
            previous: Some(digest("b")),
            validated: UNIX_EPOCH + Duration::from_millis(5),
            moved: UNIX_EPOCH + Duration::from_millis(3),
        };
        let bytes = record.encode();
        assert_eq!(TagRecord::decode(&bytes), Some(record));
        for cut in 0..bytes.len() {
            assert_eq!(TagRecord::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let link = Link { media_type: Some("a/b".into()) };
        assert_eq!(Link::decode(&link.encode()), Some(link));
        assert_eq!(Link::decode(&[9, 0]), None);
    }

    #[test]
    fn recency_orders_blobs_by_age_and_before_manifests() {
        let record = BlobRecord::new(1, Kind::Blob, UNIX_EPOCH);
        let key = |kind, used_ms| BlobRecord { kind, used_ms, ..record }.recency_key(&digest("a"));
        assert!(key(Kind::Blob, 1) < key(Kind::Blob, 256));
        assert!(key(Kind::Blob, u64::MAX) < key(Kind::Manifest, 0));
        let reread = BlobRecord { reread: true, ..record }.recency_key(&digest("a"));
        assert!(key(Kind::Blob, u64::MAX) < reread && reread < key(Kind::Manifest, 0));
        let pinned = BlobRecord { pinned: true, ..record }.recency_key(&digest("a"));
        assert!(key(Kind::Manifest, u64::MAX) < pinned);
        assert_eq!(parse_recency_key(&key(Kind::Blob, 7)), Some(digest("a")));
    }

    #[test]
    fn a_record_of_the_version_before_is_understood() {
        let row: BlobRowBefore = (7, Kind::Manifest, 9);
        let bytes = postcard::to_extend(&row, vec![VERSION_BEFORE]).unwrap();
        let record = BlobRecord::decode(&bytes).unwrap();
        assert_eq!((record.size, record.kind, record.used_ms), (7, Kind::Manifest, 9));
        assert_eq!(BlobRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn keys_are_read_back() {
        let tag = TagKey {
            upstream: "docker.io".into(),
            repository: Repository::parse("library/alpine").unwrap(),
            tag: Tag::parse("3.20").unwrap(),
        };
        assert_eq!(TagKey::decode(&tag.encode()), Some(tag.clone()));
        // A digest's bytes may hold the separator.
        let digest = Digest::from_bytes(Algorithm::Sha256, &[0; 32]).unwrap();
        let link = LinkKey { upstream: tag.upstream, repository: tag.repository, digest };
        assert_eq!(LinkKey::decode(&link.encode()), Some(link));
    }

    #[test]
    fn names_of_different_places_never_share_a_key() {
        let key = |upstream: &str, repository: &str| LinkKey {
            upstream: upstream.into(),
            repository: Repository::parse(repository).unwrap(),
            digest: digest("a"),
        };
        assert_ne!(key("a", "b/c").encode(), key("a/b", "c").encode());
    }
}
