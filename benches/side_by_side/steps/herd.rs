//! Many clients at once on one blob that the server has never seen: how often is the upstream asked?

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{costed, ready_for_cold};
use crate::Bench;
use crate::content::Object;
use crate::load::{get_once, join_all};
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::target::Target;
use crate::transport::verify;

const WALL: &str = "wall, s";
const GETS: &str = "upstream GETs";
const SLOWEST_FIRST_BYTE: &str = "slowest first byte, ms";

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Collector::default();
    rows.aim(WALL, Target::at_most(0.7, ServerKind::Nginx));
    rows.aim(GETS, Target::every_round(1.0));
    rows.aim(SLOWEST_FIRST_BYTE, Target::limit(50.0));
    for (round, blob) in bench.content.herd.iter().enumerate() {
        verify(bench.origin.address(), blob).await.context("direct")?;
        for server in bench.in_turn(round) {
            measure(bench, server, blob, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let title = format!(
        "herd: {} clients on one cold blob of {} MiB",
        bench.plan.herd_clients,
        bench.plan.herd_bytes >> 20
    );
    Ok(rows.finish(title, bench.plan.quick))
}

async fn measure(
    bench: &Bench<'_>,
    server: &Server,
    blob: &Object,
    rows: &mut Collector,
) -> Result<()> {
    ready_for_cold(bench, blob).await?;
    let asked_before = bench.origin.tally(&blob.path).await?;
    let (slowest_first_byte, cost) =
        costed(server, all_at_once(server.address, blob, bench.plan.herd_clients)).await?;
    let asked = bench.origin.tally(&blob.path).await?.since(asked_before);

    rows.add(WALL, server.kind, cost.wall.as_secs_f64());
    rows.add(GETS, server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());
    rows.add(SLOWEST_FIRST_BYTE, server.kind, slowest_first_byte.as_secs_f64() * 1e3);
    rows.add("server CPU, s", server.kind, cost.cpu.as_secs_f64());
    verify(server.address, blob).await
}

/// Answers when the last client had its first byte.
async fn all_at_once(address: SocketAddr, blob: &Object, clients: usize) -> Result<Duration> {
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let blob = blob.clone();
        running.spawn(async move { get_once(address, &blob).await });
    }
    let answered = join_all(running).await?;
    Ok(answered.iter().map(|timing| timing.first_byte).max().unwrap_or_default())
}
