//! Clients that pull without a pause until told to stop, and check all that they get.

use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::client::get;
use crate::pool::{Image, Object, Pool};
use crate::pull::{Puller, blob_path};

/// Images that are pulled at all, and those of them that nobody may have pulled before.
const IMAGES: usize = 40;
const NEWEST: usize = 4;

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    orders: Arc<Orders>,
    clients: JoinSet<Tally>,
}

/// What they are told.
#[derive(Debug, Default)]
struct Orders {
    /// The server may go at any instant.
    forgive: AtomicBool,
    /// No further pulls.
    stop: AtomicBool,
}

/// What they did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    /// Images and ranges that came whole, each byte right.
    pub(crate) completed: u64,
    /// Those that broke off, or found nobody.
    pub(crate) cut: u64,
    /// Of blobs, in what was completed.
    pub(crate) bytes: u64,
}

/// One of them, with its own choices.
#[derive(Debug)]
struct Client {
    at: SocketAddr,
    /// The newest first.
    images: Vec<(Arc<Image>, Vec<Object>)>,
    random: fastrand::Rng,
    orders: Arc<Orders>,
}

// === impl Load ===

impl Load {
    /// Starts `count` clients that choose from the pool's latest images, the newest more often.
    pub(crate) fn start(at: SocketAddr, pool: &Pool, count: usize) -> Self {
        Self::start_with(at, pool, count, Orders::default())
    }

    /// The same where something is wrong already: a pull may fail.
    pub(crate) fn start_in_trouble(at: SocketAddr, pool: &Pool, count: usize) -> Self {
        let orders = Orders { forgive: AtomicBool::new(true), ..Orders::default() };
        Self::start_with(at, pool, count, orders)
    }

    fn start_with(at: SocketAddr, pool: &Pool, count: usize, orders: Orders) -> Self {
        let orders = Arc::new(orders);
        let blobs = |image: &Arc<Image>| {
            image.blobs.iter().map(|digest| pool.objects[digest].clone()).collect::<Vec<_>>()
        };
        let latest = pool.images.iter().rev().take(IMAGES);
        let images = latest.map(|image| (Arc::clone(image), blobs(image)));
        let images: Vec<_> = images.collect();
        let clients = (0..count).map(|_| {
            let random = fastrand::Rng::new();
            let (images, orders) = (images.clone(), Arc::clone(&orders));
            Client { at, images, random, orders }.run()
        });
        Self { clients: clients.collect(), orders }
    }

    /// From now on a pull may fail; then its client leaves.
    pub(crate) fn forgive(&self) {
        self.orders.forgive.store(true, Ordering::Release);
    }

    /// Lets each end what it does now.
    pub(crate) async fn stop(self) -> Tally {
        self.orders.stop.store(true, Ordering::Release);
        let mut sum = Tally::default();
        for tally in self.clients.join_all().await {
            sum += tally;
        }
        sum
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.completed += other.completed;
        self.cut += other.cut;
        self.bytes += other.bytes;
    }
}

// === impl Client ===

impl Client {
    async fn run(mut self) -> Tally {
        let mut tally = Tally::default();
        while !self.orders.stop.load(Ordering::Acquire) {
            let choose_from = match self.random.bool() {
                true => self.images.len(),
                false => self.images.len().min(NEWEST),
            };
            let choice = self.random.usize(..choose_from);
            let (image, blobs) = &self.images[choice];
            let done = match self.random.u8(..4) {
                0 => {
                    let blob = self.random.usize(..blobs.len());
                    let body = &blobs[blob].body;
                    let start = self.random.usize(..body.len());
                    let end = self.random.usize(start..body.len());
                    self.range(image, &image.blobs[blob], &body[start..=end], start).await
                }
                _ => self.image(image, blobs).await,
            };
            match done {
                Ok(bytes) => {
                    tally.completed += 1;
                    tally.bytes += bytes;
                }
                Err(why) => {
                    let expected = self.orders.forgive.load(Ordering::Acquire);
                    assert!(expected, "{} failed while nothing was wrong: {why}", image.name);
                    tally.cut += 1;
                    break;
                }
            }
        }
        tally
    }

    /// The puller checks every digest.
    async fn image(&self, image: &Image, blobs: &[Object]) -> Result<u64, String> {
        let pulled = Puller::new(self.at).image(&image.name, "latest").await;
        let pulled = pulled.map_err(|failed| format!("{failed:?}"))?;
        assert_eq!((&pulled.digest, &pulled.blobs), (&image.manifests[0], &image.blobs));
        Ok(blobs.iter().map(|blob| blob.body.len() as u64).sum())
    }

    async fn range(
        &self,
        image: &Image,
        digest: &str,
        expected: &[u8],
        start: usize,
    ) -> Result<u64, String> {
        let range = format!("bytes={start}-{}", start + expected.len() - 1);
        let request = get(self.at, blob_path(&image.name, digest)).header("Range", &range);
        let reply = request.try_send().await.map_err(|error| error.to_string())?;
        if reply.status != 206 || !reply.complete {
            return Err(format!("{range}: {}, complete: {}", reply.status, reply.complete));
        }
        assert!(reply.body == expected, "{digest}, {range}: wrong bytes: {:?}", reply.headers);
        Ok(expected.len() as u64)
    }
}
