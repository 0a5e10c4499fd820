//! What came of asking upstream, split by what the caller does next.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};

use crate::protocol::ErrorCode;

/// Why upstream gave no usable answer. Cheap to clone: one failure is told to
/// all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Upstream wants other credentials, or none would do: 401.
    #[error("upstream refused the credentials: {message}")]
    Unauthorized {
        /// What to tell the client.
        message: String,
        /// Upstream's challenge, for clients that bring their own credentials.
        challenge: Option<HeaderValue>,
    },
    /// Upstream knows who asks and says no: 403.
    #[error("upstream denied access: {message}")]
    Denied {
        /// Upstream's sentence.
        message: String,
    },
    /// Upstream itself says that there is no such thing: 404.
    #[error("upstream does not have it: {message}")]
    NotFound {
        /// Upstream's code, as it sent it.
        code: Option<String>,
        /// Upstream's sentence.
        message: String,
    },
    /// Any other 4xx: an answer that asking again will not change.
    #[error("upstream refused the request with {status}: {message}")]
    Refused {
        /// Upstream's status.
        status: StatusCode,
        /// Upstream's sentence.
        message: String,
    },
    /// Upstream has it, but not in a form that can be served.
    #[error("{message}")]
    Unusable {
        /// What to answer with.
        code: ErrorCode,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Upstream is in trouble; what is cached may be served instead.
    #[error(transparent)]
    Trouble(#[from] Failure),
}

/// Upstream's trouble: it may pass, and it is not an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// 429, either kind.
    #[error("upstream's rate limit is reached: {message}")]
    RateLimited {
        /// Upstream's sentence.
        message: String,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error("upstream answered {status}")]
    Status {
        /// Upstream's status.
        status: StatusCode,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    #[error("{host} did not answer in time ({waiting_for})")]
    Timeout {
        /// Who was asked.
        host: Arc<str>,
        /// For what: a connection, a head, a body.
        waiting_for: &'static str,
    },
    /// No connection, or it broke.
    #[error("{host} could not be reached: {problem}")]
    Unreachable {
        /// Who was asked.
        host: Arc<str>,
        /// What the network said.
        problem: String,
    },
    /// A limit of ours on requests to the host was reached, and stayed so.
    #[error("too many requests to {host} ({limit})")]
    Busy {
        /// The host.
        host: Arc<str>,
        /// The key under `upstreams[]` that sets the limit.
        limit: &'static str,
    },
    /// The host failed a moment ago and is not asked again before it answers a probe.
    #[error("{host} failed a moment ago and is not asked until it answers again: {because}")]
    HeldBack {
        /// The host.
        host: Arc<str>,
        /// What it failed with.
        because: String,
        /// True if it failed by not answering.
        timed_out: bool,
    },
    /// The operator has switched to offline mode.
    #[error("this cache is offline: only what it has is served, and this it does not have")]
    Offline,
    /// No account can be used.
    #[error("none of the accounts for upstream can be used: {problem}")]
    NoAccount {
        /// What is wrong with the first of them.
        problem: String,
    },
    /// The token service failed.
    #[error("no token could be had: {0}")]
    Token(Box<Self>),
    /// Upstream's answer breaks the protocol or what its digest promises.
    #[error("upstream's answer is not usable: {problem}")]
    Invalid {
        /// What is wrong.
        problem: String,
    },
    /// Upstream sent us to a place that we do not go to.
    #[error("upstream named a place that is not trusted: {problem}")]
    Untrusted {
        /// What was refused, and how to allow it.
        problem: String,
    },
    /// The request was given up by ourselves (shutdown).
    #[error("the request to upstream was given up")]
    GivenUp,
}

// === impl Failure ===

impl Failure {
    /// A body or head that is not what the protocol or its digest promises.
    pub fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid { problem: problem.into() }
    }

    /// True if upstream was too slow, rather than broken.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::HeldBack { timed_out, .. } => *timed_out,
            Self::Token(inner) => inner.is_timeout(),
            _ => false,
        }
    }

    /// One word for `Cache-Status` and the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "upstream-429",
            Self::Status { .. } => "upstream-5xx",
            Self::Timeout { .. } => "upstream-timeout",
            Self::Unreachable { .. } => "upstream-unreachable",
            Self::Busy { .. } => "upstream-busy",
            Self::HeldBack { .. } => "upstream-held-back",
            Self::Offline => "offline",
            Self::NoAccount { .. } => "no-account",
            Self::Token(_) => "token-unavailable",
            Self::Invalid { .. } => "upstream-invalid",
            Self::Untrusted { .. } => "upstream-untrusted",
            Self::GivenUp => "given-up",
        }
    }
}

impl Error {
    /// The trouble, if it is one.
    pub fn trouble(&self) -> Option<&Failure> {
        match self {
            Self::Trouble(failure) => Some(failure),
            _ => None,
        }
    }
}
