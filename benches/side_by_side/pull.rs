//! A whole image, pulled as docker and containerd do it: HEAD of the tag, GET of the manifest by its digest, then the
//! config and the layers, three at a time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::content::Object;
use crate::images::Image;
use crate::load::{Connection, Request, join_all};

/// docker's `max-concurrent-downloads`, and containerd's.
const DOWNLOADS: usize = 3;
const BUFFER_BYTES: usize = 64 << 10;

/// What is still to be fetched of an image.
type Queue = Arc<Mutex<VecDeque<Object>>>;

pub(crate) async fn pull(address: SocketAddr, image: &Image) -> Result<()> {
    let mut connection = Connection::open(address, BUFFER_BYTES).await?;
    connection.exchange(&Request::head(address, &image.tagged), |_| ()).await?;
    connection.exchange(&Request::object(address, &image.manifest), |_| ()).await?;

    let queue: Queue = Arc::new(Mutex::new(image.blobs.iter().cloned().collect()));
    let mut downloads = JoinSet::new();
    downloads.spawn(download(address, Some(connection), queue.clone()));
    for _ in 1..DOWNLOADS {
        downloads.spawn(download(address, None, queue.clone()));
    }
    join_all(downloads).await.map(drop)
}

/// Fetches blobs until none is left, over one connection.
async fn download(address: SocketAddr, kept: Option<Connection>, queue: Queue) -> Result<()> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::open(address, BUFFER_BYTES).await?,
    };
    while let Some(blob) = next(&queue) {
        connection.exchange(&Request::object(address, &blob), |_| ()).await?;
    }
    Ok(())
}

fn next(queue: &Queue) -> Option<Object> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}
