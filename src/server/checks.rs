//! What must be true before a start: addresses that are free, certificates to check upstreams with.
//!
//! Pingora panics on an address that is taken, and rustls is silent about a system without
//! certificates, so both are tried before.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
};

use super::{StartError, listening};
use crate::config::{Address, Config};

/// rustls finds no certificates in an empty container image, and says nothing.
pub(super) fn roots(config: &Config) -> Result<(), StartError> {
    let needs = config
        .upstreams
        .iter()
        .find(|upstream| upstream.speaks_tls() && upstream.ca_file.is_none());
    let Some(upstream) = needs else { return Ok(()) };
    let found = rustls_native_certs::load_native_certs().is_ok_and(|certs| !certs.is_empty());
    if found {
        return Ok(());
    }
    Err(StartError::Config(format!(
        "upstreams: {}: this system has no CA certificates to check it with; install the package ca-certificates, or name a file under ca_file",
        upstream.name
    )))
}

/// Each address must be free, but for those of the `inherited` names, whose sockets come from the
/// process before as they are.
pub(super) fn addresses(config: &Config, inherited: &HashSet<String>) -> Result<(), StartError> {
    let inherits = |address: &Address| inherited.contains(&listening::name(address));
    for listen in &config.listen {
        match &listen.address {
            Address::Tcp(address) if inherits(&listen.address) => {
                same(config, *address, inherited)?
            }
            Address::Unix(_) if inherits(&listen.address) => {}
            Address::Tcp(address) => tcp("listen", *address)?,
            Address::Unix(path) => unix(path)?,
        }
    }
    let admin = config.admin.address;
    if inherits(&Address::Tcp(admin)) {
        return Ok(());
    }
    tcp("admin.address", admin)
}

/// Whether a socket for all of IPv6 takes IPv4 too is settled when it is bound: by whether IPv4 has
/// the port for itself.
fn same(
    config: &Config,
    address: SocketAddr,
    inherited: &HashSet<String>,
) -> Result<(), StartError> {
    let others = inherited.iter().filter_map(|name| name.parse::<SocketAddr>().ok());
    let had_ipv4 = others.filter(SocketAddr::is_ipv4).any(|other| other.port() == address.port());
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    if !is_any || had_ipv4 == listening::has_ipv4(config, address.port()) {
        return Ok(());
    }
    let problem = match had_ipv4 {
        true => "its socket is for IPv6 alone, and no IPv4 address has the port any more",
        false => "its socket takes IPv4 too, and an IPv4 address is to have the port now",
    };
    let remedy = "a socket that is handed over stays as it is; restart instead";
    let (address, problem) = (address.to_string(), problem.to_owned());
    Err(StartError::Listen { key: "listen", address, problem, remedy })
}

fn tcp(key: &'static str, address: SocketAddr) -> Result<(), StartError> {
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "end the program that listens there, or name another port",
        io::ErrorKind::PermissionDenied => "name a port above 1023, or grant CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "name an address of this machine",
        _ => "name another address",
    };
    let (address, problem) = (address.to_string(), error.to_string());
    Err(StartError::Listen { key, address, problem, remedy })
}

/// A socket that nobody answers on was left by a server that was killed.
fn unix(path: &Path) -> Result<(), StartError> {
    let taken = UnixStream::connect(path).is_ok();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let (problem, remedy) = if taken {
        ("another program listens there", "end it, or name another path")
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        ("its folder does not exist", "create it, or name another path")
    } else {
        return Ok(());
    };
    let (key, address) = ("listen", path.display().to_string());
    Err(StartError::Listen { key, address, problem: problem.to_owned(), remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_handed_over_only_as_it_is() {
        let told = |before: &[&str], now: &[&str]| {
            let listen = now.join("\" }, { address: \"");
            let text = format!(
                "{{ listen: [{{ address: \"{listen}\" }}], admin: {{ address: 127.0.0.1:2 }} }}"
            );
            let config = Config::parse(&text, "test").unwrap();
            let inherited = before.iter().chain(&["127.0.0.1:2"]).map(|&name| name.to_owned());
            let refused = addresses(&config, &inherited.collect()).err();
            refused.map_or_else(String::new, |error| error.to_string())
        };
        let (both, six) = (["[::]:1", "0.0.0.0:1"], ["[::]:1"]);
        assert_eq!(told(&both, &both), "");
        assert_eq!(told(&six, &six), "");
        assert_eq!(told(&["[::1]:1", "0.0.0.0:1"], &["[::1]:1"]), "");
        let line = told(&both, &six);
        assert!(line.starts_with("listen: [::]:1: its socket is for IPv6 alone"), "{line}");
        let line = told(&six, &both);
        assert!(line.contains("its socket takes IPv4 too") && line.ends_with("restart instead"));
    }
}
