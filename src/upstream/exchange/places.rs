//! How many requests may be under way to one host.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{metrics, upstream::Failure};

/// Hosts remembered; a registry has a few, and its CDN some more.
const HOSTS: usize = 1000;

/// The places of each host.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    hosts: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// The right to one request; it lasts until the answer's body has ended.
pub(super) type Place = OwnedSemaphorePermit;

// === impl Places ===

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.min(Semaphore::MAX_PERMITS), hosts: Mutex::default() }
    }

    /// Waits for a place, as long as a client may.
    pub(super) async fn wait(&self, host: &Arc<str>, patience: Duration) -> Result<Place, Failure> {
        let place = self.of(host).acquire_owned();
        match tokio::time::timeout(patience, place).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                metrics::LIMITED.with_label_values(&["connections"]).inc();
                Err(Failure::Busy { host: Arc::clone(host), limit: "max_connections" })
            }
        }
    }

    fn of(&self, host: &Arc<str>) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() > HOSTS {
            hosts.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let new = || Arc::new(Semaphore::new(self.limit));
        Arc::clone(hosts.entry(Arc::clone(host)).or_insert_with(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_and_is_told() {
        let places = Places::new(1);
        let (one, other): (Arc<str>, Arc<str>) = ("one:443".into(), "other:443".into());
        let patience = Duration::from_secs(10);
        let held = places.wait(&one, patience).await.unwrap();
        assert!(matches!(places.wait(&one, patience).await, Err(Failure::Busy { .. })));
        assert!(places.wait(&other, patience).await.is_ok());
        drop(held);
        assert!(places.wait(&one, patience).await.is_ok());
    }
}
