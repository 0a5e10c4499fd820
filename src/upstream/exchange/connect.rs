//! Whom to connect to: the addresses of a name that may be reached, and how.

use std::{net::SocketAddr, sync::Arc};

use pingora::upstreams::peer::HttpPeer;
use url::Url;

use super::{
    Exchange,
    wire::{authority, port, timeout, unreachable},
};
use crate::upstream::{Failure, address::Class};

// === impl Exchange ===

impl Exchange {
    /// Resolves, and drops what may not be connected to.
    pub(super) async fn addresses(
        &self,
        url: &Url,
        host: &Arc<str>,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let name = url.host_str().unwrap_or_default();
        let lookup = self.resolver.resolve(name, port(url));
        let found = match tokio::time::timeout(self.timeouts.connect, lookup).await {
            Ok(found) => found.map_err(|error| unreachable(host, &error.to_string()))?,
            Err(_) => return Err(timeout(host, "the resolver")),
        };
        if authority(url) == authority(&self.registry) {
            return Ok(found.to_vec());
        }
        let home = self.home().await;
        let mut refused = None;
        let allowed: Vec<_> = found
            .iter()
            .filter(|address| match self.trust.address(url, address.ip(), home) {
                Ok(()) => true,
                Err(problem) => {
                    tracing::warn!(%host, address = %address.ip(), "{problem}");
                    refused = Some(problem);
                    false
                }
            })
            .copied()
            .collect();
        match refused {
            Some(problem) if allowed.is_empty() => Err(Failure::Untrusted { problem }),
            _ => Ok(allowed),
        }
    }

    /// An upstream that can't be resolved counts as public: the strict rule.
    async fn home(&self) -> Class {
        let name = self.registry.host_str().unwrap_or_default();
        let class = self.home.get_or_try_init(|| async {
            let found = self.resolver.resolve(name, port(&self.registry)).await?;
            Ok::<_, std::io::Error>(found.first().map_or(Class::Public, |a| Class::of(a.ip())))
        });
        class.await.copied().unwrap_or(Class::Public)
    }

    pub(super) fn peer(&self, url: &Url, address: SocketAddr) -> HttpPeer {
        let tls = url.scheme() == "https";
        let name = url.host_str().unwrap_or_default();
        let mut peer = HttpPeer::new(address, tls, name.trim_matches(['[', ']']).to_owned());
        peer.group_key = self.group_key;
        let options = &mut peer.options;
        options.connection_timeout = Some(self.timeouts.connect);
        options.total_connection_timeout = Some(self.timeouts.connect);
        options.read_timeout = Some(self.timeouts.response);
        options.write_timeout = Some(self.timeouts.response);
        options.idle_timeout = Some(self.timeouts.idle);
        options.ca = self.ca.clone();
        peer
    }
}
