//! One registry behind the proxy: where it is, how it is spoken to, and what of it may pass.
//!
//! A name from the presets is enough for the well-known ones. What stands here is safe to
//! use as it is: no credential can go over plain HTTP, no two upstreams share a name or host.

use std::path::PathBuf;

use url::Url;

use super::base_url::{BaseUrl, Scheme, parse_authority};
use super::budget::Budget;
use super::client_certificate::ClientCertificate;
use super::credentials::{Credentials, Mode};
use super::mirror::Mirror;
use super::name::{name_of, read_name};
use super::nearest::choose;
use super::patience::{Breaker, Timeouts};
use super::patterns::Patterns;
use super::preset::Preset;
use super::problem::{Refusal, Scope, quoted};
use super::proxy::{Proxy, ProxyServer};
use super::quantity::print_size;
use super::raw::{RawUpstream, Scalar};
use super::realm::{preset_realms, read_realms};
use super::tags::Tags;
use crate::protocol::Repository;

/// Enough for a network's pulls, and few beside what a CDN takes from one client.
const MAX_CONNECTIONS: usize = 256;

/// What a refused `max_requests_per_second` is told as an example.
const REQUESTS_PER_SECOND: u32 = 10;

/// The same for `max_bandwidth`.
const BANDWIDTH: u64 = 50 << 20;

/// Less than one read of a body (64 KiB) a second would be a stall with a name.
const BANDWIDTHS: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 40;

/// A registry that is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The name that selects it: first path segment, `?ns=`, metric label. Unique, and fit for
    /// a path segment.
    pub name: String,
    /// Where it is.
    pub url: BaseUrl,
    /// `Host` values (`host` or `host:port`, lower case) that select it; unique over all
    /// upstreams. Default: none.
    pub hosts: Vec<String>,
    /// Whose credentials it sees.
    pub credentials: Credentials,
    /// How long its tags may be used.
    pub tags: Tags,
    /// Repositories that may be pulled; never empty. Default: `**`.
    pub allow: Patterns,
    /// Repositories that may not, though allowed. Default: none.
    pub deny: Patterns,
    /// What happens to pushes and deletions. Default: deny.
    pub writes: Writes,
    /// What answers for its list of repositories. Default: upstream alone.
    pub catalog: Catalog,
    /// Token realms that are trusted besides https ones on the registry's own site. Default:
    /// the preset's.
    pub token_realms: Vec<Url>,
    /// Redirect targets (`host` or `host:port`, lower case) that may be private addresses or
    /// plain HTTP. Default: none.
    pub redirect_hosts: Vec<String>,
    /// PEM file with the authorities to trust for it, which could be opened when the
    /// configuration was read. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Shown to the registry itself, and to no other host. Default: none.
    pub client_certificate: Option<ClientCertificate>,
    /// What its hosts are reached through. Default: what the environment says.
    pub proxy: Proxy,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// When it is left alone.
    pub breaker: Breaker,
    /// Requests under way to one host of it at the same time; others wait. 1–100000. Default: 256.
    pub max_connections: usize,
    /// How its rate limit is lived with.
    pub budget: Budget,
    /// What stands before every repository's name there, as a Harbor proxy project or another
    /// Roadstead wants it. Default: nothing.
    pub prefix: Option<Repository>,
    /// It is never asked: only what is cached is served. Default: false.
    pub offline: bool,
    /// Others that have the same, asked before or after it. Default: none.
    pub mirrors: Vec<Mirror>,
    /// Requests sent to all of its hosts per second; others wait. 1–100000. Default: no limit.
    pub max_requests_per_second: Option<u32>,
    /// Bytes per second of all bodies from its hosts. 64KiB–1TiB. Default: no limit.
    pub max_bandwidth: Option<u64>,
}

/// What happens to requests that change a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// 405, without upstream traffic.
    Deny,
    /// Passed on, with the client's own credentials.
    Forward,
}

const WRITES: [(&str, Writes); 2] = [("deny", Writes::Deny), ("forward", Writes::Forward)];

/// What answers `/v2/_catalog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catalog {
    /// Upstream, whatever it says.
    Forward,
    /// Where upstream refuses: the names of the repositories that are cached.
    Cached,
}

const CATALOGS: [(&str, Catalog); 2] = [("forward", Catalog::Forward), ("cached", Catalog::Cached)];

// === impl Upstream ===

impl Upstream {
    /// An upstream with every default but the environment's proxy, and the preset's realms if the
    /// URL is a preset's.
    pub fn new(name: impl Into<String>, url: BaseUrl) -> Self {
        let name = name.into();
        Self {
            token_realms: preset_realms(&name, &url),
            budget: Budget::of(&name),
            name,
            url,
            hosts: Vec::new(),
            credentials: Credentials::default(),
            tags: Tags::default(),
            allow: Patterns::everything(),
            deny: Patterns::default(),
            writes: Writes::Deny,
            catalog: Catalog::Forward,
            redirect_hosts: Vec::new(),
            ca_file: None,
            client_certificate: None,
            proxy: Proxy::None,
            timeouts: Timeouts::default(),
            breaker: Breaker::default(),
            max_connections: MAX_CONNECTIONS,
            prefix: None,
            offline: false,
            mirrors: Vec::new(),
            max_requests_per_second: None,
            max_bandwidth: None,
        }
    }

    /// The proxy that requests to the registry itself go through; its other hosts may have another,
    /// or none.
    pub fn proxy_server(&self) -> Option<&ProxyServer> {
        let url = Url::parse(&self.url.to_string()).ok()?;
        self.proxy.for_url(&url)
    }

    /// Whether TLS is spoken with it or on the way to it, so that authorities must be known.
    pub fn speaks_tls(&self) -> bool {
        let proxies = self.proxy.servers().into_iter().map(|proxy| proxy.scheme);
        std::iter::once(self.url.scheme).chain(proxies).any(|scheme| scheme == Scheme::Https)
    }

    /// Whether this is Docker Hub, by its name.
    pub fn is_docker_hub(&self) -> bool {
        self.name == "docker.io"
    }

    /// What image names begin with that are meant for it: its name, where that is a host as every
    /// client reads one, else the host of its URL, which for Docker Hub is not its name. `None` for
    /// one that is a part of that host only (`prefix`): the host's other images are not its own.
    pub fn registry(&self) -> Option<String> {
        match self.name.contains(['.', ':']) || self.name == "localhost" {
            true => Some(self.name.clone()),
            false => self.prefix.is_none().then(|| name_of(&self.url)),
        }
    }

    /// Whether `allow` and `deny` let a repository be pulled.
    pub fn admits(&self, repository: &str) -> bool {
        self.allow.matches(repository) && !self.deny.matches(repository)
    }

    /// Whether a one-part repository name gets `library/` before it: on Docker Hub alone.
    pub fn library_rule(&self) -> bool {
        self.is_docker_hub()
    }

    /// One registry from the YAML; `None` once its name or URL was refused.
    pub(super) fn read(scope: &Scope<'_>, raw: RawUpstream) -> Option<Self> {
        let url = read_url(scope, raw.name.as_deref(), raw.url.as_deref());
        let name = scope.at("name").check(read_name(raw.name, url.as_ref()));
        let hosts = scope.at("hosts").each(&raw.hosts.unwrap_or_default(), parse_authority);
        let credentials = raw.credentials.unwrap_or_default();
        let named = name.as_deref();
        let credentials =
            Credentials::read(&scope.at("credentials"), credentials, named, url.as_ref());
        let tags = Tags::read(&scope.at("tags"), raw.tags.unwrap_or_default());
        let allow = read_allow(&scope.at("allow"), raw.allow);
        let deny = Patterns::read(&scope.at("deny"), raw.deny, Patterns::default());
        let writes = raw.writes.and_then(|word| scope.at("writes").check(choose(&word, &WRITES)));
        let catalog = read_catalog(&scope.at("catalog"), raw.catalog.as_deref(), &credentials);
        let redirects = raw.redirect_hosts.unwrap_or_default();
        let redirect_hosts = scope.at("redirect_hosts").each(&redirects, parse_authority);
        let ca_file = scope.at("ca_file").file(raw.ca_file);
        let proxy = Proxy::read(&scope.at("proxy"), raw.proxy.as_deref());
        let timeouts = Timeouts::read(&scope.at("timeouts"), raw.timeouts.unwrap_or_default());
        let breaker = Breaker::read(&scope.at("breaker"), raw.breaker.unwrap_or_default());
        let (name, url) = (name?, url?);
        refuse_exposed_credentials(scope, &credentials, &url, &proxy);
        let certificate = scope.at("client_certificate");
        let client_certificate =
            raw.client_certificate.and_then(|raw| ClientCertificate::read(&certificate, raw, &url));
        let token_realms = read_realms(&scope.at("token_realms"), raw.token_realms, &name, &url);
        let budget = Budget::read(&scope.at("budget"), raw.budget.unwrap_or_default(), &name);
        let prefix = raw.prefix.and_then(|text| scope.at("prefix").check(parse_prefix(&text)));
        let mirrors =
            Mirror::read_all(&scope.at("mirrors"), raw.mirrors.unwrap_or_default(), &name);
        Some(Self {
            name,
            url,
            hosts,
            credentials,
            tags,
            allow,
            deny,
            writes: writes.unwrap_or(Writes::Deny),
            catalog,
            token_realms,
            redirect_hosts,
            ca_file,
            client_certificate,
            proxy,
            timeouts,
            breaker,
            max_connections: scope.count(
                "max_connections",
                raw.max_connections.as_ref(),
                MAX_CONNECTIONS,
                1..=100_000,
            ),
            budget,
            prefix,
            offline: raw.offline.unwrap_or(false),
            mirrors,
            max_requests_per_second: read_rate(scope, raw.max_requests_per_second.as_ref()),
            max_bandwidth: read_bandwidth(scope, raw.max_bandwidth.as_ref()),
        })
    }

    pub(super) fn to_raw(&self) -> RawUpstream {
        let writes = WRITES.iter().find(|(_, writes)| *writes == self.writes);
        let catalog = CATALOGS.iter().find(|(_, catalog)| *catalog == self.catalog);
        RawUpstream {
            name: Some(self.name.clone()),
            url: Some(self.url.to_string()),
            hosts: Some(self.hosts.clone()),
            credentials: Some(self.credentials.to_raw()),
            tags: Some(self.tags.to_raw()),
            allow: Some(self.allow.sources.clone()),
            deny: Some(self.deny.sources.clone()),
            writes: writes.map(|(name, _)| (*name).to_owned()),
            catalog: catalog.map(|(name, _)| (*name).to_owned()),
            token_realms: Some(self.token_realms.iter().map(Url::to_string).collect()),
            redirect_hosts: Some(self.redirect_hosts.clone()),
            ca_file: self.ca_file.as_ref().map(|path| path.display().to_string()),
            client_certificate: self.client_certificate.as_ref().map(ClientCertificate::to_raw),
            proxy: self.proxy.to_raw(),
            timeouts: Some(self.timeouts.to_raw()),
            breaker: Some(self.breaker.to_raw()),
            max_connections: Scalar::print(self.max_connections),
            budget: Some(self.budget.to_raw()),
            prefix: self.prefix.as_ref().map(Repository::to_string),
            offline: Some(self.offline),
            mirrors: Some(self.mirrors.iter().map(Mirror::to_raw).collect()),
            max_requests_per_second: self.max_requests_per_second.and_then(Scalar::print),
            max_bandwidth: self.max_bandwidth.and_then(|bytes| Scalar::print(print_size(bytes))),
        }
    }
}

fn parse_prefix(text: &str) -> Result<Repository, Refusal> {
    Repository::parse(text.trim_end_matches('/')).map_err(|_| {
        Refusal::new(
            format!("{} can't stand before a repository's name", quoted(text)),
            "write the project as it is in the path, such as dockerhub-proxy",
        )
    })
}

fn read_url(scope: &Scope<'_>, name: Option<&str>, url: Option<&str>) -> Option<BaseUrl> {
    let scope = scope.at("url");
    if let Some(text) = url {
        return scope.check(text.parse());
    }
    let preset = name.and_then(Preset::named);
    if preset.is_none() && name.is_some() {
        let remedy = format!("write it; only these names need none: {}", Preset::names());
        scope.refuse("is missing", remedy);
    }
    preset.and_then(|preset| scope.check(preset.url.parse()))
}

fn read_rate(scope: &Scope<'_>, raw: Option<&Scalar>) -> Option<u32> {
    let key = "max_requests_per_second";
    raw.map(|raw| scope.count(key, Some(raw), REQUESTS_PER_SECOND, 1..=100_000))
}

fn read_bandwidth(scope: &Scope<'_>, raw: Option<&Scalar>) -> Option<u64> {
    raw.map(|raw| scope.size_within("max_bandwidth", Some(raw), BANDWIDTH, BANDWIDTHS))
}

fn read_allow(scope: &Scope<'_>, raw: Option<Vec<String>>) -> Patterns {
    if raw.as_ref().is_some_and(Vec::is_empty) {
        scope.refuse(
            "the list is empty, so nothing may be pulled",
            "list globs, or leave the key out",
        );
    }
    Patterns::read(scope, raw, Patterns::everything())
}

/// The names of what one client may see are not for all the others.
fn read_catalog(scope: &Scope<'_>, word: Option<&str>, credentials: &Credentials) -> Catalog {
    let catalog = word.and_then(|word| scope.check(choose(word, &CATALOGS)));
    if catalog == Some(Catalog::Cached) && credentials.mode == Mode::Client {
        scope.refuse(
            "the list would tell every client what any of them may see",
            "leave it out, or use credentials.mode: shared",
        );
    }
    catalog.unwrap_or(Catalog::Forward)
}

fn refuse_exposed_credentials(
    scope: &Scope<'_>,
    credentials: &Credentials,
    url: &BaseUrl,
    proxy: &Proxy,
) {
    let target = Url::parse(&url.to_string()).ok();
    let exposed = target.as_ref().and_then(|url| proxy.exposes(url));
    if let Some(proxy) = exposed.filter(|_| !credentials.is_anonymous()) {
        scope.at("credentials").refuse(
            format!("credentials would go to the proxy {} in plain text", proxy.authority()),
            "write proxy: none for what runs on this machine",
        );
    }
    if url.scheme == Scheme::Http && !url.is_loopback() && !credentials.is_anonymous() {
        scope.at("credentials").refuse(
            format!("credentials would go to {url} in plain text"),
            format!("use https://{} as url", url.host),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};
    use super::{Catalog, Writes};

    #[test]
    fn a_well_known_name_is_enough() {
        let hub = only_upstream("upstreams: [{ name: docker.io }]");
        assert_eq!(hub.url.to_string(), "https://registry-1.docker.io");
        assert!(hub.is_docker_hub() && hub.library_rule());
        let lscr = only_upstream("upstreams: [{ name: lscr.io }]");
        assert!(!lscr.library_rule());
        for name in [
            "ghcr.io",
            "quay.io",
            "registry.k8s.io",
            "gcr.io",
            "mcr.microsoft.com",
            "public.ecr.aws",
        ] {
            let upstream = only_upstream(&format!("upstreams: [{{ name: {name} }}]"));
            assert_eq!(upstream.url.to_string(), format!("https://{name}"));
        }
    }

    #[test]
    fn images_are_named_after_a_registry_that_is_a_host() {
        for (name, url, registry) in [
            ("docker.io", "http://127.0.0.1:5000", "docker.io"),
            ("corp", "https://registry.corp:5000", "registry.corp:5000"),
            ("hub", "https://registry-1.docker.io", "docker.io"),
            ("localhost", "http://127.0.0.1:5000", "localhost"),
        ] {
            let text = format!("upstreams: [{{ name: {name}, url: \"{url}\" }}]");
            assert_eq!(only_upstream(&text).registry().as_deref(), Some(registry));
        }
    }

    #[test]
    fn an_upstream_with_a_prefix_is_not_the_whole_of_its_host() {
        let named = |name| {
            let text = "url: \"https://harbor.corp\", prefix: hub";
            only_upstream(&format!("upstreams: [{{ name: {name}, {text} }}]")).registry()
        };
        assert_eq!(named("hub"), None);
        assert_eq!(named("docker.io").as_deref(), Some("docker.io"));
    }

    #[test]
    fn another_name_needs_its_url() {
        let line = refused("upstreams: [{ name: corp }]");
        assert!(line.starts_with("test.yaml: upstreams[0].url: is missing; write it; only these names need none: docker.io, "), "{line}");
    }

    #[test]
    fn a_bad_url_is_refused() {
        for (url, what) in [
            ("https://a.io/v2", "has a path; write https://a.io"),
            ("https://a.io?x", "has a query; write https://a.io"),
            ("https://me:pw@a.io", "the URL has a user in it"),
            ("ftp://a.io", "has no http or https scheme"),
            ("a.io", "has no http or https scheme"),
        ] {
            let line = refused(&format!("upstreams: [{{ name: a, url: \"{url}\" }}]"));
            assert!(
                line.starts_with("test.yaml: upstreams[0].url: ") && line.contains(what),
                "{line}"
            );
        }
    }

    #[test]
    fn credentials_never_go_over_plain_http() {
        let account = "credentials: { accounts: [{ username: a, password: b }] }";
        assert_eq!(
            refused(&format!("upstreams: [{{ name: a, url: \"http://a.io:5000\", {account} }}]")),
            "test.yaml: upstreams[0].credentials: credentials would go to http://a.io:5000 in plain text; \
             use https://a.io as url"
        );
        let client =
            "upstreams: [{ name: a, url: \"http://a.io\", credentials: { mode: client } }]";
        assert!(refused(client).contains("in plain text"));
        only_upstream(&format!(
            "upstreams: [{{ name: a, url: \"http://127.0.0.1:5000\", {account} }}]"
        ));
        only_upstream("upstreams: [{ name: a, url: \"http://a.io\" }]");
        let through = |proxy: &str| {
            format!(
                "upstreams: [{{ name: a, url: \"http://127.0.0.1:5000\", proxy: \"{proxy}\", {account} }}]"
            )
        };
        assert_eq!(
            refused(&through("http://10.0.0.1:3128")),
            "test.yaml: upstreams[0].credentials: credentials would go to the proxy 10.0.0.1:3128 in plain text; \
             write proxy: none for what runs on this machine"
        );
        only_upstream(&through("http://127.0.0.1:3128"));
    }

    #[test]
    fn writes_are_denied_or_forwarded() {
        assert_eq!(only_upstream("upstreams: [{ name: docker.io }]").writes, Writes::Deny);
        let forward = only_upstream("upstreams: [{ name: docker.io, writes: forward }]");
        assert_eq!(forward.writes, Writes::Forward);
        assert!(
            refused("upstreams: [{ name: docker.io, writes: maybe }]")
                .contains("write deny or forward")
        );
    }

    #[test]
    fn a_catalog_is_of_what_everybody_may_see() {
        let shared = only_upstream("upstreams: [{ name: docker.io, catalog: cached }]");
        assert_eq!(shared.catalog, Catalog::Cached);
        let text =
            "upstreams: [{ name: docker.io, catalog: cached, credentials: { mode: client } }]";
        assert!(refused(text).contains("upstreams[0].catalog: the list would tell"));
        assert!(
            refused("upstreams: [{ name: docker.io, catalog: all }]")
                .contains("write forward or cached")
        );
    }

    #[test]
    fn repositories_are_filtered_by_globs() {
        let upstream = only_upstream(
            "upstreams: [{ name: docker.io, allow: [\"library/*\"], deny: [library/ubuntu] }]",
        );
        assert!(
            upstream.allow.matches("library/alpine") && upstream.deny.matches("library/ubuntu")
        );
        assert!(only_upstream("upstreams: [{ name: docker.io }]").allow.matches("any/thing"));
        assert!(
            refused("upstreams: [{ name: docker.io, allow: [] }]")
                .contains("allow: the list is empty")
        );
    }

    #[test]
    fn requests_and_bytes_have_no_limit_unless_one_is_written() {
        let none = only_upstream("upstreams: [{ name: docker.io }]");
        assert_eq!((none.max_requests_per_second, none.max_bandwidth), (None, None));
        let both = only_upstream(
            "upstreams: [{ name: docker.io, max_requests_per_second: 5, max_bandwidth: 50MiB }]",
        );
        assert_eq!((both.max_requests_per_second, both.max_bandwidth), (Some(5), Some(50 << 20)));
        for (limit, line) in [
            (
                "max_requests_per_second: 0",
                "max_requests_per_second: `0` is not a whole number in range; write one from 1 to 100000, such as 10",
            ),
            (
                "max_bandwidth: 1KiB",
                "max_bandwidth: `1KiB` is out of range; write a size from 64KiB to 1TiB, such as 50MiB",
            ),
        ] {
            let found = refused(&format!("upstreams: [{{ name: docker.io, {limit} }}]"));
            assert_eq!(found, format!("test.yaml: upstreams[0].{line}"));
        }
    }

    #[test]
    fn redirect_hosts_are_authorities() {
        let upstream = only_upstream(
            "upstreams: [{ name: docker.io, redirect_hosts: [CDN.corp, \"10.0.0.1:9000\"] }]",
        );
        assert_eq!(upstream.redirect_hosts, ["cdn.corp", "10.0.0.1:9000"]);
        assert!(
            refused("upstreams: [{ name: docker.io, redirect_hosts: [\"*.corp\"] }]")
                .contains("redirect_hosts[0]: `*.corp`")
        );
    }
}
