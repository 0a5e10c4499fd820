//! What a client is answered: status, headers and a body yet to be written.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::blob::Stream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers. `Content-Length` is added from the body where it isn't among them.
    pub headers: HeaderMap,
    /// Its body. To a HEAD only the headers are sent.
    pub body: Body,
}

/// A body.
#[derive(Debug)]
pub enum Body {
    /// None.
    Empty,
    /// All of it.
    Bytes(Bytes),
    /// A blob's bytes, with their count where it is known.
    Blob(Box<Stream>, Option<u64>),
}

// === impl Answer ===

impl Answer {
    /// An answer without headers and body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::with_capacity(12), body: Body::Empty }
    }

    /// An answer of plain text.
    pub fn text(status: StatusCode, text: &str) -> Self {
        Self::new(status)
            .with(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
            .body(Body::Bytes(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The body's length, where an answer of this status tells one.
    pub fn length(&self) -> Option<u64> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Blob(_, length) => *length,
            // RFC 9110 §8.6: a 304 need not repeat it, and 0 would be wrong.
            Body::Empty if self.status == StatusCode::NOT_MODIFIED => None,
            Body::Empty => Some(0),
        }
    }

    /// With a header more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With a header more, if its value can be one.
    #[must_use]
    pub fn with_text(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}
