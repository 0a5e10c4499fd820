//! What is looked at while the server runs: the totals, and the upstreams, those too that come with a
//! reload.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::task::JoinHandle;

use crate::{
    status::Monitor,
    upstream::{Roster, Upstream},
};

/// Has the totals looked at.
pub(super) struct Looking(pub(super) Arc<Monitor>);

/// The upstreams to be looked after.
pub(super) struct Watch(pub(super) Arc<Roster>);

/// One that is looked after until this is dropped.
struct Watched {
    upstream: Arc<Upstream>,
    task: JoinHandle<()>,
}

// === impl Looking ===

#[async_trait]
impl BackgroundService for Looking {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.0.run() => {}
            // An error means that the server is gone, which is a shutdown too.
            _ = shutdown.wait_for(|stops| *stops) => {}
        }
        self.0.finish().await;
    }
}

// === impl Watch ===

#[async_trait]
impl BackgroundService for Watch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut upstreams = self.0.follow();
        let mut watched: Vec<Watched> = Vec::new();
        loop {
            let now = Arc::clone(&upstreams.borrow_and_update());
            watched.retain(|one| now.iter().any(|other| Arc::ptr_eq(&one.upstream, other)));
            for upstream in now.iter() {
                if !watched.iter().any(|one| Arc::ptr_eq(&one.upstream, upstream)) {
                    watched.push(Watched::begin(upstream));
                }
            }
            // An error means that the server is gone, which is a shutdown too; what is watched ends
            // with the list.
            tokio::select! {
                _ = shutdown.wait_for(|stops| *stops) => return,
                changed = upstreams.changed() => if changed.is_err() { return },
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    fn begin(upstream: &Arc<Upstream>) -> Self {
        let (upstream, own) = (Arc::clone(upstream), Arc::clone(upstream));
        Self { upstream, task: tokio::spawn(async move { own.watch().await }) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
