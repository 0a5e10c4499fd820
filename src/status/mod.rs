//! How the server is, for those who look at it: one report, and the history behind it.
//!
//! Nothing is counted here that is not counted already: totals come from the
//! metrics and the ledgers, and [`Monitor`] looks at them once a second.
//!
//! ```text
//! metrics, ledgers, traffic ─► totals ─► Monitor (each second) ─┬─► the last ten seconds ─► traffic now
//!                                                               ├─► spending ─► forecast
//!                                                               └─► history ─► ring on disk
//! store, fills, process ─────────────────────────────────────────────► Status
//! ```

mod forecast;
mod monitor;
mod process;
mod report;
mod top;
mod totals;

pub use monitor::{Monitor, Sources};
pub use report::{
    Account, Budget, Disk, Forecast, HitRatio, Process, Status, Top, TopEntry, Traffic,
};

/// Fills that a status lists.
pub const MOST_FILLS: usize = 100;

/// Repositories or clients that a status lists in each order.
pub const MOST_LISTED: usize = 20;
