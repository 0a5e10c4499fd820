//! Warming, as a service: it runs for as long as the server does.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};

use crate::warm::Warmer;

/// Carries out what is to be warmed, on a thread of its own: clients are not kept waiting by it.
pub(super) struct Warming(pub(super) Arc<Warmer>);

#[async_trait]
impl BackgroundService for Warming {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.0.run() => {}
            // An error means that the server is gone, which is a shutdown too.
            _ = shutdown.wait_for(|stops| *stops) => {}
        }
        self.0.stop();
    }
}
