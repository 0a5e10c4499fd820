//! Whom a registry has answered, with credentials of their own.

use std::time::Duration;

use moka::sync::Cache;

use super::Caller;
use crate::protocol::{Digest, Repository};

/// DESIGN: what upstream allows a caller holds for a minute.
const ANSWERED_FOR: Duration = Duration::from_secs(60);

/// Callers and repositories remembered.
const ANSWERED: u64 = 50_000;

/// The callers that were answered within the last minute, for one kind of question.
#[derive(Debug)]
pub(super) struct Answered(Cache<(Digest, Repository), ()>);

// === impl Answered ===

impl Default for Answered {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ANSWERED).time_to_live(ANSWERED_FOR).build())
    }
}

impl Answered {
    /// Upstream has just answered this caller for this repository.
    pub(super) fn remember(&self, caller: &Caller, repository: &Repository) {
        if let Some(identity) = caller.identity() {
            self.0.insert((identity, repository.clone()), ());
        }
    }

    /// Whether it has lately. Those who ask with our credentials it need not have: what comes with
    /// these is for every client that the operator lets in.
    pub(super) fn knows(&self, caller: &Caller, repository: &Repository) -> bool {
        match caller.identity() {
            None => true,
            Some(identity) => self.0.contains_key(&(identity, repository.clone())),
        }
    }
}
