//! What the registry says is left of the budget.
//!
//! Read from every answer that carries it; HEADs do, and are free.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::HeaderMap;

use crate::{metrics, protocol::ratelimit::RateLimit};

/// The budget of one upstream's account.
#[derive(Debug)]
pub struct Budget {
    upstream: Arc<str>,
    /// The account's name, or "anonymous".
    account: String,
    last: Mutex<Option<(RateLimit, SystemTime)>>,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(upstream: Arc<str>, account: Option<&str>) -> Self {
        let account = account.unwrap_or("anonymous").to_owned();
        Self { upstream, account, last: Mutex::default() }
    }

    /// What was last said, and when.
    pub fn last(&self) -> Option<(RateLimit, SystemTime)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The account's name, or "anonymous".
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Reads an answer's headers. Malformed ones leave what was known.
    pub(super) fn observe(&self, headers: &HeaderMap) {
        let Some(seen) = RateLimit::from_headers(headers) else {
            return;
        };
        let labels = [&*self.upstream, &*self.account];
        if let Some(remaining) = seen.remaining.and_then(|n| i64::try_from(n).ok()) {
            metrics::RATELIMIT_REMAINING.with_label_values(&labels).set(remaining);
        }
        if let Some(limit) = seen.limit.and_then(|n| i64::try_from(n).ok()) {
            metrics::RATELIMIT_LIMIT.with_label_values(&labels).set(limit);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((seen, SystemTime::now()));
    }
}
