//! A listening address: one grammar, that parses and prints.
//!
//! `IP:PORT`, where `localhost` stands for 127.0.0.1, or `unix:/absolute/path`. Names are not
//! looked up.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::problem::{Refusal, quoted};

/// A listening address: `IP:PORT` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

/// The longest path that fits `sockaddr_un` with its final NUL (unix(7)).
const LONGEST_UNIX_PATH: usize = 107;

// === impl Address ===

impl Address {
    /// Whether binding one makes binding the other fail.
    ///
    /// `[::]` beside `0.0.0.0` does not: it is then bound for IPv6 alone.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let covered =
                    a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() != 0 && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && covered
            }
            (Self::Unix(a), Self::Unix(b)) => a == b,
            _ => false,
        }
    }
}

impl Address {
    /// The port of a TCP address, unless the system chooses it.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()).filter(|port| *port != 0),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let Some(path) = text.strip_prefix("unix:") else {
            return parse_socket(text, "0.0.0.0:5000 or unix:/run/roadstead.sock").map(Self::Tcp);
        };
        if !path.starts_with('/') {
            return Err(Refusal::new(
                format!("{} is not an absolute path", quoted(path)),
                "write it as unix:/run/roadstead.sock",
            ));
        }
        if path.len() > LONGEST_UNIX_PATH {
            return Err(Refusal::new(
                format!("the socket's path has {} bytes", path.len()),
                format!("choose one of at most {LONGEST_UNIX_PATH} bytes"),
            ));
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// `IP:PORT`, where `localhost` stands for 127.0.0.1.
pub(super) fn parse_socket(text: &str, example: &str) -> Result<SocketAddr, Refusal> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        Refusal::new(
            format!("{} is not an IP address with a port", quoted(text)),
            format!("write it as {example}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    #[test]
    fn an_address_prints_as_it_parses() {
        for text in ["0.0.0.0:5000", "[::]:5000", "127.0.0.1:0", "unix:/run/roadstead.sock"] {
            let address: Address = text.parse().expect("a valid address");
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(
            "localhost:80".parse::<Address>().map(|a| a.to_string()),
            Ok("127.0.0.1:80".into())
        );
    }

    #[test]
    fn bad_addresses_are_refused_with_an_example() {
        for text in
            ["5000", ":5000", "0.0.0.0", "0.0.0.0:70000", "example.com:80", "unix:run.sock", ""]
        {
            let line = refused(&format!("listen: [{{ address: \"{text}\" }}]"));
            assert!(line.starts_with("test.yaml: listen[0].address: "), "{line}");
            assert!(line.contains("; write it as "), "{line}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(long.parse::<Address>().is_err());
    }
}
