//! A connection that minds how slow its client is.
//!
//! Pingora's own read timeout starts anew with each byte, so that a client that
//! dribbles its head holds a connection for ever; its write timeout is for a
//! whole write, however large. [`Guarded`] gives each head one deadline in
//! total, and cuts a client only once it has taken nothing for a while. HTTP/2
//! minds its own connections from the preface on, for which Pingora waits for ever.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::{
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
        Stream, TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
    },
    proxy::Session,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Each HTTP/2 connection begins with these (RFC 9113 §3.4).
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a whole head, from its first byte.
    pub(super) head: Duration,
    /// Until it takes another byte of an answer.
    pub(super) write: Duration,
}

/// A connection whose heads have a deadline.
#[derive(Debug)]
pub(super) struct Guarded {
    inner: Stream,
    /// Bytes of a head that was looked at before it is read.
    looked_at: BytesMut,
    limits: Limits,
    state: HeadState,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set from outside when Pingora has parsed a head.
    is_read: AtomicBool,
}

#[derive(Debug)]
enum HeadState {
    /// No byte of a head has come; the keep-alive timeout watches over this.
    Idle,
    /// A head has begun.
    Reading(Pin<Box<Sleep>>),
    /// A request is being served; bytes that come belong to its body.
    Serving,
    /// It speaks HTTP/2, and so many bytes of the preface are missing.
    Preface(usize, Pin<Box<Sleep>>),
    /// It speaks HTTP/2, and Pingora has a time limit for all else.
    Framed,
}

/// Tells the connection that the head which it was reading is complete.
pub(super) fn head_is_read(session: &Session) {
    let stream = session.as_downstream().stream();
    if let Some(guarded) = stream.and_then(|stream| (**stream).as_any().downcast_ref::<Guarded>()) {
        guarded.is_read.store(true, Ordering::Release);
    }
}

// === impl Guarded ===

impl Guarded {
    pub(super) fn new(inner: Stream, limits: Limits) -> Self {
        let is_read = AtomicBool::new(false);
        let state = match inner.selected_alpn_proto() {
            Some(ALPN::H2) => HeadState::Preface(PREFACE_BYTES, Box::pin(sleep(limits.head))),
            _ => HeadState::Idle,
        };
        Self { inner, looked_at: BytesMut::new(), limits, state, stalled: None, is_read }
    }

    /// The request before is answered: what comes next begins another head.
    pub(super) fn rest(&mut self) {
        *self.is_read.get_mut() = false;
        self.state = HeadState::Idle;
    }

    /// Bytes that come while it rests; nobody's time runs until they are given back.
    pub(super) fn poll_come(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.take_looked_at(buffer) > 0 {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }

    /// What came is read once more, as the beginning of a head.
    pub(super) fn give_back(&mut self, bytes: &[u8]) {
        self.looked_at.extend_from_slice(bytes);
    }

    /// Reads what was given back; says how much that was.
    fn take_looked_at(&mut self, buffer: &mut ReadBuf<'_>) -> usize {
        let count = self.looked_at.len().min(buffer.remaining());
        if count > 0 {
            buffer.put_slice(&self.looked_at.split_to(count));
            if self.looked_at.is_empty() {
                // What idles holds no buffer.
                self.looked_at = BytesMut::new();
            }
        }
        count
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        if self.is_read.load(Ordering::Acquire) {
            self.state = HeadState::Serving;
        }
        match &mut self.state {
            HeadState::Reading(deadline) | HeadState::Preface(_, deadline) => expired(deadline, cx),
            HeadState::Idle | HeadState::Serving | HeadState::Framed => Ok(()),
        }
    }

    /// So many bytes have come.
    fn came(&mut self, bytes: usize) {
        match &mut self.state {
            HeadState::Idle if bytes > 0 => {
                self.state = HeadState::Reading(Box::pin(sleep(self.limits.head)));
            }
            HeadState::Preface(missing, _) if *missing > bytes => *missing -= bytes,
            HeadState::Preface(..) => self.state = HeadState::Framed,
            HeadState::Idle | HeadState::Reading(_) | HeadState::Serving | HeadState::Framed => {}
        }
    }

    /// Lets a write wait for as long as the client may take nothing.
    fn watch<T>(
        &mut self,
        written: Poll<std::io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limits.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        expired(stalled, cx)?;
        Poll::Pending
    }
}

fn expired(deadline: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> std::io::Result<()> {
    match deadline.as_mut().poll(cx) {
        Poll::Ready(()) => Err(std::io::ErrorKind::TimedOut.into()),
        Poll::Pending => Ok(()),
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        let before = buffer.filled().len();
        let looked_at = this.take_looked_at(buffer);
        if looked_at > 0 {
            this.came(looked_at);
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.came(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.watch(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Guarded {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Guarded {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> std::io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}
