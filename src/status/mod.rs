//! How the server is, for those who look at it.

mod report;

pub use report::{
    Account, Budget, Disk, Forecast, HitRatio, Process, Status, Top, TopEntry, Traffic,
};

/// Fills that a status lists.
pub const MOST_FILLS: usize = 100;

/// Repositories or clients that a status lists in each order.
pub const MOST_LISTED: usize = 20;
