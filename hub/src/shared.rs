//! What the three servers share: settings, content, books, and the clock of signed URLs.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use tokio::time::Instant;

use crate::budget::Budgets;
use crate::content::Content;
use crate::fault::Faults;
use crate::gate::Gates;
use crate::options::Options;
use crate::random::unpredictable;
use crate::seen::{Place, Route, Seen};
use crate::stats::Log;
use crate::sync::lock;
use crate::token::Tokens;
use crate::uploads::Uploads;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) addresses: Addresses,
    pub(crate) clock: Clock,
    pub(crate) content: Mutex<Content>,
    pub(crate) tokens: Mutex<Tokens>,
    pub(crate) budgets: Mutex<Budgets>,
    /// Signs CDN URLs; another key makes all earlier ones forgeries.
    pub(crate) url_key: Mutex<u64>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) gates: Mutex<Gates>,
    pub(crate) uploads: Mutex<Uploads>,
    pub(crate) log: Mutex<Log>,
}

/// Where the servers listen, once they do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) registry: SocketAddr,
    pub(crate) token: SocketAddr,
    pub(crate) cdn: SocketAddr,
}

/// Wall-clock time that follows tokio's clock, so that a test that advances it ages URLs as well.
#[derive(Debug)]
pub(crate) struct Clock {
    started: SystemTime,
    origin: Instant,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(options: Options, addresses: Addresses) -> Self {
        Self {
            addresses,
            clock: Clock { started: SystemTime::now(), origin: Instant::now() },
            content: Mutex::default(),
            tokens: Mutex::new(Tokens::new()),
            budgets: Mutex::new(Budgets::new(&options)),
            url_key: Mutex::new(unpredictable()),
            faults: Mutex::default(),
            gates: Mutex::default(),
            uploads: Mutex::default(),
            log: Mutex::default(),
            options,
        }
    }

    pub(crate) fn token_realm(&self) -> String {
        format!("http://{}/token", self.addresses.token)
    }

    pub(crate) fn is_private(&self, repository: &str) -> bool {
        self.options.private.iter().any(|name| name == repository)
    }

    /// Accounts get a scope for anything, and learn of a missing repository by 404; others get it
    /// for what is public, and 401 for the rest.
    pub(crate) fn may_pull(&self, account: Option<&str>, repository: &str) -> bool {
        let public = || lock(&self.content).has_repository(repository);
        account.is_some() || (!self.is_private(repository) && public())
    }

    /// Whether this blob request is answered by the CDN's address.
    pub(crate) fn redirects(&self, seen: &Seen) -> bool {
        let options = &self.options;
        let asked = matches!(seen.route, Route::Blob { .. });
        asked && options.redirect_blobs && (options.redirect_heads || seen.method != Method::HEAD)
    }

    /// Whether the answer is a blob itself, wherever it comes from.
    pub(crate) fn carries_blob(&self, seen: &Seen) -> bool {
        let at_registry = matches!(seen.route, Route::Blob { .. }) && !self.redirects(seen);
        at_registry || seen.place == Place::Cdn
    }
}

// === impl Clock ===

impl Clock {
    pub(crate) fn wall(&self) -> SystemTime {
        self.started + self.origin.elapsed()
    }

    pub(crate) fn now_ms(&self) -> u128 {
        let since = self.wall().duration_since(UNIX_EPOCH);
        since.unwrap_or(Duration::ZERO).as_millis()
    }
}
