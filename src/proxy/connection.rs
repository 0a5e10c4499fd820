//! Connections before Pingora's HTTP sees them: a cap, and what goes on between requests.

use std::{sync::Arc, time::Duration};

use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ServerApp},
    protocols::{
        ALPN, GetProxyDigest as _, GetSocketDigest as _, Ssl as _, Stream, http::ServerSession,
    },
    proxy::HttpProxy,
    server::ShutdownWatch,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Drain, Proxy,
    between::{Between, Next},
    drain::Counted,
    guarded::{Guarded, Limits},
    idle::Idle,
};
use crate::{
    config::Downstream,
    filter::{Chain, Peer, Repeats},
    metrics,
};

/// How long a new connection may wait with its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// Pingora's proxy behind the connections' rules.
pub struct Connections {
    proxy: Arc<HttpProxy<Proxy>>,
    chain: Arc<Chain>,
    limits: Limits,
    keepalive: Duration,
    idle: Idle,
    free: Semaphore,
    drain: Arc<Drain>,
}

/// One of the connections that may be open.
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    _open: Counted,
}

// === impl Connections ===

impl Connections {
    /// Connections within the limits of `downstream`; `drain` says when idle ones are closed.
    pub fn new(
        proxy: HttpProxy<Proxy>,
        chain: Arc<Chain>,
        downstream: &Downstream,
        drain: Arc<Drain>,
    ) -> Self {
        let limits = Limits { head: downstream.head, write: downstream.write };
        let free = Semaphore::new(downstream.max_connections.min(Semaphore::MAX_PERMITS));
        Self {
            proxy: Arc::new(proxy),
            chain,
            limits,
            keepalive: downstream.keepalive,
            idle: Idle::default(),
            free,
            drain,
        }
    }
}

impl Connections {
    /// Room for one more connection, which it has until this is dropped.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        let Ok(permit) = self.free.try_acquire() else {
            tracing::warn!(
                limit = "downstream.max_connections",
                remedy = "raise downstream.max_connections, and the limit on open files with it",
                "a connection was closed: downstream.max_connections are open"
            );
            return None;
        };
        metrics::CONNECTIONS.inc();
        Some(Place { _permit: permit, _open: self.drain.connection() })
    }

    /// How long a connection may take until HTTP begins on it.
    pub(super) fn patience(&self) -> Duration {
        self.limits.head
    }

    /// What goes on here that a stop waits for.
    pub(super) fn under_way(&self) -> Counted {
        self.drain.request()
    }

    /// Serves HTTP until the client or its time is gone.
    pub(super) async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let guarded = Box::new(Guarded::new(stream, self.limits));
        match guarded.selected_alpn_proto() {
            Some(ALPN::H2) => ServerApp::process_new(&self.proxy, guarded, shutdown).await,
            _ => self.serve_http1(guarded, shutdown).await,
        }
    }

    async fn serve_http1(
        &self,
        mut stream: Box<Guarded>,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let between = Between {
            repeats: self.repeats(&stream),
            drain: &self.drain,
            idle: &self.idle,
            shutdown,
            first: FIRST_REQUEST,
            keepalive: self.keepalive,
        };
        let place = self.idle.enter();
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            let is_new = settings.is_none();
            if between.next(&mut stream, &place, is_new).await == Next::End {
                return None;
            }
            let mut session = ServerSession::new_http1(stream);
            match settings {
                Some(settings) => settings.apply_to_session(&mut session),
                // The connection stays, unless the server is to stop.
                None => {
                    let stays = !*shutdown.borrow();
                    session.set_keepalive(stays.then_some(FIRST_REQUEST.as_secs()));
                }
            }
            let again = self.proxy.process_new_http(session, shutdown).await?;
            let (back, kept) = again.consume();
            settings = kept;
            stream = back.into_any().downcast().ok()?;
        }
    }

    /// Who has connected, unless all requests of the connection go the long way.
    fn repeats(&self, stream: &Guarded) -> Option<(&Repeats, Peer)> {
        let repeats = self.chain.repeats()?;
        // What a client of a transparent listener wants is not in its heads alone.
        if stream.get_proxy_digest().is_some_and(|digest| digest.user_data.is_some()) {
            return None;
        }
        let digest = stream.get_socket_digest()?;
        let address = digest.peer_addr().and_then(|address| address.as_inet());
        Some((repeats, repeats.peer(address.map(|address| address.ip()))))
    }

    /// Runs once a listener is closed. Pingora's own cleanup closes each connection on which
    /// no whole head has come, those accepted a moment ago included, so it comes late.
    pub(super) async fn cleanup(&self) {
        self.drain.linger().await;
        self.idle.close();
        ServerApp::cleanup(&*self.proxy).await;
        self.drain.closed().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        metrics::CONNECTIONS.dec();
    }
}
