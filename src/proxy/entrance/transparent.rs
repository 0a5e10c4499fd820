//! The way in for clients that go to the registries themselves.
//!
//! What is meant for an upstream gets a certificate of the local authority and is served like any
//! request; the bytes of all else are passed on unread, or not at all.

use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;
use pingora::{
    http::ResponseHeader,
    protocols::{GetProxyDigest, l4::stream::Stream as Socket, raw_connect::ProxyDigest},
};

use super::{
    Away, Inside, address,
    bounds::Passing,
    connect::{self, No},
    handshake,
    hello::{self, Hello},
    tunnel::{Far, Tunnel, Tunnels},
};
use crate::{
    config::{Intercepted, TransparentMode},
    filter::Destination,
    metrics,
    tls::Authority,
};

/// What a transparent listener needs.
#[derive(Debug)]
pub struct TransparentDoor {
    /// How clients say where they want to go.
    pub mode: TransparentMode,
    /// Who vouches for the upstreams' hosts.
    pub authority: Arc<Authority>,
    /// Those hosts.
    pub intercepted: Arc<Intercepted>,
    /// What becomes of others.
    pub tunnels: Tunnels,
    /// `access.allow`
    pub allow: Vec<IpNet>,
}

// === impl TransparentDoor ===

impl TransparentDoor {
    pub(super) async fn open(&self, socket: Socket) -> Result<Inside, Away> {
        let (mode, opened) = match self.mode {
            TransparentMode::Connect => ("connect", self.connect(socket).await),
            TransparentMode::Sni => ("sni", self.sni(socket).await),
        };
        let outcome = match &opened {
            Ok(Inside::Http(_)) => "served",
            Ok(Inside::Tunnel(_)) => "tunnelled",
            Err(Away::Silent) => return opened,
            Err(_) => "refused",
        };
        metrics::TRANSPARENT.with_label_values(&[mode, outcome]).inc();
        opened
    }

    async fn connect(&self, mut socket: Socket) -> Result<Inside, Away> {
        let wanted = match connect::read(&mut socket).await? {
            Ok(wanted) => wanted,
            Err(no) => return Err(turn_away(socket, no).await),
        };
        if !self.allows(&socket) {
            let no = No::new(StatusCode::FORBIDDEN, "you may not pull here (access.allow)");
            return Err(turn_away(socket, no).await);
        }
        let (host, port) = (wanted.host.as_str(), wanted.port);
        if let Some(upstream) = self.intercepted.at(host, port) {
            connect::accept(&mut socket).await?;
            return self.serve(socket, host, upstream).await;
        }
        match self.tunnels.open(host, port).await {
            Ok(far) => {
                connect::accept(&mut socket).await?;
                Ok(Inside::Tunnel(Box::new(Tunnel::new(socket, far, wanted.host, None))))
            }
            Err(no) => Err(turn_away(socket, no).await),
        }
    }

    async fn sni(&self, mut socket: Socket) -> Result<Inside, Away> {
        let hello = hello::read(&mut socket).await?;
        // To be read again: by us, or by the far end.
        socket.rewind(&hello.bytes);
        let refused = match &hello.host {
            _ if !self.allows(&socket) => "it may not pull here (access.allow)".to_owned(),
            None => "its ClientHello names no host (SNI)".to_owned(),
            Some(host) => match self.intercepted.named(host) {
                Some(upstream) => return self.serve(socket, host, upstream).await,
                None => match self.pass(&hello, host).await {
                    Ok((far, passing)) => {
                        let tunnel = Tunnel::new(socket, far, host.clone(), Some(passing));
                        return Ok(Inside::Tunnel(Box::new(tunnel)));
                    }
                    Err(no) => no.why,
                },
            },
        };
        hello::refuse(&mut socket).await;
        Err(Away::Refused(refused))
    }

    /// The far end of a tunnel for a ClientHello that has not come back through one.
    async fn pass(&self, hello: &Hello, host: &str) -> Result<(Far, Passing), No> {
        let passing = hello.random().and_then(|random| self.tunnels.bounds.pass(random));
        let passing = passing.ok_or_else(|| {
            No::new(StatusCode::FORBIDDEN, format!("{host} leads back to this proxy"))
        })?;
        let far = self.tunnels.open(host, self.tunnels.port_of(host)).await?;
        Ok((far, passing))
    }

    /// `access.allow`; the chain asks again for each request.
    fn allows(&self, socket: &Socket) -> bool {
        address(socket).is_none_or(|client| self.allow.iter().any(|net| net.contains(&client)))
    }

    async fn serve(&self, mut socket: Socket, host: &str, upstream: &str) -> Result<Inside, Away> {
        let config = self.authority.get().server(host).map_err(|problem| {
            tracing::error!(host, %problem, "no certificate can be made");
            Away::Refused(problem)
        })?;
        let destination = Destination { host: host.to_owned(), upstream: upstream.to_owned() };
        set_destination(&mut socket, Arc::new(destination))?;
        Ok(Inside::Http(handshake(socket, config).await?))
    }
}

/// Of all that a connection can carry along to its requests, this can be anything; Pingora means
/// it for a proxy that a connection was made through, and here we are the proxy.
fn set_destination(socket: &mut Socket, destination: Arc<Destination>) -> Result<(), Away> {
    let response = ResponseHeader::build(StatusCode::OK, Some(0));
    let response = Box::new(response.map_err(|error| Away::Refused(error.to_string()))?);
    socket.set_proxy_digest(ProxyDigest::new(response, Some(Box::new(destination))));
    Ok(())
}

async fn turn_away(mut socket: Socket, no: No) -> Away {
    match connect::refuse(&mut socket, &no).await {
        Ok(()) => Away::Refused(format!("{}: {}", no.status.as_u16(), no.why)),
        Err(error) => Away::Io(error),
    }
}
