//! The upstreams in force, which a reload replaces.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::watch;

use super::Upstream;
use crate::metrics;

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

    /// From now on it is these. The gauges of what is gone are taken down.
    pub fn replace(&self, upstreams: Vec<Arc<Upstream>>) {
        let before = self.0.send_replace(upstreams.into());
        let now = self.all();
        let here: HashSet<_> = now.iter().flat_map(|upstream| labels(upstream)).collect();
        let gone = before.iter().flat_map(|upstream| labels(upstream));
        // What is taken down may never have been up.
        for labels in gone.filter(|labels| !here.contains(labels)) {
            let _ = metrics::RATELIMIT_REMAINING.remove_label_values(&labels);
            let _ = metrics::RATELIMIT_LIMIT.remove_label_values(&labels);
            let _ = metrics::ACCOUNT_USABLE.remove_label_values(&labels);
        }
        for upstream in before.iter() {
            if !now.iter().any(|other| other.name() == upstream.name()) {
                let _ = metrics::OFFLINE.remove_label_values(&[upstream.name()]);
            }
        }
    }

    /// Follows them from now on.
    pub fn follow(&self) -> watch::Receiver<Arc<[Arc<Upstream>]>> {
        self.0.subscribe()
    }
}

/// The upstream's name and the label of each account, as the metrics have them.
fn labels(upstream: &Upstream) -> impl Iterator<Item = [&str; 2]> {
    let accounts = upstream.registries.all().flat_map(|registry| registry.accounts.all());
    accounts.map(|account| [&**upstream.name(), account.label()])
}
