//! Why a request is not served, split by what the client is told.
//!
//! `proxy/respond` turns each into a status, a code and a public sentence.

use std::net::IpAddr;

use http::Method;

use crate::{
    blob, manifest,
    protocol::{Repository, route::RouteError},
};

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request breaks a rule that a registry's client keeps.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// The path is none of the distribution API.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The client's address is not among `access.allow`.
    #[error("{client} may not pull here (access.allow)")]
    AddressNotAllowed {
        /// The client.
        client: IpAddr,
    },
    /// Access control wants a user's password, and this was none or a wrong one.
    #[error("a user name and password are wanted (access.htpasswd)")]
    PasswordWanted,
    /// On a connection that is for one registry, another is asked.
    #[error("this connection is for {host}; connect anew for another registry")]
    Misdirected {
        /// Whom the connection is for.
        host: String,
    },
    /// No upstream has the name.
    #[error("there is no upstream {name} here; configured are {}", known.join(", "))]
    UnknownUpstream {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Pushes and deletes are off.
    #[error("{method} is not allowed: this is a read-only mirror (writes: deny)")]
    ReadOnly {
        /// The method.
        method: Method,
    },
    /// The API has no such operation.
    #[error("{method} is not allowed: the API has no such operation, only {allowed}")]
    MethodNotAllowed {
        /// The method.
        method: Method,
        /// Those that it has for the path.
        allowed: &'static str,
    },
    /// The patterns say no.
    #[error("the repository {repository} may not be pulled here (allow, deny)")]
    RepositoryDenied {
        /// The repository.
        repository: Repository,
    },
    /// A manifest can't be had.
    #[error(transparent)]
    Manifest(manifest::Error),
    /// A blob can't be had.
    #[error(transparent)]
    Blob(#[from] blob::Error),
    /// Upstream can't be asked.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::Error),
    /// A user's filter says no, with its own sentence.
    #[error("{message}")]
    Custom {
        /// The status.
        status: http::StatusCode,
        /// The spec's code.
        code: crate::protocol::ErrorCode,
        /// The sentence for the client.
        message: String,
    },
}
