//! Hits that take memory alone: no disk is read, nobody is asked, nothing is waited for.
//!
//! What is said here is what the long way would say at the same moment; `None` means no more than
//! that the long way has to be gone.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{
    Ask, Found, Health, Manifest, Manifests, Outcome, Plan, Served,
    revalidation::{choose, plan},
};
use crate::store::{Held, Link, LinkKey, TagKey, TagRecord};

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
    pub(super) fn recent_tag(&self, ask: &Ask, key: &TagKey, now: SystemTime) -> Option<Recent> {
        let (record, left) = self.fresh(ask, key, now)?;
        let key = ask.link_key(record.digest);
        let manifest = self.recent(ask, &key, |key| self.store.look_up(key))?;
        Some(Recent { manifest, left, validated: Some(record.validated) })
    }

    /// The same for who asks over and over, while the tag names what is `held`.
    pub fn same_tag(
        &self,
        ask: &Ask,
        key: &TagKey,
        held: &Held,
        now: SystemTime,
    ) -> Option<Recent> {
        let (record, left) = self.fresh(ask, key, now)?;
        if record.digest != held.key().digest {
            return None;
        }
        let manifest = self.recent(ask, held.key(), |_| self.store.recall(held))?;
        Some(Recent { manifest, left, validated: Some(record.validated) })
    }

    /// The manifest of the digest in `key`.
    pub(super) fn recent_digest(&self, ask: &Ask, key: &LinkKey) -> Option<Recent> {
        let manifest = self.recent(ask, key, |key| self.store.look_up(key))?;
        Some(Recent { manifest, left: None, validated: None })
    }

    /// The same for who asks over and over.
    pub fn same_digest(&self, ask: &Ask, held: &Held) -> Option<Recent> {
        let manifest = self.recent(ask, held.key(), |_| self.store.recall(held))?;
        Some(Recent { manifest, left: None, validated: None })
    }

    /// What a tag names, and for how long yet, if that may be said without asking upstream.
    fn fresh(
        &self,
        ask: &Ask,
        key: &TagKey,
        now: SystemTime,
    ) -> Option<(TagRecord, Option<Duration>)> {
        let record = self.tags.recent(key).filter(|record| !record.is_gone())?;
        let policy = &ask.upstream.config().tags;
        let tag = key.tag.as_str();
        // What is fresh is served whether upstream is well or not.
        let plan = plan(tag, Some(&record), policy, ask.upstream.stretch(), now, Health::Up);
        let Plan::ServeFresh { left } = plan else { return None };
        if choose(&record, policy.cooldown_of(tag), now).cooling.is_some() {
            return None;
        }
        Some((record, left))
    }

    fn recent(
        &self,
        ask: &Ask,
        key: &LinkKey,
        look: impl FnOnce(&LinkKey) -> Option<(Link, Bytes)>,
    ) -> Option<Manifest> {
        if !ask.is_authorised() || self.negatives.is_doubted(|| key.clone()) {
            return None;
        }
        let (Link { media_type }, body) = look(key)?;
        Some(Manifest { digest: key.digest, media_type: media_type?, body })
    }
}

impl From<Recent> for Served {
    fn from(Recent { manifest, left, validated }: Recent) -> Self {
        let (found, outcome) = (Found::Whole(manifest), Outcome::Hit { left });
        Self { found, outcome, validated, cooling: false }
    }
}
