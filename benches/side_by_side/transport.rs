//! How a blob is asked for: HTTP/1.1 in the clear, HTTP/1.1 over TLS, or HTTP/2 over TLS.

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::content::Object;
use crate::http2::Http2Connection;
use crate::load::{BLOB_BUFFER_BYTES, Connection, Request, within_reason};
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

    /// Gets the object and compares its digest; never inside a measurement.
    pub(crate) async fn verify(self, endpoint: &Endpoint, object: &Object) -> Result<()> {
        let mut hasher = Sha256::new();
        let mut reader = self.open(endpoint).await?;
        within_reason(reader.get(object, |piece| hasher.update(piece))).await?;
        let digest = format!("sha256:{:x}", hasher.finalize());
        ensure!(digest == object.digest, "wrong bytes of {}: {digest}", object.path);
        Ok(())
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
}
