//! Names to addresses, and which addresses may be connected to.
//!
//! Registries and those they redirect to are strangers: a name that resolves
//! into the operator's own network is refused unless it was configured there.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use moka::{future::Cache, sync};

/// How long an answer of the resolver is used.
const KEEP: Duration = Duration::from_secs(30);

/// How long an address that answered is asked first; RFC 8305 §4 advises at most 10 minutes.
const KEEP_WINNER: Duration = Duration::from_secs(600);

/// Names kept.
const NAMES: u64 = 1024;

/// How far an address is from the public network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Public,
    Private,
    Loopback,
    LinkLocal,
    /// Multicast, unspecified, documentation: nothing that answers HTTP.
    Unusable,
}

/// Resolves names through the system's resolver, off the caller's thread.
#[derive(Debug)]
pub(super) struct Resolver {
    known: Cache<(String, u16), Arc<[SocketAddr]>>,
    /// By name, the address that was connected to where the first ones did not answer.
    winners: sync::Cache<String, IpAddr>,
}

// === impl Resolver ===

impl Resolver {
    pub(super) fn new() -> Self {
        Self {
            known: Cache::builder().max_capacity(NAMES).time_to_live(KEEP).build(),
            winners: sync::Cache::builder().max_capacity(NAMES).time_to_live(KEEP_WINNER).build(),
        }
    }

    /// The addresses of `host`, never empty.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Arc::new([SocketAddr::new(address, port)]));
        }
        let lookup = async {
            let found: Arc<[SocketAddr]> = tokio::net::lookup_host((bare, port)).await?.collect();
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            }
            Ok(found)
        };
        let known = self.known.try_get_with((bare.to_owned(), port), lookup).await;
        known.map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    /// Forgets a name whose addresses did not answer.
    pub(super) async fn forget(&self, host: &str, port: u16) {
        self.known.invalidate(&(host.to_owned(), port)).await;
        self.winners.invalidate(host);
    }

    /// The address of `host` to begin with, if one has shown that it answers sooner than others.
    pub(super) fn last_winner(&self, host: &str) -> Option<IpAddr> {
        self.winners.get(host)
    }

    /// `address` is to be asked first from now on.
    pub(super) fn remember_winner(&self, host: &str, address: IpAddr) {
        self.winners.insert(host.to_owned(), address);
    }

    /// A resolver that knows these addresses of a name already.
    #[cfg(test)]
    pub(super) async fn knowing(host: &str, addresses: &[SocketAddr]) -> Self {
        let resolver = Self::new();
        let port = addresses.first().map_or(0, SocketAddr::port);
        resolver.known.insert((host.to_owned(), port), addresses.into()).await;
        resolver
    }
}

/// Whether an address lies in the public network, and not in the operator's own.
pub fn is_public(address: IpAddr) -> bool {
    Class::of(address) == Class::Public
}

// === impl Class ===

impl Class {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) if v4.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) if v4.is_link_local() => Self::LinkLocal,
            // RFC 6598: shared address space of carriers, and of some clouds' own services.
            IpAddr::V4(v4) if v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]) => {
                Self::Private
            }
            // RFC 1122 §3.2.1.3: "this network".
            IpAddr::V4(v4) if matches!(v4.octets(), [0, ..]) => Self::Unusable,
            IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() || v4.is_documentation() => {
                Self::Unusable
            }
            IpAddr::V4(_) => Self::Public,
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if let Some(v4) = address.to_ipv4_mapped() {
            return Self::of(IpAddr::V4(v4));
        }
        match address.segments() {
            // RFC 6052: NAT64 carries an IPv4 address in its last 32 bits.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                Self::of(IpAddr::from([a, b, c, d]))
            }
            _ if address.is_loopback() => Self::Loopback,
            _ if address.is_unspecified() || address.is_multicast() => Self::Unusable,
            _ if address.is_unique_local() => Self::Private,
            _ if address.is_unicast_link_local() => Self::LinkLocal,
            _ => Self::Public,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_own_network_are_told_from_public_ones() {
        let cases = [
            ("127.0.0.1", Class::Loopback),
            ("::1", Class::Loopback),
            ("::ffff:127.0.0.1", Class::Loopback),
            ("10.1.2.3", Class::Private),
            ("192.168.0.1", Class::Private),
            ("172.31.0.1", Class::Private),
            ("100.64.0.1", Class::Private),
            ("fd00::1", Class::Private),
            ("169.254.169.254", Class::LinkLocal),
            ("fe80::1", Class::LinkLocal),
            ("64:ff9b::a00:1", Class::Private),
            ("0.0.0.0", Class::Unusable),
            ("::", Class::Unusable),
            ("224.0.0.1", Class::Unusable),
            ("172.32.0.1", Class::Public),
            ("2606:4700::1", Class::Public),
        ];
        for (text, class) in cases {
            assert_eq!(Class::of(text.parse().unwrap()), class, "{text}");
        }
    }

    #[tokio::test]
    async fn literal_addresses_need_no_resolver() {
        let found = Resolver::new().resolve("[::1]", 5000).await.unwrap();
        assert_eq!(found.first(), Some(&"[::1]:5000".parse().unwrap()));
    }
}
