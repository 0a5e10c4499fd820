//! One line and one set of counts per request.
//!
//! A line names time, client, method, path, upstream, status, bytes,
//! milliseconds, what the cache did, what it spent and has left of the pull
//! budget, and the bytes that a push brought. Headers are never logged.

use http::Method;
use pingora::{prelude::Error, proxy::Session};

use super::{Journey, millis};
use crate::metrics;

/// Writes the access line of a request that has ended.
pub(super) fn request(session: &Session, error: Option<&Error>, journey: &Journey) {
    let Some(context) = &journey.context else {
        return;
    };
    let head = session.req_header();
    // 499, as nginx has it: the client left before there was an answer.
    let status = session.response_written().map_or(499, |response| response.status.as_u16());
    let elapsed = journey.started.elapsed();
    let bytes = if journey.sent > 0 { journey.sent } else { session.body_bytes_sent() as u64 };
    let received = session.as_ref().body_bytes_read() as u64;
    let client = context.client.address.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
    tracing::info!(
        target: "access",
        client,
        method = %head.method,
        path = head.uri.path(),
        upstream = context.upstream_name(),
        status,
        bytes,
        ms = millis(elapsed),
        cache = context.cache,
        spent = context.is_counted.then_some(1),
        left = context.left,
        received = (received > 0).then_some(received),
        error = error.map(|error| error.to_string()),
    );
    let labels = [
        context.upstream_name(),
        context.kind(),
        method(&head.method),
        &status.to_string(),
        context.cache,
    ];
    metrics::REQUESTS.with_label_values(&labels).inc();
    let labels = [context.upstream_name(), context.kind()];
    metrics::RESPONSE_BYTES.with_label_values(&labels).inc_by(bytes);
    if received > 0 {
        metrics::REQUEST_BYTES.with_label_values(&labels).inc_by(received);
    }
    metrics::REQUEST_SECONDS.observe(elapsed.as_secs_f64());
}

/// A label of few values, whatever a client sends.
pub(super) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
