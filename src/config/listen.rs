//! Where Roadstead listens: for clients, and for its operator.
//!
//! Addresses are parsed here and bound by `server`. The operator's side has no password yet,
//! so it is kept on the loopback interface.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::address::{Address, parse_socket};
use super::problem::{Refusal, Scope};
use super::raw::{RawAdmin, RawListen, RawTls};

/// One listener for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What to bind. Default: `0.0.0.0:5000`.
    pub address: Address,
    /// Present: speak TLS on it. Never present on a Unix socket.
    pub tls: Option<Tls>,
}

/// A certificate and its key; both could be opened when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the chain, the leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// The second listener: health, metrics, API and dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// A loopback address. Default: `127.0.0.1:5001`.
    pub address: SocketAddr,
}

// === impl Listen ===

impl Default for Listen {
    fn default() -> Self {
        Self { address: Address::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5000))), tls: None }
    }
}

impl Listen {
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
        address.into_iter().map(|address| Self { address, tls: None }).collect()
    }

    fn read(scope: &Scope<'_>, raw: RawListen) -> Option<Self> {
        let tls = raw.tls.and_then(|tls| Tls::read(&scope.at("tls"), tls));
        let scope = scope.at("address");
        let Some(address) = raw.address else {
            scope.refuse("is missing", "write an address such as 0.0.0.0:5000");
            return None;
        };
        let address = scope.check(address.parse())?;
        if tls.is_some() && matches!(address, Address::Unix(_)) {
            scope.refuse("a Unix socket can't speak TLS", "remove tls from this entry");
        }
        Some(Self { address, tls })
    }

    pub(super) fn to_raw(&self) -> RawListen {
        RawListen {
            address: Some(self.address.to_string()),
            tls: self.tls.as_ref().map(|tls| RawTls {
                certificate: Some(tls.certificate.display().to_string()),
                key: Some(tls.key.display().to_string()),
            }),
        }
    }
}

// === impl Tls ===

impl Tls {
    fn read(scope: &Scope<'_>, raw: RawTls) -> Option<Self> {
        let certificate = scope.at("certificate").required_file(raw.certificate);
        let key = scope.at("key").required_file(raw.key);
        Some(Self { certificate: certificate?, key: key? })
    }
}

// === impl Admin ===

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 5001)) }
    }
}

impl Admin {
    pub(super) fn read(scope: &Scope<'_>, raw: RawAdmin) -> Self {
        match raw.address {
            Some(text) => Self::from_text(&scope.at("address"), &text),
            None => Self::default(),
        }
    }

    /// The value of `admin.address`, or of the flag.
    pub(super) fn from_text(scope: &Scope<'_>, text: &str) -> Self {
        let outcome = parse_socket(text, "127.0.0.1:5001").and_then(on_loopback);
        scope.check(outcome).map_or_else(Self::default, |address| Self { address })
    }

    pub(super) fn to_raw(&self) -> RawAdmin {
        RawAdmin { address: Some(self.address.to_string()) }
    }
}

fn on_loopback(address: SocketAddr) -> Result<SocketAddr, Refusal> {
    let ip: IpAddr = address.ip();
    if ip.is_loopback() {
        return Ok(address);
    }
    Err(Refusal::new(
        format!("{ip} is not a loopback address, and the admin side has no password yet"),
        format!("write 127.0.0.1:{}", address.port()),
    ))
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
    fn an_empty_or_unaddressed_listener_is_refused() {
        assert!(refused("listen: []").contains("listen: the list is empty"));
        assert!(refused("listen: [{}]").contains("listen[0].address: is missing"));
    }

    #[test]
    fn the_admin_side_stays_on_loopback() {
        assert_eq!(
            refused("admin: { address: 0.0.0.0:9000 }"),
            "test.yaml: admin.address: 0.0.0.0 is not a loopback address, and the admin side has no \
             password yet; write 127.0.0.1:9000"
        );
        assert_eq!(parsed("admin: { address: \"[::1]:9\" }").admin.address.port(), 9);
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
