//! How the command line shows who it is, and knows that it speaks to the right server.
//!
//! The password and the client's certificate come from files that the environment names, since
//! arguments can be seen by everybody on the machine. The server is known by an authority: one of the
//! system's, or one whose certificate stands in admin.tls.certificate behind the server's own. A
//! self-signed one is its own authority, as long as it does not say that it is one (`CA:TRUE`).

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio_rustls::rustls::crypto::ring;
use ureq::{
    config::Config as Settings,
    http::Uri,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};
use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

use super::access::Trouble;
use crate::config::{Admin, Tls};

const USER: &str = "ROADSTEAD_ADMIN_USER";
const PASSWORD_FILE: &str = "ROADSTEAD_ADMIN_PASSWORD_FILE";
const CERTIFICATE: &str = "ROADSTEAD_ADMIN_CLIENT_CERTIFICATE";
const KEY: &str = "ROADSTEAD_ADMIN_CLIENT_KEY";

/// The one address that is asked, whatever its certificate calls it.
#[derive(Debug)]
pub(in crate::cli) struct There(pub(in crate::cli) SocketAddr);

// === impl There ===

impl Resolver for There {
    fn resolve(
        &self,
        _: &Uri,
        _: &Settings,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(self.0);
        Ok(found)
    }
}

/// Where the server can be reached from its own machine.
pub(in crate::cli) fn address(admin: &Admin) -> SocketAddr {
    let mut address = admin.address;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}

/// `Authorization`, if the environment names a user.
pub(in crate::cli) fn authorization() -> Result<Option<String>, Trouble> {
    let Some(user) = variable(USER) else {
        return match variable(PASSWORD_FILE) {
            None => Ok(None),
            Some(_) => {
                Err(Trouble::Usage(format!("{PASSWORD_FILE} is set; name its user in {USER}")))
            }
        };
    };
    let Some(file) = variable(PASSWORD_FILE) else {
        let problem = format!("{USER} is set; name the file with the password in {PASSWORD_FILE}");
        return Err(Trouble::Usage(problem));
    };
    let password = read(Path::new(&file), PASSWORD_FILE)?;
    let password = String::from_utf8_lossy(&password);
    let pair = format!("{user}:{}", password.trim_end_matches(['\r', '\n']));
    Ok(Some(format!("Basic {}", STANDARD.encode(pair))))
}

/// How TLS is spoken with a server that is configured so: all that its file holds is believed, beside
/// the system's authorities.
pub(in crate::cli) fn tls(tls: &Tls) -> Result<TlsConfig, Trouble> {
    let system = rustls_native_certs::load_native_certs().unwrap_or_default();
    let mut roots: Vec<Certificate<'static>> =
        system.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    roots.extend(certificates(&read(&tls.certificate, "admin.tls.certificate")?));
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client_certificate()?)
        .build())
}

fn client_certificate() -> Result<Option<ClientCert>, Trouble> {
    let (certificate, key) = match (variable(CERTIFICATE), variable(KEY)) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            let problem = format!("a certificate has a key: name both, in {CERTIFICATE} and {KEY}");
            return Err(Trouble::Usage(problem));
        }
    };
    let chain = certificates(&read(Path::new(&certificate), CERTIFICATE)?);
    let pem = read(Path::new(&key), KEY)?;
    let key = PrivateKey::from_pem(&pem).map_err(|_| {
        Trouble::Usage(format!("{KEY}: {key} holds no private key; write it in PEM"))
    })?;
    Ok(Some(ClientCert::new_with_certs(&chain, key)))
}

/// A name or else an address for which the server's certificate is good, and the port; where it is
/// asked if the certificate has none.
pub(in crate::cli) fn name(tls: &Tls, address: SocketAddr) -> Result<String, Trouble> {
    let text = read(&tls.certificate, "admin.tls.certificate")?;
    Ok(named(&text, address.port()).unwrap_or_else(|| address.to_string()))
}

fn named(pem: &[u8], port: u16) -> Option<String> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let host = names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(format!("{}:{port}", name.replace('*', "roadstead"))),
        _ => None,
    });
    let address = || {
        names.iter().find_map(|name| match name {
            GeneralName::IPAddress(bytes) => Some(SocketAddr::new(ip(bytes)?, port).to_string()),
            _ => None,
        })
    };
    host.or_else(address)
}

/// As a certificate has it (RFC 5280 §4.2.1.6): 4 bytes or 16.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(Result::ok);
    items
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Trouble> {
    fs::read(path).map_err(|error| {
        let path = path.display();
        Trouble::Usage(format!("{what}: {path} can't be read: {error}; correct the path"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_asked_for_by_a_name_that_it_has() {
        for (names, expected) in [
            (vec!["10.0.0.1", "cache.corp"], Some("cache.corp:5001")),
            (vec!["*.corp"], Some("roadstead.corp:5001")),
            (vec!["10.0.0.1", "::1"], Some("10.0.0.1:5001")),
            (vec!["::1"], Some("[::1]:5001")),
            (vec![], None),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
            let pem = made.cert.pem();
            assert_eq!(named(pem.as_bytes(), 5001).as_deref(), expected, "{names:?}");
        }
    }
}
