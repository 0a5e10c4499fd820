//! A tag is checked because its operator wants it so, fresh or not.

use std::sync::Arc;

use super::{
    manifests::Manifests,
    types::{Ask, Error},
};
use crate::protocol::{Digest, Tag};

/// What a check of a tag found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// What was on record; `None` if nothing was.
    pub before: Option<Digest>,
    /// What upstream says that it names.
    pub now: Digest,
}

// === impl Manifests ===

impl Manifests {
    /// Asks upstream what `tag` names now, by HEAD where it can do that, and keeps the answer. The
    /// manifest itself is left to who pulls it.
    pub async fn refresh(self: &Arc<Self>, ask: &Ask, tag: &Tag) -> Result<Refreshed, Error> {
        let key = ask.tag_key(tag);
        let before = self.record(&key).await;
        let patience = ask.upstream.config().timeouts.validate;
        let (checked, _) = self.check(ask, &key, patience).await;
        Ok(Refreshed { before: before.map(|record| record.digest), now: checked?.record.digest })
    }
}
