//! The pages for probes and Prometheus.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};

use super::reply::Reply;
use crate::metrics;

/// The version of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// `trouble` is what is wrong with the store, in a sentence.
pub(super) fn answer(
    ready: &AtomicBool,
    trouble: impl FnOnce() -> Option<String>,
    method: &Method,
    path: &str,
) -> Reply {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let remedy = "only GET and HEAD are answered here\n";
        return Reply::text(StatusCode::METHOD_NOT_ALLOWED, remedy).allowing("GET, HEAD");
    }
    match path {
        "/healthz" => Reply::text(StatusCode::OK, "ok\n"),
        "/readyz" if !ready.load(Ordering::Acquire) => {
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n")
        }
        "/readyz" => match trouble() {
            None => Reply::text(StatusCode::OK, "ready\n"),
            // No reason to send clients elsewhere: pulls go on without the store.
            Some(trouble) => {
                let state = format!("ready, but the store is degraded: {trouble}\n");
                Reply::text(StatusCode::OK, &state)
            }
        },
        "/metrics" => Reply::new(StatusCode::OK, METRICS_TYPE, metrics::page().into_bytes()),
        _ => {
            let known = "there are /healthz, /readyz, /metrics and /api/v1/\n";
            Reply::text(StatusCode::NOT_FOUND, known)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_starts_or_stops_is_alive_but_not_ready() {
        let ready = AtomicBool::new(false);
        let status = |method: &Method, path: &str| answer(&ready, || None, method, path).status;
        assert_eq!(status(&Method::GET, "/readyz"), StatusCode::SERVICE_UNAVAILABLE);
        ready.store(true, Ordering::Release);
        assert_eq!(status(&Method::GET, "/readyz"), StatusCode::OK);
        assert_eq!(status(&Method::GET, "/healthz"), StatusCode::OK);
        assert_eq!(status(&Method::GET, "/"), StatusCode::NOT_FOUND);
        assert_eq!(status(&Method::POST, "/metrics"), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_store_in_trouble_is_told_of_and_keeps_nobody_away() {
        let ready = AtomicBool::new(true);
        let trouble = || Some("the file system is full".to_owned());
        let reply = answer(&ready, trouble, &Method::GET, "/readyz");
        assert_eq!(reply.status, StatusCode::OK);
        let said = String::from_utf8_lossy(&reply.body);
        assert!(said.contains("degraded: the file system is full"), "{said}");
    }
}
