//! What a new configuration leaves as it is: connections, breakers, accounts with what they have left.
//!
//! A conversation whose terms are the same goes on. Where only some of them have changed, it keeps
//! what these do not concern.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Upstream,
    registries::Registries,
    registry::{absent, next_epoch},
};
use crate::config::{self, Catalog, Patterns, Stamp, Tags, Writes};

/// What of a configuration concerns the talk with its registry, and the state of the files in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    config: config::Upstream,
    files: Vec<Option<Stamp>>,
}

// === impl Terms ===

impl Terms {
    pub(super) fn of(config: &config::Upstream) -> Self {
        let certificate = config.client_certificate.as_ref();
        let certificate = certificate.into_iter().flat_map(|it| [&it.certificate, &it.key]);
        let files = config.ca_file.iter().chain(certificate);
        Self {
            files: files.map(|path: &PathBuf| Stamp::of(path)).collect(),
            // What follows is looked up in the configuration for each request.
            config: config::Upstream {
                hosts: Vec::new(),
                tags: Tags::default(),
                allow: Patterns::default(),
                deny: Patterns::default(),
                writes: Writes::Deny,
                catalog: Catalog::Forward,
                offline: false,
                mirrors: Vec::new(),
                ..config.clone()
            },
        }
    }

    /// Whether connections are made alike, and the same limits hold.
    pub(super) fn connect_like(&self, other: &Self) -> bool {
        let alike = config::Upstream {
            credentials: other.config.credentials.clone(),
            budget: other.config.budget.clone(),
            prefix: other.config.prefix.clone(),
            ..self.config.clone()
        };
        alike == other.config && self.files == other.files
    }

    /// Whether a token for one is a token for the other: the registry is the same, and so are the
    /// places that may see a credential (P5).
    pub(super) fn log_in_like(&self, other: &Self) -> bool {
        self.config.name == other.config.name
            && self.config.url == other.config.url
            && self.config.token_realms == other.config.token_realms
    }
}

// === impl Upstream ===

impl Upstream {
    /// The client under another configuration of the same upstream. What that does not concern goes
    /// on in both: connections, breakers, accounts, the operator's switch, who spent and saved.
    pub fn successor(&self, config: config::Upstream, max_manifest: u64) -> Result<Self, String> {
        let (offline, ledger) = (Arc::clone(&self.offline), Arc::clone(&self.ledger));
        let is_same_place = config.url == self.config.url;
        let registries = Registries::new(&config, &offline, &ledger, Some(&*self.registries))?;
        let same = Self {
            config,
            registries: Arc::clone(&self.registries),
            epoch: self.epoch,
            superseded: Arc::clone(&self.superseded),
            offline,
            ledger,
            authorised: Arc::clone(&self.authorised),
            listed: Arc::clone(&self.listed),
            absent: self.absent.clone(),
            max_manifest,
            slow: Arc::clone(&self.slow),
            writes: Arc::clone(&self.writes),
            uploads: Arc::clone(&self.uploads),
            greeting: Arc::clone(&self.greeting),
        };
        if registries.are(&self.registries) && max_manifest == self.max_manifest {
            return Ok(same);
        }
        // Whom the registry answered, and what it did not have, may have changed with it.
        Ok(Self {
            registries: Arc::new(registries),
            epoch: next_epoch(),
            superseded: Arc::default(),
            authorised: Arc::default(),
            listed: Arc::default(),
            absent: absent(),
            slow: Arc::default(),
            uploads: if is_same_place { same.uploads } else { Arc::default() },
            greeting: Arc::default(),
            ..same
        })
    }

    /// Whether nothing is different about it.
    pub fn is_like(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.config == other.config
    }

    /// What requests under way find out from here on is for their clients alone.
    pub fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// Whether what a request finds out may be recorded for others.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    /// It takes the place of `before`: a switch that the configuration has moved is moved now.
    pub fn succeed(&self, before: &Self) {
        if self.config.offline != before.config.offline {
            self.set_offline(self.config.offline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn terms(keys: &str) -> Terms {
        let text = format!("upstreams: [{{ name: docker.io, {keys} }}]");
        Terms::of(&Config::parse(&text, "test").unwrap().upstreams[0])
    }

    #[test]
    fn what_requests_look_up_themselves_changes_no_terms() {
        let before = terms("");
        for keys in [
            "tags: { fresh_for: 9s }",
            "allow: [a]",
            "deny: [b]",
            "writes: forward",
            "catalog: cached",
            "offline: true",
            "hosts: [hub.corp]",
        ] {
            assert_eq!(terms(keys), before, "{keys}");
        }
    }

    #[test]
    fn another_account_needs_no_other_connections() {
        let account =
            |name| format!("credentials: {{ accounts: [{{ username: {name}, password: p }}] }}");
        let (one, two) = (terms(&account("one")), terms(&account("two")));
        assert!(one != two && one.connect_like(&two) && one.log_in_like(&two));
    }

    #[test]
    fn tokens_go_nowhere_else() {
        let before = terms("");
        for keys in ["url: 'https://mirror.corp'", "token_realms: ['https://login.corp/token']"] {
            assert!(!terms(keys).log_in_like(&before), "{keys}");
        }
        let slower = terms("timeouts: { fetch: 20s }");
        assert!(slower.log_in_like(&before) && !slower.connect_like(&before));
    }

    #[test]
    fn a_file_that_was_replaced_is_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let keys = format!("ca_file: {}", file.path().display());
        let before = terms(&keys);
        std::fs::write(file.path(), "other").unwrap();
        assert!(!terms(&keys).connect_like(&before));
    }
}
