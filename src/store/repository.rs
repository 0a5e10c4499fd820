//! One repository's share of the store: what is known of it, and what it no longer has.

use std::{collections::HashSet, sync::Arc};

use super::{DISK_PATIENCE, Error, LinkKey, Store, TagRecord, blocking};
use crate::protocol::{Repository, Tag};

/// The note of the terms on which repositories were found to have what they have.
const STANDINGS: &str = "standings";

/// Links looked at together.
const PAGE: usize = 10_000;

// === impl Store ===

impl Store {
    /// What was last kept with [`Store::keep_standings`]; nothing in a new store. Blocks.
    pub fn standings(&self) -> Result<Option<Vec<u8>>, Error> {
        self.index()?.note(STANDINGS)
    }

    /// Keeps, durably, on what terms repositories were found to have what they have. Blocks.
    pub fn keep_standings(&self, standings: Vec<u8>) -> Result<(), Error> {
        self.index()?.note_down(STANDINGS, standings)
    }

    /// Forgets, durably, what all repositories of these upstreams have; the bytes stay, and to learn
    /// it again costs a free HEAD each. Gives how much that was. Blocks.
    pub fn unlink_all(&self, upstreams: &HashSet<String>) -> Result<usize, Error> {
        let unlinked = self.unlink_in_index(upstreams);
        // Where that ended early, some of it is gone.
        self.links.forget_all();
        unlinked
    }

    fn unlink_in_index(&self, upstreams: &HashSet<String>) -> Result<usize, Error> {
        let (mut after, mut count) = (None, 0);
        loop {
            let index = self.index()?;
            let links = index.links(after.as_ref(), PAGE)?;
            let Some((last, _)) = links.last() else { break };
            after = Some(last.clone());
            let keys = links.into_iter().map(|(key, _)| key);
            let gone: Vec<_> = keys.filter(|key| upstreams.contains(&*key.upstream)).collect();
            count += gone.len();
            if !gone.is_empty() {
                index.unlink(gone)?;
            }
        }
        Ok(count)
    }

    /// Up to `count` names of an upstream's repositories of which something was pulled, in order,
    /// behind `after`. Reads the index.
    pub async fn repositories(
        self: &Arc<Self>,
        upstream: Arc<str>,
        after: String,
        count: usize,
    ) -> Result<Vec<String>, Error> {
        self.lookup(move |store| store.index()?.repositories(&upstream, &after, count)).await
    }

    /// Up to `count` tags of a repository, in order, behind `after`. Reads the index.
    pub async fn tags_of(
        self: &Arc<Self>,
        upstream: Arc<str>,
        repository: Repository,
        after: String,
        count: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, Error> {
        let lookup =
            move |store: &Arc<Self>| store.index()?.tags_of(&upstream, &repository, &after, count);
        self.lookup(lookup).await
    }

    /// Forgets, durably, that `key`'s repository has its digest; the bytes stay, for those who have
    /// them too. What is under way does not bring it back, only [`Store::relink`] does.
    pub async fn unlink(self: &Arc<Self>, key: LinkKey) -> Result<(), Error> {
        self.links.take(&key);
        let store = Arc::clone(self);
        let work = blocking(move || {
            let result = store.index()?.unlink(vec![key.clone()]);
            // Somebody may have read it meanwhile.
            store.links.forget(&key);
            result
        });
        let done = tokio::time::timeout(DISK_PATIENCE, work).await;
        done.unwrap_or(Err(Error::Slow("be written")))
    }

    /// Upstream has just said that the repository has the digest: it may be linked again.
    pub fn relink(&self, key: &LinkKey) {
        self.links.give_back(key);
    }

    /// The same, if what it said is `still` true: [`Store::unlink`] comes before that is looked at, or
    /// after the key may be linked.
    pub fn relink_if(&self, key: &LinkKey, still: impl FnOnce() -> bool) {
        self.links.give_back_if(key, still);
    }

    /// Whether it was taken away a while ago.
    pub fn is_unlinked(&self, key: &LinkKey) -> bool {
        self.links.is_taken(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        config::Config,
        protocol::{Algorithm, Digest},
        store::{Link, TagKey},
    };

    fn name(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    #[tokio::test]
    async fn names_and_tags_come_in_pages_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("", "test").unwrap();
        config.store.directory = folder.path().to_owned();
        let store = Arc::new(Store::open(&config.store).unwrap());
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let now = SystemTime::now();
        let upstream: Arc<str> = "u".into();
        for (owner, repository) in [("u", "a"), ("u", "a/b"), ("u", "a-b"), ("u2", "z"), ("t", "y")]
        {
            for tag in ["1", "2", "10"] {
                let tag = Tag::parse(tag).unwrap();
                let key = TagKey { upstream: owner.into(), repository: name(repository), tag };
                let record = TagRecord { digest, previous: None, validated: now, moved: now };
                store.move_tag(key, record).await.unwrap();
            }
            let key = LinkKey { upstream: owner.into(), repository: name(repository), digest };
            store.link(key, Link { media_type: None }).await.unwrap();
        }
        // A tag of which nothing was ever pulled, as after a push.
        let key = TagKey {
            upstream: Arc::clone(&upstream),
            repository: name("a/pushed"),
            tag: Tag::parse("1").unwrap(),
        };
        let record = TagRecord { digest, previous: None, validated: now, moved: now };
        store.move_tag(key, record).await.unwrap();
        let link =
            LinkKey { upstream: Arc::clone(&upstream), repository: name("by/digest"), digest };
        store.link(link.clone(), Link { media_type: None }).await.unwrap();

        let names = async |after: &str, count| {
            store.repositories(Arc::clone(&upstream), after.to_owned(), count).await.unwrap()
        };
        assert_eq!(names("", 10).await, ["a", "a-b", "a/b", "by/digest"]);
        assert_eq!(names("a", 2).await, ["a-b", "a/b"]);
        assert_eq!(names("by/digest", 2).await, [""; 0]);
        let tags = async |after: &str, count| {
            let tags = store.tags_of(Arc::clone(&upstream), name("a"), after.to_owned(), count);
            let tags = tags.await.unwrap();
            tags.into_iter().map(|(tag, _)| tag.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(tags("", 10).await, ["1", "10", "2"]);
        assert_eq!(tags("1", 1).await, ["10"]);
        store.unlink(link.clone()).await.unwrap();
        assert_eq!(store.linked(link.clone()).await.unwrap(), None);
        assert_eq!(names("a/b", 2).await, [""; 0]);
        // A download that was under way.
        store.link(link.clone(), Link { media_type: None }).await.unwrap();
        assert_eq!(store.linked(link.clone()).await.unwrap(), None);
        store.relink(&link);
        store.link(link.clone(), Link { media_type: None }).await.unwrap();
        assert!(store.linked(link).await.unwrap().is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_taken_away_while_it_is_looked_at_stays_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("", "test").unwrap();
        config.store.directory = folder.path().to_owned();
        let store = Arc::new(Store::open(&config.store).unwrap());
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let key = LinkKey { upstream: "u".into(), repository: name("a"), digest };
        store.unlink(key.clone()).await.unwrap();
        store.relink_if(&key, || false);
        assert!(store.is_unlinked(&key));
        store.relink_if(&key, || true);
        assert!(!store.is_unlinked(&key));
        let (taken, is_taken) = std::sync::mpsc::channel();
        let mut taking = None;
        store.relink_if(&key, || {
            let (store, key) = (Arc::clone(&store), key.clone());
            taking = Some(tokio::spawn(async move {
                store.unlink(key).await.unwrap();
                let _ = taken.send(());
            }));
            // It was true when it was looked at. Whoever takes it away meanwhile waits or is heard.
            let _ = is_taken.recv_timeout(Duration::from_millis(300));
            true
        });
        taking.unwrap().await.unwrap();
        assert!(store.is_unlinked(&key));
    }
}
