//! The second listener: is it alive, is it ready, and what does it count.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::{apps::http_app::ServeHttp, protocols::http::ServerSession};

use crate::{metrics, store::Store};

/// The admin service.
#[derive(Debug, Clone)]
pub struct Admin {
    /// True from when the server accepts clients until it begins to stop.
    ready: Arc<AtomicBool>,
    store: Arc<Store>,
}

// === impl Admin ===

impl Admin {
    /// Ready while `ready` is; tells of the state of `store`.
    pub fn new(ready: Arc<AtomicBool>, store: Arc<Store>) -> Self {
        Self { ready, store }
    }

    /// A store in trouble is no reason to send clients elsewhere: pulls go on without it.
    fn readiness(&self) -> (StatusCode, String) {
        if !self.ready.load(Ordering::Acquire) {
            return (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n".to_owned());
        }
        let state = match self.store.trouble() {
            None => "ready\n".to_owned(),
            Some(trouble) => format!("ready, but the store is degraded: {trouble}\n"),
        };
        (StatusCode::OK, state)
    }

    fn page(&self, method: &Method, path: &str) -> (StatusCode, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        if !matches!(*method, Method::GET | Method::HEAD) {
            let remedy = "only GET and HEAD are answered here\n".to_owned();
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, remedy);
        }
        match path {
            "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => {
                let (status, state) = self.readiness();
                (status, TEXT, state)
            }
            "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4", metrics::page()),
            _ => {
                let known = "there are /healthz, /readyz and /metrics\n".to_owned();
                (StatusCode::NOT_FOUND, TEXT, known)
            }
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let is_head = head.method == Method::HEAD;
        let (status, content_type, text) = self.page(&head.method, head.uri.path());
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_LENGTH, text.len());
        let body = if is_head { Vec::new() } else { text.into_bytes() };
        response.body(body).expect("a response of constant headers can be built")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_starts_or_stops_is_alive_but_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().to_owned();
        let config = crate::config::Store { directory, ..crate::config::Store::default() };
        let store = Arc::new(Store::open(&config).unwrap());
        let ready = Arc::new(AtomicBool::new(false));
        let admin = Admin::new(Arc::clone(&ready), Arc::clone(&store));
        assert_eq!(admin.page(&Method::GET, "/readyz").0, StatusCode::SERVICE_UNAVAILABLE);
        ready.store(true, Ordering::Release);
        assert_eq!(admin.page(&Method::GET, "/readyz").0, StatusCode::OK);
        store.report_slow();
        let (status, _, said) = admin.page(&Method::GET, "/readyz");
        assert_eq!(status, StatusCode::OK);
        assert!(said.contains("degraded"), "{said}");
        assert_eq!(admin.page(&Method::GET, "/healthz").0, StatusCode::OK);
        assert_eq!(admin.page(&Method::GET, "/").0, StatusCode::NOT_FOUND);
        assert_eq!(admin.page(&Method::POST, "/metrics").0, StatusCode::METHOD_NOT_ALLOWED);
    }
}
