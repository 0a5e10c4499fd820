//! Who may pull, and whose word about the client's address is believed.
//!
//! Networks are CIDRs; a plain address stands for itself alone. `filter` compares them with
//! the client's address and reads the htpasswd file.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::problem::{Refusal, Scope, quoted};
use super::raw::RawAccess;

/// Who may pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Networks of the clients that may pull; never empty. Default: everyone.
    pub allow: Vec<IpNet>,
    /// Present: clients must also log in (Basic) as a user of this file, which could be
    /// opened when the configuration was read.
    pub htpasswd: Option<PathBuf>,
}

// === impl Access ===

impl Default for Access {
    fn default() -> Self {
        Self {
            allow: vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())],
            htpasswd: None,
        }
    }
}

impl Access {
    pub(super) fn read(scope: &Scope<'_>, raw: RawAccess) -> Self {
        let htpasswd = scope.at("htpasswd").file(raw.htpasswd);
        let scope = scope.at("allow");
        let allow = match raw.allow {
            Some(networks) if networks.is_empty() => {
                scope.refuse(
                    "the list is empty, so nobody may pull",
                    "list networks, or leave the key out",
                );
                Vec::new()
            }
            Some(networks) => scope.each(&networks, parse_network),
            None => Self::default().allow,
        };
        Self { allow, htpasswd }
    }

    pub(super) fn to_raw(&self) -> RawAccess {
        RawAccess {
            allow: Some(print_networks(&self.allow)),
            htpasswd: self.htpasswd.as_ref().map(|path| path.display().to_string()),
        }
    }
}

/// `10.0.0.0/8`, `fd00::/8`, or one address; host bits are cleared.
pub(super) fn parse_network(text: &str) -> Result<IpNet, Refusal> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(network.trunc());
    }
    text.parse::<IpAddr>().map(IpNet::from).map_err(|_| {
        Refusal::new(
            format!("{} is not a network", quoted(text)),
            "write a CIDR such as 10.0.0.0/8 or fd00::/8",
        )
    })
}

pub(super) fn print_networks(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(IpNet::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parsed, refused};
    use super::*;

    #[test]
    fn everyone_may_pull_unless_networks_are_listed() {
        assert_eq!(print_networks(&parsed("").access.allow), ["0.0.0.0/0", "::/0"]);
        let listed = parsed("access: { allow: [10.1.2.3/8, 192.0.2.7] }").access.allow;
        assert_eq!(print_networks(&listed), ["10.0.0.0/8", "192.0.2.7/32"]);
    }

    #[test]
    fn a_bad_network_is_refused_at_its_place() {
        assert_eq!(
            refused("access: { allow: [10.0.0.0/8, 10.0.0.0/33] }"),
            "test.yaml: access.allow[1]: `10.0.0.0/33` is not a network; \
             write a CIDR such as 10.0.0.0/8 or fd00::/8"
        );
        assert!(
            refused("trusted_proxies: [proxy.local]").contains("trusted_proxies[0]: `proxy.local`")
        );
    }

    #[test]
    fn an_empty_allow_list_is_refused() {
        assert!(refused("access: { allow: [] }").contains("access.allow: the list is empty"));
    }

    #[test]
    fn a_missing_htpasswd_file_is_refused() {
        assert!(
            refused("access: { htpasswd: /nowhere/users }")
                .contains("access.htpasswd: `/nowhere/users`")
        );
    }
}
