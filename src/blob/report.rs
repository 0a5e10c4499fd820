//! The fills under way, as an operator sees them.

use serde::Serialize;

/// One blob on its way from upstream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FillReport {
    /// The blob's digest.
    pub digest: String,
    /// The upstream that it comes from.
    pub upstream: String,
    /// The repository there.
    pub repository: String,
    /// How far it is.
    pub state: FillState,
    /// Bytes that are here, those of an earlier attempt included.
    pub received_bytes: u64,
    /// The blob's length; `null` until upstream has said it.
    pub total_bytes: Option<u64>,
    /// Clients that read it.
    pub readers: usize,
    /// Bytes per second that come from upstream, over the last seconds.
    pub bytes_per_second: f64,
    /// When it began; seconds since 1970.
    pub since: u64,
}

/// A fill's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FillState {
    /// For a place among those that may talk to upstream.
    Waiting,
    /// Upstream was asked and has not answered yet.
    Asking,
    /// Bytes come.
    Receiving,
}
