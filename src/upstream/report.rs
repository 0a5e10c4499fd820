//! What an operator may know of an upstream: its state, its budget, and who spends it.

use std::time::SystemTime;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Entry, Tally, Upstream};
use crate::{config::Mode, protocol::ratelimit::RateLimit};

/// Repositories and clients listed.
const LISTED: usize = 20;

/// The budget of one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BudgetReport {
    /// The upstream's name.
    pub upstream: String,
    /// Pulls left to all accounts together; `null` where no limit is known.
    pub remaining: Option<u64>,
    /// Pulls per window of all accounts together.
    pub limit: Option<u64>,
    /// `budget.reserve`, as configured.
    pub reserve: String,
    /// Less than the reserve is left: tags stay fresh for longer.
    pub is_sparing: bool,
    /// Pulls since the start of the server.
    #[serde(flatten)]
    pub total: Tally,
    /// Its accounts; those of mirrors too, as `MIRROR/ACCOUNT`.
    pub accounts: Vec<AccountReport>,
    /// The repositories that spent most, and all others.
    pub repositories: Vec<Entry>,
    /// The clients that spent most, and all others.
    pub clients: Vec<Entry>,
}

/// The state of one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UpstreamReport {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// It is not asked, because an operator wants it so.
    pub offline: bool,
    /// Why it is not asked at present, if it isn't.
    pub held_back: Option<String>,
    /// Its mirrors.
    pub mirrors: Vec<MirrorReport>,
}

/// The state of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MirrorReport {
    /// Where it is.
    pub url: String,
    /// Why it is not asked at present, if it isn't.
    pub held_back: Option<String>,
}

/// An account as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct AccountReport {
    /// Its name, or "anonymous".
    pub account: String,
    /// Pulls allowed per window, as the registry last said.
    pub limit: Option<u64>,
    /// Pulls left, as the registry last said.
    pub remaining: Option<u64>,
    /// How long a window is, in seconds.
    pub window_seconds: Option<u64>,
    /// Whom the registry charges.
    pub source: Option<String>,
    /// Whom else it charged before, where that changes with the address that we leave by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_sources: Vec<SourceReport>,
    /// When the present window has ended for certain; seconds since 1970.
    pub resets_at: Option<u64>,
    /// When the registry said so; seconds since 1970.
    pub observed_at: Option<u64>,
    /// Counted requests since the start of the server.
    pub spent: u64,
    /// `ready`, `spent`, or `aside`.
    pub state: &'static str,
    /// Why it stands aside.
    pub problem: Option<String>,
}

/// The budget of one of several sources of an account.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SourceReport {
    /// Whom the registry charges.
    pub source: Option<String>,
    /// Pulls allowed per window.
    pub limit: Option<u64>,
    /// Pulls left, as it last said.
    pub remaining: Option<u64>,
}

// === impl SourceReport ===

impl SourceReport {
    pub(super) fn of(said: &RateLimit) -> Self {
        Self { source: said.source.clone(), limit: said.limit, remaining: said.remaining }
    }
}

// === impl Upstream ===

impl Upstream {
    /// What is left, and who spent it.
    pub fn budget(&self) -> BudgetReport {
        self.budget_listing(LISTED)
    }

    /// The same with so many repositories and clients at the most, and all others together.
    pub fn budget_listing(&self, most: usize) -> BudgetReport {
        let now = SystemTime::now();
        self.talk().accounts.look_ahead(now);
        let outlook = self.outlook();
        BudgetReport {
            upstream: self.name().to_string(),
            remaining: outlook.left.map(|(left, _)| left),
            limit: outlook.left.map(|(_, limit)| limit),
            reserve: self.config().budget.reserve.to_string(),
            is_sparing: outlook.is_sparing,
            total: self.ledger().total(),
            accounts: self.accounts(now),
            repositories: self.ledger().repositories(most),
            clients: self.ledger().clients(most),
        }
    }

    /// How its accounts are; those of mirrors too.
    pub fn accounts(&self, now: SystemTime) -> Vec<AccountReport> {
        // With the clients' own credentials, budgets are the clients' own too.
        let is_ours = self.config().credentials.mode == Mode::Shared;
        let registries = self.registries.all().filter(|_| is_ours);
        registries.flat_map(|registry| registry.accounts.report(now)).collect()
    }

    /// How it is.
    pub fn report(&self) -> UpstreamReport {
        let upstream = self.talk();
        let why = |failure: super::Failure| failure.to_string();
        let mirrors = self.registries.all().filter(|one| !std::sync::Arc::ptr_eq(one, upstream));
        UpstreamReport {
            name: self.name().to_string(),
            url: self.config().url.to_string(),
            offline: self.is_offline(),
            held_back: upstream.held_back().map(why),
            mirrors: mirrors
                .map(|mirror| MirrorReport {
                    url: mirror.place().to_string(),
                    held_back: mirror.held_back().map(why),
                })
                .collect(),
        }
    }
}
