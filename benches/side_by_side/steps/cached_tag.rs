//! A tag that every server holds already: requests per second over keep-alive connections, and what each one costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::costed;
use crate::Bench;
use crate::load::{Connection, MANIFEST_BUFFER_BYTES, Request, verify};
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::target::Target;

const RATE: &str = "requests/s";
const CPU: &str = "server CPU, µs/request";

pub(super) async fn run(bench: &Bench) -> Result<Section> {
    let mut rows = Collector::default();
    rows.aim(RATE, Target::at_least(2.0, ServerKind::Nginx));
    rows.aim(CPU, Target::at_most(0.4, ServerKind::Nginx));
    for round in 0..bench.plan.rounds {
        for server in bench.in_turn(round) {
            measure(bench, server, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let title = format!(
        "cached tag: {} connections for {} ms",
        bench.plan.tag_connections, bench.plan.tag_time_ms
    );
    Ok(rows.finish(title, bench.plan.quick))
}

async fn measure(bench: &Bench, server: &Server, rows: &mut Collector) -> Result<()> {
    let (plan, tag) = (&bench.plan, &bench.content.tag);
    verify(server.address, tag).await?;
    let request = Request::object(server.address, tag);
    drive(server.address, &request, plan.tag_connections, plan.tag_warmup_ms).await?;

    let asked_before = bench.origin.tally(&tag.path).await?;
    let load = drive(server.address, &request, plan.tag_connections, plan.tag_time_ms);
    let (requests, cost) = costed(server, load).await?;
    let asked = bench.origin.tally(&tag.path).await?.since(asked_before);

    ensure!(requests > 0, "no request was answered");
    let requests = requests as f64;
    rows.add(RATE, server.kind, requests / cost.wall.as_secs_f64());
    rows.add(CPU, server.kind, cost.cpu.as_secs_f64() * 1e6 / requests);
    rows.add("upstream GETs", server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());
    Ok(())
}

/// Sends the request over and over on each connection until the time is up; answers how many were answered.
async fn drive(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    time_ms: u64,
) -> Result<u64> {
    let end = Instant::now() + Duration::from_millis(time_ms);
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let request = request.clone();
        clients.spawn(async move { repeat_until(end, address, &request).await });
    }
    let mut requests = 0;
    while let Some(done) = clients.join_next().await {
        requests += done.context("a client panicked")??;
    }
    Ok(requests)
}

async fn repeat_until(end: Instant, address: SocketAddr, request: &Request) -> Result<u64> {
    let mut connection = Connection::open(address, MANIFEST_BUFFER_BYTES).await?;
    let mut requests = 0;
    while Instant::now() < end {
        connection.exchange(request, |_| ()).await?;
        requests += 1;
    }
    Ok(requests)
}
