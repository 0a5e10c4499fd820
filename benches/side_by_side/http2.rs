//! The load client's HTTP/2: one stream at a time on a connection, with windows that never make the server wait.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::content::Object;
use crate::stream::{Endpoint, Stream};

const WINDOW_BYTES: u32 = 16 << 20;

/// Ends its driver, and with it the connection, when dropped.
pub(crate) struct Http2Connection {
    address: SocketAddr,
    sender: SendRequest<Bytes>,
    _driver: JoinSet<()>,
}

// === impl Http2Connection ===

impl Http2Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self> {
        match endpoint.connect().await? {
            Stream::Plain(stream) => Self::over(endpoint.address, stream).await,
            Stream::Tls(stream) => Self::over(endpoint.address, stream).await,
        }
    }

    async fn over(
        address: SocketAddr,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self> {
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await
            .context("HTTP/2 handshake")?;
        let mut driver = JoinSet::new();
        // Its error reaches whoever waits for an answer.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self { address, sender, _driver: driver })
    }

    /// Gets the object and gives the whole body to `sink`, piece by piece.
    pub(crate) async fn get(&mut self, object: &Object, sink: impl FnMut(&[u8])) -> Result<()> {
        let url = format!("https://{}{}", self.address, object.path);
        self.try_get(&url, object.size_bytes, sink).await.with_context(|| format!("GET {url}"))
    }

    async fn try_get(&mut self, url: &str, length: u64, sink: impl FnMut(&[u8])) -> Result<()> {
        let request = http::Request::get(url).header("accept", "*/*").body(())?;
        let mut sender = self.sender.clone().ready().await.context("a new stream")?;
        let (answer, _) = sender.send_request(request, true).context("sending the request")?;
        let answer = answer.await.context("reading the head")?;
        ensure!(answer.status() == 200, "status {}", answer.status());
        let announced = answer.headers().get(http::header::CONTENT_LENGTH);
        ensure!(
            announced
                .is_some_and(|announced| announced.as_bytes() == length.to_string().as_bytes()),
            "Content-Length {announced:?} instead of {length}"
        );
        let received = drain(answer.into_body(), sink).await?;
        ensure!(received == length, "{received} bytes of body where Content-Length was {length}");
        Ok(())
    }
}

async fn drain(mut body: RecvStream, mut sink: impl FnMut(&[u8])) -> Result<u64> {
    let mut received = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.context("reading the body")?;
        body.flow_control().release_capacity(piece.len())?;
        received += piece.len() as u64;
        sink(&piece);
    }
    Ok(received)
}
