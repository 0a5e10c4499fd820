//! A tag that every server holds already: requests per second over keep-alive connections, and what each one costs.
//!
//! Clients repeat themselves byte for byte, and Roadstead remembers their heads. What it makes of a head that is new is
//! reported too.

use anyhow::{Context, Result};

use super::{Cost, costed, micros_each};
use crate::Bench;
use crate::drive::closed_loop;
use crate::load::Request;
use crate::origin::Tally;
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::target::Target;
use crate::transport::verify;

const RATE: &str = "requests/s";
const CPU: &str = "server CPU, µs/request";
const RATE_NEW: &str = "requests/s, each head new";
const CPU_NEW: &str = "server CPU, µs, each head new";
const CLIENT_CPU_NEW: &str = "client CPU, µs, each head new";

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Collector::default();
    rows.aim(RATE, Target::at_least(2.0, ServerKind::Nginx));
    rows.aim(RATE, Target::at_least(0.8, ServerKind::Bare));
    rows.aim(CPU, Target::at_most(0.4, ServerKind::Nginx));
    rows.aim(CPU, Target::at_most(1.25, ServerKind::Bare));
    for round in 0..bench.plan.rounds {
        for server in bench.in_turn_with_bare(round) {
            measure(bench, server, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let title = format!(
        "cached tag: {} connections for {} ms",
        bench.plan.tag_connections, bench.plan.tag_time_ms
    );
    Ok(rows.finish(title, bench.plan.quick))
}

async fn measure(bench: &Bench<'_>, server: &Server, rows: &mut Collector) -> Result<()> {
    let tag = &bench.content.tag;
    verify(server.address, tag).await?;
    let request = Request::object(server.address, tag);
    let (answered, cost, asked) = load(bench, server, request.clone()).await?;
    rows.add(RATE, server.kind, answered / cost.wall.as_secs_f64());
    rows.add(CPU, server.kind, micros_each(cost.cpu, answered));
    rows.add("client CPU, µs/request", server.kind, micros_each(cost.client_cpu, answered));
    rows.add("upstream GETs", server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());

    let (answered, cost, _) = load(bench, server, request.numbered()).await?;
    rows.add(RATE_NEW, server.kind, answered / cost.wall.as_secs_f64());
    rows.add(CPU_NEW, server.kind, micros_each(cost.cpu, answered));
    rows.add(CLIENT_CPU_NEW, server.kind, micros_each(cost.client_cpu, answered));
    Ok(())
}

/// How many requests were answered after a warm-up, what they cost, and what the upstream was asked for meanwhile.
async fn load(bench: &Bench<'_>, server: &Server, request: Request) -> Result<(f64, Cost, Tally)> {
    let (plan, requests) = (&bench.plan, [request].into());
    closed_loop(server.address, &requests, plan.tag_connections, plan.tag_warmup_ms).await?;

    let path = &bench.content.tag.path;
    let asked_before = bench.origin.tally(path).await?;
    let load = closed_loop(server.address, &requests, plan.tag_connections, plan.tag_time_ms);
    let (answered, cost) = costed(server, load).await?;
    let asked = bench.origin.tally(path).await?.since(asked_before);
    Ok((answered as f64, cost, asked))
}
