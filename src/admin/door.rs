//! Connections to the second listener: so many at a time, and TLS where it is configured.
//!
//! Nobody has all of the places, so that probes from elsewhere find one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora::{
    apps::ServerApp,
    listeners::tls::Acceptor,
    protocols::{Stream, l4::stream::Stream as Socket},
    server::ShutdownWatch,
};
use tokio::time::timeout;

use super::{
    Admin,
    access::{Access, Operators},
    router,
    serve::Http,
};
use crate::{config, tls};

/// Connections at a time.
const MOST: usize = 256;

/// Of them from one address, whichever it is.
const MOST_OF_ONE: usize = 32;

/// How often the log says that there is no place.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The second listener, as Pingora serves it.
pub struct Service {
    http: Arc<Http>,
    tls: Option<Arc<tls::Server>>,
    places: Places,
}

/// Who is connected.
#[derive(Debug, Default)]
struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// Connections of each address that has any.
    of: HashMap<Option<IpAddr>, usize>,
    all: usize,
    /// When the log last said that there was no place.
    told: Option<Instant>,
}

/// One connection's, until it is dropped.
#[derive(Debug)]
struct Place<'a> {
    places: &'a Places,
    peer: Option<IpAddr>,
}

// === impl Service ===

impl Service {
    /// Answers questions about `admin`, to those whom `config` lets in, `operators` among them, behind
    /// `tls` if there is any.
    pub fn new(
        admin: Admin,
        config: &config::Admin,
        operators: Arc<Operators>,
        tls: Option<Arc<tls::Server>>,
    ) -> Self {
        let router = router::router(Arc::new(admin));
        let http = Arc::new(Http::new(router, Access::new(config, operators)));
        Self { http, tls, places: Places::default() }
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
        let digest = stream.get_socket_digest();
        let peer = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet());
        let peer = peer.map(|address| address.ip().to_canonical());
        let _place = self.places.take(peer, Instant::now())?;
        let mut next = self.open(stream).await;
        while let Some(stream) = next {
            next = ServerApp::process_new(&self.http, stream, shutdown).await;
        }
        None
    }
}

// === impl Places ===

impl Places {
    /// A place for `peer`, if there is one.
    fn take(&self, peer: Option<IpAddr>, now: Instant) -> Option<Place<'_>> {
        let mut taken = self.lock();
        let of_it = taken.of.get(&peer).copied().unwrap_or_default();
        if taken.all < MOST && of_it < MOST_OF_ONE {
            taken.all += 1;
            taken.of.insert(peer, of_it + 1);
            return Some(Place { places: self, peer });
        }
        if taken.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            taken.told = Some(now);
            let (all, peer) = (taken.all, peer.map(|peer| peer.to_string()));
            tracing::warn!(
                peer,
                of_it,
                all,
                "a connection to the admin listener was closed: {MOST_OF_ONE} of an address may be \
                 open, and {MOST} in all"
            );
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(of_it) = taken.of.get_mut(&self.peer) {
            *of_it = of_it.saturating_sub(1);
            if *of_it == 0 {
                taken.of.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_the_places_and_gives_them_back() {
        let (places, now) = (Places::default(), Instant::now());
        let of = |last: u8| Some(IpAddr::from([127, 0, 0, last]));
        let own: Vec<_> = (0..MOST_OF_ONE).map(|_| places.take(of(1), now).unwrap()).collect();
        assert!(places.take(of(1), now).is_none());
        assert!(places.take(of(2), now).is_some(), "another's are another's");
        drop(own);
        assert!(places.take(of(1), now).is_some());
        assert!(places.lock().of.is_empty() && places.lock().all == 0);
        let peers = (0..=u8::MAX).map(|at| of(at / 32));
        let all: Vec<_> = peers.map(|peer| places.take(peer, now).unwrap()).collect();
        assert_eq!(all.len(), MOST);
        assert!(places.take(of(200), now).is_none());
        drop(all);
        assert!(places.take(of(200), now).is_some());
    }
}
