//! From an answer to the wire: whole, or as a fault would have it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use tokio::time::sleep;

use crate::answer::{Answer, DOCKER_CONTENT_DIGEST, RATELIMIT_LIMIT, RATELIMIT_REMAINING};
use crate::digest::sha256;
use crate::fault::Action;
use crate::gate::Pass;
use crate::shared::Shared;
use crate::sync::lock;
use crate::wire::Flushes;

/// Small enough that `bytes_sent` is near what left the socket when a client hangs up.
const PIECE_BYTES: u64 = 256 << 10;
/// A throttled body is sent this many times a second.
const THROTTLE_TICKS: u64 = 20;

/// An answer on its way, with what a fault changed about it.
#[derive(Debug)]
pub(crate) struct Delivery {
    answer: Answer,
    /// What `Content-Length` says; `None`: chunked.
    length: Option<u64>,
    /// Bytes of the body to send before `end`.
    stop: u64,
    end: End,
    pace: Option<Pace>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    /// The connection closes.
    Cut,
    /// Nothing more comes.
    Silence,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    bytes: u64,
    every: Duration,
}

/// The connection closes because a fault said so.
#[derive(Debug, thiserror::Error)]
#[error("cut by a fault")]
struct Cut;

/// Where sent bytes are booked.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
}

// === impl Delivery ===

impl Delivery {
    pub(crate) fn new(answer: Answer) -> Self {
        let length = answer.body.len() as u64;
        Self { answer, length: Some(length), stop: length, end: End::Clean, pace: None }
    }

    /// Applies an action of the second sort; the first sort never gets here.
    pub(crate) fn alter(mut self, action: Action) -> Self {
        match action {
            Action::HangBodyAfter(bytes) => self.end_after(bytes, End::Silence),
            Action::CutAfter(bytes) => self.end_after(bytes, End::Cut),
            Action::EndEarlyWithoutLength(bytes) => {
                self.length = None;
                self.end_after(bytes, End::Clean);
            }
            Action::NoLength => self.length = None,
            Action::Length(off) => self.misstate_length(off),
            Action::FlipByte(offset) => self.flip(offset),
            Action::Drip { bytes, every } => self.pace = Some(Pace { bytes: bytes.max(1), every }),
            Action::Throttle(rate) => self.pace = Some(Pace::throttle(rate)),
            Action::Substitute(body) => {
                self = Self::new(Answer { body, ..self.answer });
            }
            Action::WrongDigestHeader => {
                self.answer = self.answer.with(DOCKER_CONTENT_DIGEST, &sha256(b"another body"));
            }
            Action::NoDigestHeader => {
                self.answer.headers.remove(DOCKER_CONTENT_DIGEST);
            }
            Action::BadHeaders => {
                let bad = ";w=21600";
                self.answer = self.answer.with(RATELIMIT_LIMIT, bad).with(RATELIMIT_REMAINING, bad);
            }
            _ => {}
        }
        self
    }

    fn end_after(&mut self, bytes: u64, end: End) {
        if bytes < self.stop {
            self.stop = bytes;
            self.end = end;
        }
    }

    fn misstate_length(&mut self, off: i64) {
        let said = self.stop.saturating_add_signed(off);
        self.length = Some(said);
        match said.checked_sub(self.stop) {
            Some(1..) => self.end = End::Cut,
            Some(0) => {}
            None => self.stop = said,
        }
    }

    fn flip(&mut self, offset: u64) {
        let mut body = self.answer.body.to_vec();
        if let Some(byte) = usize::try_from(offset).ok().and_then(|at| body.get_mut(at)) {
            *byte ^= 0xff;
        }
        self.answer.body = body.into();
    }

    /// Head of the answer only; axum drops the body of a HEAD, whose length is still told.
    pub(crate) fn send(self, gates: Vec<Pass>, flushes: Flushes, meter: Meter) -> Response<Body> {
        let Answer { status, headers, body } = self.answer;
        lock(&meter.shared.log).answered(meter.number, status.as_u16());
        let sending = Sending {
            body,
            sent: 0,
            stop: self.stop,
            end: self.end,
            pace: self.pace,
            gates: gates.into_iter().collect(),
            flushes,
            meter,
        };
        // hyper trusts the header over the body's length only while it cannot know the latter.
        let stream = stream::unfold(sending, Sending::next);
        let mut response = Response::new(Body::from_stream(stream));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        // RFC 9110 §8.6: a 304 that said zero would misstate the length of the 200 it stands for.
        if let Some(length) = self.length.filter(|_| status != http::StatusCode::NOT_MODIFIED) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

impl Pace {
    fn throttle(rate: u64) -> Self {
        let every = Duration::from_secs(1) / THROTTLE_TICKS as u32;
        Self { bytes: (rate / THROTTLE_TICKS).max(1), every }
    }
}

/// A body under way.
struct Sending {
    body: Bytes,
    sent: u64,
    stop: u64,
    end: End,
    pace: Option<Pace>,
    /// Gates ahead, nearest first.
    gates: std::collections::VecDeque<Pass>,
    flushes: Flushes,
    meter: Meter,
}

// === impl Sending ===

impl Sending {
    async fn next(mut self) -> Option<(Result<Bytes, Cut>, Self)> {
        while let Some(gate) = self.gates.pop_front_if(|gate| gate.after_bytes <= self.sent) {
            gate.through().await;
        }
        if self.sent == self.stop {
            return self.finish().await.map(|cut| (Err(cut), self));
        }
        if let Some(pace) = self.pace.filter(|_| self.sent > 0) {
            sleep(pace.every).await;
        }
        let piece = self.piece();
        self.sent += piece.len() as u64;
        lock(&self.meter.shared.log).sent(self.meter.number, piece.len() as u64);
        Some((Ok(piece), self))
    }

    async fn finish(&self) -> Option<Cut> {
        match self.end {
            End::Clean => None,
            End::Silence => std::future::pending().await,
            End::Cut => {
                self.flushes.next().await;
                Some(Cut)
            }
        }
    }

    fn piece(&self) -> Bytes {
        let gate = self.gates.front().map_or(u64::MAX, |gate| gate.after_bytes);
        let pace = self.pace.map_or(PIECE_BYTES, |pace| pace.bytes);
        let until = self.stop.min(gate).min(self.sent + pace.min(PIECE_BYTES));
        // Both lie within the body, whose length is a usize.
        self.body.slice(self.sent as usize..until as usize)
    }
}
