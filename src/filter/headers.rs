//! What answers say of themselves: the names of our headers, and the values that age.

use std::time::{Duration, SystemTime};

use http::{HeaderName, header};

use crate::protocol::cache_status::CacheStatus;

pub(super) static DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(super) static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub(super) static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub(super) static NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// Whether a header of an answer out of memory is another one the next time.
pub fn varies(name: &HeaderName) -> bool {
    [&CACHE_STATUS, &LIMIT, &REMAINING, &header::AGE].contains(&name)
}

/// `Age` of what was validated then.
pub(super) fn age(validated: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(validated).unwrap_or_default().as_secs()
}

/// `Cache-Status` of a hit that holds so much longer.
pub(super) fn hit(left: Option<Duration>) -> CacheStatus {
    match left.and_then(|left| i64::try_from(left.as_secs()).ok()) {
        Some(seconds) => CacheStatus::hit().ttl(seconds),
        None => CacheStatus::hit(),
    }
}
