//! What Pingora needs to forward a request to the registry, under the same limits as our own.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use pingora::upstreams::peer::HttpPeer;
use tokio::time::Instant;

use super::{
    Exchange,
    pace::Pace,
    wire::{authority, authority_header, unreachable},
};
use crate::upstream::Failure;

/// Where a request is forwarded to, and what goes along.
pub struct Forward {
    /// The registry's address, with all timeouts set.
    pub peer: HttpPeer,
    /// The path as the registry knows it.
    pub path: String,
    /// What `Host` says.
    pub host: String,
    /// The credentials that go along.
    pub authorization: Option<HeaderValue>,
    bandwidth: Option<Arc<Pace>>,
}

// === impl Forward ===

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("host", &self.host).field("path", &self.path).finish()
    }
}

impl Forward {
    /// Books bytes of the answer's body, and says how long to wait before more is read.
    pub fn received(&self, bytes: usize) -> Option<Duration> {
        let now = Instant::now();
        let until = self.bandwidth.as_ref()?.received(bytes, now)?;
        Some(until - now)
    }
}

// === impl Exchange ===

impl Exchange {
    /// Where Pingora itself forwards a request for `path` to.
    pub(in crate::upstream) async fn forward(
        &self,
        path: String,
        authorization: Option<HeaderValue>,
    ) -> Result<Forward, Failure> {
        let host = authority(&self.registry);
        if let Some(held_back) = self.breakers.held_back(&host) {
            return Err(held_back);
        }
        self.turn(&host).await?;
        let addresses = self.addresses(&self.registry, &host).await?;
        let address = addresses.first().ok_or_else(|| unreachable(&host, "no address"))?;
        Ok(Forward {
            peer: self.peer(&self.registry, *address),
            path,
            host: authority_header(&self.registry),
            authorization,
            bandwidth: self.bandwidth.clone(),
        })
    }
}
