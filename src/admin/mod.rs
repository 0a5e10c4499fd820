//! The second listener: is it alive, is it ready, what does it count, the API and the dashboard.
//!
//! ```text
//! Pingora ─► door (TLS) ─► serve ─► access, guard ─► body ─► router ─┬─► probes     /healthz /readyz /metrics
//!                                                                    ├─► api        /api/v1/…
//!                                                                    └─► dashboard  / and what it is made of
//! ```
//!
//! `serve` carries requests from Pingora to an axum router and its answers back, streams included. A
//! handler takes `State<Server>` and gives a page, JSON (`reply::Json`) or
//! `reply::Refused`; `api` says how an endpoint is added.

mod access;
mod api;
mod body;
mod dashboard;
mod door;
mod extract;
mod guard;
mod levels;
mod probes;
mod reply;
mod router;
mod serve;
mod viewers;

use std::sync::{Arc, atomic::AtomicBool};

pub use access::Operators;
pub use door::Service;
pub use levels::{LogLevels, take_log_levels};
pub use viewers::Viewers;

use crate::{
    config::{Listen, Reload},
    inventory::Inventory,
    manifest::Manifests,
    status::Monitor,
    store::Store,
    upstream::{Roster, Upstream},
    warm::Warmer,
};

/// What the second listener tells of, and what it changes.
#[derive(Debug)]
pub struct Admin {
    /// True from when the server accepts clients until it begins to stop.
    pub ready: Arc<AtomicBool>,
    /// What is cached.
    pub inventory: Arc<Inventory>,
    /// What tags name.
    pub manifests: Arc<Manifests>,
    /// The registries.
    pub upstreams: Arc<Roster>,
    /// It has a state to tell of.
    pub store: Arc<Store>,
    /// Reads the configuration again.
    pub reload: Reload,
    /// How all of it goes, and went lately.
    pub monitor: Arc<Monitor>,
    /// It fetches images before clients ask for them.
    pub warmer: Arc<Warmer>,
    /// Who watches it live.
    pub viewers: Viewers,
    /// Where clients connect.
    pub listen: Vec<Listen>,
}

// === impl Admin ===

impl Admin {
    /// The upstream of this name.
    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.upstreams.named(name)
    }
}

/// As handlers take it.
type Server = Arc<Admin>;
