//! A problem as it is told: plain data.

use serde::Serialize;
use utoipa::ToSchema;

/// A warning or an error of the log, with how often it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// Grows with every event, and with every repetition of one: `recent(after)` with the largest
    /// that is known answers what is new. Starts anew with the process.
    pub id: u64,
    /// When it came last; milliseconds since 1970.
    pub at_ms: u64,
    /// When it came first; milliseconds since 1970.
    pub first_at_ms: u64,
    /// How often it came.
    pub count: u64,
    /// How bad it is.
    pub level: Level,
    /// What happened, in a sentence; written by us, never by a client.
    pub message: String,
    /// What it is about, as it was the last time: names and values, in the order of the log line.
    /// Values may be what clients or upstreams sent; each has at most
    /// [`LONGEST_VALUE`] bytes.
    pub fields: Vec<Field>,
    /// What an operator can do about it, in a sentence; `null` where there is nothing to do.
    pub remedy: Option<String>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The server goes on, and somebody may want to know.
    Warning,
    /// Something does not work.
    Error,
}

/// A name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Field {
    /// Such as `upstream` or `error`; written by us.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// Bytes of a value that are kept.
pub const LONGEST_VALUE: usize = 512;
