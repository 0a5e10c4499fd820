//! The upstreams in force, which a reload replaces.

use std::sync::Arc;

use tokio::sync::watch;

use super::Upstream;

/// All upstreams, the default one first.
#[derive(Debug)]
pub struct Roster(watch::Sender<Arc<[Arc<Upstream>]>>);

// === impl Roster ===

impl Roster {
    /// These, to begin with.
    pub fn new(upstreams: Vec<Arc<Upstream>>) -> Self {
        Self(watch::Sender::new(upstreams.into()))
    }

    /// Those in force now.
    pub fn all(&self) -> Arc<[Arc<Upstream>]> {
        Arc::clone(&self.0.borrow())
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<Arc<Upstream>> {
        self.0.borrow().iter().find(|upstream| **upstream.name() == *name).cloned()
    }

    /// From now on it is these.
    pub fn replace(&self, upstreams: Vec<Arc<Upstream>>) {
        self.0.send_replace(upstreams.into());
    }

    /// Follows them from now on.
    pub fn follow(&self) -> watch::Receiver<Arc<[Arc<Upstream>]>> {
        self.0.subscribe()
    }
}
