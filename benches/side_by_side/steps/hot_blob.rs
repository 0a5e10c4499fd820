//! A blob that every server holds already, read whole by several readers at once.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{GIB, costed};
use crate::Bench;
use crate::content::Object;
use crate::load::{BLOB_BUFFER_BYTES, Connection, Request, verify};
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::target::Target;

const RATE: &str = "GiB/s";
const CPU: &str = "server CPU, s/GiB";

pub(super) async fn run(bench: &Bench) -> Result<Section> {
    let (plan, blob) = (&bench.plan, &bench.content.hot);
    for server in &bench.servers {
        // Twice: the first fills the cache, the second is served from it, and both must be right.
        verify(server.address, blob).await.with_context(|| server.kind.name())?;
        verify(server.address, blob).await.with_context(|| server.kind.name())?;
    }
    let mut rows = Collector::default();
    rows.aim(RATE, Target::at_least(1.5, ServerKind::Nginx));
    rows.aim(CPU, Target::at_most(0.6, ServerKind::Nginx));
    for round in 0..plan.rounds {
        for server in bench.in_turn(round) {
            measure(bench, server, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let (mib, readers, gets) = (plan.hot_bytes >> 20, plan.hot_readers, plan.hot_gets);
    Ok(rows.finish(format!("hot blob of {mib} MiB: {readers} readers × {gets} GETs"), plan.quick))
}

async fn measure(bench: &Bench, server: &Server, rows: &mut Collector) -> Result<()> {
    let (plan, blob) = (&bench.plan, &bench.content.hot);
    bench.quiet_disk().await?;
    let ((), cost) =
        costed(server, read_whole(server.address, blob, plan.hot_readers, plan.hot_gets)).await?;
    let gib = blob.size_bytes as f64 * (plan.hot_readers * plan.hot_gets) as f64 / GIB;
    rows.add(RATE, server.kind, gib / cost.wall.as_secs_f64());
    rows.add(CPU, server.kind, cost.cpu.as_secs_f64() / gib);
    Ok(())
}

async fn read_whole(address: SocketAddr, blob: &Object, readers: usize, gets: usize) -> Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..readers {
        let request = Request::object(address, blob);
        clients.spawn(async move {
            let mut connection = Connection::open(address, BLOB_BUFFER_BYTES).await?;
            for _ in 0..gets {
                connection.exchange(&request, |_| ()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}
