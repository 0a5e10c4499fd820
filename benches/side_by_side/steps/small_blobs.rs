//! Thousands of small blobs that every server holds already: requests per second over keep-alive connections.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{costed, micros_each};
use crate::Bench;
use crate::content::SMALL_BYTES;
use crate::drive::closed_loop;
use crate::load::Request;
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::target::Target;
use crate::transport::verify_all;

const RATE: &str = "requests/s";
const FILLING: usize = 8;

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let (plan, blobs) = (&bench.plan, &bench.content.small);
    for server in &bench.servers {
        // Twice: the first fills the cache, the second is served from it, and both must be right.
        for _ in 0..2 {
            verify_all(server.address, blobs, FILLING).await.with_context(|| server.kind.name())?;
        }
    }
    let mut rows = Collector::default();
    rows.aim(RATE, Target::at_least(1.5, ServerKind::Nginx));
    for round in 0..plan.rounds {
        for server in bench.in_turn(round) {
            measure(bench, server, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let (count, kib) = (blobs.len(), SMALL_BYTES >> 10);
    let (connections, time_ms) = (plan.tag_connections, plan.tag_time_ms);
    let title =
        format!("{count} warm blobs of {kib} KiB: {connections} connections for {time_ms} ms");
    Ok(rows.finish(title, plan.quick))
}

async fn measure(bench: &Bench<'_>, server: &Server, rows: &mut Collector) -> Result<()> {
    let (plan, address) = (&bench.plan, server.address);
    let requests: Arc<[Request]> =
        bench.content.small.iter().map(|blob| Request::object(address, blob)).collect();
    bench.quiet_disk().await?;
    closed_loop(address, &requests, plan.tag_connections, plan.tag_warmup_ms).await?;

    let load = closed_loop(address, &requests, plan.tag_connections, plan.tag_time_ms);
    let (answered, cost) = costed(server, load).await?;
    let answered = answered as f64;
    rows.add(RATE, server.kind, answered / cost.wall.as_secs_f64());
    rows.add("server CPU, µs/request", server.kind, micros_each(cost.cpu, answered));
    rows.add("client CPU, µs/request", server.kind, micros_each(cost.client_cpu, answered));
    Ok(())
}
