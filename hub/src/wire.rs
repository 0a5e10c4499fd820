//! A connection that tells when everything written so far has left for the socket.
//!
//! hyper drops what it still buffers when a body fails. A body that is to be cut after N bytes
//! waits here first, so that the client really gets these N bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Told by the connection, awaited by its bodies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flushes(Arc<Notify>);

/// A socket that reports its flushes.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    flushes: Flushes,
}

// === impl Flushes ===

impl Flushes {
    /// Resolves at the next flush. hyper flushes whenever a body has nothing to give, and calls
    /// this only once its own buffer is empty.
    pub(crate) async fn next(&self) {
        self.0.notified().await;
    }
}

// === impl Wire ===

impl Wire {
    pub(crate) fn new(socket: TcpStream) -> (Self, Flushes) {
        let flushes = Flushes::default();
        (Self { socket, flushes: flushes.clone() }, flushes)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes.0.notify_waiters();
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
