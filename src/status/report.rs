//! The status: plain data, the same over the API and on the dashboard.
//!
//! The fields' names are a contract. Sizes are bytes, times whole seconds since 1970, rates are per
//! second, and shares are between 0 and 1. Every list has a bounded length.

use std::path::PathBuf;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    blob::FillReport,
    history::Counts,
    upstream::{AccountReport, UpstreamReport},
};

/// How the server is, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// This moment; seconds since 1970.
    pub now: u64,
    /// When the process started; seconds since 1970.
    pub started_at: u64,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Whether clients are accepted: not while it starts or stops.
    pub ready: bool,
    /// What goes on now.
    pub traffic: Traffic,
    /// All since the process started.
    pub totals: Counts,
    /// How much of it was answered from what is kept.
    pub hit_ratio: HitRatio,
    /// What is left at each upstream, in the order of the configuration.
    pub budgets: Vec<Budget>,
    /// How each upstream is, in the same order.
    pub upstreams: Vec<UpstreamReport>,
    /// The repositories that are asked for most, since the process started.
    pub repositories: Top,
    /// The clients that ask most, since the process started. Named by their address.
    pub clients: Top,
    /// The fills under way, the oldest first, at most [`MOST_FILLS`](super::MOST_FILLS).
    pub fills: Vec<FillReport>,
    /// How many are under way.
    pub fills_active: usize,
    /// The store's disk.
    pub disk: Disk,
    /// The process.
    pub process: Process,
}

/// What goes on, averaged over the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct Traffic {
    /// Seconds that it is averaged over: ten, or less just after the start.
    pub over_seconds: f64,
    /// Requests of clients.
    pub requests_per_second: f64,
    /// Body bytes sent to clients.
    pub bytes_per_second: f64,
    /// Body bytes received from upstream.
    pub upstream_bytes_per_second: f64,
    /// Client connections that are open at this moment.
    pub connections: u64,
}

/// Shares of what was answered from what is kept: of hits and misses, or of their bytes. `null` where
/// there were none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct HitRatio {
    /// Of the requests since the process started.
    pub requests: Option<f64>,
    /// Of the body bytes since the process started.
    pub bytes: Option<f64>,
    /// Of the last hour's requests.
    pub requests_last_hour: Option<f64>,
    /// Of the last hour's body bytes.
    pub bytes_last_hour: Option<f64>,
}

/// What is left at one upstream, and how long it lasts.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Budget {
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
    /// Pulls that the registry counted since the process started.
    pub spent: u64,
    /// Pulls of clients since then that cost none.
    pub saved: u64,
    /// Its accounts; those of mirrors too, as `MIRROR/ACCOUNT`.
    pub accounts: Vec<Account>,
}

/// An account, and how long its pulls last.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Account {
    /// What the registry said of it, and what was spent.
    #[serde(flatten)]
    pub report: AccountReport,
    /// What comes of it at the present rate.
    #[serde(flatten)]
    pub forecast: Forecast,
}

/// What comes of an account's pulls if spending goes on as it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct Forecast {
    /// Pulls spent per hour, lately; `null` in the first minute.
    pub spent_per_hour: Option<f64>,
    /// When nothing is left; seconds since 1970, and the present moment where nothing is left now.
    /// `null` if the window ends before, nothing is spent, or no limit is known.
    pub runs_out_at: Option<u64>,
}

/// Those who come first, in two orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Top {
    /// By requests, at most [`MOST_LISTED`](super::MOST_LISTED).
    pub by_requests: Vec<TopEntry>,
    /// By bytes, as many.
    pub by_bytes: Vec<TopEntry>,
}

/// A repository or client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopEntry {
    /// A repository, or a client's address. A repository's name follows the specification's grammar.
    pub name: String,
    /// The upstream of a repository; `null` for a client.
    pub upstream: Option<String>,
    /// Requests answered since the process started.
    pub requests: u64,
    /// Body bytes sent.
    pub bytes: u64,
    /// Pulls spent on it.
    pub spent: u64,
    /// Pulls that cost none.
    pub saved: u64,
}

/// The store's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Disk {
    /// The store's folder.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// `store.disk`: what the store may use.
    pub capacity_bytes: u64,
    /// What it uses: the sum of the following.
    pub used_bytes: u64,
    /// Complete objects.
    pub published_bytes: u64,
    /// Objects on their way, and what fills left to be resumed.
    pub staged_bytes: u64,
    /// The index.
    pub index_bytes: u64,
    /// What went bad and was set aside.
    pub quarantine_bytes: u64,
    /// The history.
    pub history_bytes: u64,
    /// What the file system has left, as of the last seconds; `null` where it does not say.
    pub free_bytes: Option<u64>,
    /// How large the file system is.
    pub file_system_bytes: Option<u64>,
    /// What is wrong with it, in a sentence; `null` while it works.
    pub trouble: Option<String>,
}

/// What the process uses of the machine. `null` where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct Process {
    /// Its own memory (`RssAnon`): without pages of files, which the system takes back when it wants.
    pub memory_bytes: Option<u64>,
    /// All of its resident memory (`VmRSS`), pages of cached files that it has mapped included.
    pub resident_bytes: Option<u64>,
    /// Bytes of fills in memory, which `fill.memory` bounds.
    pub fill_memory_bytes: u64,
    /// Open files and connections.
    pub open_files: Option<u64>,
    /// How many it may open.
    pub open_files_limit: Option<u64>,
    /// Seconds of processor time since the start.
    pub cpu_seconds: Option<f64>,
    /// Processors' worth of it over the last seconds: 1.0 is one processor all the time.
    pub cpu_load: Option<f64>,
}
