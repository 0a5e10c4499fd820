//! What Pingora needs to forward a request to the registry, under the same limits as our own.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use pingora::upstreams::peer::HttpPeer;
use tokio::time::Instant;

use super::{
    Exchange,
    dial::Way,
    pace::Pace,
    tunnel::proxy_authorization,
    wire::{authority, authority_header},
};
use crate::upstream::Failure;

/// Keeps the connections of requests that write apart from others. The lowest bit means something
/// already.
const WRITES: u64 = 1 << 1;

/// A connection idle for longer may be closed by upstream while we send.
const IDLE_AFTER_WRITE: Duration = Duration::from_secs(1);

/// A registry that keeps blobs elsewhere takes nothing while it passes a part of one on.
const STALL_PATIENCE: Duration = Duration::from_secs(60);

/// A registry puts a large blob together before it answers.
const WRITE_PATIENCE: Duration = Duration::from_secs(600);

/// Where a request is forwarded to, and what goes along.
pub struct Forward {
    /// The registry's address, with all timeouts set.
    pub peer: HttpPeer,
    /// The path as the registry knows it, after the registry's URL where a proxy relays it.
    pub path: String,
    /// What `Host` says.
    pub host: String,
    /// The credentials that go along.
    pub authorization: Option<HeaderValue>,
    /// The login at the proxy that relays it.
    pub proxy_authorization: Option<HeaderValue>,
    /// It changes the registry, and is never sent twice.
    pub is_write: bool,
    /// A proxy reads the request, and may answer it itself.
    pub is_relayed: bool,
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
        if let Some(held_back) = self.held_back() {
            return Err(held_back);
        }
        if authorization.is_some() {
            self.dialer.may_see_credentials(&self.registry)?;
        }
        self.turn(&host).await?;
        let (path, proxy_authorization, is_relayed) = match self.dialer.way(&self.registry) {
            Way::Relayed(proxy) => {
                let origin = &self.registry[..url::Position::BeforePath];
                (format!("{origin}{path}"), proxy_authorization(proxy), true)
            }
            Way::Direct | Way::Tunnelled(_) => (path, None, false),
        };
        Ok(Forward {
            peer: self.peer(&self.registry, self.dialer.dial(&self.registry, &host)),
            is_write: false,
            path,
            proxy_authorization,
            is_relayed,
            host: authority_header(&self.registry),
            authorization,
            bandwidth: self.bandwidth.clone(),
        })
    }

    /// The same for a request that changes the registry. It may not be sent twice, so it goes by a
    /// connection that is new, or of which upstream can hardly have tired yet.
    pub(in crate::upstream) async fn forward_write(
        &self,
        path: String,
        authorization: Option<HeaderValue>,
    ) -> Result<Forward, Failure> {
        let mut forward = self.forward(path, authorization).await?;
        forward.is_write = true;
        let peer = &mut forward.peer;
        peer.group_key ^= WRITES;
        peer.options.idle_timeout = Some(IDLE_AFTER_WRITE);
        peer.options.read_timeout = peer.options.read_timeout.max(Some(WRITE_PATIENCE));
        peer.options.write_timeout = peer.options.write_timeout.max(Some(STALL_PATIENCE));
        Ok(forward)
    }
}
