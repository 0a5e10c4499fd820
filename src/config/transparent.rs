//! A transparent listener: one for clients that can't be given a mirror.
//!
//! They reach it as their HTTPS proxy (`connect`) or because a name leads to it (`sni`). What is
//! meant for an upstream's own hosts is answered with certificates of a local authority; all else is
//! refused, or passed on without a look inside.

use std::collections::HashMap;
use std::net::IpAddr;

use url::Url;

use super::base_url::parse_authority;
use super::credentials::Mode;
use super::listen::KeyFiles;
use super::nearest::choose;
use super::problem::{Refusal, Scope, quoted};
use super::raw::RawTransparent;
use super::upstream::{Upstream, Writes};

/// What a transparent listener does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transparent {
    /// How clients say where they want to go.
    pub mode: TransparentMode,
    /// The authority that signs the certificates; both files could be opened.
    pub ca: KeyFiles,
    /// What becomes of hosts that are no upstream's. Default: refuse.
    pub others: Others,
    /// Hosts (`host` or `host:port`, lower case) that are tunnelled in any case, and that may have
    /// private addresses and, with a port, another one than 443. Default: none.
    pub tunnel_hosts: Vec<String>,
}

/// How clients say where they want to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransparentMode {
    /// By HTTP's `CONNECT`: they know us as their proxy.
    Connect,
    /// In their TLS handshake: DNS or the network leads them here.
    Sni,
}

/// What becomes of hosts that are no upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They are not reached.
    Refuse,
    /// Bytes are passed on as they are, to public addresses at port 443.
    Tunnel,
}

/// The hosts that are answered here, and the upstream that each one selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intercepted(HashMap<(String, u16), String>);

const MODES: [(&str, TransparentMode); 2] =
    [("connect", TransparentMode::Connect), ("sni", TransparentMode::Sni)];

const OTHERS: [(&str, Others); 2] = [("refuse", Others::Refuse), ("tunnel", Others::Tunnel)];

/// Where clients of Docker Hub go, whatever mirror of it is configured.
const DOCKER_HUB: [&str; 2] = ["registry-1.docker.io", "index.docker.io"];

/// Registries whose clients get their tokens from the very host that they pull from.
const OWN_TOKENS: [&str; 4] = ["ghcr.io", "quay.io", "gcr.io", "public.ecr.aws"];

/// Of a registry that is named without one.
const HTTPS: u16 = 443;

// === impl Transparent ===

impl Transparent {
    pub(super) fn read(scope: &Scope<'_>, raw: RawTransparent) -> Option<Self> {
        let mode = match raw.mode {
            Some(word) => scope.at("mode").check(choose(&word, &MODES)),
            None => {
                scope.at("mode").refuse("is missing", "write connect or sni");
                None
            }
        };
        let others = match raw.others {
            Some(word) => scope.at("others").check(choose(&word, &OTHERS)),
            None => Some(Others::Refuse),
        };
        let ca = match raw.ca {
            Some(raw) => KeyFiles::read(&scope.at("ca"), raw),
            None => {
                scope.at("ca").refuse(
                    "is missing",
                    "make one with `roadstead client ca`, and write { certificate: FILE, key: FILE }",
                );
                None
            }
        };
        let tunnels = raw.tunnel_hosts.unwrap_or_default();
        let tunnel_hosts = scope.at("tunnel_hosts").each(&tunnels, parse_named);
        Some(Self { mode: mode?, ca: ca?, others: others?, tunnel_hosts })
    }

    /// Refuses what goes against the upstreams: a client that gets its tokens itself can't get them
    /// from a host that is answered here.
    pub(super) fn check_beside(scope: &Scope<'_>, upstreams: &[Upstream]) {
        let intercepted = Intercepted::of(upstreams);
        for upstream in upstreams {
            let mut services = token_services(upstream).into_iter();
            let answered = |(host, port): &(&str, u16)| intercepted.at(host, *port).is_some();
            if let Some((host, _)) = services.find(answered) {
                scope.refuse(
                    format!(
                        "clients of {} get their tokens from {host} themselves (mode: client or writes: forward), and {host} is answered here",
                        upstream.name
                    ),
                    "write mode: shared and writes: deny there, or remove transparent and give those clients a mirror",
                );
            }
        }
    }

    pub(super) fn to_raw(&self) -> RawTransparent {
        RawTransparent {
            mode: word(&MODES, self.mode),
            ca: Some(self.ca.to_raw()),
            others: word(&OTHERS, self.others),
            tunnel_hosts: Some(self.tunnel_hosts.clone()),
        }
    }
}

/// Where an upstream is known to send clients for tokens of their own, if it sees any: host and
/// port.
pub fn token_services(upstream: &Upstream) -> Vec<(&str, u16)> {
    if upstream.credentials.mode != Mode::Client && upstream.writes != Writes::Forward {
        return Vec::new();
    }
    let service = |realm| Some((Url::host_str(realm)?, Url::port_or_known_default(realm)?));
    let mut services: Vec<_> = upstream.token_realms.iter().filter_map(service).collect();
    let own = &upstream.url;
    if services.is_empty() && OWN_TOKENS.contains(&own.host.as_str()) {
        services.push((&own.host, own.port));
    }
    services
}

fn word<T: PartialEq>(words: &[(&str, T)], value: T) -> Option<String> {
    words.iter().find(|(_, other)| *other == value).map(|(word, _)| (*word).to_owned())
}

fn parse_named(text: &str) -> Result<String, Refusal> {
    let authority = parse_authority(text)?;
    let (host, _) = split_authority(&authority);
    if host.parse::<IpAddr>().is_ok() {
        return Err(Refusal::new(
            format!("{} is an address", quoted(text)),
            "write the name that clients ask for",
        ));
    }
    Ok(authority)
}

/// Host, without brackets, and port, if there is one.
fn split_authority(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok())
        }
        _ => (authority, None),
    };
    (host.trim_matches(['[', ']']), port)
}

// === impl Intercepted ===

impl Intercepted {
    /// Those of `upstreams`: their names that are hosts, what is listed under `hosts`, and the host
    /// of their `url`; where two claim one, the earlier kind wins, then the earlier upstream.
    pub fn of(upstreams: &[Upstream]) -> Self {
        let mut found = Self::default();
        for upstream in upstreams {
            let is_host = upstream.name.contains(['.', ':']);
            if is_host && parse_authority(&upstream.name).is_ok() {
                found.add(&upstream.name, upstream);
            }
            if upstream.is_docker_hub() {
                DOCKER_HUB.iter().for_each(|host| found.add(host, upstream));
            }
        }
        for upstream in upstreams {
            upstream.hosts.iter().for_each(|host| found.add(host, upstream));
        }
        // With a prefix the URL is that of a registry which has more than this one.
        for upstream in upstreams.iter().filter(|upstream| upstream.prefix.is_none()) {
            found.add_host(&upstream.url.host, upstream.url.port, upstream);
        }
        found
    }

    fn add(&mut self, authority: &str, upstream: &Upstream) {
        let (host, port) = split_authority(authority);
        self.add_host(host, port.unwrap_or(HTTPS), upstream);
    }

    /// Addresses are nobody's name, and no authority vouches for them.
    fn add_host(&mut self, host: &str, port: u16, upstream: &Upstream) {
        if host.parse::<IpAddr>().is_err() {
            let key = (host.to_ascii_lowercase(), port);
            self.0.entry(key).or_insert_with(|| upstream.name.clone());
        }
    }

    /// The upstream that a lower-case host at a port belongs to.
    pub fn at(&self, host: &str, port: u16) -> Option<&str> {
        self.0.get(&(host.to_owned(), port)).map(String::as_str)
    }

    /// The same for a client that does not say the port: that of HTTPS, or else the lowest.
    pub fn named(&self, host: &str) -> Option<&str> {
        let any = || {
            let same = self.0.iter().filter(|((other, _), _)| other == host);
            same.min_by_key(|((_, port), _)| *port).map(|(_, name)| name.as_str())
        };
        self.at(host, HTTPS).or_else(any)
    }

    /// All hosts, each once, sorted.
    pub fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = self.0.keys().map(|(host, _)| host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};
    use super::*;

    fn listen(keys: &str) -> String {
        format!("listen: [{{ address: 127.0.0.1:3128, transparent: {{ {keys} }} }}]")
    }

    #[test]
    fn it_is_read_and_printed() {
        let (_kept, file) = scratch_file("pem");
        let yaml = listen(&format!(
            "mode: sni, ca: {{ certificate: {file}, key: {file} }}, tunnel_hosts: [\"Git.corp:8443\"]"
        ));
        let config = parsed(&yaml);
        let found = config.listen[0].transparent.clone().unwrap();
        assert_eq!((found.mode, found.others), (TransparentMode::Sni, Others::Refuse));
        assert_eq!(found.tunnel_hosts, ["git.corp:8443"]);
        assert_eq!(parsed(&config.to_yaml()).listen, config.listen);
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        let (_kept, file) = scratch_file("pem");
        let ca = format!("ca: {{ certificate: {file}, key: {file} }}");
        assert!(refused(&listen("mode: connect")).contains("transparent.ca: is missing; make one"));
        assert!(refused(&listen(&ca)).contains("transparent.mode: is missing; write connect"));
        assert!(
            refused(&listen(&format!("mode: both, {ca}"))).contains("transparent.mode: `both`")
        );
        let line = refused(&listen(&format!("mode: sni, {ca}, tunnel_hosts: [10.0.0.1]")));
        assert!(line.contains("transparent.tunnel_hosts[0]: `10.0.0.1` is an address"), "{line}");
    }

    #[test]
    fn a_token_service_that_would_be_answered_here_is_refused() {
        let (_kept, file) = scratch_file("pem");
        let listen = listen(&format!("mode: connect, ca: {{ certificate: {file}, key: {file} }}"));
        let mode = |name: &str, keys: &str| {
            format!("{{ name: {name}, credentials: {{ mode: client }}{keys} }}")
        };
        let harbor = |realm: &str| {
            let url = "url: \"https://harbor.corp\"";
            mode("harbor", &format!(", {url}, token_realms: [\"{realm}\"]"))
        };
        for (upstreams, host) in [
            (mode("ghcr.io", ""), "ghcr.io"),
            (mode("quay.io", ""), "quay.io"),
            (harbor("https://harbor.corp/service/token"), "harbor.corp"),
            (format!("{}, {{ name: ghcr.io }}", mode("lscr.io", "")), "ghcr.io"),
        ] {
            let line = refused(&format!("{listen}\nupstreams: [{upstreams}]"));
            let told = "listen[0].transparent: clients of ";
            assert!(line.contains(told), "{line}");
            assert!(line.contains(&format!("get their tokens from {host} themselves")), "{line}");
        }
        for upstreams in [
            mode("docker.io", ""),
            mode("lscr.io", ""),
            harbor("https://sso.corp/token"),
            "{ name: ghcr.io }".to_owned(),
            // It asks for a password of its own, or for none.
            mode("basic", ", url: \"https://basic.corp\""),
        ] {
            parsed(&format!("{listen}\nupstreams: [{upstreams}]"));
        }
    }

    #[test]
    fn clients_get_tokens_where_they_use_their_own_credentials() {
        let mut hub = parsed("upstreams: [{ name: docker.io }]").upstreams.remove(0);
        assert_eq!(token_services(&hub), []);
        hub.writes = Writes::Forward;
        assert_eq!(token_services(&hub), [("auth.docker.io", 443)]);
        (hub.writes, hub.credentials.mode) = (Writes::Deny, Mode::Client);
        assert_eq!(token_services(&hub), [("auth.docker.io", 443)]);
    }

    #[test]
    fn the_hosts_of_an_upstream_are_its_name_its_url_and_those_listed() {
        let config = parsed(
            "upstreams: [{ name: docker.io, url: \"https://harbor.corp\", prefix: hub }, \
             { name: corp, url: \"https://registry.corp:5000\", hosts: [\"r.corp\"] }, \
             { name: ghcr.io }, { name: lan, url: \"http://10.0.0.1:5000\" }, { name: \"old.corp:5000\", url: \"https://harbor.corp\" }]",
        );
        let found = Intercepted::of(&config.upstreams);
        for (host, port, name) in [
            ("docker.io", 443, Some("docker.io")),
            ("registry-1.docker.io", 443, Some("docker.io")),
            ("index.docker.io", 443, Some("docker.io")),
            ("auth.docker.io", 443, None),
            ("registry-1.docker.io", 5000, None),
            ("registry.corp", 5000, Some("corp")),
            ("registry.corp", 443, None),
            ("r.corp", 443, Some("corp")),
            ("corp", 443, None),
            ("ghcr.io", 443, Some("ghcr.io")),
            ("10.0.0.1", 5000, None),
            ("harbor.corp", 443, Some("old.corp:5000")),
            ("old.corp", 5000, Some("old.corp:5000")),
        ] {
            assert_eq!(found.at(host, port), name, "{host}:{port}");
        }
        assert_eq!(found.named("registry.corp"), Some("corp"));
        assert_eq!(found.named("example.com"), None);
        assert_eq!(found.hosts().len(), 8);
    }
}
