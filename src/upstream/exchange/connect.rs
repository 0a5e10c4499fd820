//! What Pingora is told of a host: how to know its pooled connections, and how to make a new one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use pingora::{
    connectors::L4Connect,
    prelude::{Error, ErrorType},
    protocols::l4::{socket, stream::Stream},
    upstreams::peer::HttpPeer,
};
use url::Url;

use super::{
    Exchange,
    dial::{Dial, Socket},
    wire::port,
};
use crate::upstream::Failure;

// === impl Exchange ===

impl Exchange {
    /// A peer that stands for all addresses of a host.
    ///
    /// Pingora finds pooled connections by the peer's address and checks that they lead there; the
    /// winner of a race, or the proxy's, is not known beforehand. Of 0.0.0.0 it checks nothing, and
    /// the rest of the key (name, port, scheme, group, certificate) says what a connection is for.
    pub(super) fn peer(&self, url: &Url, dial: Arc<Dial>) -> HttpPeer {
        let tls = url.scheme() == "https";
        let name = url.host_str().unwrap_or_default();
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(url)));
        let mut peer = HttpPeer::new(anywhere, tls, name.trim_matches(['[', ']']).to_owned());
        // A connection that was allowed for a URL that the operator pinned is not one for any other
        // URL on that host.
        peer.group_key = self.group_key ^ u64::from(self.dialer.may_be_anywhere(url));
        if self.dialer.is_registry(url) {
            peer.client_cert_key = self.client_certificate.clone();
        }
        let options = &mut peer.options;
        options.custom_l4 = Some(dial);
        options.connection_timeout = Some(self.timeouts.connect);
        options.total_connection_timeout = Some(self.timeouts.connect);
        options.read_timeout = Some(self.timeouts.response);
        options.write_timeout = Some(self.timeouts.response);
        options.idle_timeout = Some(self.timeouts.idle);
        options.ca = self.ca.clone();
        peer
    }
}

// === impl Dial ===

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, _: &socket::SocketAddr) -> pingora::Result<Stream> {
        match Self::connect(self).await {
            Ok(Socket::Tcp(tcp)) => Ok(tcp.into()),
            Ok(Socket::Local(unix)) => Ok(unix.into()),
            Err(failure) => {
                let kind = match failure.is_timeout() {
                    true => ErrorType::ConnectTimedout,
                    false => ErrorType::ConnectError,
                };
                let told = failure.to_string();
                Err(Error::because(kind, told, failure))
            }
        }
    }
}

/// Why [`Dial`] made no connection, where it was Dial that failed.
pub(super) fn dial_failure(error: &Error) -> Option<&Failure> {
    error.cause.as_ref()?.downcast_ref()
}
