//! What each tag named when upstream was last asked.
//!
//! Kept in the index; the tags in use are in memory. A tag that moves keeps
//! what it named before: as long as that is cached and the new one is not, or,
//! with a cooldown, whether it is cached or not.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use moka::sync::Cache;

use super::revalidation::{choose, confirm};
use crate::{
    protocol::Digest,
    store::{self, Store, TagKey, TagRecord},
};

/// Tags kept in memory; about 400 bytes each.
const IN_MEMORY: u64 = 50_000;

/// The table.
#[derive(Debug)]
pub(super) struct TagTable {
    store: Arc<Store>,
    known: Cache<TagKey, TagRecord>,
}

// === impl TagTable ===

impl TagTable {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, known: Cache::new(IN_MEMORY) }
    }

    pub(super) async fn get(&self, key: &TagKey) -> Result<Option<TagRecord>, store::Error> {
        if let Some(record) = self.known.get(key) {
            return Ok(Some(record));
        }
        let record = self.store.tag(key.clone()).await?;
        if let Some(record) = &record {
            self.known.insert(key.clone(), record.clone());
        }
        Ok(record)
    }

    /// Upstream named `digest` at `now`; gives what is on record from now on. A record that can't be
    /// written is still used: the cost is one free HEAD after a restart, or a cooldown that begins
    /// again.
    pub(super) async fn confirmed(
        &self,
        key: &TagKey,
        digest: Digest,
        cooldown: Duration,
        now: SystemTime,
    ) -> TagRecord {
        let before = self.get(key).await.ok().flatten();
        let mut record = confirm(before.as_ref(), digest, cooldown, now);
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
        record
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
        let before = self.get(key).await.ok().flatten();
        let previous = match before.filter(|before| cooldown.is_zero() && before.digest != digest) {
            Some(before) => self.servable(before).await,
            None => None,
        };
        let record = TagRecord { digest, previous, validated: now, moved: now };
        self.moved(key, &record).await;
    }

    /// Makes a tag as old as it may not be without a check.
    pub(super) async fn outdate(&self, key: &TagKey, fresh_for: Duration, now: SystemTime) {
        let Some(record) = self.get(key).await.ok().flatten() else { return };
        let old = now.checked_sub(fresh_for).unwrap_or(SystemTime::UNIX_EPOCH);
        let record = TagRecord { validated: record.validated.min(old), ..record };
        self.moved(key, &record).await;
    }

    /// Upstream no longer has what a cooling tag named before: what it names now is served, however
    /// young it is.
    pub(super) async fn let_go(&self, key: &TagKey, previous: Digest) {
        let record = self.get(key).await.ok().flatten();
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

    /// Upstream said at `now` that there is no such tag. Where tags cool it is remembered for as
    /// long: one that is deleted and comes back has moved.
    pub(super) async fn gone(&self, key: &TagKey, cooldown: Duration, now: SystemTime) {
        let Some(record) = self.get(key).await.ok().flatten() else { return };
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
