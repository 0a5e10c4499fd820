//! Hits that take memory alone: no disk is read, nobody is asked, nothing is waited for.
//!
//! What is said here is what the long way would say at the same moment; `None` means no more than
//! that the long way has to be gone.

use std::time::{Duration, SystemTime};

use super::{
    Ask, Found, Health, Manifest, Manifests, Outcome, Plan, Served,
    revalidation::{choose, plan},
};
use crate::store::{LinkKey, TagKey};

/// A hit.
#[derive(Debug)]
pub struct Recent {
    /// The manifest.
    pub manifest: Manifest,
    /// How long it is fresh yet, if not for ever.
    pub left: Option<Duration>,
    /// When upstream last confirmed the tag, if it was asked for by one.
    pub validated: Option<SystemTime>,
}

// === impl Manifests ===

impl Manifests {
    /// The manifest that `key` names at `now`, if the tag is fresh.
    pub fn recent_tag(&self, ask: &Ask, key: &TagKey, now: SystemTime) -> Option<Recent> {
        let record = self.tags.recent(key).filter(|record| !record.is_gone())?;
        let policy = &ask.upstream.config().tags;
        let tag = key.tag.as_str();
        // What is fresh is served whether upstream is well or not.
        let plan = plan(tag, Some(&record), policy, ask.upstream.stretch(), now, Health::Up);
        let Plan::ServeFresh { left } = plan else { return None };
        if choose(&record, policy.cooldown_of(tag), now).cooling.is_some() {
            return None;
        }
        let manifest = self.recent(ask, &ask.link_key(record.digest))?;
        Some(Recent { manifest, left, validated: Some(record.validated) })
    }

    /// The manifest of the digest in `key`.
    pub fn recent_digest(&self, ask: &Ask, key: &LinkKey) -> Option<Recent> {
        Some(Recent { manifest: self.recent(ask, key)?, left: None, validated: None })
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

impl From<Recent> for Served {
    fn from(Recent { manifest, left, validated }: Recent) -> Self {
        let (found, outcome) = (Found::Whole(manifest), Outcome::Hit { left });
        Self { found, outcome, validated, cooling: false }
    }
}
