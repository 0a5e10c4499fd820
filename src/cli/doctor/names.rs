//! DNS: has every host that is connected to by name an address, and of which family.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use url::Url;

use super::finding::{Check, Finding, Group};
use crate::config::{Config, Upstream};

const HOST: Check = Check(Group::Dns, "addresses");

/// A name that takes longer is slow for everybody.
const SLOW: Duration = Duration::from_secs(1);

/// A host, and whether it is our resolver that it is looked up by.
type Hosts = BTreeMap<String, bool>;

/// Every host: those of upstreams, their mirrors and token services, and of proxies. Of an upstream
/// that is configured offline there are none: it is not asked, and may have no name here.
pub(super) fn hosts(config: &Config) -> Hosts {
    let mut hosts = Hosts::new();
    for upstream in config.upstreams.iter().filter(|upstream| !upstream.offline) {
        let mirrors = upstream.mirrors.iter().map(|mirror| &mirror.registry);
        for registry in std::iter::once(upstream).chain(mirrors) {
            add(&mut hosts, registry);
        }
    }
    hosts.retain(|host, _| host.parse::<IpAddr>().is_err());
    hosts
}

fn add(hosts: &mut Hosts, registry: &Upstream) {
    let own = Url::parse(&registry.url.to_string()).ok();
    for url in own.iter().chain(&registry.token_realms) {
        let Some(host) = url.host_str() else { continue };
        let host = host.trim_matches(['[', ']']).to_owned();
        let is_ours = registry.proxy.for_url(url).is_none();
        // Needed directly once, it is looked up.
        *hosts.entry(host).or_insert(false) |= is_ours;
    }
    for proxy in registry.proxy.servers() {
        hosts.insert(proxy.host.clone(), true);
    }
}

/// Looks one host up.
pub(super) async fn check(host: String, is_ours: bool) -> Finding {
    let began = Instant::now();
    let found = tokio::net::lookup_host((host.as_str(), 443)).await;
    let took = began.elapsed();
    let addresses: Vec<_> = match found {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) if !is_ours => {
            let found = format!("has no address here ({error}); its proxy looks it up");
            return HOST.ok(&host, found);
        }
        Err(error) => {
            let command = format!("getent ahosts {host}");
            let remedy = "look at the name, and at this machine's resolver (/etc/resolv.conf)";
            return HOST.fault(&host, format!("has no address: {error}"), remedy).run(command);
        }
    };
    judge(&host, &addresses, took, has_way_by_ipv6())
}

fn judge(host: &str, addresses: &[IpAddr], took: Duration, has_ipv6: bool) -> Finding {
    let (six, four): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6());
    let shown = |addresses: &[&IpAddr], family: &str| match addresses {
        [] => format!("none of {family}"),
        [one] => format!("{one}"),
        [one, rest @ ..] => format!("{one} and {} more of {family}", rest.len()),
    };
    let found =
        format!("{}, {} ({} ms)", shown(&four, "IPv4"), shown(&six, "IPv6"), took.as_millis());
    if four.is_empty() && !six.is_empty() && !has_ipv6 {
        let remedy = "give this machine a way out by IPv6, or name a proxy that has one";
        return HOST.fault(host, format!("{found}; and there is no way out by IPv6"), remedy);
    }
    if took > SLOW {
        let remedy = "look at the resolvers in /etc/resolv.conf: the first one may not answer";
        return HOST.warning(host, found, remedy);
    }
    HOST.ok(host, found)
}

/// Whether there is a route; nothing is sent (the address is kept for documentation, RFC 3849).
fn has_way_by_ipv6() -> bool {
    let target: SocketAddr = ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9).into();
    UdpSocket::bind("[::]:0").and_then(|socket| socket.connect(target)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn names_are_those_that_are_connected_to() {
        let config = "upstreams: [{ name: docker.io }, { name: near, url: 'http://127.0.0.1:1' }, \
                      { name: r.corp, url: 'https://r.corp', proxy: 'http://p.corp:3128' }, \
                      { name: off.corp, url: 'https://off.corp', offline: true }]";
        let hosts = hosts(&Config::parse(config, "test").unwrap());
        assert!(hosts.contains_key("registry-1.docker.io"), "{hosts:?}");
        assert!(hosts.contains_key("auth.docker.io"), "{hosts:?}");
        assert_eq!((hosts.get("r.corp"), hosts.get("p.corp")), (Some(&false), Some(&true)));
        assert!(!hosts.contains_key("127.0.0.1"));
        assert!(!hosts.contains_key("off.corp"), "{hosts:?}");
    }

    #[test]
    fn ipv6_alone_needs_a_way_out_by_it() {
        let (four, six) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let level =
            |addresses: &[IpAddr], has_ipv6| judge("h", addresses, Duration::ZERO, has_ipv6).level;
        assert_eq!(level(&[six], false), Level::Fault);
        assert_eq!(level(&[six], true), Level::Ok);
        assert_eq!(level(&[four, six], false), Level::Ok);
        assert_eq!(judge("h", &[four], SLOW * 2, true).level, Level::Warning);
    }
}
