//! One question to a registry, and what it costs.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, header};

use super::{Caller, accounts::Cost, exchange::Kind};
use crate::protocol::{Digest, Reference, Repository, Route, media_type::ACCEPT_MANIFESTS};

/// Referrers are an index; other lists are of no type of their own.
const ACCEPT_LISTS: &str = "application/vnd.oci.image.index.v1+json, application/json, */*;q=0.1";

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) query: Option<String>,
    pub(super) range: Option<String>,
    /// The client that caused it, for the books.
    pub(super) client: Option<IpAddr>,
    pub(super) caller: Caller,
}

// === impl Ask ===

impl Ask {
    pub(super) fn manifest(
        method: Method,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
    ) -> Self {
        let route =
            Route::Manifest { repository: repository.clone(), reference: reference.clone() };
        Self { method, route, query: None, range: None, client: None, caller: caller.clone() }
    }

    pub(super) fn blob(
        method: Method,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Self {
        let route = Route::Blob { repository: repository.clone(), digest: *digest };
        Self { method, route, query: None, range: None, client: None, caller: caller.clone() }
    }

    pub(super) fn ping(caller: &Caller) -> Self {
        let (method, route) = (Method::GET, Route::Ping);
        Self { method, route, query: None, range: None, client: None, caller: caller.clone() }
    }

    /// What Docker Hub counts: GETs of manifests.
    pub(super) fn cost(&self) -> Cost {
        match self.route {
            Route::Manifest { .. } if self.method == Method::GET => Cost::Pull,
            _ => Cost::Free,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.route {
            Route::Manifest { .. } => Kind::Manifest,
            Route::Blob { .. } => Kind::Blob,
            Route::Tags { .. } | Route::Referrers { .. } | Route::Catalog => Kind::List,
            _ => Kind::Ping,
        }
    }

    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.kind() == Kind::Manifest {
            headers.push((header::ACCEPT, HeaderValue::from_static(ACCEPT_MANIFESTS)));
        }
        if self.kind() == Kind::List {
            headers.push((header::ACCEPT, HeaderValue::from_static(ACCEPT_LISTS)));
        }
        if let Some(range) = self.range.as_deref().and_then(|range| range.parse().ok()) {
            headers.push((header::RANGE, range));
        }
        headers
    }
}
