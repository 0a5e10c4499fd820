//! Heads as HTTP/1.1 has them on the wire, where Pingora does not write them.

use std::io::Write as _;

use http::{HeaderName, HeaderValue, header};
use pingora::protocols::http::date::get_cached_date;

use crate::filter::{Again, Answer, varies};

/// What every answer of ours says of the API.
pub(super) static API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
pub(super) const API_VERSION_VALUE: HeaderValue = HeaderValue::from_static("registry/2.0");

/// What of the head of a 200 is the same each time that it is given.
pub(super) fn lasting(answer: &Answer) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in answer.headers.iter().filter(|(name, _)| !varies(name)) {
        line(&mut head, name.as_str(), value.as_bytes());
    }
    if !answer.headers.contains_key(header::CONTENT_LENGTH)
        && let Some(length) = answer.length()
    {
        line(&mut head, "content-length", length.to_string().as_bytes());
    }
    line(&mut head, API_VERSION.as_str(), API_VERSION_VALUE.as_bytes());
    line(&mut head, "connection", b"keep-alive");
    head
}

/// Writes the head of an answer that is given again.
pub(super) fn write(again: &Again, out: &mut Vec<u8>) {
    out.extend_from_slice(&again.repeat.head);
    if let Some([limit, remaining]) = &again.limits {
        line(out, "ratelimit-limit", limit.as_bytes());
        line(out, "ratelimit-remaining", remaining.as_bytes());
    }
    if let Some(age) = again.age {
        line(out, "age", itoa::Buffer::new().format(age).as_bytes());
    }
    // A vector takes all that is written.
    let _ = write!(out, "Cache-Status: {}\r\n", again.status);
    line(out, "date", get_cached_date().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a line, its name as HTTP/1.1 is used to it: `Content-Length`.
fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let mut begins = true;
    out.extend(name.bytes().map(|byte| {
        let byte = if begins { byte.to_ascii_uppercase() } else { byte };
        begins = byte == b'-';
        byte
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
