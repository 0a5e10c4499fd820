//! The operator's listener: where it is, and who may use it.
//!
//! On a loopback address it asks for nothing. Elsewhere it is not opened to everybody: users with
//! passwords, or certificates of clients, must be configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::address::parse_socket;
use super::listen::Tls;
use super::problem::{Refusal, Scope, quoted};
use super::raw::RawAdmin;

/// The second listener: health, metrics, API and dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it is. Default: `127.0.0.1:5001`.
    pub address: SocketAddr,
    /// Present: each request must carry the password of a user of this file, which could be opened
    /// when the configuration was read. Probes need none.
    pub htpasswd: Option<PathBuf>,
    /// Present: speak TLS on it; with `client_ca`, what is no probe must show a certificate.
    pub tls: Option<Tls>,
    /// Names by which browsers and programs reach it, besides its addresses; in lower case, without
    /// ports. Default: none.
    pub hosts: Vec<String>,
}

// === impl Admin ===

impl Default for Admin {
    fn default() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5001));
        Self { address, htpasswd: None, tls: None, hosts: Vec::new() }
    }
}

impl Admin {
    /// The keys of `scope`; where there is a flag, it stands for `admin.address`.
    pub(super) fn read(scope: &Scope<'_>, raw: RawAdmin, flag: Option<(Scope<'_>, &str)>) -> Self {
        let at_file = scope.at("address");
        let (at_address, text) = match &flag {
            Some((at_flag, text)) => (at_flag, Some(*text)),
            None => (&at_file, raw.address.as_deref()),
        };
        let address = match text {
            Some(text) => at_address.check(parse_socket(text, "127.0.0.1:5001")),
            None => None,
        };
        let hosts = scope.at("hosts").each(&raw.hosts.unwrap_or_default(), parse_host);
        let asks =
            raw.htpasswd.is_some() || raw.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let admin = Self {
            address: address.unwrap_or_else(|| Self::default().address),
            htpasswd: scope.at("htpasswd").file(raw.htpasswd),
            tls: raw.tls.and_then(|tls| Tls::read(&scope.at("tls"), tls)),
            hosts,
        };
        if !asks && !admin.address.ip().is_loopback() {
            let (ip, port) = (admin.address.ip(), admin.address.port());
            at_address.refuse(
                format!("{ip} is not a loopback address, and nobody is asked who he is"),
                format!(
                    "name a file of users under admin.htpasswd (made by htpasswd -B) or the \
                     authorities of the clients' certificates under admin.tls.client_ca, or write \
                     127.0.0.1:{port}"
                ),
            );
        }
        admin
    }

    /// Whether requests must say who sends them.
    pub fn asks(&self) -> bool {
        self.htpasswd.is_some() || self.wants_certificates()
    }

    /// Whether connections must show a certificate.
    pub fn wants_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    pub(super) fn to_raw(&self) -> RawAdmin {
        RawAdmin {
            address: Some(self.address.to_string()),
            htpasswd: self.htpasswd.as_ref().map(|path| path.display().to_string()),
            tls: self.tls.as_ref().map(Tls::to_raw),
            hosts: Some(self.hosts.clone()),
        }
    }
}

/// A host name as it stands in a URL, without its port.
fn parse_host(text: &str) -> Result<String, Refusal> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(is_name) {
        return Err(Refusal::new(
            format!("{} is not a host name", quoted(text)),
            "write a name like cache.example.com, without scheme and port",
        ));
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused, scratch_file};

    #[test]
    fn away_from_loopback_somebody_must_be_asked() {
        assert_eq!(
            refused("admin: { address: 0.0.0.0:9000 }"),
            "test.yaml: admin.address: 0.0.0.0 is not a loopback address, and nobody is asked who \
             he is; name a file of users under admin.htpasswd (made by htpasswd -B) or the \
             authorities of the clients' certificates under admin.tls.client_ca, or write \
             127.0.0.1:9000"
        );
        let (_kept, file) = scratch_file("pem");
        let plain = format!("tls: {{ certificate: {file}, key: {file} }}");
        let mutual = format!("tls: {{ certificate: {file}, key: {file}, client_ca: {file} }}");
        let admin = |keys: &str| format!("admin: {{ address: 0.0.0.0:9000, {keys} }}");
        assert!(refused(&admin(&plain)).contains("not a loopback address"), "nobody is asked");
        for keys in [format!("htpasswd: {file}"), mutual, format!("htpasswd: {file}, {plain}")] {
            let config = parsed(&admin(&keys));
            assert!(config.admin.asks());
            assert_eq!(parsed(&config.to_yaml()), config);
        }
        let config = parsed("admin: { address: \"[::1]:9\" }");
        assert!(config.admin.address.port() == 9 && !config.admin.asks());
    }

    #[test]
    fn hosts_are_names_and_nothing_else() {
        let config = parsed("admin: { hosts: [Cache.Corp, roadstead] }");
        assert_eq!(config.admin.hosts, ["cache.corp", "roadstead"]);
        for host in ["http://a", "a:5001", "\"\"", "\"*\""] {
            let line = refused(&format!("admin: {{ hosts: [{host}] }}"));
            assert!(line.contains("admin.hosts[0]: ") && line.contains("; write a name"), "{line}");
        }
    }

    #[test]
    fn files_must_be_there() {
        let line = refused("admin: { htpasswd: /nowhere/users }");
        assert!(line.contains("admin.htpasswd: `/nowhere/users` can't be opened"), "{line}");
        let line = refused("admin: { tls: { certificate: /nowhere/a } }");
        assert!(line.contains("admin.tls.certificate: `/nowhere/a`"), "{line}");
    }
}
