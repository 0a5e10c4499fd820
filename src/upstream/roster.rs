//! The upstreams in force, which a reload replaces.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Tally, Upstream, account::Account};
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
        show(&upstreams);
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

    /// From now on it is these. What is gone is shown no more.
    pub fn replace(&self, upstreams: Vec<Arc<Upstream>>) {
        // Nobody sums up while an upstream is neither here nor gone.
        let mut pulls = self.gone();
        let before = self.now.send_replace(upstreams.into());
        let now = self.all();
        let here: HashSet<_> = accounts(&now).map(Arc::as_ptr).collect();
        for account in accounts(&before).filter(|account| !here.contains(&Arc::as_ptr(account))) {
            account.hide();
        }
        for upstream in before.iter() {
            if !now.iter().any(|other| other.name() == upstream.name()) {
                *pulls = pulls.plus(upstream.ledger().total());
                let _ = metrics::OFFLINE.remove_label_values(&[upstream.name()]);
            }
        }
        // Last, for another account may have the label of one that is gone.
        show(&now);
    }

    /// Stops asking an upstream, or begins again.
    pub fn set_offline(&self, upstream: &Upstream, offline: bool) {
        upstream.set_offline(offline);
        // Borrowed meanwhile: one that is replaced is shown before that, or not at all.
        let now = self.now.borrow();
        now.iter().filter(|it| it.name() == upstream.name()).for_each(|it| show_offline(it));
    }

    /// Follows them from now on.
    pub fn follow(&self) -> watch::Receiver<Arc<[Arc<Upstream>]>> {
        self.now.subscribe()
    }

    fn gone(&self) -> MutexGuard<'_, Tally> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accounts(upstreams: &[Arc<Upstream>]) -> impl Iterator<Item = &Arc<Account>> {
    let registries = upstreams.iter().flat_map(|upstream| upstream.registries.all());
    registries.flat_map(|registry| registry.accounts.all())
}

/// The metrics show them.
fn show(upstreams: &[Arc<Upstream>]) {
    accounts(upstreams).for_each(|account| account.show());
    upstreams.iter().for_each(|upstream| show_offline(upstream));
}

fn show_offline(upstream: &Upstream) {
    let offline = i64::from(upstream.is_offline());
    metrics::OFFLINE.with_label_values(&[upstream.name()]).set(offline);
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::HeaderMap;
    use prometheus::{IntGaugeVec, core::Collector as _};

    use super::*;
    use crate::config::Config;

    /// An upstream with one account, of these tests alone: the metrics are the process's.
    fn upstream(name: &str, offline: bool) -> Arc<Upstream> {
        let accounts = "accounts: [{ username: ann, password: a }], anonymous: false";
        let text = format!(
            "upstreams: [{{ name: {name}, url: 'https://{name}', token_realms: [], \
             offline: {offline}, credentials: {{ {accounts} }} }}]"
        );
        let mut config = Config::parse(&text, "test").unwrap();
        Arc::new(Upstream::new(config.upstreams.remove(0), 1 << 22).unwrap())
    }

    fn account(upstream: &Arc<Upstream>) -> Arc<Account> {
        Arc::clone(accounts(std::slice::from_ref(upstream)).next().unwrap())
    }

    fn hears(account: &Account, left: u64) {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", "100;w=21600".parse().unwrap());
        headers.insert("ratelimit-remaining", format!("{left};w=21600").parse().unwrap());
        account.observe(&headers, SystemTime::now(), false);
    }

    fn value(gauges: &IntGaugeVec, name: &str) -> Option<f64> {
        let families = gauges.collect();
        let all = families.iter().flat_map(|family| family.get_metric());
        let is_its = |it: &&prometheus::proto::Metric| {
            it.get_label().iter().any(|label| label.get_value() == name)
        };
        all.filter(is_its).map(|it| it.get_gauge().get_value()).next()
    }

    /// What the metrics have of an upstream: offline, usable, left.
    fn shown(name: &str) -> [Option<f64>; 3] {
        [&*metrics::OFFLINE, &*metrics::ACCOUNT_USABLE, &*metrics::RATELIMIT_REMAINING]
            .map(|gauges| value(gauges, name))
    }

    #[tokio::test]
    async fn what_is_gone_is_not_shown_again_by_requests_that_end_on_it() {
        let name = "gone.example";
        let gone = upstream(name, false);
        let roster = Roster::new(vec![Arc::clone(&gone)]);
        hears(&account(&gone), 76);
        assert_eq!(shown(name), [Some(0.0), Some(1.0), Some(76.0)]);
        roster.set_offline(&gone, true);
        account(&gone).refuse_login(None, "its password was changed");
        assert_eq!(shown(name), [Some(1.0), Some(0.0), Some(76.0)]);
        roster.replace(Vec::new());
        assert_eq!(shown(name), [None; 3]);
        hears(&account(&gone), 75);
        account(&gone).accepted(std::time::Instant::now());
        roster.set_offline(&gone, false);
        assert_eq!(shown(name), [None; 3]);
    }

    #[tokio::test]
    async fn what_is_prepared_is_not_shown_before_it_is_in_force() {
        let name = "prepared.example";
        let before = upstream(name, false);
        let roster = Roster::new(vec![Arc::clone(&before)]);
        account(&before).refuse_login(None, "its password was changed");
        let next = upstream(name, true);
        assert_eq!(shown(name), [Some(0.0), Some(0.0), None]);
        hears(&account(&next), 9);
        roster.replace(vec![next]);
        hears(&account(&before), 8);
        assert_eq!(shown(name), [Some(1.0), Some(1.0), Some(9.0)]);
    }

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
