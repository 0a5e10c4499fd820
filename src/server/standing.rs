//! Whom upstreams were asked as when the store learned what their repositories have.
//!
//! Where clients would see less on the terms that are to hold, that is forgotten, and asked for anew
//! by HEAD, which is free (P6). The bytes stay.

use std::collections::{BTreeMap, HashSet};

use crate::{
    config::{self, Standing},
    store::{Error, Store},
};

/// By the upstream's name; of those too that are not configured now.
type Standings = BTreeMap<String, Standing>;

/// Has `store` know nothing that `upstreams` would not show to all their clients. Gives the names of
/// those of whom something was forgotten. Blocks.
pub(super) fn settle(
    upstreams: &[config::Upstream],
    store: &Store,
) -> Result<HashSet<String>, Error> {
    let kept = store.standings()?;
    let before: Standings =
        kept.and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default();
    let mut now = before.clone();
    let mut changed = HashSet::new();
    for upstream in upstreams {
        let (name, standing) = (upstream.name.to_string(), upstream.standing());
        if before.get(&name).is_some_and(|before| !standing.covers(before)) {
            changed.insert(name.clone());
        }
        now.insert(name, standing);
    }
    if !changed.is_empty() {
        let links = store.unlink_all(&changed)?;
        tracing::info!(
            upstreams = ?changed, links,
            "upstreams are asked elsewhere, or with other logins: what their repositories have is asked for anew"
        );
    }
    if now != before {
        store.keep_standings(serde_json::to_vec(&now).expect("names and lists make JSON"))?;
    }
    Ok(changed)
}
