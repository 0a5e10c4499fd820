//! The keys of the cache and its limits, as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Scalar;
use super::forms::{Count, Size, Time};

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { directory: DIR, disk: 100GiB }")]
pub(in crate::config) struct RawStore {
    /// Made if it is missing. One process uses it at a time. Default: ./roadstead-data
    pub(in crate::config) directory: Option<String>,
    /// Bytes on disk, never passed. Default: 100GiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) disk: Option<Scalar>,
    /// Bytes of cached content in memory. Default: 256MiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) memory: Option<Scalar>,
    /// Eviction begins above this share of disk. Default: 95
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) evict_above_percent: Option<Scalar>,
    /// It goes on down to this share. Default: 90
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) evict_to_percent: Option<Scalar>,
    /// Bytes per second that are read again to find what went bad; 0: never. Default: 4MiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) scrub_rate: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { finish_below: 32MiB }")]
pub(in crate::config) struct RawFill {
    /// An abandoned download goes on with less than this left. Default: 32MiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) finish_below: Option<Scalar>,
    /// ... or with at least this share there. Default: 50
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) finish_above_percent: Option<Scalar>,
    /// Resumes without progress until it fails. Default: 5
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) retries: Option<Scalar>,
    /// The wait before the first resume; it doubles. Default: 200ms
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) retry_backoff: Option<Scalar>,
    /// A range of a blob is fetched in chunks of this size. Default: 1MiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) chunk: Option<Scalar>,
    /// Downloads at the same time. Default: 128
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) max_active: Option<Scalar>,
    /// Clients of one download at the same time. Default: 10000
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) max_readers: Option<Scalar>,
    /// Bytes of all downloads that are in memory. Default: 128MiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) memory: Option<Scalar>,
    /// The biggest manifest that is accepted. Default: 4MiB
    #[schemars(with = "Option<Size>")]
    pub(in crate::config) max_manifest: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { head: 30s }")]
pub(in crate::config) struct RawDownstream {
    /// A request's head must be complete within this. Default: 30s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) head: Option<Scalar>,
    /// An idle connection is kept for this. Default: 60s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) keepalive: Option<Scalar>,
    /// A client that accepts no byte for this long is cut. Default: 60s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) write: Option<Scalar>,
    /// Connections open at a time. Default: 10000
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) max_connections: Option<Scalar>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a mapping such as { drain: 30s }")]
pub(in crate::config) struct RawShutdown {
    /// Requests under way get this long to finish; 0s cuts them. Default: 30s
    #[schemars(with = "Option<Time>")]
    pub(in crate::config) drain: Option<Scalar>,
}
