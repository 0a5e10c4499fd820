//! Ways to load a server: as many requests as it answers in a given time, or one after the other with a stopwatch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime;
use tokio::task::JoinSet;

use crate::load::{Connection, MANIFEST_BUFFER_BYTES, Request, join_all, within_reason};

/// Set when dropped, so that a measurement that is given up leaves no client behind.
struct Stop(Arc<AtomicBool>);

/// Each connection sends the requests over and over, from a place of its own in their order, until the time is up.
/// Answers how many were answered.
pub(crate) async fn closed_loop(
    address: SocketAddr,
    requests: &Arc<[Request]>,
    connections: usize,
    time_ms: u64,
) -> Result<u64> {
    let end = Instant::now() + Duration::from_millis(time_ms);
    let mut clients = JoinSet::new();
    for client in 0..connections {
        let (requests, start) = (requests.clone(), client * requests.len() / connections);
        clients.spawn(async move { repeat_until(end, address, &requests, start).await });
    }
    let answered = within_reason(join_all(clients)).await?.iter().sum();
    ensure!(answered > 0, "no request was answered");
    Ok(answered)
}

async fn repeat_until(
    end: Instant,
    address: SocketAddr,
    requests: &[Request],
    start: usize,
) -> Result<u64> {
    let mut connection = Connection::open(address, MANIFEST_BUFFER_BYTES).await?;
    let mut answered = 0;
    for request in requests.iter().cycle().skip(start) {
        if Instant::now() >= end {
            break;
        }
        connection.exchange(request, |_| ()).await?;
        answered += 1;
    }
    Ok(answered)
}

/// The 99th percentile, in ms, of the requests that one more client sends while `work` goes on, one after the other.
///
/// That client has a thread and a runtime of its own: it must not wait for the bench's other clients.
pub(crate) async fn p99_ms_during<T>(
    address: SocketAddr,
    request: &Request,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, f64)> {
    let stop = Stop(Arc::default());
    let (stopped, request) = (stop.0.clone(), request.clone());
    let client = tokio::task::spawn_blocking(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        // The work's own limit does not reach this thread, which would keep the program from ending.
        runtime.block_on(within_reason(stopwatch(address, &request, &stopped)))
    });
    let done = within_reason(work).await?;
    drop(stop);
    Ok((done, p99_ms(client.await.context("the client panicked")??)?))
}

pub(crate) async fn p99_ms_for(
    address: SocketAddr,
    request: &Request,
    time_ms: u64,
) -> Result<f64> {
    let wait = async {
        tokio::time::sleep(Duration::from_millis(time_ms)).await;
        Ok(())
    };
    p99_ms_during(address, request, wait).await.map(|((), p99_ms)| p99_ms)
}

async fn stopwatch(
    address: SocketAddr,
    request: &Request,
    stopped: &AtomicBool,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address, MANIFEST_BUFFER_BYTES).await?;
    let mut times = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        times.push(connection.exchange(request, |_| ()).await?.total);
    }
    Ok(times)
}

fn p99_ms(mut times: Vec<Duration>) -> Result<f64> {
    times.sort_unstable();
    let rank = (times.len() * 99).div_ceil(100);
    let time = times.get(rank.saturating_sub(1)).context("no request was answered")?;
    Ok(time.as_secs_f64() * 1e3)
}

// === impl Stop ===

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
