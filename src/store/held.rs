//! What memory had for a request that comes again and again.
//!
//! Links and bodies are looked up by key, each look a walk through a table that all requests share.
//! A [`Held`] remembers what was found, for a second at the most, and while nothing was taken back:
//! what leaves memory for another reason than room ends the [`Epoch`]. It keeps no body alive. As all
//! of it is looked up once a second, the tables learn what is in use.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::{Link, LinkKey, Store, memory::Entry};

/// Not yet looked up.
const NEVER: u64 = u64::MAX;

/// The time in which nothing is taken back.
#[derive(Debug, Default)]
pub(super) struct Epoch(AtomicU64);

/// A digest of a repository, and what memory had of it.
#[derive(Debug)]
pub struct Held {
    key: LinkKey,
    /// When it was last looked up, in seconds after the store's start.
    asked: AtomicU64,
    found: ArcSwapOption<Found>,
}

#[derive(Debug)]
struct Found {
    epoch: u64,
    /// Seconds after the store's start.
    second: u64,
    link: Link,
    entry: Weak<Entry>,
}

// === impl Epoch ===

impl Epoch {
    /// Something was taken back. Comes after it has left memory.
    pub(super) fn end(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Comes before anything is looked up.
    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

// === impl Held ===

impl Held {
    /// Nothing was looked up yet.
    pub fn new(key: LinkKey) -> Self {
        Self { key, asked: AtomicU64::new(NEVER), found: ArcSwapOption::empty() }
    }

    /// Of which digest it is, and in which repository.
    pub fn key(&self) -> &LinkKey {
        &self.key
    }
}

// === impl Store ===

impl Store {
    /// The link of a digest and its body, of up to [`super::SMALL_BYTES`], if both are in memory.
    /// Never blocks.
    pub fn look_up(&self, key: &LinkKey) -> Option<(Link, Bytes)> {
        let link = self.links.get(key)?;
        Some((link, self.in_memory(&key.digest)?))
    }

    /// The same for who asks over and over.
    pub fn recall(&self, held: &Held) -> Option<(Link, Bytes)> {
        let (epoch, second) = (self.epoch.now(), self.memory.second());
        if let Some(found) = &*held.found.load()
            && (found.epoch, found.second) == (epoch, second)
            && let Some(entry) = found.entry.upgrade()
        {
            return Some((found.link.clone(), entry.body().clone()));
        }
        let link = self.links.get(&held.key)?;
        let entry = self.used_in_memory(&held.key.digest)?;
        let body = entry.body().clone();
        // Who comes now and then is not the sooner answered for it.
        if second.abs_diff(held.asked.swap(second, Ordering::Relaxed)) <= 1 {
            let entry = Arc::downgrade(&entry);
            held.found.store(Some(Arc::new(Found { epoch, second, link: link.clone(), entry })));
        }
        Some((link, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        protocol::{Algorithm, Digest, Repository},
        store::Kind,
    };

    struct Stage {
        folder: tempfile::TempDir,
        store: Arc<Store>,
        held: Held,
    }

    impl Stage {
        async fn set() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::parse("", "test").unwrap();
            config.store.directory = folder.path().to_owned();
            let store = Arc::new(Store::open(&config.store).unwrap());
            let digest = Digest::of(Algorithm::Sha256, b"x");
            let repository = Repository::parse("a").unwrap();
            let key = LinkKey { upstream: "u".into(), repository, digest };
            let stage = Self { folder, store, held: Held::new(key) };
            stage.put().await;
            stage.link(None).await;
            stage
        }

        async fn put(&self) {
            let (digest, body) = (self.held.key.digest, Bytes::from_static(b"x"));
            self.store.put(digest, body, Kind::Blob).await.unwrap();
        }

        /// Does what blocks.
        async fn work<T: Send + 'static>(
            &self,
            work: impl FnOnce(&Store, &Digest) -> T + Send + 'static,
        ) -> T {
            let (store, digest) = (Arc::clone(&self.store), self.held.key.digest);
            tokio::task::spawn_blocking(move || work(&store, &digest)).await.unwrap()
        }

        async fn link(&self, media_type: Option<&str>) {
            let link = Link { media_type: media_type.map(Into::into) };
            self.store.link(self.held.key.clone(), link).await.unwrap();
        }

        fn recalled(&self) -> Option<Option<Arc<str>>> {
            let (link, body) = self.store.recall(&self.held)?;
            assert_eq!(body, "x");
            Some(link.media_type)
        }

        /// Whether the next answer is without a look-up.
        fn is_held(&self) -> bool {
            let found = self.held.found.load();
            let (epoch, second) = (self.store.epoch.now(), self.store.memory.second());
            let is_good = |found: &Arc<Found>| (found.epoch, found.second) == (epoch, second);
            found.as_ref().is_some_and(|found| is_good(found) && found.entry.upgrade().is_some())
        }

        /// Holds it in a second that does not end while it is looked at.
        fn hold(&self) -> Arc<Entry> {
            let held = (0..100).any(|_| self.recalled().is_some() && self.is_held());
            assert!(held, "it is looked up each time");
            self.held.found.load().as_ref().unwrap().entry.upgrade().unwrap()
        }
    }

    #[tokio::test]
    async fn what_a_repository_lost_is_not_answered_from_what_is_held() {
        let stage = Stage::set().await;
        stage.hold();
        let key = stage.held.key.clone();
        stage.store.unlink(key.clone()).await.unwrap();
        assert_eq!(stage.recalled(), None);
        stage.store.relink(&key);
        assert_eq!(stage.recalled(), None, "nobody has linked it again");
        stage.link(None).await;
        stage.hold();
        let unlink_all = |store: &Store, _: &Digest| store.unlink_all(&["u".to_owned()].into());
        assert_eq!(stage.work(unlink_all).await.unwrap(), 1);
        assert_eq!(stage.recalled(), None);
    }

    #[tokio::test]
    async fn what_left_the_store_is_not_answered_from_what_is_held() {
        let stage = Stage::set().await;
        // Somebody who is just being answered keeps it alive.
        let entry = stage.hold();
        assert_eq!(stage.work(|store, digest| store.purge(digest)).await.unwrap(), Some(1));
        assert_eq!(stage.recalled(), None);
        stage.put().await;
        let again = stage.hold();
        stage.work(|store, digest| store.set_aside(*digest, "a test")).await;
        assert_eq!(stage.recalled(), None);
        stage.put().await;
        let last = stage.hold();
        let mut config = Config::parse("store: { memory: 64MiB }", "test").unwrap();
        config.store.directory = stage.folder.path().to_owned();
        stage.store.reconfigure(&config.store);
        assert_eq!(stage.recalled(), None, "the memory is another");
        drop((entry, again, last));
    }

    #[tokio::test]
    async fn a_link_that_says_something_else_is_heard() {
        let stage = Stage::set().await;
        stage.hold();
        stage.link(Some("a/b")).await;
        assert_eq!(stage.recalled(), Some(Some("a/b".into())));
        let epoch = stage.store.epoch.now();
        stage.link(Some("a/b")).await;
        assert_eq!(stage.store.epoch.now(), epoch, "it says the same");
    }

    #[tokio::test]
    async fn a_body_is_not_kept_and_the_tables_hear_of_its_use() {
        let stage = Stage::set().await;
        // The table's, and this one.
        assert_eq!(Arc::strong_count(&stage.hold()), 2);
        let found = stage.held.found.load_full().unwrap();
        let last = Found {
            second: found.second.wrapping_sub(1),
            link: found.link.clone(),
            entry: Weak::clone(&found.entry),
            ..*found
        };
        stage.held.found.store(Some(Arc::new(last)));
        assert!(!stage.is_held());
        stage.hold();
    }

    #[tokio::test]
    async fn for_who_comes_now_and_then_nothing_is_held() {
        let stage = Stage::set().await;
        assert!(stage.recalled().is_some() && stage.held.found.load().is_none());
        stage.held.asked.store(stage.store.memory.second() + 2, Ordering::Relaxed);
        assert!(stage.recalled().is_some() && stage.held.found.load().is_none());
    }
}
