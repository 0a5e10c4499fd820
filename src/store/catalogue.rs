//! What the store holds, for those who look after it: listing, pins, removal.
//!
//! All of it blocks on the disk.

use std::{fs, time::SystemTime};

use bytes::Bytes;

use super::{
    Error, Kind, Link, LinkKey, Store, TagKey, TagRecord, Verdict, index::BlobRecord,
    layout::remove_if_there, recovery,
};
use crate::protocol::{Digest, Repository, Tag};

/// A published object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// When it was last read, to the minute.
    pub used: SystemTime,
    /// True if a pin names it.
    pub is_pinned: bool,
}

/// How the store's bytes are spent. All are bytes, but for `objects`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub capacity: u64,
    /// All that counts against it.
    pub used: u64,
    /// How many objects are published.
    pub objects: u64,
    /// Published objects.
    pub published: u64,
    /// Unfinished downloads, and what is held for them.
    pub staged: u64,
    /// The index.
    pub index: u64,
    /// What was set aside because it was not what its name says.
    pub quarantine: u64,
    /// What happened lately.
    pub history: u64,
    /// Published objects that a pin names.
    pub pinned: u64,
}

/// What one repository has here; what it shares with others counts in full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Its tags, without those that upstream has no more.
    pub tags: u64,
    /// Stored objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When one of them was last read.
    pub used: Option<SystemTime>,
    /// There are more than were counted.
    pub at_least: bool,
}

/// A pin: objects that are not evicted, by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The name.
    pub name: String,
    /// What it protects, stored or not.
    pub digests: Vec<Digest>,
}

// === impl Store ===

impl Store {
    /// A published object.
    pub fn object(&self, digest: &Digest) -> Result<Option<ObjectInfo>, Error> {
        let record = self.index()?.blob(digest)?;
        Ok(record.map(|record| ObjectInfo::new(*digest, record)))
    }

    /// Up to `count` published objects in the order of their digests, behind `after`.
    pub fn objects(&self, after: Option<&Digest>, count: usize) -> Result<Vec<ObjectInfo>, Error> {
        let found = self.index()?.blobs(after, count)?;
        Ok(found.into_iter().map(|(digest, record)| ObjectInfo::new(digest, record)).collect())
    }

    /// Up to `count` tags in the order of their keys, behind `after`.
    pub fn tags(
        &self,
        after: Option<&TagKey>,
        count: usize,
    ) -> Result<Vec<(TagKey, TagRecord)>, Error> {
        self.index()?.tags(after, count)
    }

    /// Up to `count` links in the order of their keys, behind `after`.
    pub fn links(
        &self,
        after: Option<&LinkKey>,
        count: usize,
    ) -> Result<Vec<(LinkKey, Link)>, Error> {
        self.index()?.links(after, count)
    }

    /// Up to `count` repositories, each as upstream and name, in order, behind `after`: all of which
    /// something is known.
    pub fn all_repositories(
        &self,
        after: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        self.index()?.all_repositories(after, count)
    }

    /// What a repository has, counting up to `most` tags and objects.
    pub fn share(
        &self,
        upstream: &str,
        repository: &Repository,
        most: usize,
    ) -> Result<Share, Error> {
        self.index()?.share(upstream, repository, most)
    }

    /// Up to `count` tags of a repository, in order, behind `after`.
    pub fn tags_in(
        &self,
        upstream: &str,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, Error> {
        self.index()?.tags_of(upstream, repository, after, count)
    }

    /// How the bytes are spent.
    pub fn usage(&self) -> Result<Usage, Error> {
        let totals = self.index()?.totals()?;
        Ok(Usage {
            capacity: self.space.capacity(),
            used: self.space.used(),
            objects: totals.objects,
            published: self.space.published(),
            staged: self.space.staged(),
            index: self.space.index(),
            quarantine: self.space.quarantine(),
            history: self.space.history(),
            pinned: totals.pinned,
        })
    }

    /// A stored body of at most `limit` bytes, without a touch of its recency.
    pub fn peek(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, Error> {
        if let Some(body) = self.memory.get(digest) {
            return Ok((body.len() as u64 <= limit).then_some(body));
        }
        match self.index()?.blob(digest)? {
            Some(record) if record.size <= limit => {}
            _ => return Ok(None),
        }
        match fs::read(self.layout.blob(digest)) {
            Ok(body) if Digest::of(digest.algorithm(), &body) == *digest => Ok(Some(body.into())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object; answers its size if it was there. Whoever reads it goes on.
    pub fn purge(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let index = self.index()?;
        if index.blob(digest)?.is_none() || self.partials.is_claimed(digest) {
            return Ok(None);
        }
        self.open.remove(digest);
        remove_if_there(&self.layout.blob(digest))?;
        let size = index.remove(vec![*digest])?.into_iter().flatten().next();
        // Last: who reads it meanwhile puts it there, and finds its record or not.
        self.memory.remove([digest]);
        if let Some(size) = size {
            self.space.unpublish(size);
        }
        Ok(size)
    }

    /// Forgets a tag; false if it was not known.
    pub fn purge_tag(&self, key: &TagKey) -> Result<bool, Error> {
        self.index()?.purge_tag(key.clone())
    }

    /// Protects `digests`, and no others, by this name, also those that are not stored yet.
    pub fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), Error> {
        self.index()?.pin(name, digests)
    }

    /// Takes a pin away; false if there was none of this name.
    pub fn unpin(&self, name: &str) -> Result<bool, Error> {
        self.index()?.unpin(name)
    }

    /// Every pin, by name.
    pub fn pins(&self) -> Result<Vec<Pin>, Error> {
        let pins = self.index()?.pins()?;
        Ok(pins.into_iter().map(|(name, digests)| Pin { name, digests }).collect())
    }

    /// Reads an object and checks that it is what its name says. With `repair`, one that isn't is
    /// set aside and forgotten, and the next pull fetches it again.
    pub fn verify(&self, digest: &Digest, repair: bool) -> Result<Verdict, Error> {
        let record = self.index()?.blob(digest)?;
        let verdict = match (recovery::check(&self.layout, digest, &|| true), record) {
            (Verdict::Gone, Some(_)) => Verdict::Bad { problem: "its file is missing".to_owned() },
            (verdict, _) => verdict,
        };
        if let (Verdict::Bad { problem }, true) = (&verdict, repair) {
            self.set_aside(*digest, problem);
        }
        Ok(verdict)
    }

    /// Files in the place of published ones that the index misses.
    pub fn unrecorded(&self) -> Result<Vec<Digest>, Error> {
        let mut found = Vec::new();
        for (algorithm, shard) in self.layout.shards() {
            found.extend(recovery::unrecorded(self, algorithm, &shard)?);
        }
        Ok(found)
    }

    /// Verifies one of those and records it; one that does not match is set aside.
    pub fn adopt(&self, digest: &Digest) -> Result<Verdict, Error> {
        recovery::adopt(self, digest, &|| true)
    }
}

// === impl ObjectInfo ===

impl ObjectInfo {
    fn new(digest: Digest, record: BlobRecord) -> Self {
        Self {
            digest,
            size: record.size,
            kind: record.kind,
            used: record.used(),
            is_pinned: record.pinned,
        }
    }
}
