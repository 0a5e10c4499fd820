//! The client's end of a connection, in the clear or over TLS.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tls::TlsClient;

/// Where a server is reached, and how.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsClient>,
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Endpoint ===

impl Endpoint {
    pub(crate) async fn connect(&self) -> Result<Stream> {
        let Self { address, tls } = self;
        let connecting = || format!("connecting to {address}");
        let stream = TcpStream::connect(address).await.with_context(connecting)?;
        stream.set_nodelay(true)?;
        Ok(match tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let stream = tls.connect(*address, stream).await.with_context(connecting)?;
                Stream::Tls(Box::new(stream))
            }
        })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

// === impl Stream ===

impl Stream {
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
        }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                // What does not fit the socket at once waits in the session until it is flushed.
                stream.flush().await
            }
        }
    }

    /// Whether the server has neither closed the connection nor sent anything unasked.
    pub(crate) fn is_quiet(&self) -> bool {
        let tcp = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        tcp.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
