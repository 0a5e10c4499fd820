//! What the filters know of a request by now.

use std::{net::IpAddr, sync::Arc};

use http::Method;

use super::repeats::Subject;
use crate::{
    protocol::{Repository, Route},
    upstream::{Caller, Upstream},
};

/// A request's context, made when its head has been read.
#[derive(Debug)]
pub struct Context {
    /// Who asks.
    pub client: Client,
    /// Where a client of a transparent listener wanted to go; `None` for one that came to us.
    pub destination: Option<Arc<Destination>>,
    /// The user whose password was right, where access control asks for one.
    pub user: Option<String>,
    /// What is asked for; set by the `classify` filter.
    pub target: Option<Target>,
    /// `?ns=`, to be echoed as `OCI-Namespace`.
    pub namespace: Option<String>,
    /// What the cache did, for the log and the metrics: `hit`, `miss`, `stale`…
    pub cache: &'static str,
    /// The answer cost a pull of upstream's budget.
    pub is_counted: bool,
    /// Pulls left at that upstream, where it says so.
    pub left: Option<u64>,
    /// Whether an answer to the very same request may be a repetition of this one's.
    pub is_repeatable: bool,
    /// What such an answer is about, if it can come out of memory; whoever remembers it takes it.
    pub(super) subject: Option<Subject>,
    /// For filters of the library's users.
    pub extensions: http::Extensions,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// The other end of the connection; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    /// The client itself: the peer, or what a trusted proxy says.
    pub address: Option<IpAddr>,
    /// The host that it asked for, where a trusted proxy says that it was another than `Host`'s.
    pub host: Option<http::uri::Authority>,
}

/// A registry that a client believes to be connected with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its host, in lower case, without a port.
    pub host: String,
    /// The name of the upstream that this is.
    pub upstream: String,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Target {
    /// The registry.
    pub upstream: Arc<Upstream>,
    /// The path as that registry knows it.
    pub route: Route,
    /// On whose behalf it is asked.
    pub caller: Caller,
    /// Where a blob is to be mounted from, if one is.
    pub mount: Mount,
}

/// What `from=` of a mount names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Nothing.
    None,
    /// A repository of the same upstream, as it knows it.
    Named(Repository),
    /// What can't be mounted from: another upstream's, no name, or what `allow` and `deny` keep.
    Elsewhere,
}

// === impl Target ===

impl Target {
    /// Whether a request by `method` changes the registry, or is about an upload.
    pub fn is_write(&self, method: &Method) -> bool {
        self.route.is_upload() || !matches!(*method, Method::GET | Method::HEAD)
    }
}

// === impl Context ===

impl Context {
    /// The context of a request from `peer`.
    pub fn new(peer: Option<IpAddr>) -> Self {
        let peer = peer.map(|address| address.to_canonical());
        Self {
            client: Client { peer, address: peer, host: None },
            destination: None,
            user: None,
            target: None,
            namespace: None,
            cache: "none",
            is_counted: false,
            left: None,
            is_repeatable: false,
            subject: None,
            extensions: http::Extensions::new(),
        }
    }

    /// Says what the answer is about, where that is of use.
    pub(super) fn may_repeat(&mut self, subject: impl FnOnce() -> Option<Subject>) {
        if self.is_repeatable {
            self.subject = subject();
        }
    }

    /// The upstream's name for labels, `-` before one is chosen.
    pub fn upstream_name(&self) -> &str {
        self.target.as_ref().map_or("-", |target| target.upstream.name())
    }

    /// The kind of object for labels.
    pub fn kind(&self) -> &'static str {
        match self.target.as_ref().map(|target| &target.route) {
            None => "none",
            Some(Route::Ping) => "ping",
            Some(Route::Manifest { .. }) => "manifest",
            Some(Route::Blob { .. }) => "blob",
            Some(Route::Tags { .. }) => "tags",
            Some(Route::Referrers { .. }) => "referrers",
            Some(Route::Catalog) => "catalog",
            Some(Route::Uploads { .. } | Route::Upload { .. }) => "upload",
        }
    }
}
