//! An answer onto the wire.
//!
//! Large bodies go out in few, large writes; a client that takes them slowly
//! gets smaller ones, so that the write timeout means a client that has
//! stopped. A body that can't be completed cuts the connection, short of its
//! `Content-Length`: nobody may take it for the whole (P2).

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use pingora::{
    http::ResponseHeader,
    prelude::{Error, ErrorType},
    proxy::Session,
};

use super::{
    client_gone,
    head::{API_VERSION, API_VERSION_VALUE},
};
use crate::{
    blob::Stream,
    filter::{Answer, Body},
};

/// The first piece of a body; pieces grow from here while the client keeps up.
const FIRST_PIECE_BYTES: u64 = 256 << 10;

/// The largest piece. Measured on loopback, server CPU per GiB: 64 KiB 0.26 s, 1 MiB 0.13 s,
/// 4 MiB 0.08 s.
const LARGEST_PIECE_BYTES: u64 = 4 << 20;

/// The smallest, for clients on slow links.
const SMALLEST_PIECE_BYTES: u64 = 16 << 10;

/// A write that took less lets the next piece be larger.
const QUICK: Duration = Duration::from_millis(200);

/// A write that took more makes the next piece smaller.
const SLOW: Duration = Duration::from_secs(2);

/// What has gone out of an answer.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Body bytes.
    pub(super) bytes: u64,
    /// When the first of them could go, or the head of an answer that has none.
    pub(super) first: Option<Instant>,
}

/// Writes `answer`; notes in `sent` what has gone.
pub(super) async fn send(
    session: &mut Session,
    answer: Answer,
    sent: &mut Sent,
) -> pingora::Result<()> {
    let length = answer.length();
    let Answer { status, headers, body } = answer;
    let is_head = session.req_header().method == Method::HEAD;
    let mut head = ResponseHeader::build(status, Some(headers.len() + 3))?;
    for (name, value) in &headers {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header(API_VERSION.clone(), API_VERSION_VALUE)?;
    match length {
        _ if headers.contains_key(header::CONTENT_LENGTH) => {}
        Some(length) => head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?,
        // Without it the end of the connection would be the end of the body, cut or whole.
        None if matches!(body, Body::Blob(..)) && !session.is_http2() => {
            head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        None => {}
    }
    let has_body = !is_head && !matches!(body, Body::Empty);
    session.write_response_header(Box::new(head), !has_body).await?;
    if !has_body {
        sent.begin();
        return Ok(());
    }
    match body {
        Body::Empty => Ok(()),
        Body::Bytes(bytes) => {
            sent.begin();
            sent.bytes += bytes.len() as u64;
            session.write_response_body(Some(bytes), true).await
        }
        Body::Blob(stream, _) => send_stream(session, *stream, sent).await,
    }
}

// === impl Sent ===

impl Sent {
    /// From here on the client gets something; only the first time counts.
    pub(super) fn begin(&mut self) {
        self.first.get_or_insert_with(Instant::now);
    }
}

async fn send_stream(
    session: &mut Session,
    mut stream: Stream,
    sent: &mut Sent,
) -> pingora::Result<()> {
    let mut limit = FIRST_PIECE_BYTES;
    while let Some(piece) = next(session, &mut stream, limit).await? {
        sent.begin();
        let (len, started) = (piece.len() as u64, Instant::now());
        session.write_response_body(Some(piece), false).await?;
        sent.bytes += len;
        limit = next_limit(limit, started.elapsed());
    }
    session.write_response_body(None, true).await
}

/// The next piece, unless the client leaves while we wait for it.
async fn next(
    session: &mut Session,
    stream: &mut Stream,
    limit: u64,
) -> pingora::Result<Option<Bytes>> {
    let next = tokio::select! {
        biased;
        next = stream.next(limit) => next,
        gone = client_gone(session) => return Err(gone),
    };
    next.map_err(|error| {
        session.set_keepalive(None);
        Error::because(ErrorType::InternalError, "the body can't be completed", error)
    })
}

fn next_limit(limit: u64, took: Duration) -> u64 {
    if took < QUICK {
        (limit * 2).min(LARGEST_PIECE_BYTES)
    } else if took > SLOW {
        (limit / 4).max(SMALLEST_PIECE_BYTES)
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_client_s_pace() {
        assert_eq!(next_limit(FIRST_PIECE_BYTES, Duration::ZERO), 2 * FIRST_PIECE_BYTES);
        assert_eq!(next_limit(LARGEST_PIECE_BYTES, Duration::ZERO), LARGEST_PIECE_BYTES);
        assert_eq!(next_limit(FIRST_PIECE_BYTES, Duration::from_secs(1)), FIRST_PIECE_BYTES);
        assert_eq!(next_limit(FIRST_PIECE_BYTES, Duration::from_secs(3)), FIRST_PIECE_BYTES / 4);
        assert_eq!(next_limit(SMALLEST_PIECE_BYTES, Duration::from_secs(9)), SMALLEST_PIECE_BYTES);
    }
}
