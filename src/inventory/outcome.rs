//! What the inventory answers to those who change something, and what they ask for: plain data, as in
//! `report`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::report::Amount;
use crate::protocol::Digest;

/// A reference with which nothing could be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// As it was written.
    pub reference: String,
    /// What is the matter, and what to do.
    pub problem: String,
}

/// What is to be purged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeRequest {
    /// Images, digests or patterns.
    pub references: Vec<String>,
    /// Each reference is a repository, of which every tag is meant.
    pub all_tags: bool,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What was purged, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PurgeReport {
    /// Nothing was touched.
    pub dry_run: bool,
    /// The tags that went.
    pub tags: Vec<String>,
    /// The objects that went.
    pub objects: Vec<Done>,
    /// Their bytes.
    pub bytes: u64,
    /// What stayed because other tags or pins need it.
    pub kept: Amount,
    /// What could not be done.
    pub problems: Vec<Problem>,
}

/// An object that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// A pin, and what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pinned {
    /// The reference by which it was pinned, in full.
    pub name: String,
    /// Objects that it keeps, once they are stored.
    pub objects: u64,
    /// Those that are stored.
    pub stored: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Some of the pins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinPage {
    /// By name.
    pub pins: Vec<Pinned>,
    /// `after` of the following page; `null` at the end.
    pub next: Option<String>,
}

/// What was pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinReport {
    /// The pins that were set.
    pub pins: Vec<Pinned>,
    /// What could not be pinned.
    pub problems: Vec<Problem>,
}

/// What was unpinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnpinReport {
    /// The names of the pins that are gone.
    pub unpinned: Vec<String>,
    /// What was not pinned.
    pub problems: Vec<Problem>,
}

/// Where a verification is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyState {
    /// There was none since the start.
    #[default]
    Idle,
    /// At work.
    Running,
    /// It has seen everything.
    Done,
    /// It was told to end.
    Cancelled,
    /// The store failed under it.
    Failed,
}

/// A file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Its name.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What is wrong.
    pub problem: String,
    /// Whether that was set right.
    pub repaired: bool,
}

/// How far a verification is, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyStatus {
    /// Where it is.
    pub state: VerifyState,
    /// Whether it repairs.
    pub repair: bool,
    /// Seen so far.
    pub done: Amount,
    /// What there was at its start; objects come and go meanwhile.
    pub total: Amount,
    /// Objects that are what their digest says.
    pub good: u64,
    /// Objects that are not.
    pub bad: u64,
    /// Objects that were evicted or purged before their turn.
    pub gone: u64,
    /// Files that the index does not know.
    pub unrecorded: u64,
    /// Of those that are bad or unknown, how many were set right.
    pub repaired: u64,
    /// The first of what is wrong.
    pub findings: Vec<Finding>,
    /// Further ones that are not listed.
    pub findings_left_out: u64,
    /// Why it failed.
    pub error: Option<String>,
}

// === impl VerifyStatus ===

impl VerifyStatus {
    /// Whether anything is wrong that was not set right.
    pub fn is_clean(&self) -> bool {
        self.bad + self.unrecorded == self.repaired
    }
}
