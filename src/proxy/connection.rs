//! Connections before Pingora's HTTP sees them: a cap, and what goes on between requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ServerApp},
    protocols::{
        ALPN, GetProxyDigest as _, GetSocketDigest as _, Ssl as _, Stream, http::ServerSession,
    },
    proxy::HttpProxy,
    server::ShutdownWatch,
};

use super::{
    Drain, Live, Proxy,
    between::{Between, Known, Next},
    drain::Counted,
    guarded::{Guarded, Limits},
    idle::Idle,
};
use crate::metrics;

/// How long a new connection may wait with its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// Pingora's proxy behind the connections' rules.
pub struct Connections {
    proxy: Arc<HttpProxy<Proxy>>,
    live: Arc<Live>,
    idle: Idle,
    /// Connections that are open.
    open: AtomicUsize,
    drain: Arc<Drain>,
}

/// One of the connections that may be open.
pub(super) struct Place<'a> {
    open: &'a AtomicUsize,
    _counted: Counted,
}

// === impl Connections ===

impl Connections {
    /// Connections within the limits that are `live` when each begins; `drain` says when idle ones
    /// are closed.
    pub fn new(proxy: HttpProxy<Proxy>, live: Arc<Live>, drain: Arc<Drain>) -> Self {
        let (proxy, open) = (Arc::new(proxy), AtomicUsize::new(0));
        Self { proxy, live, idle: Idle::default(), open, drain }
    }
}

impl Connections {
    /// Room for one more connection, which it has until this is dropped.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        let limit = self.live.load().downstream.max_connections;
        let one_more = |open: usize| (open < limit).then_some(open + 1);
        if self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            tracing::warn!(
                limit = "downstream.max_connections",
                remedy = "raise downstream.max_connections, and the limit on open files with it",
                "a connection was closed: downstream.max_connections are open"
            );
            return None;
        }
        metrics::CONNECTIONS.inc();
        Some(Place { open: &self.open, _counted: self.drain.connection() })
    }

    /// How long a connection may take until HTTP begins on it.
    pub(super) fn patience(&self) -> Duration {
        self.live.load().downstream.head
    }

    /// What goes on here that a stop waits for.
    pub(super) fn under_way(&self) -> Counted {
        self.drain.request()
    }

    /// Serves HTTP until the client or its time is gone.
    pub(super) async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let limits = {
            let rules = self.live.load();
            Limits { head: rules.downstream.head, write: rules.downstream.write }
        };
        let guarded = Box::new(Guarded::new(stream, limits));
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
        let mut between = Between {
            known: self.known(&stream),
            drain: &self.drain,
            idle: &self.idle,
            shutdown,
            first: FIRST_REQUEST,
            keepalive: self.live.load().downstream.keepalive,
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
    fn known(&self, stream: &Guarded) -> Option<Known<'_>> {
        // What a client of a transparent listener wants is not in its heads alone.
        if stream.get_proxy_digest().is_some_and(|digest| digest.user_data.is_some()) {
            return None;
        }
        let digest = stream.get_socket_digest()?;
        let address = digest.peer_addr().and_then(|address| address.as_inet());
        Some(Known::new(&self.live, address.map(|address| address.ip())))
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
        self.open.fetch_sub(1, Ordering::AcqRel);
        metrics::CONNECTIONS.dec();
    }
}
