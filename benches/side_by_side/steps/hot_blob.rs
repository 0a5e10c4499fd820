//! A blob that every server holds already, read whole by several readers at once, in the clear or over TLS.

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{GIB, costed};
use crate::Bench;
use crate::content::Object;
use crate::load::join_all;
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::stream::Endpoint;
use crate::target::Target;
use crate::transport::Transport;

const RATE: &str = "GiB/s";
const CPU: &str = "server CPU, s/GiB";

pub(super) async fn run(bench: &Bench<'_>, transport: Transport) -> Result<Section> {
    let (plan, blob) = (&bench.plan, &bench.content.hot);
    for server in &bench.servers {
        if let Some(endpoint) = transport.endpoint(server, &bench.launcher.identity)? {
            // Twice: the first fills the cache, the second is served from it, and both must be right.
            transport.verify(&endpoint, blob).await.with_context(|| server.kind.name())?;
            transport.verify(&endpoint, blob).await.with_context(|| server.kind.name())?;
        }
    }
    let mut rows = Collector::default();
    aims(transport, &mut rows);
    for round in 0..plan.rounds {
        for server in bench.in_turn(round) {
            if let Some(endpoint) = transport.endpoint(server, &bench.launcher.identity)? {
                measure(bench, server, transport, &endpoint, &mut rows)
                    .await
                    .with_context(|| server.kind.name())?;
            }
        }
    }
    let (mib, readers, gets) = (plan.hot_bytes >> 20, plan.hot_readers, plan.hot_gets);
    let title =
        format!("hot blob of {mib} MiB, {}: {readers} readers × {gets} GETs", transport.name());
    Ok(rows.finish(title, plan.quick))
}

fn aims(transport: Transport, rows: &mut Collector) {
    let nginx = ServerKind::Nginx;
    if transport == Transport::Plain {
        rows.aim(RATE, Target::at_least(1.5, nginx));
        rows.aim(CPU, Target::at_most(0.6, nginx));
    } else {
        rows.aim(RATE, Target::at_least(1.2, nginx));
    }
}

async fn measure(
    bench: &Bench<'_>,
    server: &Server,
    transport: Transport,
    endpoint: &Endpoint,
    rows: &mut Collector,
) -> Result<()> {
    let (plan, blob) = (&bench.plan, &bench.content.hot);
    bench.quiet_disk().await?;
    let reading = read_whole(transport, endpoint, blob, plan.hot_readers, plan.hot_gets);
    let ((), cost) = costed(server, reading).await?;
    let gib = blob.size_bytes as f64 * (plan.hot_readers * plan.hot_gets) as f64 / GIB;
    rows.add(RATE, server.kind, gib / cost.wall.as_secs_f64());
    rows.add(CPU, server.kind, cost.cpu.as_secs_f64() / gib);
    rows.add("client CPU, s/GiB", server.kind, cost.client_cpu.as_secs_f64() / gib);
    Ok(())
}

/// Every reader has a connection of its own.
async fn read_whole(
    transport: Transport,
    endpoint: &Endpoint,
    blob: &Object,
    readers: usize,
    gets: usize,
) -> Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..readers {
        let (endpoint, blob) = (endpoint.clone(), blob.clone());
        clients.spawn(async move {
            let mut reader = transport.open(&endpoint).await?;
            for _ in 0..gets {
                reader.get(&blob, |_| ()).await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(clients).await.map(drop)
}
