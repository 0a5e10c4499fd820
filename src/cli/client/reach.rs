//! How clients reach Roadstead: one address, what they must trust there, and what they find behind it.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use super::plan::{File, Problem};
use super::trust::{self, Trust};
use crate::config::{Address, BaseUrl, Config, Listen, Scheme, Upstream};
use crate::protocol::Repository;

/// Our authority's file in a folder of a host's authorities, where others may have put theirs too.
pub(super) const AUTHORITY: &str = "roadstead-ca.crt";

/// Where Roadstead is, as a client sees it.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) base: BaseUrl,
    /// PEM that clients must be given to trust the certificate there.
    pub(super) ca: Option<String>,
    /// Clients must log in.
    pub(super) login: bool,
    /// In the order of the configuration; no two have the same `registry`.
    pub(super) registries: Vec<Registry>,
    /// What was chosen, and what may be wrong with it.
    pub(super) notes: Vec<String>,
}

/// One upstream, as clients name it.
#[derive(Debug)]
pub(super) struct Registry {
    /// Its name here: what stands first in a path.
    name: String,
    /// What image names begin with.
    pub(super) registry: String,
    /// Where clients go when Roadstead does not answer.
    pub(super) origin: String,
    /// `Host` values that are for it alone.
    pub(super) hosts: Vec<String>,
    /// It gets what names no registry.
    pub(super) is_default: bool,
}

// === impl Reach ===

impl Reach {
    /// The authority in the folder of each host below `folder`, if clients must be given one.
    pub(super) fn authority_files(&self, folder: &str, hosts: &[String]) -> Vec<File> {
        let Some(ca) = &self.ca else { return Vec::new() };
        let file = |host| File::whole(format!("{folder}/{host}/{AUTHORITY}"), ca.clone());
        hosts.iter().map(file).collect()
    }

    pub(super) fn of(
        config: &Config,
        address: Option<&BaseUrl>,
        ca: Option<&Path>,
    ) -> Result<Self, Problem> {
        let given = ca.map(given_authority).transpose()?;
        let mut reach = match address {
            Some(address) => Self::told(address, config, given.is_some()),
            None => Self::listening(config)?,
        };
        reach.ca = given.or(reach.ca);
        if reach.ca.is_some() && reach.base.scheme == Scheme::Http {
            let what = format!(
                "{} has no certificate, so no authority; leave --ca out, or write --address https://…",
                reach.base
            );
            return Err(Problem::new(what));
        }
        reach.login = config.access.htpasswd.is_some();
        match reach.owner(&config.upstreams) {
            Some(owner) => {
                reach.notes.push(format!(
                    "{} is among the hosts of {}: there is nothing else at that address.",
                    reach.base.host, owner.name
                ));
                reach.find(std::slice::from_ref(owner));
            }
            None => reach.find(&config.upstreams),
        }
        Ok(reach)
    }

    /// At an address that the operator says. Where one of our certificates is for its host, its
    /// authority is known from there.
    fn told(base: &BaseUrl, config: &Config, has_authority: bool) -> Self {
        let mut reach = Self::at(base.clone());
        if base.scheme == Scheme::Http || has_authority {
            return reach;
        }
        let tls = config.listen.iter().filter_map(|listen| listen.tls.as_ref());
        let chains = tls.filter_map(|tls| fs::read_to_string(&tls.certificate).ok());
        match chains.into_iter().find(|chain| trust::covers(chain, &base.host)) {
            Some(chain) => reach.trust(&chain),
            None => reach.notes.push(format!(
                "No listener here has a certificate for {}: if clients don't know the authority \
                 behind the one there, give it with --ca.",
                base.host
            )),
        }
        reach
    }

    fn trust(&mut self, chain: &str) {
        match trust::of(chain) {
            Trust::Known => {}
            Trust::Needed(pem) => self.ca = Some(pem),
            Trust::Missing => self.notes.push(
                "Its certificate's authority is neither in its file nor known to this system: give \
                 it with --ca, or clients will refuse the certificate."
                    .to_owned(),
            ),
        }
    }

    fn at(base: BaseUrl) -> Self {
        Self { base, ca: None, login: false, registries: Vec::new(), notes: Vec::new() }
    }

    /// The first listener that other machines can connect to, or the first one.
    fn listening(config: &Config) -> Result<Self, Problem> {
        // A balancer's PROXY header, or a way that registries' own names lead: neither is a mirror.
        let mirrors =
            config.listen.iter().filter(|it| it.transparent.is_none() && !it.proxy_protocol);
        let tcp = mirrors.filter_map(|listen| match listen.address {
            Address::Tcp(socket) => Some((listen, socket)),
            Address::Unix(_) => None,
        });
        let tcp: Vec<_> = tcp.collect();
        let public = tcp.iter().find(|(_, socket)| !socket.ip().is_loopback());
        let Some((listen, socket)) = public.or(tcp.first()) else {
            return Err(Problem::new(
                "listen has nothing that clients connect to as a mirror (Unix sockets, proxy_protocol \
                 and transparent are none); say with --address under which URL they reach it",
            ));
        };
        if socket.port() == 0 {
            return Err(Problem::new(
                "listen has port 0, so the system chooses one at each start; write a port, or say \
                 with --address where clients connect",
            ));
        }
        let mut reach = Self::behind(listen, *socket)?;
        if tcp.len() > 1 {
            reach.notes.push(format!("It listens at {} addresses; --address chooses.", tcp.len()));
        }
        if listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            reach.notes.push(
                "listen.tls.client_ca is set: each client must be given a certificate of its own \
                 besides this (docker: client.cert and client.key beside the CA)."
                    .to_owned(),
            );
        }
        if !config.trusted_proxies.is_empty() {
            reach.notes.push(
                "trusted_proxies is set: if clients come through such a proxy, say with --address \
                 under which URL."
                    .to_owned(),
            );
        }
        Ok(reach)
    }

    fn behind(listen: &Listen, socket: SocketAddr) -> Result<Self, Problem> {
        let chain = listen.tls.as_ref().map(|tls| {
            let unread =
                |error| Problem::about(&tls.certificate, format!("can't be read: {error}"));
            fs::read_to_string(&tls.certificate).map_err(unread)
        });
        let chain = chain.transpose()?;
        let mut notes = Vec::new();
        let host = host(socket.ip(), chain.as_deref(), &mut notes);
        let scheme = if chain.is_some() { Scheme::Https } else { Scheme::Http };
        let mut reach = Self::at(BaseUrl { scheme, host, port: socket.port() });
        reach.notes = notes;
        if let Some(chain) = &chain {
            reach.trust(chain);
        }
        Ok(reach)
    }

    /// A host that is one upstream's own means that upstream, whatever else a request says.
    fn owner<'a>(&self, upstreams: &'a [Upstream]) -> Option<&'a Upstream> {
        let is_ours = |own: &String| *own == self.base.authority() || *own == self.base.host;
        upstreams.iter().find(|upstream| upstream.hosts.iter().any(is_ours))
    }

    /// Tells what clients find, the first of `upstreams` as the default one, and what they don't:
    /// nobody can be told a mirror for an upstream that has no images' names of its own.
    fn find(&mut self, upstreams: &[Upstream]) {
        for (index, upstream) in upstreams.iter().enumerate() {
            let name = &upstream.name;
            let new = |registry: String| Registry {
                name: name.clone(),
                origin: origin(&registry, &upstream.url),
                registry,
                hosts: upstream.hosts.clone(),
                is_default: index == 0,
            };
            let Some(registry) = upstream.registry() else {
                let here = self.by_name(&new(upstream.url.authority()));
                let here = here.unwrap_or_else(|| "no path".to_owned());
                self.notes.push(format!(
                    "{name} is a part of {} (`prefix`) and mirrors none of its other images, so no \
                     client is told of it: pull {here}/….",
                    upstream.url.authority()
                ));
                continue;
            };
            if let Some(other) = self.registries.iter().find(|other| other.registry == registry) {
                self.notes.push(format!(
                    "{name} is for the images of {registry}, as {} before it, which clients are \
                     told of alone.",
                    other.name
                ));
                continue;
            }
            self.registries.push(new(registry));
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme == Scheme::Http
    }

    /// The address as the first part of an image's name, where a client would take a bare word for
    /// a repository on Docker Hub.
    pub(super) fn as_registry(&self) -> String {
        self.in_a_name(self.base.authority())
    }

    fn in_a_name(&self, authority: String) -> String {
        match authority.contains(['.', ':']) || authority == "localhost" {
            true => authority,
            false => format!("{authority}:{}", self.base.port),
        }
    }

    /// Where a repository of `registry` is found without any other word in the request.
    pub(super) fn by_name(&self, registry: &Registry) -> Option<String> {
        let fits = Repository::parse(&registry.name).is_ok();
        match (fits, registry.is_default) {
            (true, _) => Some(format!("{}/{}", self.as_registry(), registry.name)),
            (false, true) => Some(self.as_registry()),
            (false, false) => {
                registry.hosts.first().map(|host| self.in_a_name(self.with_host(host)))
            }
        }
    }

    /// The hosts of such places, each once: what a client must trust or be allowed to speak plain to.
    pub(super) fn authorities(places: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for place in places {
            let host = place.split('/').next().unwrap_or_default().to_owned();
            if !found.contains(&host) {
                found.push(host);
            }
        }
        found
    }

    /// `host`, at our port unless it has one.
    pub(super) fn with_host(&self, host: &str) -> String {
        let base = BaseUrl { host: host.to_owned(), ..self.base.clone() };
        if host.contains(':') { host.to_owned() } else { base.authority() }
    }
}

/// The registry itself, which may be another than our upstream for it.
fn origin(registry: &str, url: &BaseUrl) -> String {
    match registry {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        _ if *registry == url.authority() => url.to_string(),
        _ => format!("https://{registry}"),
    }
}

/// A host to connect to, for the address of a listener.
fn host(listening: IpAddr, chain: Option<&str>, notes: &mut Vec<String>) -> String {
    let Some(chain) = chain else { return bare_host(listening, notes) };
    // A certificate says under which name it can be believed.
    let names = trust::names(chain);
    if let Some(name) = names.iter().find(|name| listening.is_loopback() || !is_loopback(name)) {
        notes.push(format!("Clients use {name}, which its certificate names."));
        return name.clone();
    }
    let host = bare_host(listening, notes);
    if !trust::covers(chain, &host) {
        notes.push(format!(
            "Its certificate is not for {host}, so clients will refuse it: say with --address under \
             which of its names they reach it."
        ));
    }
    host
}

/// Whether a name leads every machine to itself (RFC 6761 §6.3).
fn is_loopback(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_address || name == "localhost" || name.ends_with(".localhost")
}

/// The same for one without a certificate.
fn bare_host(listening: IpAddr, notes: &mut Vec<String>) -> String {
    if listening.is_loopback() {
        notes.push(format!("{listening} can be reached from this machine only."));
    }
    if !listening.is_unspecified() {
        return listening.to_string();
    }
    match outward(listening) {
        Some(address) => {
            notes.push(format!(
                "{listening} means every address and is none to connect to: {address} is this \
                 machine's on its way out. --address says another, such as a name in DNS."
            ));
            address.to_string()
        }
        None => {
            let loopback = if listening.is_ipv4() { "127.0.0.1" } else { "::1" };
            notes.push(format!(
                "{listening} means every address and is none to connect to, and this machine has \
                 no way out: {loopback} is for clients on this machine. --address says another."
            ));
            loopback.to_owned()
        }
    }
}

/// The address that this machine would send from; IPv4's also where both are listened at, since more
/// clients have it. Nothing is sent: connecting a datagram socket only looks up a route (to addresses
/// that are kept for documentation, RFC 5737 and 3849).
pub(in crate::cli) fn outward(listening: IpAddr) -> Option<IpAddr> {
    let v4 = || route("0.0.0.0:0", "192.0.2.1:9");
    match listening {
        IpAddr::V4(_) => v4(),
        IpAddr::V6(_) => v4().or_else(|| route("[::]:0", "[2001:db8::1]:9")),
    }
}

fn route(any: &str, target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

fn given_authority(path: &Path) -> Result<String, Problem> {
    let text = fs::read_to_string(path)
        .map_err(|error| Problem::about(path, format!("can't be read: {error}; check --ca")))?;
    match trust::count(&text) {
        0 => Err(Problem::about(path, "has no certificate in it; give a PEM file to --ca")),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(config: &str, address: Option<&str>) -> Result<Reach, Problem> {
        let config = Config::parse(config, "test").unwrap();
        let address = address.map(|text| text.parse().unwrap());
        Reach::of(&config, address.as_ref(), None)
    }

    #[test]
    fn the_address_is_one_that_a_client_can_connect_to() {
        for (config, url) in [
            ("listen: [{ address: 10.0.0.5:5000 }]", "http://10.0.0.5:5000"),
            ("listen: [{ address: 127.0.0.1:5000 }, { address: 10.0.0.5:80 }]", "http://10.0.0.5"),
            ("listen: [{ address: 127.0.0.1:5000 }]", "http://127.0.0.1:5000"),
            (
                "listen: [{ address: \"unix:/a\" }, { address: \"[::1]:5000\" }]",
                "http://[::1]:5000",
            ),
        ] {
            assert_eq!(reach(config, None).unwrap().base.to_string(), url);
        }
        let any = reach("", None).unwrap();
        assert!(any.base.host.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified()));
        assert!(any.notes.iter().any(|note| note.contains("--address")), "{:?}", any.notes);
    }

    #[test]
    fn where_there_is_no_address_it_must_be_said() {
        for config in ["listen: [{ address: \"unix:/a\" }]", "listen: [{ address: 127.0.0.1:0 }]"] {
            assert!(reach(config, None).unwrap_err().to_string().contains("--address"));
            let given = reach(config, Some("https://mirror.corp")).unwrap();
            assert_eq!(given.base.authority(), "mirror.corp");
        }
    }

    #[test]
    fn the_host_is_one_that_the_certificate_names_and_others_can_reach() {
        for (listening, names, expected, note) in [
            ("10.0.0.5", &["localhost", "127.0.0.1", "m.corp"][..], "m.corp", "Clients use m.corp"),
            ("127.0.0.1", &["localhost", "m.corp"], "localhost", "Clients use localhost"),
            ("10.0.0.5", &["localhost"], "10.0.0.5", "is not for 10.0.0.5"),
            ("10.0.0.5", &["*.corp"], "10.0.0.5", "is not for 10.0.0.5"),
        ] {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let chain = rcgen::generate_simple_self_signed(names).unwrap().cert.pem();
            let mut notes = Vec::new();
            let found = host(listening.parse().unwrap(), Some(&chain), &mut notes);
            assert_eq!(found, expected);
            assert!(notes.iter().any(|found| found.contains(note)), "{notes:?}");
        }
    }

    #[test]
    fn a_listener_at_every_address_is_told_by_that_of_ipv4() {
        let v4 = outward(IpAddr::from([0; 4]));
        if v4.is_some() {
            assert_eq!(outward(IpAddr::from([0; 16])), v4);
        }
    }

    #[test]
    fn a_bare_word_gets_its_port_in_an_image_s_name() {
        for (url, name) in [
            ("https://mirror", "mirror:443"),
            ("http://mirror", "mirror:80"),
            ("https://mirror.corp", "mirror.corp"),
            ("http://localhost", "localhost"),
        ] {
            assert_eq!(reach("", Some(url)).unwrap().as_registry(), name);
        }
        let config = "upstreams: [{ name: docker.io }, { name: \"r:5\", url: \"http://r:5\", hosts: [hub] }]";
        let reach = reach(config, Some("https://m.corp")).unwrap();
        assert_eq!(reach.by_name(&reach.registries[1]).as_deref(), Some("hub:443"));
    }

    #[test]
    fn registries_go_by_the_names_of_their_images() {
        let config = "upstreams: [{ name: docker.io, url: \"http://10.0.0.1:5000\" }, { name: corp, \
                      url: \"http://registry.corp:5000\" }, { name: \"r:5\", url: \"http://r:5\" }]";
        let reach = reach(config, Some("http://m:5")).unwrap();
        let all: Vec<_> = reach.registries.iter().collect();
        let told =
            all.iter().map(|it| (it.registry.as_str(), it.origin.as_str(), reach.by_name(it)));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("docker.io", "https://registry-1.docker.io", Some("m:5/docker.io".into())),
                ("registry.corp:5000", "http://registry.corp:5000", Some("m:5/corp".into())),
                ("r:5", "http://r:5", None),
            ]
        );
    }

    #[test]
    fn an_upstream_that_is_no_whole_registry_is_no_mirror_and_told_of() {
        let config = "upstreams: [{ name: docker.io }, { name: hub, url: \"https://harbor.corp\", \
                      prefix: dockerhub }, { name: twin, url: \"https://registry-1.docker.io\" }, \
                      { name: corp, url: \"https://harbor.corp\" }]";
        let reach = reach(config, Some("https://m.corp")).unwrap();
        let names: Vec<_> = reach.registries.iter().map(|it| it.registry.as_str()).collect();
        assert_eq!(names, ["docker.io", "harbor.corp"]);
        assert_eq!(reach.by_name(&reach.registries[1]).unwrap(), "m.corp/corp");
        for words in ["hub is a part of harbor.corp", "pull m.corp/hub/…", "twin is for the images"]
        {
            assert!(reach.notes.iter().any(|note| note.contains(words)), "{:?}", reach.notes);
        }
        let config = "upstreams: [{ name: docker.io }, { name: hub, url: \"https://harbor.corp\", \
                      prefix: dockerhub, hosts: [hub.lan] }]";
        let owned = super::tests::reach(config, Some("https://hub.lan")).unwrap();
        assert!(owned.registries.is_empty(), "{:?}", owned.registries);
    }

    #[test]
    fn a_host_of_one_upstream_is_for_it_alone() {
        let config = "upstreams: [{ name: docker.io }, { name: ghcr.io, hosts: [ghcr.lan] }]";
        let reach = reach(config, Some("https://ghcr.lan")).unwrap();
        let registries: Vec<_> = reach.registries.iter().map(|it| it.registry.as_str()).collect();
        assert_eq!(registries, ["ghcr.io"]);
    }
}
