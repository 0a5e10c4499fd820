//! A connection between two requests, and answers that take no more than a look into memory.
//!
//! Here a connection costs its socket's buffers and little else. A head that comes in one piece and
//! was answered before (`filter::Repeats`) is answered on the spot, without HTTP being parsed; all else is
//! given back to the connection, and Pingora reads it as if nobody had looked. Once the server is
//! to stop, everything is Pingora's, which tells clients that the connection ends.

use std::{
    cell::RefCell,
    future::poll_fn,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::Cache;
use bytes::Bytes;
use http::Method;
use pingora::server::ShutdownWatch;
use tokio::{
    io::{AsyncWrite, ReadBuf},
    sync::futures::Notified,
    time::{Sleep, sleep},
};

use super::{
    Live, Rules,
    drain::{Counted, Drain},
    guarded::Guarded,
    head,
    idle::{Idle, Place},
    log::{HTTP_11, Line, method},
    millis, span,
};
use crate::{
    filter::{Again, Peer, Repeats},
    metrics, trace,
};

/// What is read at once; a longer head comes in pieces, and is Pingora's.
const READ_BYTES: usize = 8 << 10;

/// A body up to here is copied behind its head, so that both go out in one write.
const COPIED_BYTES: usize = 16 << 10;

/// How the time between two requests ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A request has begun, and its bytes are the connection's.
    Request,
    /// The connection is over.
    End,
}

/// What connections wait with.
pub(super) struct Between<'a> {
    /// Who has connected, where not all of its requests are Pingora's.
    pub(super) known: Option<Known<'a>>,
    pub(super) drain: &'a Drain,
    pub(super) idle: &'a Idle,
    pub(super) shutdown: &'a ShutdownWatch,
    /// How long it may wait for its first request.
    pub(super) first: Duration,
    /// How long it may idle between two.
    pub(super) keepalive: Duration,
}

/// Who has connected, under the rules in force. Rules that have changed are noticed by the next
/// request, at the cost of a glance where they have not.
pub(super) struct Known<'a> {
    rules: Cache<&'a Live, Arc<Rules>>,
    address: Option<IpAddr>,
    /// What the address means under the rules that are known.
    peer: Option<Peer>,
    /// Which those are, by their place in memory.
    under: usize,
}

/// A wait.
struct Wait<'a, 'b> {
    between: &'a mut Between<'b>,
    stream: &'a mut Guarded,
    /// What is there is answered, and then the connection ends.
    is_last: bool,
    /// When the connection began to idle.
    since: Instant,
    /// How long it may.
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    sending: Option<Sending>,
}

/// What of an answer the client has not taken yet.
struct Sending {
    head: Vec<u8>,
    body: Bytes,
    /// How many bytes it has taken.
    at: usize,
    sent: Sent,
    /// A stop waits until it is in the books.
    _under_way: Counted,
}

/// An answer, for the books.
struct Sent {
    again: Again,
    started: Instant,
    /// The same moment, by the clock.
    now: SystemTime,
    /// How much of it comes before the body.
    head_bytes: usize,
    /// When the client took the first of it, if not all at once.
    first: Option<Instant>,
}

/// Buffers for what is done at one go.
struct Scratch {
    read: Box<[u8]>,
    write: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; READ_BYTES].into(), write: Vec::new() });
}

// === impl Known ===

impl<'a> Known<'a> {
    /// A connection from `address`.
    pub(super) fn new(live: &'a Live, address: Option<IpAddr>) -> Self {
        Self { rules: Cache::new(live), address, peer: None, under: 0 }
    }

    fn again(&mut self, head: &[u8], now: SystemTime) -> Option<Again> {
        let (repeats, peer) = self.now()?;
        repeats.again(head, peer, now)
    }

    /// Enters an answer into the books, which all rules have in common.
    fn enter(&mut self, again: &Again, bytes: u64) {
        if let Some((repeats, peer)) = self.now() {
            repeats.enter(again, peer, bytes);
        }
    }

    fn now(&mut self) -> Option<(&Repeats, &Peer)> {
        let rules = self.rules.load();
        let under = Arc::as_ptr(rules).addr();
        if under != self.under {
            (self.under, self.peer) = (under, None);
        }
        let repeats = rules.chain.repeats()?;
        Some((repeats, self.peer.get_or_insert_with(|| repeats.peer(self.address))))
    }
}

// === impl Between ===

impl Between<'_> {
    /// Waits for a request that is Pingora's, and answers those that are not.
    /// `is_new`: none has come on this connection.
    pub(super) async fn next(
        &mut self,
        stream: &mut Guarded,
        place: &Place<'_>,
        is_new: bool,
    ) -> Next {
        let mut closes = pin!(place.closes.notified());
        // From here on no notice is missed, and before it the flag was looked at or will be.
        closes.as_mut().enable();
        let is_last = self.idle.is_closed();
        stream.rest();
        let since = Instant::now();
        let patience = if is_new { self.first } else { self.keepalive };
        let mut wait =
            Wait { between: self, stream, is_last, since, patience, timer: None, sending: None };
        poll_fn(|cx| wait.poll(cx, closes.as_mut())).await
    }
}

// === impl Wait ===

impl Wait<'_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>, closes: Pin<&mut Notified<'_>>) -> Poll<Next> {
        let next = SCRATCH.with_borrow_mut(|scratch| self.serve(cx, scratch));
        if next.is_ready() || self.sending.is_some() {
            return next.map(|result| result.unwrap_or(Next::End));
        }
        if self.is_last || closes.poll(cx).is_ready() {
            return Poll::Ready(Next::End);
        }
        self.poll_idle(cx)
    }

    /// Answers what comes until nothing does.
    fn serve(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<std::io::Result<Next>> {
        loop {
            ready!(self.send_rest(cx))?;
            let mut buffer = ReadBuf::new(&mut scratch.read);
            ready!(self.stream.poll_come(cx, &mut buffer))?;
            let head = buffer.filled();
            if head.is_empty() {
                return Poll::Ready(Ok(Next::End));
            }
            let (started, now) = (Instant::now(), SystemTime::now());
            let Some(again) = self.again(head, now) else {
                self.stream.give_back(head);
                return Poll::Ready(Ok(Next::Request));
            };
            metrics::REPEATED_ANSWERS.inc();
            scratch.write.clear();
            head::write(&again, &mut scratch.write);
            let sent = Sent { again, started, now, head_bytes: scratch.write.len(), first: None };
            let body = sent.body(&mut scratch.write);
            ready!(self.send(cx, &scratch.write, body, sent))?;
            if self.patience != self.between.keepalive {
                (self.patience, self.timer) = (self.between.keepalive, None);
            }
        }
    }

    fn again(&mut self, head: &[u8], now: SystemTime) -> Option<Again> {
        let known = self.between.known.as_mut()?;
        // What is answered is counted, so this comes first.
        if *self.between.shutdown.borrow() {
            return None;
        }
        known.again(head, now)
    }

    /// Sends what the client takes at once, and keeps the rest.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: Bytes,
        sent: Sent,
    ) -> Poll<std::io::Result<()>> {
        let mut at = 0;
        match poll_send(self.stream, cx, head, &body, &mut at) {
            Poll::Ready(done) => {
                self.since = sent.enter(at, done.as_ref().err(), self.between);
                Poll::Ready(done)
            }
            Poll::Pending => {
                let _under_way = self.between.drain.request();
                let first = (at > 0).then(Instant::now);
                let sent = Sent { first, ..sent };
                self.sending = Some(Sending { head: head.to_vec(), body, at, sent, _under_way });
                Poll::Pending
            }
        }
    }

    fn send_rest(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(Sending { head, body, at, .. }) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        let done = ready!(poll_send(self.stream, cx, head, body, at));
        if let Some(Sending { sent, at, _under_way, .. }) = self.sending.take() {
            self.since = sent.enter(at, done.as_ref().err(), self.between);
        }
        Poll::Ready(done)
    }

    /// The timer is set anew only once it has run out: most of the time something has come since.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let (patience, since) = (self.patience, self.since);
        loop {
            let left = || patience.saturating_sub(since.elapsed());
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(left())));
            ready!(timer.as_mut().poll(cx));
            if left().is_zero() {
                return Poll::Ready(Next::End);
            }
            self.timer = None;
        }
    }
}

// === impl Sent ===

impl Sent {
    /// The body that goes out behind the head; a small one is copied there at once.
    fn body(&self, head: &mut Vec<u8>) -> Bytes {
        let body = &self.again.body;
        if self.again.repeat.method == Method::HEAD {
            return Bytes::new();
        }
        if body.len() > COPIED_BYTES {
            return body.clone();
        }
        head.extend_from_slice(body);
        Bytes::new()
    }

    /// The client took so many bytes of it, head and all. Gives the moment.
    fn enter(
        self,
        taken: usize,
        error: Option<&std::io::Error>,
        between: &mut Between<'_>,
    ) -> Instant {
        let ended = Instant::now();
        let elapsed = ended - self.started;
        let repeat = &self.again.repeat;
        let bytes = taken.saturating_sub(self.head_bytes) as u64;
        // 499, as nginx has it: the client left before there was an answer.
        let status = if taken == 0 { 499 } else { 200 };
        let line = Line {
            client: self.again.client,
            method: repeat.method.as_str(),
            path: &repeat.path,
            upstream: &repeat.upstream,
            status,
            bytes,
            ms: millis(elapsed),
            cache: "hit",
            left: self.again.left,
            error: error.map(ToString::to_string),
            version: HTTP_11,
            referer: &repeat.referer,
            agent: &repeat.agent,
            ..Line::default()
        };
        line.write(self.now + elapsed);
        repeat.count(status);
        repeat.bytes.inc_by(bytes);
        if let Some(known) = between.known.as_mut().filter(|_| status == 200) {
            known.enter(&self.again, bytes);
        }
        let first = self.first.map_or(elapsed, |first| first - self.started);
        repeat.timing.observe((taken > 0).then_some(first), elapsed);
        if trace::is_on() {
            let answered = span::of(&line, method(&repeat.method), repeat.kind);
            trace::answered(&answered, self.now, elapsed);
        }
        ended
    }
}

/// Sends head and body from the byte `at` on, which grows with what was taken.
fn poll_send(
    stream: &mut Guarded,
    cx: &mut Context<'_>,
    head: &[u8],
    body: &[u8],
    at: &mut usize,
) -> Poll<std::io::Result<()>> {
    loop {
        let rest = match head.get(*at..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => body.get(*at - head.len()..).unwrap_or_default(),
        };
        if rest.is_empty() {
            return Pin::new(stream).poll_flush(cx);
        }
        let count = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
        if count == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
        }
        *at += count;
    }
}
