//! A slow link between a server and its upstream: a TCP relay that holds every byte until the link would deliver it.
//!
//! What is under way in a connection is bounded; past that its sender is not read from, and waits.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::link::{Lane, Link, Passage};

/// Small beside what the link carries in a round trip, so that connections take turns.
const PIECE_BYTES: usize = 16 << 10;
/// Under way in one connection and direction: 4 MiB, several times what 100 Mbit/s carry in 40 ms.
const PIECES_UNDER_WAY: usize = 256;

/// Aborts its listener, and with it every connection, when dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    _listener: JoinSet<()>,
}

/// The two lanes that all connections share.
#[derive(Clone)]
struct Lanes {
    link: Link,
    up: Arc<Mutex<Lane>>,
    down: Arc<Mutex<Lane>>,
}

struct Piece {
    arrives_at: Instant,
    bytes: Vec<u8>,
}

// === impl Relay ===

impl Relay {
    /// Listens on a loopback port and leads to `upstream` over `link`.
    pub(crate) async fn start(link: Link, upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the relay")?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Lanes::new(link), upstream));
        Ok(Self { address, _listener: tasks })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, lanes: Lanes, upstream: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let lanes = lanes.clone();
        // Who leaves early ends its connection with an error, which its peer sees as a connection that closed.
        connections.spawn(async move { drop(connect_through(stream, &lanes, upstream).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn connect_through(near: TcpStream, lanes: &Lanes, upstream: SocketAddr) -> Result<()> {
    let established_at = lanes.link.established_at(Instant::now());
    let far = TcpStream::connect(upstream).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(
        async {
            sleep_until(established_at.into()).await;
            carry(near_in, &lanes.up, far_out).await;
        },
        carry(far_in, &lanes.down, near_out),
    );
    Ok(())
}

/// One direction of a connection, until either side ends it.
async fn carry(from: OwnedReadHalf, lane: &Mutex<Lane>, to: OwnedWriteHalf) {
    let (under_way, arriving) = mpsc::channel(PIECES_UNDER_WAY);
    tokio::join!(take_in(from, lane, under_way), deliver(arriving, to));
}

async fn take_in(mut from: OwnedReadHalf, lane: &Mutex<Lane>, under_way: mpsc::Sender<Piece>) {
    loop {
        let mut bytes = vec![0; PIECE_BYTES];
        let count = from.read(&mut bytes).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        bytes.truncate(count);
        let Passage { next_from, arrives_at } = pass(lane, count);
        if under_way.send(Piece { arrives_at, bytes }).await.is_err() {
            return;
        }
        sleep_until(next_from.into()).await;
    }
}

/// Ends the connection's direction behind the last piece: dropping the half shuts it down.
async fn deliver(mut arriving: mpsc::Receiver<Piece>, mut to: OwnedWriteHalf) {
    while let Some(Piece { arrives_at, bytes }) = arriving.recv().await {
        sleep_until(arrives_at.into()).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn pass(lane: &Mutex<Lane>, count: usize) -> Passage {
    lane.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now(), count as u64)
}

// === impl Lanes ===

impl Lanes {
    fn new(link: Link) -> Self {
        let lane = || Arc::new(Mutex::new(Lane::new(link, Instant::now())));
        Self { link, up: lane(), down: lane() }
    }
}
