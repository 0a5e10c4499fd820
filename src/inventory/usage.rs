//! Who uses how much: by upstream, by repository, and the store as a whole.
//!
//! One walk over the links, in their order. A repository is counted in full,
//! what it shares included; an upstream counts each object once, and for that
//! remembers eight bytes of every digest of the upstream at hand: some sixteen
//! megabytes for a million objects.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    iter::Peekable,
    time::SystemTime,
};

use super::{
    Error, Inventory, RepositoryUsage, UpstreamUsage, UsageReport,
    catalogue::{Catalogue, all_links, all_tags},
    seconds,
};
use crate::{
    protocol::{Digest, Repository},
    store::{self, LinkKey, TagKey, TagRecord},
};

/// Repositories that are listed: the largest.
const MOST_LISTED: usize = 1000;

/// A repository's place in the order of links and tags.
type Place = (std::sync::Arc<str>, Repository);

type Tags<'a> = Peekable<Box<dyn Iterator<Item = Result<(TagKey, TagRecord), store::Error>> + 'a>>;

struct Account<'a> {
    catalogue: &'a dyn Catalogue,
    tags: Tags<'a>,
    upstreams: Vec<UpstreamUsage>,
    /// Of the last upstream: the first bytes of the digests that it has been charged with.
    charged: HashSet<u64>,
    largest: BinaryHeap<Reverse<Ranked>>,
    left_out: u64,
}

/// A repository, ordered by its bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    bytes: u64,
    /// Of two equal ones the first by name is the larger.
    name: Reverse<(String, String)>,
    objects: u64,
    tags: u64,
}

// === impl Inventory ===

impl Inventory {
    /// Who uses how much. Reads the whole index; blocks.
    pub fn usage(&self) -> Result<UsageReport, Error> {
        let catalogue = &*self.catalogue;
        let tags: Box<dyn Iterator<Item = _>> = Box::new(all_tags(catalogue, None));
        let mut account = Account {
            catalogue,
            tags: tags.peekable(),
            upstreams: Vec::new(),
            charged: HashSet::new(),
            largest: BinaryHeap::new(),
            left_out: 0,
        };
        account.run()?;
        let ranked = account.largest.into_sorted_vec();
        Ok(UsageReport {
            store: catalogue.usage()?.into(),
            upstreams: account.upstreams,
            repositories: ranked.into_iter().map(|Reverse(it)| it.into()).collect(),
            repositories_left_out: account.left_out,
            as_of: Some(seconds(SystemTime::now())),
        })
    }
}

// === impl Account ===

impl Account<'_> {
    fn run(&mut self) -> Result<(), store::Error> {
        let mut open: Option<(Place, Ranked)> = None;
        for link in all_links(self.catalogue) {
            let (LinkKey { upstream, repository, digest }, _) = link?;
            let place = (upstream, repository);
            if open.as_ref().is_none_or(|(at, _)| *at != place) {
                self.close(open.take())?;
                self.tags_before(Some(&place))?;
                open = Some((place.clone(), Ranked::new(&place)));
            }
            // A link outlives the object that it was made for.
            let Some(object) = self.catalogue.object(&digest)? else { continue };
            if let Some((_, repository)) = &mut open {
                repository.objects += 1;
                repository.bytes += object.size;
            }
            self.charge(&place, &digest, object.size);
        }
        self.close(open)?;
        self.tags_before(None)
    }

    fn charge(&mut self, place: &Place, digest: &Digest, size: u64) {
        let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
        self.upstream(place);
        if self.charged.insert(u64::from_be_bytes(first))
            && let Some(upstream) = self.upstreams.last_mut()
        {
            upstream.objects += 1;
            upstream.bytes += size;
        }
    }

    /// Begins the account of an upstream, unless it is the last one's.
    fn upstream(&mut self, (name, _): &Place) {
        if self.upstreams.last().is_none_or(|last| *last.upstream != **name) {
            self.charged = HashSet::new();
            self.upstreams.push(UpstreamUsage {
                upstream: name.to_string(),
                repositories: 0,
                tags: 0,
                objects: 0,
                bytes: 0,
            });
        }
    }

    /// Ends the account of a repository: its tags, then its rank.
    fn close(&mut self, open: Option<(Place, Ranked)>) -> Result<(), store::Error> {
        let Some((place, mut repository)) = open else { return Ok(()) };
        repository.tags = self.tags_of(&place)?;
        if repository.objects == 0 && repository.tags == 0 {
            return Ok(());
        }
        self.upstream(&place);
        if let Some(upstream) = self.upstreams.last_mut() {
            upstream.repositories += 1;
            upstream.tags += repository.tags;
        }
        self.largest.push(Reverse(repository));
        if self.largest.len() > MOST_LISTED {
            self.largest.pop();
            self.left_out += 1;
        }
        Ok(())
    }

    /// Accounts of repositories that have tags and no links, up to `place`.
    fn tags_before(&mut self, place: Option<&Place>) -> Result<(), store::Error> {
        while let Some(next) = self.next_tagged()? {
            if place.is_some_and(|place| next >= *place) {
                return Ok(());
            }
            let empty = Ranked::new(&next);
            self.close(Some((next, empty)))?;
        }
        Ok(())
    }

    fn tags_of(&mut self, place: &Place) -> Result<u64, store::Error> {
        let mut count = 0;
        while self.next_tagged()?.is_some_and(|next| next == *place) {
            self.tags.next();
            count += 1;
        }
        Ok(count)
    }

    fn next_tagged(&mut self) -> Result<Option<Place>, store::Error> {
        match self.tags.next_if(Result::is_err) {
            Some(Err(error)) => Err(error),
            _ => Ok(self.tags.peek().and_then(|row| {
                let (key, _) = row.as_ref().ok()?;
                Some((std::sync::Arc::clone(&key.upstream), key.repository.clone()))
            })),
        }
    }
}

// === impl Ranked ===

impl Ranked {
    fn new((upstream, repository): &Place) -> Self {
        let name = Reverse((upstream.to_string(), repository.to_string()));
        Self { bytes: 0, name, objects: 0, tags: 0 }
    }
}

impl From<Ranked> for RepositoryUsage {
    fn from(ranked: Ranked) -> Self {
        let Ranked { bytes, name: Reverse((upstream, repository)), objects, tags } = ranked;
        Self { upstream, repository, tags, objects, bytes }
    }
}

#[cfg(test)]
mod tests {
    use crate::inventory::testing::{Fake, Shape};

    #[test]
    fn what_is_shared_counts_in_full_for_each_and_once_in_the_total() {
        let fake = Fake::default();
        fake.image("docker.io", "library/a", "1", &Shape::new(&["base layer", "a"]));
        fake.image("docker.io", "library/b", "1", &Shape::new(&["base layer", "b"]));
        fake.image("ghcr.io", "org/c", "1", &Shape::new(&["base layer"]));
        let report = fake.inventory().usage().unwrap();
        let by_name = |name: &str| {
            let found = report.repositories.iter().find(|it| it.repository == name);
            found.unwrap().clone()
        };
        let (a, b, c) = (by_name("library/a"), by_name("library/b"), by_name("org/c"));
        assert_eq!((a.tags, a.objects, b.objects, c.objects), (1, 4, 4, 3));
        let hub = &report.upstreams[0];
        let config = Shape::config_bytes();
        let shared = 10 + config;
        assert_eq!((&*hub.upstream, hub.repositories, hub.tags), ("docker.io", 2, 2));
        assert_eq!((hub.objects, hub.bytes), (6, a.bytes + b.bytes - shared));
        assert_eq!(report.upstreams[1].bytes, c.bytes);
        assert_eq!(report.store.objects, 7);
        assert_eq!(report.store.published, hub.bytes + c.bytes - shared);
    }

    #[test]
    fn the_largest_come_first_and_what_is_gone_does_not_count() {
        let fake = Fake::default();
        fake.image("docker.io", "library/small", "1", &Shape::new(&["s"]));
        fake.image("docker.io", "library/large", "1", &Shape::new(&["a large layer indeed"]));
        fake.tag("docker.io", "library/tagged", "1", Fake::digest(b"never stored"));
        let report = fake.inventory().usage().unwrap();
        let names: Vec<_> = report.repositories.iter().map(|it| &*it.repository).collect();
        assert_eq!(names, ["library/large", "library/small", "library/tagged"]);
        fake.lose(b"a large layer indeed");
        let after = fake.inventory().usage().unwrap();
        assert_eq!(after.upstreams[0].objects + 1, report.upstreams[0].objects);
        assert_eq!(report.upstreams[0].tags, 3);
    }
}
