//! How a simulator is set up, and why one may fail to start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Settings of one simulator; the default is Docker Hub towards an anonymous client.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the registry listens; port 0 takes a free one.
    pub registry: SocketAddr,
    /// Where the token server listens.
    pub token: SocketAddr,
    /// Where the CDN listens.
    pub cdn: SocketAddr,
    /// Pulls per window and anonymous address; `None`: no limit, and no rate-limit headers.
    pub limit: Option<u64>,
    /// After this a spent budget is whole again.
    pub window: Duration,
    /// Accounts the token server knows.
    pub accounts: Vec<Account>,
    /// Whether the registry asks for a token at all.
    pub require_token: bool,
    /// A token older than this is refused.
    pub token_lifetime: Duration,
    /// Answer blob GETs with 307 to the CDN; otherwise with the blob.
    pub redirect_blobs: bool,
    /// Answer blob HEADs with 307 too, where GETs are.
    pub redirect_heads: bool,
    /// A signed URL older than this is refused.
    pub url_lifetime: Duration,
    /// What counts as a pull.
    pub counting: Counting,
    /// Repositories that only accounts may see.
    pub private: Vec<String>,
    /// Takes pushes and deletions; where tokens are asked for, from accounts alone.
    pub writable: bool,
}

/// A user of the token server.
#[derive(Debug, Clone)]
pub struct Account {
    /// Name, and the `docker-ratelimit-source` of its answers.
    pub user: String,
    /// Password, or access token.
    pub password: String,
    /// Pulls per window; `None`: no limit, and no rate-limit headers.
    pub limit: Option<u64>,
}

/// What counts as a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Each manifest GET.
    PerGet,
    /// An index and its children, fetched within [`Counting::ONE_PULL`], count once.
    PerImage,
}

/// Why a simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listening address is taken or not ours.
    #[error("cannot listen on {address} for the {server}")]
    Listen {
        /// `registry`, `token server` or `CDN`.
        server: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Counting {
    /// How long the children of a counted index are free.
    pub const ONE_PULL: Duration = Duration::from_secs(10);
}

impl Default for Options {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            registry: loopback,
            token: loopback,
            cdn: loopback,
            limit: Some(100),
            window: Duration::from_secs(6 * 60 * 60),
            accounts: Vec::new(),
            require_token: true,
            token_lifetime: Duration::from_secs(300),
            redirect_blobs: true,
            redirect_heads: true,
            url_lifetime: Duration::from_secs(20 * 60),
            counting: Counting::PerGet,
            private: Vec::new(),
            writable: false,
        }
    }
}

impl Account {
    /// An account with the 200 pulls of a personal one.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), limit: Some(200) }
    }

    /// A paying account: no limit.
    pub fn unlimited(mut self) -> Self {
        self.limit = None;
        self
    }

    /// Another limit.
    pub fn limit(mut self, pulls: u64) -> Self {
        self.limit = Some(pulls);
        self
    }
}
