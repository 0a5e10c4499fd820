//! The second listener: is it alive, is it ready, what does it count, and the API.
//!
//! `page` answers probes and Prometheus, `api` what is below `/api/v1/`. What
//! changes something passes `guard` before its body is read.

mod api;
mod body;
mod endpoint;
mod guard;
mod page;
mod reply;

use std::sync::{Arc, atomic::AtomicBool};

use async_trait::async_trait;
use http::{Method, Response};
use pingora::{apps::http_app::ServeHttp, protocols::http::ServerSession};

use crate::{inventory::Inventory, store::Store, upstream::Upstream};
use reply::Reply;

/// The admin service.
#[derive(Debug, Clone)]
pub struct Admin {
    /// True from when the server accepts clients until it begins to stop.
    ready: Arc<AtomicBool>,
    inventory: Arc<Inventory>,
    upstreams: Arc<[Arc<Upstream>]>,
    store: Arc<Store>,
}

// === impl Admin ===

impl Admin {
    /// Ready while `ready` is; its API is about `inventory` and `upstreams`, and `store` has a state
    /// to tell of.
    pub fn new(
        ready: Arc<AtomicBool>,
        inventory: Arc<Inventory>,
        upstreams: Arc<[Arc<Upstream>]>,
        store: Arc<Store>,
    ) -> Self {
        Self { ready, inventory, upstreams, store }
    }

    async fn reply(&self, session: &mut ServerSession) -> Reply {
        let path = session.req_header().uri.path().to_owned();
        match path.strip_prefix(api::PREFIX) {
            Some(path) => api::answer(&self.inventory, &self.upstreams, path, session).await,
            None => {
                let trouble = || self.store.trouble();
                page::answer(&self.ready, trouble, &session.req_header().method, &path)
            }
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let is_head = session.req_header().method == Method::HEAD;
        self.reply(session).await.into_response(is_head)
    }
}
