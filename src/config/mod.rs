//! The configuration: YAML, variables and flags in, domain types out.
//!
//! A `Config` that exists is valid: files it names could be opened, names are unique, limits
//! are above zero. Whatever is wrong is told as `FILE: KEY: what is wrong; remedy`, all of it
//! at once. Secrets are never printed.

mod access;
mod address;
mod admin;
mod base_url;
mod budget;
mod changes;
mod client_certificate;
mod credentials;
mod decode;
mod downstream;
mod environment;
mod explain;
mod fault;
mod files;
mod fresh_for;
mod listen;
mod mirror;
mod name;
mod nearest;
mod no_proxy;
mod origins;
mod patience;
mod patterns;
mod preset;
mod problem;
mod proxy;
mod quantity;
mod raw;
mod realm;
mod schema;
mod secret;
mod sources;
mod stamp;
mod standing;
mod store;
mod tags;
mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transparent;
mod upstream;
mod upstreams;
mod warm;

use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

pub use self::access::Access;
pub use self::address::Address;
pub use self::admin::Admin;
pub use self::base_url::{BaseUrl, Scheme};
pub use self::budget::{Budget, Probe, Reserve};
pub use self::changes::{Change, Pending, Reload, Reloaded};
pub use self::client_certificate::{ClientCertificate, KeyPair};
pub use self::credentials::{Account, Credentials, Mode};
pub use self::downstream::{Downstream, Shutdown};
pub use self::environment::variables;
pub use self::fresh_for::FreshFor;
pub use self::listen::{KeyFiles, Listen, Tls};
pub use self::mirror::{Mirror, Order};
pub use self::patience::{Breaker, Timeouts};
pub use self::patterns::Patterns;
pub use self::problem::{ConfigError, Problem, Refusal};
pub use self::proxy::{Environment, Proxy, ProxyLogin, ProxyServer};
pub use self::schema::schema;
pub use self::secret::Secret;
pub use self::sources::Sources;
pub use self::stamp::Stamp;
pub use self::standing::Standing;
pub use self::store::{Fill, Store};
pub use self::tags::Tags;
pub use self::telemetry::{Otlp, Telemetry, read_headers};
pub use self::transparent::{Intercepted, Others, Transparent, TransparentMode, token_services};
pub use self::upstream::{Catalog, Upstream, Writes};
pub use self::warm::{Warm, When};

use self::problem::Scope;
use self::raw::RawConfig;

/// Everything that can be configured, valid as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; never empty. Default: `0.0.0.0:5000`.
    pub listen: Vec<Listen>,
    /// Where the operator connects.
    pub admin: Admin,
    /// Proxies whose `Forwarded` and `X-Forwarded-*` are believed. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may pull.
    pub access: Access,
    /// The registries; never empty, and the first is the default one. Default: Docker Hub.
    pub upstreams: Vec<Upstream>,
    /// Where the cache lives, and its capacity.
    pub store: Store,
    /// How blobs are fetched.
    pub fill: Fill,
    /// Limits on clients.
    pub downstream: Downstream,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// What is told to a collector.
    pub telemetry: Telemetry,
    /// What is fetched before a client asks for it. Default: nothing.
    pub warm: Vec<Warm>,
}

/// What the command line says; each wins over the file's key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen ADDR`: replaces the whole `listen` list, its TLS included.
    pub listen: Option<String>,
    /// `--admin ADDR`: replaces `admin.address`.
    pub admin: Option<String>,
    /// `--upstream [NAME=]URL` or a preset's name; if any, they replace the file's list.
    pub upstreams: Vec<String>,
    /// `--data DIR`: replaces `store.directory`.
    pub data: Option<PathBuf>,
}

// === impl Config ===

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(Some(path), &Overrides::default())
    }

    /// Checks a text; `origin` stands for the file's name in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Sources::default().parse(text, origin)
    }

    /// The defaults (Docker Hub on 0.0.0.0:5000), with what the command line says.
    pub fn default_with(flags: &Overrides) -> Result<Self, ConfigError> {
        Self::from_sources(None, flags)
    }

    /// The file, if there is one, and the command line, which wins. The environment is not looked at;
    /// [`Sources`] does that.
    pub fn from_sources(file: Option<&Path>, flags: &Overrides) -> Result<Self, ConfigError> {
        Sources::new(file.map(Path::to_owned), flags.clone()).read()
    }

    /// The effective configuration as YAML: every key, secrets as `***`.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(&self.to_raw()).expect("text, numbers and lists always make YAML")
    }

    /// The same as a value.
    fn tree(&self) -> serde_yaml::Value {
        serde_yaml::to_value(self.to_raw()).expect("text, numbers and lists always make YAML")
    }

    fn to_raw(&self) -> RawConfig {
        RawConfig {
            listen: Some(self.listen.iter().map(Listen::to_raw).collect()),
            admin: Some(self.admin.to_raw()),
            trusted_proxies: Some(access::print_networks(&self.trusted_proxies)),
            access: Some(self.access.to_raw()),
            upstreams: Some(self.upstreams.iter().map(Upstream::to_raw).collect()),
            store: Some(self.store.to_raw()),
            fill: Some(self.fill.to_raw()),
            downstream: Some(self.downstream.to_raw()),
            shutdown: Some(self.shutdown.to_raw()),
            telemetry: self.telemetry.to_raw(),
            warm: Some(self.warm.iter().map(Warm::to_raw).collect()),
        }
    }

    /// Reads every key; where a flag replaces one, the flag is read instead.
    fn read(file: &Scope<'_>, line: &Scope<'_>, raw: RawConfig, flags: &Overrides) -> Self {
        let listen_scope = match &flags.listen {
            Some(_) => line.at("--listen"),
            None => file.at("listen"),
        };
        let listen = match &flags.listen {
            Some(text) => Listen::from_flag(&listen_scope, text),
            None => Listen::read_all(&listen_scope, raw.listen),
        };
        let flag = flags.admin.as_deref().map(|text| (line.at("--admin"), text));
        let admin = Admin::read(&file.at("admin"), raw.admin.unwrap_or_default(), flag);
        refuse_shared_address(&listen_scope, &listen, &admin);
        let proxies = raw.trusted_proxies.unwrap_or_default();
        let trusted_proxies = file.at("trusted_proxies").each(&proxies, access::parse_network);
        let access = Access::read(&file.at("access"), raw.access.unwrap_or_default());
        for (index, listener) in listen.iter().enumerate() {
            listener.check_beside(&listen_scope.item(index), &trusted_proxies, &access);
        }
        let mut raw_store = raw.store.unwrap_or_default();
        let data = flags.data.clone();
        if data.is_some() {
            raw_store.directory = None;
        }
        let mut store = Store::read(&file.at("store"), raw_store);
        if let Some(path) = data {
            store.directory = store::directory(&line.at("--data"), path);
        }
        let config = Self {
            listen,
            admin,
            trusted_proxies,
            access,
            upstreams: match flags.upstreams.as_slice() {
                [] => upstreams::read_all(&file.at("upstreams"), raw.upstreams),
                flags => upstreams::from_flags(&line.at("--upstream"), flags),
            },
            store,
            fill: Fill::read(&file.at("fill"), raw.fill.unwrap_or_default()),
            downstream: Downstream::read(
                &file.at("downstream"),
                raw.downstream.unwrap_or_default(),
            ),
            shutdown: Shutdown::read(&file.at("shutdown"), raw.shutdown.unwrap_or_default()),
            telemetry: Telemetry::read(&file.at("telemetry"), raw.telemetry.unwrap_or_default()),
            warm: Warm::read_all(&file.at("warm"), raw.warm),
        };
        for (index, listener) in config.listen.iter().enumerate() {
            if listener.transparent.is_some() {
                let scope = listen_scope.item(index).at("transparent");
                Transparent::check_beside(&scope, &config.upstreams);
            }
        }
        config
    }
}

fn refuse_shared_address(scope: &Scope<'_>, listen: &[Listen], admin: &Admin) {
    let admin = Address::Tcp(admin.address);
    for listener in listen.iter().filter(|listener| listener.address.overlaps(&admin)) {
        scope.refuse(
            format!("{} is also the admin address ({admin})", listener.address),
            "choose another port for one of them",
        );
    }
}

/// The same as `to_yaml`.
impl fmt::Display for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_yaml())
    }
}
