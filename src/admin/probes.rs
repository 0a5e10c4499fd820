//! The pages for probes and Prometheus.

use std::sync::atomic::Ordering;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};

use super::{Server, reply::text};
use crate::metrics;

/// The version of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

pub(super) fn router() -> Router<Server> {
    Router::new()
        .route("/healthz", get(async || text("ok\n")))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async || ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::page())))
}

async fn readyz(State(server): State<Server>) -> Response {
    let is_ready = server.ready.load(Ordering::Acquire);
    readiness(is_ready, || server.store.trouble())
}

/// `trouble` is what is wrong with the store, in a sentence.
fn readiness(is_ready: bool, trouble: impl FnOnce() -> Option<String>) -> Response {
    if !is_ready {
        return (StatusCode::SERVICE_UNAVAILABLE, text("starting or stopping\n")).into_response();
    }
    match trouble() {
        None => text("ready\n"),
        // No reason to send clients elsewhere: pulls go on without the store.
        Some(trouble) => text(&format!("ready, but the store is degraded: {trouble}\n")),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn a_server_that_starts_or_stops_is_not_ready() {
        assert_eq!(readiness(false, || None).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(readiness(true, || None).status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_store_in_trouble_is_told_of_and_keeps_nobody_away() {
        let reply = readiness(true, || Some("the file system is full".to_owned()));
        assert_eq!(reply.status(), StatusCode::OK);
        let said = reply.into_body().collect().await.unwrap().to_bytes();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("degraded: the file system is full"), "{said}");
    }
}
