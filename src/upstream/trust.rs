//! Where a registry may send us: token realms and redirect targets.
//!
//! The world is closed. A realm must be the registry's own site or pinned; a
//! redirect must not leave TLS nor lead into the operator's own network.

use std::net::IpAddr;

use url::{Host, Url};

use super::address::Class;
use crate::config::{BaseUrl, Upstream as Config};

/// The rules for one upstream.
#[derive(Debug)]
pub(super) struct Trust {
    base: BaseUrl,
    realms: Vec<Url>,
    redirect_hosts: Vec<String>,
}

// === impl Trust ===

impl Trust {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            base: config.url.clone(),
            realms: config.token_realms.clone(),
            redirect_hosts: config.redirect_hosts.clone(),
        }
    }

    /// Whether tokens may be asked for, and credentials sent, there.
    pub(super) fn realm(&self, realm: &Url) -> Result<(), String> {
        let pinned = self.realms.iter().any(|pin| same_place(pin, realm));
        let same_authority = realm.scheme() == self.base.scheme.as_str()
            && authority(realm) == Some((self.base.host.clone(), self.base.port));
        let same_site = realm.scheme() == "https"
            && realm.host_str().is_some_and(|host| same_site(host, &self.base.host));
        if pinned || same_authority || same_site {
            return Ok(());
        }
        Err(format!(
            "the token realm {realm} is not on the site of {}; if it is right, pin it under upstreams[].token_realms",
            self.base
        ))
    }

    /// Whether a redirect from `from` to `to` may be followed, by their URLs.
    pub(super) fn redirect(&self, from: &Url, to: &Url) -> Result<(), String> {
        let listed = self.is_listed(to);
        match (from.scheme(), to.scheme()) {
            (_, "https") | ("http", "http") => Ok(()),
            ("https", "http") if listed => Ok(()),
            ("https", "http") => Err(format!("the redirect to {} leaves TLS", place(to))),
            (_, scheme) => Err(format!("the redirect goes to the scheme {scheme}")),
        }
    }

    /// Whether an address of a redirect target or realm may be connected to. `home` is the class of
    /// the configured registry's own address.
    pub(super) fn address(&self, to: &Url, address: IpAddr, home: Class) -> Result<(), String> {
        let class = Class::of(address);
        if class == Class::Public || class == home || self.is_named(to) {
            return Ok(());
        }
        Err(format!(
            "{} lies inside a network that upstream has no business with; if it is right, list the host under upstreams[].redirect_hosts",
            place(to)
        ))
    }

    /// Whether the operator named it, as a redirect target or a realm.
    pub(super) fn is_named(&self, to: &Url) -> bool {
        self.is_listed(to) || self.is_pinned(to)
    }

    /// Whether the operator named it as a redirect target.
    pub(super) fn is_listed(&self, to: &Url) -> bool {
        let Some((host, port)) = authority(to) else {
            return false;
        };
        let with_port = format!("{host}:{port}");
        self.redirect_hosts.iter().any(|listed| *listed == host || *listed == with_port)
    }

    fn is_pinned(&self, to: &Url) -> bool {
        self.realms.iter().any(|pin| same_place(pin, to))
    }
}

fn same_place(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && authority(one) == authority(other)
        && one.path() == other.path()
}

fn authority(url: &Url) -> Option<(String, u16)> {
    // As the configuration spells it: IPv6 addresses without brackets.
    let host = url.host_str()?.trim_matches(['[', ']']);
    Some((host.to_owned(), url.port_or_known_default()?))
}

/// The host and path, without the query: signatures do not belong in logs.
fn place(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// True for equal hosts and for names under one registrable domain, as the
/// public suffix list draws it (`registry-1.docker.io`, `auth.docker.io`).
fn same_site(one: &str, other: &str) -> bool {
    let is_name = |host: &str| matches!(Host::parse(host), Ok(Host::Domain(_)));
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    if !is_name(one) || !is_name(other) {
        return false;
    }
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    match (psl::domain_str(&one), psl::domain_str(&other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(base: &str) -> Trust {
        let text = format!(
            "upstreams: [{{name: x, url: '{base}', token_realms: ['http://127.0.0.1:9/token'], redirect_hosts: ['mirror.lan:8080']}}]"
        );
        let config = crate::config::Config::parse(&text, "test").unwrap();
        Trust::new(config.upstreams.first().unwrap())
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_realm_is_on_the_registry_s_site_or_pinned() {
        let hub = trust("https://registry-1.docker.io");
        assert!(hub.realm(&url("https://auth.docker.io/token")).is_ok());
        assert!(hub.realm(&url("http://127.0.0.1:9/token?x=y")).is_ok());
        assert!(hub.realm(&url("http://auth.docker.io/token")).is_err());
        assert!(hub.realm(&url("https://auth.docker.io.evil.example/token")).is_err());
        assert!(hub.realm(&url("http://127.0.0.1:9/other")).is_err());
        // github.io is a public suffix: its names belong to different people.
        assert!(trust("https://a.github.io").realm(&url("https://b.github.io/token")).is_err());
    }

    #[test]
    fn a_plain_realm_only_on_the_very_authority_of_a_plain_upstream() {
        let plain = trust("http://10.0.0.1:5000");
        assert!(plain.realm(&url("http://10.0.0.1:5000/token")).is_ok());
        assert!(plain.realm(&url("http://10.0.0.1:5001/token")).is_err());
        assert!(plain.realm(&url("http://10.0.0.2:5000/token")).is_err());
    }

    #[test]
    fn a_redirect_keeps_tls_unless_its_host_is_listed() {
        let hub = trust("https://registry-1.docker.io");
        let from = url("https://registry-1.docker.io/v2/");
        assert!(hub.redirect(&from, &url("https://cdn.example/x")).is_ok());
        assert!(hub.redirect(&from, &url("http://cdn.example/x")).is_err());
        assert!(hub.redirect(&from, &url("http://mirror.lan:8080/x")).is_ok());
        assert!(hub.redirect(&from, &url("http://mirror.lan:8081/x")).is_err());
        assert!(hub.redirect(&from, &url("ftp://cdn.example/x")).is_err());
    }

    #[test]
    fn own_networks_are_reached_only_where_upstream_lies_there() {
        let hub = trust("https://registry-1.docker.io");
        let to = url("https://cdn.example/x");
        let address = |text: &str, home| hub.address(&to, text.parse().unwrap(), home);
        assert!(address("1.2.3.4", Class::Public).is_ok());
        assert!(address("127.0.0.1", Class::Public).is_err());
        assert!(address("169.254.169.254", Class::Private).is_err());
        assert!(address("10.0.0.9", Class::Private).is_ok());
        let listed = url("http://mirror.lan:8080/x");
        assert!(hub.address(&listed, "10.0.0.9".parse().unwrap(), Class::Public).is_ok());
    }
}
