//! Another configuration for a server that runs.
//!
//! All of it is prepared before any of it holds: what can't be used changes nothing. Then requests
//! that begin find the new rules, and those under way end on the old ones. What takes a new process,
//! such as another address, is told with its remedy, and the rest holds all the same.
//!
//! `merged` says what can change, and `put_in_force` changes it; a key that is in neither waits for
//! the next start.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;

use super::{Source, StartError, checks, doors::Doors, standing, unsettled, unusable};
use crate::{
    admin::Operators,
    blob::Blobs,
    config::{self, Config, Listen, Pending, Problem, Reloaded},
    inventory::Inventory,
    manifest::Manifests,
    proxy::{Bounds, Door, Live, Rules},
    store::Store,
    tls::Watched,
    upstream::{Roster, Upstream},
    warm::{self, Warmer},
};

/// What the keys need that a running process can't change.
const REMEDY: &str = "restart it (systemctl restart roadstead), or, where neither systemd nor a container \
                      watches the process, send SIGQUIT";

/// What can be changed while it is in use.
pub(super) struct Parts {
    pub(super) roster: Arc<Roster>,
    pub(super) live: Arc<Live>,
    /// In the order of the listeners.
    pub(super) doors: Vec<Arc<ArcSwap<Door>>>,
    pub(super) certificates: Arc<ArcSwap<Vec<Arc<dyn Watched>>>>,
    pub(super) store: Arc<Store>,
    pub(super) blobs: Arc<Blobs>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) warmer: Arc<Warmer>,
    pub(super) operators: Arc<Operators>,
}

/// Reads the configuration again, and has it hold.
pub(super) struct Reloader {
    source: Option<Source>,
    parts: Parts,
    /// One reload at a time.
    state: Mutex<State>,
}

struct State {
    /// What is in force.
    config: Config,
    bounds: Arc<Bounds>,
}

/// All that the next configuration needs, ready.
struct Prepared {
    /// Upstreams that show less than before, by name.
    less: HashSet<String>,
    upstreams: Vec<Arc<Upstream>>,
    rules: Rules,
    doors: Doors,
    bounds: Arc<Bounds>,
    warm: warm::Plan,
    /// `None` where their file is another, which waits for the next start.
    operators: Option<Operators>,
}

// === impl Reloader ===

impl Reloader {
    /// `config` is in force, with `parts` made from it.
    pub(super) fn new(
        config: Config,
        source: Option<Source>,
        parts: Parts,
        bounds: Arc<Bounds>,
    ) -> Self {
        Self { source, parts, state: Mutex::new(State { config, bounds }) }
    }

    /// Reads the configuration and puts it in force; the log says what came of it. Blocks, within a
    /// runtime.
    pub(super) fn reload(&self) -> Result<Reloaded, Vec<Problem>> {
        let began = Instant::now();
        let result = self.try_reload();
        match &result {
            Ok(reloaded) => told(reloaded, began),
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "the configuration can't be used");
                }
                tracing::error!(
                    problems = problems.len(),
                    "the configuration was not reloaded; the one before stays in force"
                );
            }
        }
        result
    }

    fn try_reload(&self) -> Result<Reloaded, Vec<Problem>> {
        let Some(source) = &self.source else {
            let what = "this server was started without a way to read its configuration again";
            return Err(vec![Problem::of_start(what, "restart instead")]);
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = source().map_err(config::ConfigError::into_problems)?;
        let next = merged(&state.config, &wanted);
        let prepared =
            self.prepare(&state, &next, &wanted).map_err(|error| vec![problem(error)])?;
        state.bounds = Arc::clone(&prepared.bounds);
        self.put_in_force(&next, prepared);
        let before = std::mem::replace(&mut state.config, next);
        let pending = state.config.changes(&wanted).into_iter();
        Ok(Reloaded {
            changed: before.changes(&state.config),
            pending: pending.map(|change| Pending { change, remedy: REMEDY }).collect(),
        })
    }

    fn prepare(
        &self,
        state: &State,
        next: &Config,
        wanted: &Config,
    ) -> Result<Prepared, StartError> {
        checks::roots(next)?;
        let limit = next.downstream.max_connections;
        let bounds = match limit == state.config.downstream.max_connections {
            true => Arc::clone(&state.bounds),
            false => Bounds::new(limit),
        };
        let doors = Doors::prepare(next, &bounds)?;
        let upstreams = self.upstreams(next)?;
        let before = self.parts.live.load_full();
        let chain = before.chain.successor(next, upstreams.clone()).map_err(StartError::Config)?;
        let rules = Rules { chain, downstream: next.downstream.clone() };
        let warm = self.parts.warmer.prepare(next).map_err(StartError::Config)?;
        let is_their_file = next.admin.htpasswd == wanted.admin.htpasswd;
        let operators = is_their_file.then(|| Operators::load(&next.admin)).transpose();
        let operators = operators.map_err(StartError::Config)?;
        // Last: nothing after it fails.
        let less = standing::settle(&next.upstreams, &self.parts.store);
        let less = less.map_err(|error| unsettled(&error))?;
        Ok(Prepared { less, upstreams, rules, doors, bounds, warm, operators })
    }

    /// What an upstream has that is not changed, it keeps.
    fn upstreams(&self, next: &Config) -> Result<Vec<Arc<Upstream>>, StartError> {
        let max_manifest = next.fill.max_manifest;
        let upstream = |config: &config::Upstream| {
            let before = self.parts.roster.named(&config.name);
            let client = match &before {
                Some(before) => before.successor(config.clone(), max_manifest),
                None => Upstream::new(config.clone(), max_manifest),
            };
            let client = client.map_err(|problem| unusable(config, &problem))?;
            Ok(before.filter(|before| client.is_like(before)).unwrap_or_else(|| Arc::new(client)))
        };
        next.upstreams.iter().map(upstream).collect()
    }

    fn put_in_force(&self, next: &Config, prepared: Prepared) {
        let Prepared { less, upstreams, rules, doors, bounds: _, warm, operators } = prepared;
        let parts = &self.parts;
        less.iter().filter_map(|name| parts.roster.named(name)).for_each(|it| it.supersede());
        parts.store.reconfigure(&next.store);
        parts.blobs.reconfigure(next.fill.clone());
        parts.manifests.set_max_manifest(next.fill.max_manifest);
        parts.inventory.reconfigure(next);
        for upstream in &upstreams {
            if let Some(before) = parts.roster.named(upstream.name()) {
                upstream.succeed(&before);
            }
        }
        parts.roster.replace(upstreams);
        parts.warmer.follow(warm);
        if let Some(operators) = operators {
            parts.operators.replace(operators);
        }
        parts.certificates.store(Arc::new(doors.certificates));
        for (place, door) in parts.doors.iter().zip(doors.doors) {
            place.store(Arc::new(door));
        }
        // From here on requests are served by the new rules.
        parts.live.swap(Arc::new(rules)).chain.retire();
        // What requests recorded since it was forgotten, before they knew.
        if !less.is_empty()
            && let Err(error) = parts.store.unlink_all(&less)
        {
            tracing::warn!(%error, "what was found out during the reload could not be forgotten");
        }
    }
}

/// What holds after a reload: what is wanted, but for what takes a new process.
fn merged(before: &Config, wanted: &Config) -> Config {
    let listener = |listen: &Listen| {
        let same = wanted.listen.iter().find(|other| other.address == listen.address);
        // Its permissions were set when it was bound.
        same.map_or_else(|| listen.clone(), |same| Listen { mode: listen.mode, ..same.clone() })
    };
    Config {
        listen: before.listen.iter().map(listener).collect(),
        trusted_proxies: wanted.trusted_proxies.clone(),
        access: wanted.access.clone(),
        upstreams: wanted.upstreams.clone(),
        store: config::Store { directory: before.store.directory.clone(), ..wanted.store.clone() },
        fill: wanted.fill.clone(),
        downstream: wanted.downstream.clone(),
        warm: wanted.warm.clone(),
        ..before.clone()
    }
}

fn problem(error: StartError) -> Problem {
    match error {
        StartError::Config(what) => Problem::of_start(what, "mend it, and reload again"),
        StartError::Listen { remedy, .. } => Problem::of_start(&error, remedy),
    }
}

fn told(reloaded: &Reloaded, began: Instant) {
    let keys: Vec<_> = reloaded.changed.iter().map(|change| &change.key).collect();
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(changed = keys.len(), ?keys, ms, "the configuration was reloaded");
    for Pending { change, remedy } in &reloaded.pending {
        tracing::warn!(key = %change.key, remedy, "a key can't change while the server runs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "test").unwrap()
    }

    #[test]
    fn what_takes_a_new_process_stays_as_it_is() {
        let before = config("store: { directory: /a, disk: 1GiB }");
        let wanted = config(
            "store: { directory: /b, disk: 2GiB }\nadmin: { address: '127.0.0.1:7' }\nshutdown: { drain: 1s }\n\
             listen: [{ address: '0.0.0.0:5000', proxy_protocol: true }, { address: '0.0.0.0:6000' }]\n\
             trusted_proxies: [10.0.0.1]",
        );
        let next = merged(&before, &wanted);
        let changed: Vec<_> = before.changes(&next).into_iter().map(|it| it.key).collect();
        assert_eq!(
            changed,
            ["listen[0.0.0.0:5000].proxy_protocol", "store.disk", "trusted_proxies"]
        );
        let pending: Vec<_> = next.changes(&wanted).into_iter().map(|it| it.key).collect();
        assert_eq!(
            pending,
            ["admin.address", "listen[0.0.0.0:6000]", "shutdown.drain", "store.directory"]
        );
    }
}
