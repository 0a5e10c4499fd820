//! How many tunnels there may be, and how much may go on to make one.
//!
//! Clients choose the names, so that whatever a name costs has a limit: a tunnel two connections, a
//! name that is looked up one thread. A tunnel that leads back here would make tunnels without end;
//! it is known by its ClientHello, which comes a second time.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::hello::Random;

/// Names that are looked up at a time. The system's resolver takes a thread for each, and does not
/// stop when nobody waits for it any more.
const MOST_LOOKUPS: usize = 32;

/// The limits of all transparent listeners together.
#[derive(Debug)]
pub struct Bounds {
    tunnels: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// Of the ClientHellos that are being passed on.
    passing: Mutex<HashSet<Random>>,
}

/// A ClientHello that is being passed on until this is dropped.
#[derive(Debug)]
pub(super) struct Passing {
    bounds: Arc<Bounds>,
    random: Random,
}

/// So many are under way already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

// === impl Bounds ===

impl Bounds {
    /// Of so many connections in all, half may be tunnels.
    pub fn new(max_connections: usize) -> Arc<Self> {
        let tunnels = (max_connections / 2).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            tunnels: Arc::new(Semaphore::new(tunnels)),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            passing: Mutex::default(),
        })
    }

    /// Room for one more tunnel, which it has until this is dropped.
    pub(super) fn tunnel(&self) -> Result<OwnedSemaphorePermit, Busy> {
        Arc::clone(&self.tunnels).try_acquire_owned().map_err(|_| Busy)
    }

    /// The right to pass a ClientHello on; `None` if that is being done, so that it has come back.
    pub(super) fn pass(self: &Arc<Self>, random: Random) -> Option<Passing> {
        let mut passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = passing.insert(random);
        is_new.then(|| Passing { bounds: Arc::clone(self), random })
    }

    /// The addresses of a host.
    pub(super) async fn look_up(
        &self,
        host: &str,
        port: u16,
    ) -> Result<io::Result<Vec<SocketAddr>>, Busy> {
        let host = host.to_owned();
        self.blocking(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
    }

    /// Runs `work` on a thread; its place is free again when it ends, whoever waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, Busy> {
        let permit = Arc::clone(&self.lookups).try_acquire_owned().map_err(|_| Busy)?;
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        Ok(worked.await.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

// === impl Passing ===

impl Drop for Passing {
    fn drop(&mut self) {
        let mut passing = self.bounds.passing.lock().unwrap_or_else(PoisonError::into_inner);
        passing.remove(&self.random);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn half_of_all_connections_may_be_tunnels() {
        for (connections, tunnels) in [(1, 1), (2, 1), (7, 3), (10_000, 5_000)] {
            let bounds = Bounds::new(connections);
            let held: Vec<_> = (0..tunnels).map(|_| bounds.tunnel().unwrap()).collect();
            assert_eq!(bounds.tunnel().unwrap_err(), Busy, "{connections}");
            drop(held);
            assert!(bounds.tunnel().is_ok());
        }
    }

    #[test]
    fn a_hello_is_passed_on_once_at_a_time() {
        let bounds = Bounds::new(10);
        let first = bounds.pass([1; 32]).unwrap();
        assert!(bounds.pass([1; 32]).is_none());
        assert!(bounds.pass([2; 32]).is_some());
        drop(first);
        assert!(bounds.pass([1; 32]).is_some());
    }

    #[tokio::test]
    async fn a_lookup_that_nobody_waits_for_keeps_its_place() {
        let bounds = Bounds::new(10);
        let mut go_on = Vec::new();
        for _ in 0..MOST_LOOKUPS {
            let (send, receive) = mpsc::channel::<()>();
            go_on.push(send);
            let hangs = bounds.blocking(move || receive.recv().map_err(io::Error::other));
            assert!(tokio::time::timeout(Duration::from_millis(1), hangs).await.is_err());
        }
        assert_eq!(bounds.look_up("localhost", 443).await.unwrap_err(), Busy);
        drop(go_on);
        let free = async {
            while bounds.look_up("localhost", 443).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), free).await.unwrap();
    }
}
