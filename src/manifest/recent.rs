//! Hits that take memory alone: no disk is read, nobody is asked, nothing is waited for.
//!
//! What is said here is what the long way would say at the same moment; `None` means no more than
//! that the long way has to be gone.

use std::time::SystemTime;

use super::{
    Ask, Found, Health, Manifest, Manifests, Outcome, Plan, Served, revalidation::choose,
    revalidation::plan,
};
use crate::store::{LinkKey, TagKey};

// === impl Manifests ===

impl Manifests {
    /// The manifest that `key` names at `now`, if the tag is fresh.
    pub fn recent_tag(&self, ask: &Ask, key: &TagKey, now: SystemTime) -> Option<Served> {
        let record = self.tags.recent(key).filter(|record| !record.is_gone())?;
        let policy = &ask.upstream.config().tags;
        let tag = key.tag.as_str();
        // What is fresh is served whether upstream is well or not.
        let plan = plan(tag, Some(&record), policy, ask.upstream.stretch(), now, Health::Up);
        let Plan::ServeFresh { left } = plan else { return None };
        if choose(&record, policy.cooldown_of(tag), now).cooling.is_some() {
            return None;
        }
        let validated = Some(record.validated);
        let manifest = self.recent(ask, &ask.link_key(record.digest))?;
        let (found, outcome) = (Found::Whole(manifest), Outcome::Hit { left });
        Some(Served { found, outcome, validated, cooling: false })
    }

    /// The manifest of the digest in `key`.
    pub fn recent_digest(&self, ask: &Ask, key: &LinkKey) -> Option<Served> {
        let (found, outcome) = (Found::Whole(self.recent(ask, key)?), Outcome::Hit { left: None });
        Some(Served { found, outcome, validated: None, cooling: false })
    }

    fn recent(&self, ask: &Ask, key: &LinkKey) -> Option<Manifest> {
        if !ask.is_authorised() || self.negatives.is_doubted(|| key.clone()) {
            return None;
        }
        let media_type = self.store.linked_in_memory(key)?.media_type?;
        let body = self.store.in_memory(&key.digest)?;
        Some(Manifest { digest: key.digest, media_type, body })
    }
}
