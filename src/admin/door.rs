//! Connections to the second listener: so many at a time, and TLS where it is configured.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::ServerApp,
    listeners::tls::Acceptor,
    protocols::{Stream, l4::stream::Stream as Socket},
    server::ShutdownWatch,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{Admin, access::Access, router, serve::Http};
use crate::{config, tls};

/// Connections at a time.
const MOST: usize = 256;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The second listener, as Pingora serves it.
pub struct Service {
    http: Arc<Http>,
    tls: Option<Arc<tls::Server>>,
    free: Semaphore,
}

// === impl Service ===

impl Service {
    /// Answers questions about `admin`, to those whom `config` lets in, behind `tls` if there is any.
    /// The error names the key of the configuration.
    pub fn new(
        admin: Admin,
        config: &config::Admin,
        tls: Option<Arc<tls::Server>>,
    ) -> Result<Self, String> {
        let http = Http::new(router::router(Arc::new(admin)), Access::new(config)?);
        Ok(Self { http: Arc::new(http), tls, free: Semaphore::new(MOST) })
    }

    async fn open(&self, stream: Stream) -> Option<Stream> {
        let Some(tls) = &self.tls else { return Some(stream) };
        // The listener is a socket without TLS of Pingora's own.
        let socket = *stream.into_any().downcast::<Socket>().ok()?;
        let acceptor = Acceptor::from_server_config(tls.get());
        match timeout(HANDSHAKE, acceptor.tls_handshake(socket)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection to the admin listener did not come to TLS");
                None
            }
            Err(_) => None,
        }
    }
}

#[async_trait]
impl ServerApp for Service {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let Ok(_place) = self.free.try_acquire() else {
            tracing::warn!("a connection was closed: {MOST} to the admin listener are open");
            return None;
        };
        let mut next = self.open(stream).await;
        while let Some(stream) = next {
            next = ServerApp::process_new(&self.http, stream, shutdown).await;
        }
        None
    }
}
