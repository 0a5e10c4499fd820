//! What must be true before a start: addresses that are free, certificates to check upstreams with.
//!
//! Pingora panics on an address that is taken, and rustls is silent about a system without
//! certificates, so both are tried before.

use std::{
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

/// Each address must be free, but for those that are `inherited` from the process before.
pub(super) fn addresses(
    config: &Config,
    inherited: impl Fn(&str) -> bool,
) -> Result<(), StartError> {
    for listen in &config.listen {
        match &listen.address {
            address if inherited(&listening::name(address)) => {}
            Address::Tcp(address) => tcp("listen", *address)?,
            Address::Unix(path) => unix(path)?,
        }
    }
    let admin = config.admin.address;
    if inherited(&listening::name(&Address::Tcp(admin))) {
        return Ok(());
    }
    tcp("admin.address", admin)
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
