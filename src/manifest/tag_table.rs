//! What each tag named when upstream was last asked.
//!
//! Kept in the index; the tags in use are in memory. A tag that moves keeps
//! what it named before, as long as that is cached and the new one is not.

use std::{sync::Arc, time::SystemTime};

use moka::sync::Cache;

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

    /// Upstream named `digest` at `now`. A record that can't be written is still used: the cost is
    /// one free HEAD after a restart.
    pub(super) async fn confirmed(&self, key: &TagKey, digest: Digest, now: SystemTime) {
        let before = self.get(key).await.ok().flatten();
        if let Some(mut record) = before.clone().filter(|record| record.digest == digest) {
            record.validated = now;
            self.known.insert(key.clone(), record.clone());
            self.store.freshen_tag(key.clone(), record);
            return;
        }
        let previous = match before {
            Some(before) => self.servable(before).await,
            None => None,
        };
        let record = TagRecord { digest, previous, validated: now, moved: now };
        self.known.insert(key.clone(), record.clone());
        if let Err(error) = self.store.move_tag(key.clone(), record).await {
            tracing::warn!(%error, tag = %key.tag, "a tag could not be recorded");
        }
    }

    /// Its record was purged.
    pub(super) fn forget(&self, key: &TagKey) {
        self.known.invalidate(key);
    }

    /// Upstream said that there is no such tag.
    pub(super) async fn gone(&self, key: &TagKey) {
        if self.get(key).await.ok().flatten().is_none() {
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
