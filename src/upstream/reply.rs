//! What an answer of upstream says: its headers as values, its errors as kinds.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{Error, Failure, exchange::Reply};
use crate::protocol::{
    ByteRange, Digest,
    error::parse_errors,
    range::parse_content_range,
    ratelimit::{RateLimit, retry_after},
};

/// An error's body is read up to here.
const ERROR_BYTES: u64 = 64 * 1024;

/// An answer that is a success, or what it means that it isn't.
pub(super) async fn expect_ok(reply: Reply) -> Result<Reply, Error> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    Err(into_error(reply).await)
}

/// What an unsuccessful answer means.
pub(super) async fn into_error(reply: Reply) -> Error {
    let (status, headers) = (reply.status, reply.headers);
    let wait = retry_after(&headers, SystemTime::now());
    let challenge = headers.get(header::WWW_AUTHENTICATE).cloned();
    let body = reply.body.collect(ERROR_BYTES).await.ok().flatten().unwrap_or_default();
    let (code, message) = match parse_errors(&body).into_iter().next() {
        Some((code, message)) => (Some(code), message),
        None => (None, status.to_string()),
    };
    match status {
        StatusCode::UNAUTHORIZED => Error::Unauthorized { message, challenge },
        StatusCode::FORBIDDEN => Error::Denied { message },
        StatusCode::NOT_FOUND => Error::NotFound { code, message },
        StatusCode::TOO_MANY_REQUESTS => Failure::RateLimited { message, retry_after: wait }.into(),
        _ if status.is_server_error() => Failure::Status { status, retry_after: wait }.into(),
        _ if status.is_client_error() => Error::Refused { status, message },
        _ => Failure::invalid(format!("the status {status} where a body was asked for")).into(),
    }
}

/// Whether the 429 with these headers, on a request that the registry counts, means that the budget
/// is spent, and not that there were too many requests at once: Hub says so by its headers and in
/// its sentence, and another Roadstead like it.
pub(super) fn is_budget_spent(headers: &HeaderMap, failure: &Failure) -> bool {
    let none_left = RateLimit::from_headers(headers).is_some_and(|said| said.remaining == Some(0));
    let Failure::RateLimited { message, .. } = failure else { return false };
    none_left || message.to_ascii_lowercase().contains("pull rate limit")
}

/// `Docker-Content-Digest`, if it is there and is one.
pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get("docker-content-digest")?.to_str().ok()?).ok()
}

pub(super) fn content_range(headers: &HeaderMap) -> Option<(ByteRange, Option<u64>)> {
    parse_content_range(text(headers, &header::CONTENT_RANGE)?)
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}
