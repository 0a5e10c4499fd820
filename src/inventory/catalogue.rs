//! What the inventory reads and changes of a store, and walks over all of it.
//!
//! A trait, so that the rules above it are tested without a disk.

use std::fmt;

use bytes::Bytes;

use crate::{
    protocol::{Digest, Repository, Tag},
    store::{
        Error, Link, LinkKey, ObjectInfo, Pin, Share, Store, TagKey, TagRecord, Usage, Verdict,
    },
};

/// Rows read in one step of a walk.
const STEP: usize = 512;

/// A store, as `store::Store` documents these methods.
pub(super) trait Catalogue: fmt::Debug + Send + Sync {
    fn object(&self, digest: &Digest) -> Result<Option<ObjectInfo>, Error>;
    fn objects(&self, after: Option<&Digest>, count: usize) -> Result<Vec<ObjectInfo>, Error>;
    fn tags(&self, after: Option<&TagKey>, count: usize)
    -> Result<Vec<(TagKey, TagRecord)>, Error>;
    fn links(&self, after: Option<&LinkKey>, count: usize) -> Result<Vec<(LinkKey, Link)>, Error>;
    fn all_repositories(
        &self,
        after: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<(String, String)>, Error>;
    fn share(&self, upstream: &str, repository: &Repository, most: usize) -> Result<Share, Error>;
    fn tags_in(
        &self,
        upstream: &str,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, Error>;
    fn usage(&self) -> Result<Usage, Error>;
    fn peek(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, Error>;
    fn purge(&self, digest: &Digest) -> Result<Option<u64>, Error>;
    fn purge_tag(&self, key: &TagKey) -> Result<bool, Error>;
    fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), Error>;
    fn unpin(&self, name: &str) -> Result<bool, Error>;
    fn pins(&self) -> Result<Vec<Pin>, Error>;
    fn verify(&self, digest: &Digest, repair: bool) -> Result<Verdict, Error>;
    fn unrecorded(&self) -> Result<Vec<Digest>, Error>;
    fn adopt(&self, digest: &Digest) -> Result<Verdict, Error>;
}

// === impl Catalogue for Store ===

impl Catalogue for Store {
    fn object(&self, digest: &Digest) -> Result<Option<ObjectInfo>, Error> {
        Self::object(self, digest)
    }

    fn objects(&self, after: Option<&Digest>, count: usize) -> Result<Vec<ObjectInfo>, Error> {
        Self::objects(self, after, count)
    }

    fn tags(
        &self,
        after: Option<&TagKey>,
        count: usize,
    ) -> Result<Vec<(TagKey, TagRecord)>, Error> {
        Self::tags(self, after, count)
    }

    fn links(&self, after: Option<&LinkKey>, count: usize) -> Result<Vec<(LinkKey, Link)>, Error> {
        Self::links(self, after, count)
    }

    fn all_repositories(
        &self,
        after: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        Self::all_repositories(self, after, count)
    }

    fn share(&self, upstream: &str, repository: &Repository, most: usize) -> Result<Share, Error> {
        Self::share(self, upstream, repository, most)
    }

    fn tags_in(
        &self,
        upstream: &str,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, Error> {
        Self::tags_in(self, upstream, repository, after, count)
    }

    fn usage(&self) -> Result<Usage, Error> {
        Self::usage(self)
    }

    fn peek(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, Error> {
        Self::peek(self, digest, limit)
    }

    fn purge(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Self::purge(self, digest)
    }

    fn purge_tag(&self, key: &TagKey) -> Result<bool, Error> {
        Self::purge_tag(self, key)
    }

    fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), Error> {
        Self::pin(self, name, digests)
    }

    fn unpin(&self, name: &str) -> Result<bool, Error> {
        Self::unpin(self, name)
    }

    fn pins(&self) -> Result<Vec<Pin>, Error> {
        Self::pins(self)
    }

    fn verify(&self, digest: &Digest, repair: bool) -> Result<Verdict, Error> {
        Self::verify(self, digest, repair)
    }

    fn unrecorded(&self) -> Result<Vec<Digest>, Error> {
        Self::unrecorded(self)
    }

    fn adopt(&self, digest: &Digest) -> Result<Verdict, Error> {
        Self::adopt(self, digest)
    }
}

// === walks ===

/// Every tag behind `after`, by key.
pub(super) fn all_tags(
    catalogue: &dyn Catalogue,
    after: Option<TagKey>,
) -> impl Iterator<Item = Result<(TagKey, TagRecord), Error>> {
    walk(after, |after, count| catalogue.tags(after, count), |(key, _)| key.clone())
}

/// Every repository behind `after`, by upstream and name.
pub(super) fn all_repositories(
    catalogue: &dyn Catalogue,
    after: Option<(String, String)>,
) -> impl Iterator<Item = Result<(String, String), Error>> {
    let read = |after: Option<&(String, String)>, count| {
        let after = after.map(|(upstream, name)| (upstream.as_str(), name.as_str()));
        catalogue.all_repositories(after, count)
    };
    walk(after, read, Clone::clone)
}

/// Every link, by key: a repository's stand together, and an upstream's repositories.
pub(super) fn all_links(
    catalogue: &dyn Catalogue,
) -> impl Iterator<Item = Result<(LinkKey, Link), Error>> {
    walk(None, |after, count| catalogue.links(after, count), |(key, _)| key.clone())
}

/// Every object, by digest.
pub(super) fn all_objects(
    catalogue: &dyn Catalogue,
) -> impl Iterator<Item = Result<ObjectInfo, Error>> {
    walk(None, |after, count| catalogue.objects(after, count), |object| object.digest)
}

/// Reads step by step: each step is a snapshot of its own, so that a long walk holds no
/// transaction of the index open. What changes behind the walk is not seen.
fn walk<K, T>(
    mut after: Option<K>,
    read: impl Fn(Option<&K>, usize) -> Result<Vec<T>, Error>,
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = Result<T, Error>> {
    let mut rows = Vec::new().into_iter();
    let mut ended = false;
    std::iter::from_fn(move || {
        if rows.len() == 0 && !ended {
            match read(after.as_ref(), STEP) {
                Ok(step) => {
                    ended = step.is_empty();
                    rows = step.into_iter();
                }
                Err(error) => {
                    ended = true;
                    return Some(Err(error));
                }
            }
        }
        let row = rows.next()?;
        after = Some(key(&row));
        Some(Ok(row))
    })
}
