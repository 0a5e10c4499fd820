//! `NO_PROXY`: which hosts the environment's proxies are not for.
//!
//! Grammar and matching are those of Go's `httpproxy`, since docker and containerd read the same
//! variable: `*`, a name and what lies below it, only below it (`.corp`, `*.corp`), an address, a
//! network; names and addresses with a port hold for that port alone.

use std::net::IpAddr;

use ipnet::IpNet;

/// A parsed list; entries that mean nothing are left out, as Go does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NoProxy(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Everything,
    Network(IpNet),
    Address {
        ip: IpAddr,
        port: Option<u16>,
    },
    /// Without a dot before it, and in lower case.
    Name {
        name: String,
        /// The name itself, besides what lies below it.
        itself: bool,
        port: Option<u16>,
    },
}

// === impl NoProxy ===

impl NoProxy {
    /// Entries between commas.
    pub(super) fn parse(text: &str) -> Self {
        Self(text.split(',').filter_map(|entry| Entry::parse(entry.trim())).collect())
    }

    /// Whether `host` (lower case, IPv6 without brackets) is reached without a proxy.
    pub(super) fn covers(&self, host: &str, port: u16) -> bool {
        let ip = host.parse::<IpAddr>().ok();
        self.0.iter().any(|entry| entry.covers(host, ip, port))
    }
}

// === impl Entry ===

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        let (host, port) = split_port(&text)?;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Self::Address { ip, port });
        }
        let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
        let name = below.unwrap_or(host).to_owned();
        (!name.is_empty()).then_some(Self::Name { name, itself: below.is_none(), port })
    }

    fn covers(&self, host: &str, host_ip: Option<IpAddr>, host_port: u16) -> bool {
        let right_port = |port: &Option<u16>| port.is_none_or(|port| port == host_port);
        match self {
            Self::Everything => true,
            Self::Network(network) => host_ip.is_some_and(|ip| network.contains(&ip)),
            Self::Address { ip, port } => host_ip == Some(*ip) && right_port(port),
            Self::Name { name, itself, port } => {
                let rest = host.strip_suffix(name.as_str());
                let is_below = rest.is_some_and(|rest| rest.ends_with('.'));
                (is_below || (*itself && host == name)) && right_port(port)
            }
        }
    }
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address; brackets go. `None`: no host, or a port
/// that is none.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(list: &str, covered: &[&str], others: &[&str]) {
        let list = NoProxy::parse(list);
        let covers = |target: &&&str| {
            let (host, port) = target.rsplit_once(' ').unwrap_or((target, "443"));
            list.covers(host, port.parse().unwrap())
        };
        assert_eq!(covered.iter().find(|target| !covers(target)), None, "not covered: {list:?}");
        assert_eq!(others.iter().find(covers), None, "covered: {list:?}");
    }

    #[test]
    fn a_star_is_everything() {
        check("*", &["a.example", "10.0.0.1", "2001:db8::1"], &[]);
        check("a.b, *", &["x"], &[]);
        check("", &[], &["a", "10.0.0.1"]);
    }

    #[test]
    fn a_name_is_itself_and_what_lies_below() {
        check(
            "corp.example",
            &["corp.example", "a.corp.example", "a.b.corp.example"],
            &["xcorp.example", "example"],
        );
        check("Corp.Example", &["corp.example"], &[]);
        for below in [".corp.example", "*.corp.example"] {
            check(
                below,
                &["a.corp.example", "a.b.corp.example"],
                &["corp.example", "xcorp.example"],
            );
        }
    }

    #[test]
    fn a_port_narrows_an_entry() {
        check("a.io:5000", &["a.io 5000", "b.a.io 5000"], &["a.io 443"]);
        check(".a.io:5000", &["b.a.io 5000"], &["a.io 5000", "b.a.io 443"]);
        check("10.0.0.1:80", &["10.0.0.1 80"], &["10.0.0.1 443", "10.0.0.2 80"]);
        check("[2001:db8::1]:80", &["2001:db8::1 80"], &["2001:db8::1 443"]);
    }

    #[test]
    fn addresses_and_networks_are_for_hosts_written_as_addresses() {
        check(
            "10.1.0.0/16, 2001:db8::/32",
            &["10.1.2.3", "2001:db8:1::1"],
            &["10.2.0.1", "2001:db9::1", "ten.example"],
        );
        check("192.0.2.7,2001:db8::7", &["192.0.2.7", "2001:db8::7"], &["192.0.2.8", "7"]);
        // Go compares no text here: an address is one, however it is written.
        check("2001:DB8:0::7", &["2001:db8::7"], &[]);
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        for nothing in [",", " , ", ":80", "a:b", "a:99999", ".", "*.", "[]"] {
            assert_eq!(NoProxy::parse(nothing), NoProxy::default(), "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses(text in ".*", host in ".*") {
            let _ = NoProxy::parse(&text).covers(&host, 443);
        }
    }
}
