//! Thousands of keep-alive connections that do nothing: what each takes, whether it is given back, and whether a busy
//! client feels them.
//!
//! Each round has fresh instances, one at a time: memory that earlier work has left behind would hide what a
//! connection takes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::idle;
use crate::Bench;
use crate::drive::{closed_loop, p99_ms_for};
use crate::load::{Connection, Request, join_all, within_reason};
use crate::proc;
use crate::report::{Collector, Section};
use crate::server::{Role, Server, ServerKind};
use crate::target::Target;
use crate::transport::verify;

const EACH: &str = "RssAnon/connection, KiB";
const KEPT: &str = "kept of it when time is up, %";
const RELATIVE_P99: &str = "busy client's p99, with ÷ without";
/// Opened at the same time; more would only wait in the server's backlog.
const OPENED_AT_ONCE: usize = 64;
/// Enough for the head and the tag's manifest, as there are thousands of them.
const BUFFER_BYTES: usize = 4096;
/// Descriptors of this process that are no idle connections.
const DESCRIPTORS_SPARED: u64 = 1000;
/// What an allocator may keep for the next connections, of all that these took.
const KEPT_LIMIT_PERCENT: f64 = 10.0;
const UNCHANGED: f64 = 1.25;

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Collector::default();
    rows.aim(EACH, Target::limit(20.0));
    rows.aim(KEPT, Target::limit(KEPT_LIMIT_PERCENT));
    rows.aim(RELATIVE_P99, Target::limit(UNCHANGED));
    let connections = allowed(bench.plan.idle_connections);
    // Fewer than were wanted tell something; none at all, nothing.
    let rounds = if connections > 0 { bench.plan.rounds } else { 0 };
    for round in 0..rounds {
        let peers = bench.in_turn_with_bare(round);
        for server in peers.filter(|server| server.kind != ServerKind::DockerRegistry) {
            measure(bench, server, connections, &mut rows)
                .await
                .with_context(|| server.kind.name())?;
        }
    }
    let title = format!(
        "{connections} idle keep-alive connections and a busy client; what is kept is seen {} ms after closing",
        bench.plan.give_back_ms
    );
    let is_short = connections < bench.plan.idle_connections;
    Ok(rows.finish(title, bench.plan.quick || is_short))
}

/// As many of the wanted connections as this process may open.
fn allowed(wanted: usize) -> usize {
    let limit = proc::descriptor_limit();
    let allowed =
        wanted.min(usize::try_from(limit.saturating_sub(DESCRIPTORS_SPARED)).unwrap_or(0));
    if allowed < wanted {
        println!(
            "{allowed} idle connections instead of {wanted}, unjudged: `ulimit -n` is {limit}"
        );
    }
    allowed
}

async fn measure(
    bench: &Bench<'_>,
    template: &Server,
    connections: usize,
    rows: &mut Collector,
) -> Result<()> {
    let (plan, tag) = (&bench.plan, &bench.content.tag);
    let server = bench.another(template, Role::IdleConnections).await?;
    let (kind, address) = (server.kind, server.address);
    verify(address, tag).await?;
    let request = Request::object(address, tag);
    let warm = [request.clone()].into();
    closed_loop(address, &warm, plan.tag_connections, plan.tag_warmup_ms).await?;
    let without_ms = p99_ms_for(address, &request, plan.latency_time_ms).await?;
    let before = rested_bytes(&server).await?;

    let opened = within_reason(open(address, &request, connections)).await?;
    let held = rested_bytes(&server).await?;
    let with_ms = p99_ms_for(address, &request, plan.latency_time_ms).await?;
    let lost = opened.iter().filter(|connection| !connection.is_idle()).count();
    ensure!(lost == 0, "{lost} of the idle connections were closed");
    drop(opened);
    let growth = held.saturating_sub(before) as f64;
    // All of it, however soon enough was given back: an allocator may take some of it again.
    tokio::time::sleep(Duration::from_millis(plan.give_back_ms)).await;
    server.still_runs()?;
    let kept = proc::anonymous_bytes(server.pid())?.saturating_sub(before) as f64;

    rows.add(EACH, kind, growth / 1024.0 / connections as f64);
    rows.add(KEPT, kind, kept * 100.0 / growth.max(1.0));
    rows.add(RELATIVE_P99, kind, with_ms / without_ms);
    rows.add("p99 without them, ms", kind, without_ms);
    rows.add("p99 with them, ms", kind, with_ms);
    server.retire()
}

/// Opens the connections, each with one answered request, as a client's pool leaves them.
async fn open(
    address: SocketAddr,
    request: &Request,
    connections: usize,
) -> Result<Vec<Connection>> {
    let mut openers = JoinSet::new();
    for opener in 0..OPENED_AT_ONCE {
        let share = (opener..connections).step_by(OPENED_AT_ONCE).len();
        let request = request.clone();
        openers.spawn(async move {
            let mut opened = Vec::with_capacity(share);
            for _ in 0..share {
                let mut connection = Connection::open(address, BUFFER_BYTES).await?;
                connection.exchange(&request, |_| ()).await?;
                opened.push(connection);
            }
            anyhow::Ok(opened)
        });
    }
    Ok(join_all(openers).await?.into_iter().flatten().collect())
}

async fn rested_bytes(server: &Server) -> Result<u64> {
    idle(server).await?;
    proc::anonymous_bytes(server.pid())
}
