//! What each tag named when upstream was last asked.
//!
//! Kept in the index; the tags in use are in memory. A tag that moves keeps
//! what it named before: as long as that is cached and the new one is not, or,
//! with a cooldown, whether it is cached or not.
//!
//! A record is read and written in one turn. What upstream said of a tag before
//! a write through us was recorded does not undo it: a check notes how many
//! writes of the tag there were when it began.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use moka::sync::Cache;
use tokio::sync::{Mutex, MutexGuard};

use super::revalidation::{choose, confirm};
use crate::{
    protocol::Digest,
    store::{self, Store, TagKey, TagRecord},
};

/// Tags kept in memory; about 400 bytes each.
const IN_MEMORY: u64 = 50_000;

/// Turns at records; tags share them.
const TURNS: usize = 256;

/// The table.
#[derive(Debug)]
pub(super) struct TagTable {
    store: Arc<Store>,
    known: Cache<TagKey, TagRecord>,
    /// Whoever holds one alone reads and writes the records of its tags; in it, how often these were
    /// written.
    turns: Vec<Mutex<u64>>,
    hasher: RandomState,
}

// === impl TagTable ===

impl TagTable {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let turns = (0..TURNS).map(|_| Mutex::default()).collect();
        Self { store, known: Cache::new(IN_MEMORY), turns, hasher: RandomState::new() }
    }

    /// The record of a tag in use. Never blocks.
    pub(super) fn recent(&self, key: &TagKey) -> Option<TagRecord> {
        self.known.get(key)
    }

    pub(super) async fn get(&self, key: &TagKey) -> Result<Option<TagRecord>, store::Error> {
        if let Some(record) = self.known.get(key) {
            return Ok(Some(record));
        }
        let _turn = self.turn(key).await;
        self.load(key).await
    }

    /// How many writes of the tag there were: what upstream is asked from now on knows of them.
    pub(super) async fn writes(&self, key: &TagKey) -> u64 {
        *self.turn(key).await
    }

    /// A write changed tags that nobody has listed: what is said of any is not recorded any more, if
    /// it was asked before.
    pub(super) async fn doubt_all(&self) {
        for turn in &self.turns {
            *turn.lock().await += 1;
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than what it was divided by")]
    async fn turn(&self, key: &TagKey) -> MutexGuard<'_, u64> {
        let at = self.hasher.hash_one(key) as usize % self.turns.len();
        self.turns[at].lock().await
    }

    async fn load(&self, key: &TagKey) -> Result<Option<TagRecord>, store::Error> {
        if let Some(record) = self.known.get(key) {
            return Ok(Some(record));
        }
        let record = self.store.tag(key.clone()).await?;
        if let Some(record) = &record {
            self.known.insert(key.clone(), record.clone());
        }
        Ok(record)
    }

    /// Upstream, asked when there were `writes`, named `digest` at `now`; gives what is on record from
    /// now on, or what would be, if the tag has been written since. A record that can't be
    /// written is still used: the cost is one free HEAD after a restart, or a cooldown that begins
    /// again.
    pub(super) async fn confirmed(
        &self,
        key: &TagKey,
        digest: Digest,
        cooldown: Duration,
        now: SystemTime,
        writes: u64,
    ) -> Result<TagRecord, TagRecord> {
        let turn = self.turn(key).await;
        let before = self.load(key).await.ok().flatten();
        let mut record = confirm(before.as_ref(), digest, cooldown, now);
        if *turn != writes {
            return Err(record);
        }
        match before {
            Some(before) if before.digest == digest => {
                self.known.insert(key.clone(), record.clone());
                self.store.freshen_tag(key.clone(), record.clone());
                tell_of_cooling(key, &before, &record, cooldown);
            }
            Some(before) => {
                tell_of_cooling(key, &before, &record, cooldown);
                if cooldown.is_zero() {
                    record.previous = self.servable(before).await;
                }
                self.moved(key, &record).await;
            }
            None => self.moved(key, &record).await,
        }
        Ok(record)
    }

    /// `digest` was pushed under the tag, through us, at `now`. It is served at once: what cools is
    /// what others moved.
    pub(super) async fn pushed(
        &self,
        key: &TagKey,
        digest: Digest,
        cooldown: Duration,
        now: SystemTime,
    ) {
        let mut turn = self.turn(key).await;
        *turn += 1;
        let before = self.load(key).await.ok().flatten();
        let previous = match before.filter(|before| cooldown.is_zero() && before.digest != digest) {
            Some(before) => self.servable(before).await,
            None => None,
        };
        let record = TagRecord { digest, previous, validated: now, moved: now };
        self.moved(key, &record).await;
    }

    /// Makes a tag as old as it may not be without a check; one that has no age, in doubt.
    pub(super) async fn outdate(&self, key: &TagKey, fresh_for: Option<Duration>, now: SystemTime) {
        let mut turn = self.turn(key).await;
        *turn += 1;
        let Some(record) = self.load(key).await.ok().flatten() else { return };
        let record = match fresh_for {
            _ if record.is_gone() => return,
            None => record.doubted(),
            Some(fresh_for) => {
                let old = now.checked_sub(fresh_for).unwrap_or(record.validated);
                TagRecord { validated: record.validated.min(old), ..record }
            }
        };
        self.moved(key, &record).await;
    }

    /// Upstream no longer has what a cooling tag named before: what it names now is served, however
    /// young it is.
    pub(super) async fn let_go(&self, key: &TagKey, previous: Digest) {
        let _turn = self.turn(key).await;
        let record = self.load(key).await.ok().flatten();
        let Some(record) = record.filter(|record| record.previous == Some(previous)) else {
            return;
        };
        tracing::warn!(
            upstream = %key.upstream, repository = %key.repository, tag = %key.tag,
            digest = %record.digest, before = %previous,
            "a tag that cools named a digest that upstream no longer has; the new one is served"
        );
        self.moved(key, &TagRecord { previous: None, ..record }).await;
    }

    async fn moved(&self, key: &TagKey, record: &TagRecord) {
        self.known.insert(key.clone(), record.clone());
        if let Err(error) = self.store.move_tag(key.clone(), record.clone()).await {
            tracing::warn!(%error, tag = %key.tag, "a tag could not be recorded");
        }
    }

    /// Its record was purged.
    pub(super) fn forget(&self, key: &TagKey) {
        self.known.invalidate(key);
    }

    /// The tag was deleted, through us.
    pub(super) async fn deleted(&self, key: &TagKey, cooldown: Duration, now: SystemTime) {
        let mut turn = self.turn(key).await;
        *turn += 1;
        self.remove(key, cooldown, now).await;
    }

    /// Upstream, asked when there were `writes`, said at `now` that there is no such tag. False if
    /// that may be outdated.
    pub(super) async fn gone(
        &self,
        key: &TagKey,
        cooldown: Duration,
        now: SystemTime,
        writes: u64,
    ) -> bool {
        let turn = self.turn(key).await;
        let is_current = *turn == writes;
        if is_current {
            self.remove(key, cooldown, now).await;
        }
        is_current
    }

    /// Where tags cool, what is gone is remembered for as long: one that is deleted and comes back
    /// has moved.
    async fn remove(&self, key: &TagKey, cooldown: Duration, now: SystemTime) {
        let Some(record) = self.load(key).await.ok().flatten() else { return };
        let age = now.duration_since(record.moved).unwrap_or_default();
        if !cooldown.is_zero() && !record.is_gone() {
            let digest = choose(&record, cooldown, now).digest;
            return self.moved(key, &TagRecord::gone(digest, now)).await;
        }
        if record.is_gone() && age < cooldown {
            return;
        }
        self.known.invalidate(key);
        if let Err(error) = self.store.remove_tag(key.clone()).await {
            tracing::warn!(%error, tag = %key.tag, "a tag could not be forgotten");
        }
    }

    /// What of a record can be served: its digest, or the one before.
    async fn servable(&self, record: TagRecord) -> Option<Digest> {
        match self.store.contains(record.digest).await {
            Ok(true) => Some(record.digest),
            _ => record.previous,
        }
    }
}

/// One line when a tag begins to cool, and one when that is over. It may have ended some time before
/// upstream is asked again, and then is told late: a line for each answer would be too many.
fn tell_of_cooling(key: &TagKey, before: &TagRecord, record: &TagRecord, cooldown: Duration) {
    let is_cooling =
        |record: &TagRecord| choose(record, cooldown, record.validated).cooling.is_some();
    let (upstream, repository, tag) = (&key.upstream, &key.repository, &key.tag);
    match (is_cooling(before), is_cooling(record)) {
        (_, true) if before.digest != record.digest => {
            let served = choose(record, cooldown, record.validated).digest;
            tracing::info!(
                %upstream, %repository, %tag, digest = %record.digest, %served, ?cooldown,
                "a tag moved and cools: what it named before is served until then"
            );
        }
        (true, false) => {
            tracing::info!(
                %upstream, %repository, %tag, digest = %record.digest,
                "a tag has cooled: what it names is served"
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        protocol::{Algorithm, Repository, Tag},
    };

    const NONE: Duration = Duration::ZERO;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn key() -> TagKey {
        TagKey {
            upstream: "u".into(),
            repository: Repository::parse("a").unwrap(),
            tag: Tag::parse("latest").unwrap(),
        }
    }

    fn table() -> (TagTable, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("", "test").unwrap();
        config.store.directory = folder.path().to_owned();
        (TagTable::new(Arc::new(Store::open(&config.store).unwrap())), folder)
    }

    async fn named(table: &TagTable) -> Option<Digest> {
        let in_memory = table.get(&key()).await.unwrap().map(|record| record.digest);
        table.forget(&key());
        let stored = table.get(&key()).await.unwrap().map(|record| record.digest);
        assert_eq!(in_memory, stored);
        stored
    }

    #[tokio::test]
    async fn what_was_asked_before_a_write_does_not_undo_it() {
        let (table, _folder) = table();
        let (key, now) = (key(), SystemTime::now());
        let (old, new) = (digest("old"), digest("new"));
        let asked = table.writes(&key).await;
        assert!(table.confirmed(&key, old, NONE, now, asked).await.is_ok());
        table.pushed(&key, new, NONE, now).await;
        assert!(table.confirmed(&key, old, NONE, now, asked).await.is_err());
        assert!(!table.gone(&key, NONE, now, asked).await);
        assert_eq!(named(&table).await, Some(new));

        let asked = table.writes(&key).await;
        table.deleted(&key, NONE, now).await;
        assert!(table.confirmed(&key, new, NONE, now, asked).await.is_err());
        assert_eq!(named(&table).await, None);

        let asked = table.writes(&key).await;
        table.doubt_all().await;
        assert!(table.confirmed(&key, new, NONE, now, asked).await.is_err());
        assert_eq!(named(&table).await, None);
        let asked = table.writes(&key).await;
        assert!(table.confirmed(&key, new, NONE, now, asked).await.is_ok());
        assert!(table.gone(&key, NONE, now, asked).await);
    }
}
