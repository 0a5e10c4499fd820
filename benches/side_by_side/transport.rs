//! How an object is asked for, and its digest verified: HTTP/1.1 in the clear, HTTP/1.1 over TLS, or HTTP/2 over TLS.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::content::Object;
use crate::http2::Http2Connection;
use crate::load::{BLOB_BUFFER_BYTES, Connection, Request, join_all, within_reason};
use crate::server::Server;
use crate::stream::Endpoint;
use crate::tls::Identity;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
    Http2,
}

/// A connection of any transport.
pub(crate) enum Reader {
    Http1(Connection),
    Http2(Http2Connection),
}

// === impl Transport ===

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1",
            Self::Tls => "HTTP/1.1 over TLS 1.3",
            Self::Http2 => "HTTP/2 over TLS 1.3",
        }
    }

    /// `None` where the server was not given a TLS listener.
    pub(crate) fn endpoint(self, server: &Server, identity: &Identity) -> Result<Option<Endpoint>> {
        let protocol: &[u8] = match self {
            Self::Plain => return Ok(Some(server.address.into())),
            Self::Tls => b"http/1.1",
            Self::Http2 => b"h2",
        };
        let Some(address) = server.tls_address else {
            return Ok(None);
        };
        Ok(Some(Endpoint { address, tls: Some(identity.client(protocol)?) }))
    }

    pub(crate) async fn open(self, endpoint: &Endpoint) -> Result<Reader> {
        Ok(match self {
            Self::Plain | Self::Tls => {
                Reader::Http1(Connection::open(endpoint.clone(), BLOB_BUFFER_BYTES).await?)
            }
            Self::Http2 => Reader::Http2(Http2Connection::open(endpoint).await?),
        })
    }

    /// `Reader::verify` on a connection of its own.
    pub(crate) async fn verify(self, endpoint: &Endpoint, object: &Object) -> Result<()> {
        self.open(endpoint).await?.verify(object).await
    }
}

// === impl Reader ===

impl Reader {
    pub(crate) async fn get(&mut self, object: &Object, sink: impl FnMut(&[u8])) -> Result<()> {
        match self {
            Self::Http1(connection) => {
                let request = Request::object(connection.address(), object);
                connection.exchange(&request, sink).await.map(drop)
            }
            Self::Http2(connection) => connection.get(object, sink).await,
        }
    }

    /// Gets the object and compares its digest; never inside a measurement.
    pub(crate) async fn verify(&mut self, object: &Object) -> Result<()> {
        let mut hasher = Sha256::new();
        within_reason(self.get(object, |piece| hasher.update(piece))).await?;
        let digest = format!("sha256:{:x}", hasher.finalize());
        ensure!(digest == object.digest, "wrong bytes of {}: {digest}", object.path);
        Ok(())
    }
}

/// `Transport::verify`, in the clear.
pub(crate) async fn verify(address: SocketAddr, object: &Object) -> Result<()> {
    Transport::Plain.verify(&address.into(), object).await
}

/// `verify` for many objects, on a few connections at a time.
pub(crate) async fn verify_all(
    address: SocketAddr,
    objects: &[Object],
    connections: usize,
) -> Result<()> {
    let mut clients = JoinSet::new();
    for share in objects.chunks(objects.len().div_ceil(connections).max(1)) {
        let share = share.to_vec();
        clients.spawn(async move {
            let mut reader = Transport::Plain.open(&address.into()).await?;
            for object in &share {
                reader.verify(object).await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(clients).await.map(drop)
}
