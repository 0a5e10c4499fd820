//! The body of an answer, as it comes.
//!
//! It ends where its head said, or with an error; an end that came early is
//! never taken for the whole.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use pingora::{
    connectors::http::Connector, protocols::http::client::HttpSession, upstreams::peer::HttpPeer,
};

use tokio::time::Instant;

use super::{Kind, broken, pace::Pace, places::Place, unreachable};
use crate::{metrics, trace, upstream::Failure};

/// An answer's body up to this size is read so that the connection can be used again.
const DRAIN_BYTES: u64 = 64 * 1024;

/// A body that is being received. Dropped unfinished, it closes the connection.
pub struct Body {
    /// Boxed, like its peer: a body is moved often and both are large.
    pub(super) session: Option<Box<HttpSession>>,
    pub(super) peer: Box<HttpPeer>,
    pub(super) connector: Arc<Connector>,
    pub(super) idle: Duration,
    /// Who sends it.
    pub(in crate::upstream) host: Arc<str>,
    pub(super) upstream: Arc<str>,
    pub(super) kind: Kind,
    /// `Content-Length`, where the answer has a body and says how long.
    pub(super) expected: Option<u64>,
    pub(super) received: u64,
    /// Kept until the body has ended.
    pub(super) place: Option<Place>,
    /// Shared by all bodies of the upstream, where it limits their bytes.
    pub(super) bandwidth: Option<Arc<Pace>>,
    /// No more is read before.
    pub(super) next_read: Option<Instant>,
    /// Of the exchange, where it has one.
    pub(super) span: Option<trace::Span>,
}

/// What one read brought.
enum Read {
    /// Some bytes, or none yet.
    More,
    /// The end.
    End,
}

// === impl Body ===

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("host", &self.host).field("received", &self.received).finish()
    }
}

impl Body {
    /// The length that the answer promised.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// The answer said in another way than by `Content-Length` how long its body is.
    pub(in crate::upstream) fn expect(&mut self, len: u64) {
        self.expected.get_or_insert(len);
    }

    /// Lets another request have the place, while this answer is looked at.
    pub(in crate::upstream) fn yield_place(&mut self) {
        self.place = None;
    }

    /// Appends the next bytes to `buffer` and says how many; 0 at the end that the answer promised.
    /// A body that is shorter or longer than its `Content-Length` is an error.
    pub async fn append_to(&mut self, buffer: &mut BytesMut) -> Result<usize, Failure> {
        if self.expected == Some(self.received) {
            self.release().await;
            return Ok(0);
        }
        self.wait_for_bandwidth().await;
        let before = buffer.len();
        loop {
            match self.read(buffer).await? {
                Read::End if self.expected.is_some() => {
                    return Err(unreachable(&self.host, "the body ended early"));
                }
                Read::End => {
                    self.release().await;
                    return Ok(0);
                }
                // A read that ended within a chunk's head, or its trailers: nothing came, and yet it
                // is not the end.
                Read::More if buffer.len() == before => {}
                Read::More => break,
            }
        }
        let count = buffer.len() - before;
        self.received += count as u64;
        let labels = [&*self.upstream, self.kind.as_str()];
        metrics::UPSTREAM_BYTES.with_label_values(&labels).inc_by(count as u64);
        let bandwidth = self.bandwidth.as_ref();
        self.next_read = bandwidth.and_then(|pace| pace.received(count, Instant::now()));
        Ok(count)
    }

    /// Before a read and not after one: what has come is handed on at once, a body of one piece
    /// never waits, and the read's own timeout begins after the wait.
    async fn wait_for_bandwidth(&mut self) {
        if let Some(until) = self.next_read {
            tokio::time::sleep_until(until).await;
            self.next_read = None;
        }
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> Result<Read, Failure> {
        let Some(session) = self.session.as_mut() else { return Ok(Read::End) };
        let read = match &mut **session {
            HttpSession::H1(h1) => {
                h1.read_body_ref().await.map(|part| part.map(|part| buffer.extend_from_slice(part)))
            }
            other => {
                other.read_response_body().await.map(|part| part.map(|part| buffer.extend(part)))
            }
        };
        match read {
            Ok(Some(())) => Ok(Read::More),
            Ok(None) => Ok(Read::End),
            Err(error) => Err(broken(&self.host, &error, "more of a body")),
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(in crate::upstream) async fn collect(
        mut self,
        limit: u64,
    ) -> Result<Option<Bytes>, Failure> {
        let mut whole = BytesMut::new();
        if self.expected.is_some_and(|expected| expected > limit) {
            return Ok(None);
        }
        while self.append_to(&mut whole).await? > 0 {
            if whole.len() as u64 > limit {
                return Ok(None);
            }
        }
        Ok(Some(whole.freeze()))
    }

    /// Ends with a body that nobody wants: a short one is read, so that its connection stays usable.
    pub(in crate::upstream) async fn dismiss(mut self) {
        if self.expected.is_some_and(|expected| expected <= DRAIN_BYTES) {
            let mut unwanted = BytesMut::new();
            while self.append_to(&mut unwanted).await.is_ok_and(|count| count > 0) {}
        }
    }

    async fn release(&mut self) {
        self.place = None;
        if let Some(span) = self.span.take() {
            span.received(self.received);
        }
        if let Some(mut session) = self.session.take()
            && session.response_done()
        {
            let idle = Some(self.idle);
            self.connector.release_http_session(*session, &*self.peer, idle).await;
        }
    }
}
