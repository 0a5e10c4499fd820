//! The upstreams in force, which a reload replaces.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Tally, Upstream};
use crate::metrics;

/// All upstreams, the default one first.
#[derive(Debug)]
pub struct Roster {
    now: watch::Sender<Arc<[Arc<Upstream>]>>,
    /// The pulls of those that a reload took away, since the start. Locked while it does.
    gone: Mutex<Tally>,
}

// === impl Roster ===

impl Roster {
    /// These, to begin with.
    pub fn new(upstreams: Vec<Arc<Upstream>>) -> Self {
        Self { now: watch::Sender::new(upstreams.into()), gone: Mutex::default() }
    }

    /// Those in force now.
    pub fn all(&self) -> Arc<[Arc<Upstream>]> {
        Arc::clone(&self.now.borrow())
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<Arc<Upstream>> {
        self.now.borrow().iter().find(|upstream| **upstream.name() == *name).cloned()
    }

    /// The pulls of all of them since the start, whether they are still there or not: it only grows.
    pub fn pulls(&self) -> Tally {
        let gone = self.gone();
        self.all().iter().fold(*gone, |sum, upstream| sum.plus(upstream.ledger().total()))
    }

    /// From now on it is these. The gauges of what is gone are taken down.
    pub fn replace(&self, upstreams: Vec<Arc<Upstream>>) {
        // Nobody sums up while an upstream is neither here nor gone.
        let mut pulls = self.gone();
        let before = self.now.send_replace(upstreams.into());
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
                *pulls = pulls.plus(upstream.ledger().total());
                let _ = metrics::OFFLINE.remove_label_values(&[upstream.name()]);
            }
        }
    }

    /// Follows them from now on.
    pub fn follow(&self) -> watch::Receiver<Arc<[Arc<Upstream>]>> {
        self.now.subscribe()
    }

    fn gone(&self) -> MutexGuard<'_, Tally> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The upstream's name and the label of each account, as the metrics have them.
fn labels(upstream: &Upstream) -> impl Iterator<Item = [&str; 2]> {
    let accounts = upstream.registries.all().flat_map(|registry| registry.accounts.all());
    accounts.map(|account| [&**upstream.name(), account.label()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn upstreams(names: &str) -> Vec<Arc<Upstream>> {
        let config = Config::parse(&format!("upstreams: [{names}]"), "test").unwrap();
        let upstreams = config.upstreams.into_iter();
        upstreams.map(|config| Arc::new(Upstream::new(config, 1 << 22).unwrap())).collect()
    }

    #[test]
    fn what_a_removed_upstream_spent_stays_spent() {
        let repository = crate::protocol::Repository::parse("org/app").unwrap();
        let both = upstreams("{ name: docker.io }, { name: ghcr.io, url: 'https://ghcr.io' }");
        let first = vec![Arc::clone(&both[0])];
        let roster = Roster::new(both);
        for upstream in roster.all().iter() {
            upstream.ledger().spend(&repository, None);
        }
        assert_eq!(roster.pulls(), Tally { spent: 2, saved: 0 });
        roster.replace(first.clone());
        assert_eq!(roster.pulls().spent, 2);
        roster.replace(
            first
                .into_iter()
                .chain(upstreams("{ name: ghcr.io, url: 'https://ghcr.io' }"))
                .collect(),
        );
        assert_eq!(roster.pulls().spent, 2, "it begins anew, and counts on");
    }
}
