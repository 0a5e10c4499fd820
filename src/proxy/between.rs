//! A connection between two requests, and answers that take no more than a look into memory.
//!
//! Here a connection costs its socket's buffers and little else. A head that comes in one piece and
//! was answered before ([`Repeats`]) is answered on the spot, without HTTP being parsed; all else is
//! given back to the connection, and Pingora reads it as if nobody had looked. Once the server is
//! to stop, everything is Pingora's, which tells clients that the connection ends.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::Method;
use pingora::server::ShutdownWatch;
use tokio::{
    io::{AsyncWrite, ReadBuf},
    sync::futures::Notified,
    time::{Sleep, sleep},
};

use super::{
    clock,
    drain::{Counted, Drain},
    guarded::Guarded,
    idle::{Idle, Place},
    log::{self, Line, number},
    millis,
};
use crate::{
    filter::{Again, Origin, Repeats},
    metrics,
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
    pub(super) repeats: &'a Repeats,
    pub(super) drain: &'a Drain,
    pub(super) idle: &'a Idle,
    pub(super) shutdown: &'a ShutdownWatch,
    /// Whose connection it is; `None` if all of its requests are Pingora's.
    pub(super) origin: Option<Origin>,
    /// How long it may wait for its first request.
    pub(super) first: Duration,
    /// How long it may idle between two.
    pub(super) keepalive: Duration,
}

/// A wait.
struct Wait<'a, 'b> {
    between: &'a Between<'b>,
    stream: &'a mut Guarded,
    /// What is there is answered, and then the connection ends.
    is_last: bool,
    since: Instant,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    sending: Option<Sending>,
}

/// What of an answer the client has not taken yet.
struct Sending {
    head: Vec<u8>,
    body: Bytes,
    /// What it took before.
    taken: usize,
    /// What it has taken of this.
    at: usize,
    sent: Sent,
    /// A stop waits for it.
    under_way: Counted,
}

/// An answer, for the books.
struct Sent {
    again: Again,
    started: Instant,
    head_bytes: usize,
    /// The body's.
    size: usize,
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

// === impl Between ===

impl Between<'_> {
    /// Waits for a request that is Pingora's, and answers those that are not.
    /// `is_new`: none has come on this connection.
    pub(super) async fn next(&self, stream: &mut Guarded, place: &Place<'_>, is_new: bool) -> Next {
        let mut closes = pin!(place.closes.notified());
        // From here on no notice is missed, and before it the flag was looked at or will be.
        closes.as_mut().enable();
        let is_last = self.idle.is_closed();
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
            if self.sending.is_some() {
                ready!(self.poll_send(cx))?;
            }
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
            let body = head_of(&again, now, &mut scratch.write);
            let size = if again.repeat.method == Method::HEAD { 0 } else { again.body.len() };
            let head_bytes = scratch.write.len() + body.len() - size;
            let sent = Sent { again, started, head_bytes, size };
            self.send(cx, &scratch.write, body, sent)?;
            self.since = Instant::now();
            if self.patience != self.between.keepalive {
                (self.patience, self.timer) = (self.between.keepalive, None);
            }
        }
    }

    fn again(&self, head: &[u8], now: SystemTime) -> Option<Again> {
        let origin = self.between.origin.as_ref()?;
        // What is answered is counted, so this comes first.
        if *self.between.shutdown.borrow() {
            return None;
        }
        self.between.repeats.again(head, origin, now)
    }

    /// Sends as much as the client takes at once, and keeps the rest.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: Bytes,
        sent: Sent,
    ) -> std::io::Result<()> {
        let mut at = 0;
        while let Some(rest) = head.get(at..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return sent.fail(at, std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => at += count,
                Poll::Ready(Err(error)) => return sent.fail(at, error),
                Poll::Pending => break,
            }
        }
        if at == head.len() && body.is_empty() {
            match Pin::new(&mut *self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    sent.enter(at, None);
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return sent.fail(at, error),
                Poll::Pending => {}
            }
        }
        let (taken, head) = (at, head.get(at..).unwrap_or_default().to_vec());
        let under_way = self.between.drain.request();
        self.sending = Some(Sending { head, body, taken, at: 0, sent, under_way });
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let done = ready!(sending.poll(cx, self.stream));
        let Some(Sending { sent, taken, at, under_way, .. }) = self.sending.take() else {
            return Poll::Ready(Ok(()));
        };
        self.since = Instant::now();
        let done = match done {
            Ok(()) => {
                sent.enter(taken + at, None);
                Ok(())
            }
            Err(error) => sent.fail(taken + at, error),
        };
        // Not before it is in the books.
        drop(under_way);
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

// === impl Sending ===

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Guarded) -> Poll<std::io::Result<()>> {
        loop {
            let rest = match self.head.get(self.at..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => self.body.get(self.at - self.head.len()..).unwrap_or_default(),
            };
            if rest.is_empty() {
                return Pin::new(stream).poll_flush(cx);
            }
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
        }
    }
}

// === impl Sent ===

impl Sent {
    fn fail(self, taken: usize, error: std::io::Error) -> std::io::Result<()> {
        self.enter(taken, Some(&error));
        Err(error)
    }

    /// The client took so many bytes of it, head and all.
    fn enter(self, taken: usize, error: Option<&std::io::Error>) {
        let elapsed = self.started.elapsed();
        let repeat = &self.again.repeat;
        let bytes = taken.saturating_sub(self.head_bytes).min(self.size) as u64;
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
            ..Line::default()
        };
        line.write(SystemTime::now());
        repeat.count(status);
        repeat.bytes.inc_by(bytes);
        log::took(elapsed);
    }
}

/// Writes an answer's head, and a small body behind it; gives the body that is to follow.
fn head_of(again: &Again, now: SystemTime, out: &mut Vec<u8>) -> Bytes {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    out.extend_from_slice(&again.repeat.headers);
    if let Some([limit, remaining]) = &again.limits {
        for (name, value) in [("Ratelimit-Limit: ", limit), ("Ratelimit-Remaining: ", remaining)] {
            field(out, name, value.as_bytes());
        }
    }
    if let Some(age) = again.age {
        out.extend_from_slice(b"Age: ");
        number(out, age);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Cache-Status: ");
    // A vector takes all that is written.
    let _ = std::io::Write::write_fmt(out, format_args!("{}", again.status));
    out.extend_from_slice(b"\r\nDocker-Distribution-Api-Version: registry/2.0\r\nDate: ");
    clock::date(now, out);
    out.extend_from_slice(b"\r\nConnection: keep-alive\r\n\r\n");
    if again.repeat.method == Method::HEAD {
        return Bytes::new();
    }
    if again.body.len() <= COPIED_BYTES {
        out.extend_from_slice(&again.body);
        return Bytes::new();
    }
    again.body.clone()
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
