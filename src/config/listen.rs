//! Where Roadstead listens for clients.
//!
//! Addresses are parsed here and bound by `server`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::access::Access;
use super::address::Address;
use super::problem::{Refusal, Scope, quoted};
use super::raw::{RawListen, RawListenTls, RawTls};
use super::transparent::{Others, Transparent};

/// One listener for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What to bind. Default: `0.0.0.0:5000`.
    pub address: Address,
    /// Present on a Unix socket alone: its permissions; to connect is to write. Default: 0660.
    pub mode: Option<u32>,
    /// Whether each connection begins with a PROXY header, which only `trusted_proxies` may send.
    /// Default: false.
    pub proxy_protocol: bool,
    /// Present: speak TLS on it. Never present on a Unix socket.
    pub tls: Option<Tls>,
    /// Present: it is for clients that go to the registries themselves. Never present on a Unix
    /// socket.
    pub transparent: Option<Transparent>,
}

/// A certificate and its key; both could be opened when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the chain, the leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities of the clients' certificates. Present: a client must show one
    /// that is signed by them.
    pub client_ca: Option<PathBuf>,
}

/// The files of a certificate and its key; both could be opened when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// PEM file with the certificate.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// Of a Unix socket: whoever shares Roadstead's group may connect.
const UNIX_MODE: u32 = 0o660;

// === impl Listen ===

impl Default for Listen {
    fn default() -> Self {
        Self::plain(Address::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5000))))
    }
}

impl Listen {
    /// HTTP and nothing else.
    pub fn plain(address: Address) -> Self {
        let mode = matches!(address, Address::Unix(_)).then_some(UNIX_MODE);
        Self { address, mode, proxy_protocol: false, tls: None, transparent: None }
    }

    pub(super) fn read_all(scope: &Scope<'_>, raw: Option<Vec<RawListen>>) -> Vec<Self> {
        let Some(raw) = raw else {
            return vec![Self::default()];
        };
        if raw.is_empty() {
            scope
                .refuse("the list is empty", "add `- address: 0.0.0.0:5000`, or leave the key out");
        }
        let mut listeners: Vec<Self> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let scope = scope.item(index);
            let Some(listener) = Self::read(&scope, raw) else {
                continue;
            };
            if listeners.iter().any(|other| other.address.overlaps(&listener.address)) {
                scope.at("address").refuse(
                    format!("{} is already taken by another entry", listener.address),
                    "remove one of them",
                );
            }
            listeners.push(listener);
        }
        listeners
    }

    pub(super) fn from_flag(scope: &Scope<'_>, text: &str) -> Vec<Self> {
        let address = scope.check(text.parse());
        address.into_iter().map(Self::plain).collect()
    }

    fn read(scope: &Scope<'_>, raw: RawListen) -> Option<Self> {
        let tls = raw.tls.and_then(|tls| Tls::read(&scope.at("tls"), tls));
        let transparent = raw
            .transparent
            .and_then(|transparent| Transparent::read(&scope.at("transparent"), transparent));
        let at_address = scope.at("address");
        let Some(address) = raw.address else {
            at_address.refuse("is missing", "write an address such as 0.0.0.0:5000");
            return None;
        };
        let address = at_address.check(address.parse())?;
        if matches!(address, Address::Unix(_)) {
            if tls.is_some() {
                at_address.refuse("a Unix socket can't speak TLS", "remove tls from this entry");
            }
            if transparent.is_some() {
                let remedy = "give this entry an IP address and a port";
                at_address.refuse("no client goes to a registry by a Unix socket", remedy);
            }
        }
        if tls.is_some() && transparent.is_some() {
            let what = "a transparent listener makes its certificates for each host";
            scope.at("tls").refuse(what, "remove tls from this entry");
        }
        let mut listener = Self::plain(address);
        if let Some(text) = raw.mode {
            let scope = scope.at("mode");
            if listener.mode.is_none() {
                scope.refuse("only a Unix socket has permissions", "remove it from this entry");
            }
            listener.mode = scope.check(parse_mode(&text));
        }
        let proxy_protocol = raw.proxy_protocol.unwrap_or(false);
        Some(Self { proxy_protocol, tls, transparent, ..listener })
    }

    /// Refuses what goes against the rest of the configuration.
    pub(super) fn check_beside(
        &self,
        scope: &Scope<'_>,
        trusted_proxies: &[IpNet],
        access: &Access,
    ) {
        let has_peers = matches!(self.address, Address::Tcp(_));
        if self.proxy_protocol && has_peers && trusted_proxies.is_empty() {
            scope.at("proxy_protocol").refuse(
                "nobody is trusted to send a PROXY header",
                "list the balancer's address under trusted_proxies",
            );
        }
        let tunnels = |found: &Transparent| found.others == Others::Tunnel;
        if access.htpasswd.is_some() && self.transparent.as_ref().is_some_and(tunnels) {
            scope.at("transparent").at("others").refuse(
                "a tunnel asks nobody for the password of access.htpasswd",
                "write refuse, list single hosts under tunnel_hosts, or remove access.htpasswd",
            );
        }
    }

    pub(super) fn to_raw(&self) -> RawListen {
        RawListen {
            address: Some(self.address.to_string()),
            mode: self.mode.map(|mode| format!("{mode:04o}")),
            proxy_protocol: Some(self.proxy_protocol),
            tls: self.tls.as_ref().map(Tls::to_raw),
            transparent: self.transparent.as_ref().map(Transparent::to_raw),
        }
    }
}

/// Permissions as `chmod` takes them.
fn parse_mode(text: &str) -> Result<u32, Refusal> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| {
        Refusal::new(
            format!("{} are no permissions", quoted(text)),
            "write them as chmod takes them, such as \"0660\"",
        )
    })
}

// === impl Tls ===

impl Tls {
    pub(super) fn read(scope: &Scope<'_>, raw: RawListenTls) -> Option<Self> {
        let certificate = scope.at("certificate").required_file(raw.certificate);
        let key = scope.at("key").required_file(raw.key);
        let client_ca = scope.at("client_ca").file(raw.client_ca);
        Some(Self { certificate: certificate?, key: key?, client_ca })
    }

    pub(super) fn to_raw(&self) -> RawListenTls {
        RawListenTls {
            certificate: Some(self.certificate.display().to_string()),
            key: Some(self.key.display().to_string()),
            client_ca: self.client_ca.as_ref().map(|path| path.display().to_string()),
        }
    }
}

// === impl KeyFiles ===

impl KeyFiles {
    pub(super) fn read(scope: &Scope<'_>, raw: RawTls) -> Option<Self> {
        let certificate = scope.at("certificate").required_file(raw.certificate);
        let key = scope.at("key").required_file(raw.key);
        Some(Self { certificate: certificate?, key: key? })
    }

    pub(super) fn to_raw(&self) -> RawTls {
        RawTls {
            certificate: Some(self.certificate.display().to_string()),
            key: Some(self.key.display().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};

    #[test]
    fn two_listeners_can_not_share_an_address() {
        let line = refused("listen: [{ address: 127.0.0.1:80 }, { address: 0.0.0.0:80 }]");
        assert_eq!(
            line,
            "test.yaml: listen[1].address: 0.0.0.0:80 is already taken by another entry; remove one of them"
        );
        assert_eq!(
            parsed("listen: [{ address: 0.0.0.0:80 }, { address: 0.0.0.0:81 }]").listen.len(),
            2
        );
        assert_eq!(
            parsed("listen: [{ address: 127.0.0.1:0 }, { address: 127.0.0.1:0 }]").listen.len(),
            2
        );
    }

    #[test]
    fn a_unix_socket_has_permissions() {
        let mode = |keys: &str| {
            let config = parsed(&format!("listen: [{{ address: \"unix:/run/a.sock\"{keys} }}]"));
            assert_eq!(parsed(&config.to_yaml()), config);
            config.listen[0].mode
        };
        assert_eq!(mode(""), Some(0o660));
        for text in ["\"0666\"", "0666", "666"] {
            assert_eq!(mode(&format!(", mode: {text}")), Some(0o666), "{text}");
        }
        for text in ["\"0999\"", "\"4755\"", "rw", "-1"] {
            let line = refused(&format!("listen: [{{ address: \"unix:/a\", mode: {text} }}]"));
            assert!(line.contains("listen[0].mode: ") && line.contains("as chmod takes"), "{line}");
        }
        let line = refused("listen: [{ address: 127.0.0.1:80, mode: \"0600\" }]");
        assert!(line.contains("listen[0].mode: only a Unix socket has permissions"), "{line}");
        assert_eq!(parsed("listen: [{ address: 127.0.0.1:80 }]").listen[0].mode, None);
    }

    #[test]
    fn an_empty_or_unaddressed_listener_is_refused() {
        assert!(refused("listen: []").contains("listen: the list is empty"));
        assert!(refused("listen: [{}]").contains("listen[0].address: is missing"));
    }

    #[test]
    fn a_proxy_header_needs_somebody_to_trust() {
        let listen = "listen: [{ address: 0.0.0.0:80, proxy_protocol: true }]";
        assert_eq!(
            refused(listen),
            "test.yaml: listen[0].proxy_protocol: nobody is trusted to send a PROXY header; \
             list the balancer's address under trusted_proxies"
        );
        assert!(parsed(&format!("{listen}\ntrusted_proxies: [10.0.0.1]")).listen[0].proxy_protocol);
        parsed("listen: [{ address: \"unix:/run/a.sock\", proxy_protocol: true }]");
    }

    #[test]
    fn a_transparent_listener_has_no_certificate_of_its_own_and_no_password() {
        let ((_one, file), (_two, users)) = (scratch_file("pem"), scratch_file("a:b"));
        let files = format!("{{ certificate: {file}, key: {file} }}");
        let line = refused(&format!(
            "listen: [{{ address: 0.0.0.0:443, tls: {files}, transparent: {{ mode: sni, ca: {files} }} }}]"
        ));
        assert!(line.contains("listen[0].tls: a transparent listener makes its"), "{line}");
        let line = refused(&format!(
            "listen: [{{ address: \"unix:/a\", transparent: {{ mode: connect, ca: {files} }} }}]"
        ));
        assert!(line.contains("listen[0].address: no client goes"), "{line}");
        let line = refused(&format!(
            "listen: [{{ address: 0.0.0.0:80, transparent: {{ mode: connect, others: tunnel, ca: {files} }} }}]\n\
             access: {{ htpasswd: {users} }}"
        ));
        assert!(line.contains("listen[0].transparent.others: a tunnel asks nobody"), "{line}");
    }

    #[test]
    fn a_certificate_needs_its_key_and_both_must_exist() {
        let (_kept, file) = scratch_file("pem");
        let line = refused(&format!(
            "listen: [{{ address: 0.0.0.0:443, tls: {{ certificate: {file} }} }}]"
        ));
        assert!(line.contains("listen[0].tls.key: is missing"), "{line}");
        let line = refused(&format!(
            "listen: [{{ address: 0.0.0.0:443, tls: {{ certificate: {file}, key: /nowhere/key }} }}]"
        ));
        assert!(line.contains("listen[0].tls.key: `/nowhere/key` can't be opened"), "{line}");
        let line = refused(&format!(
            "listen: [{{ address: 0.0.0.0:443, tls: {{ certificate: {file}, key: {file}, client_ca: /nowhere/ca }} }}]"
        ));
        assert!(line.contains("listen[0].tls.client_ca: `/nowhere/ca` can't be opened"), "{line}");
        let tls = format!("tls: {{ certificate: {file}, key: {file} }}");
        assert!(
            refused(&format!("listen: [{{ address: \"unix:/a\", {tls} }}]"))
                .contains("can't speak TLS")
        );
        assert!(
            parsed(&format!("listen: [{{ address: 0.0.0.0:443, {tls} }}]"))
                .listen
                .iter()
                .all(|l| l.tls.is_some())
        );
    }
}
