//! What the benches need of a store: many records without their files, and eviction by itself.

use std::time::{Duration, SystemTime};

use super::{
    Error, Kind, Store,
    eviction::{self, Goal},
    index::BlobRecord,
};
use crate::protocol::Digest;

impl Store {
    /// Records objects that have no file, each a second older than the next. Blocks.
    #[doc(hidden)]
    pub fn pretend(&self, objects: impl IntoIterator<Item = (Digest, u64)>) -> Result<(), Error> {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let records: Vec<_> = objects
            .into_iter()
            .enumerate()
            .map(|(index, (digest, size))| {
                let used = begin + Duration::from_secs(index as u64);
                (digest, BlobRecord::new(size, Kind::Blob, used))
            })
            .collect();
        let size = records.iter().map(|(_, record)| record.size).sum();
        self.index()?.publish_all(records)?;
        self.space.publish(0, size, false);
        Ok(())
    }

    /// Decides who would go for `wanted` bytes; answers how many those are. Blocks.
    #[doc(hidden)]
    pub fn choose_victims(&self, wanted: u64) -> Result<usize, Error> {
        Ok(eviction::choose(self, wanted)?.len())
    }

    /// Evicts `wanted` bytes. Blocks.
    #[doc(hidden)]
    pub fn evict_bytes(&self, wanted: u64) -> Result<(), Error> {
        let target = self.used_bytes().saturating_sub(wanted);
        eviction::evict(self, Goal { target, must: target })
    }
}
