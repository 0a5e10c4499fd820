//! The second listener: is it alive, is it ready, what does it count, the API and the dashboard.
//!
//! ```text
//! Pingora ─► serve ─► guard (whose request is it?) ─► body ─► router ─┬─► probes     /healthz /readyz /metrics
//!                                                                     ├─► api        /api/v1/…
//!                                                                     └─► dashboard  / and what it is made of
//! ```
//!
//! `serve` carries requests from Pingora to an axum router and its answers back, streams included. A
//! handler takes [`State<Server>`](Server) and gives a page, JSON (`reply::Json`) or
//! [`reply::Refused`]; `api` says how an endpoint is added.

mod api;
mod body;
mod dashboard;
mod extract;
mod guard;
mod probes;
mod reply;
mod router;
mod serve;

use std::sync::{Arc, atomic::AtomicBool};

pub use serve::Service;

use crate::{config::Reload, inventory::Inventory, store::Store, upstream::Roster};

/// What the second listener tells of, and what it changes.
#[derive(Debug)]
pub struct Admin {
    /// True from when the server accepts clients until it begins to stop.
    pub ready: Arc<AtomicBool>,
    /// What is cached.
    pub inventory: Arc<Inventory>,
    /// The registries.
    pub upstreams: Arc<Roster>,
    /// It has a state to tell of.
    pub store: Arc<Store>,
    /// Reads the configuration again.
    pub reload: Reload,
}

/// As handlers take it.
type Server = Arc<Admin>;
