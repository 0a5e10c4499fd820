//! A tag that every server holds already: requests per second over keep-alive connections, and what each one costs.

use anyhow::{Context, Result};

use super::costed;
use crate::Bench;
use crate::drive::closed_loop;
use crate::load::{Request, verify};
use crate::report::{Collector, Section};
use crate::server::{Server, ServerKind};
use crate::target::Target;

const RATE: &str = "requests/s";
const CPU: &str = "server CPU, µs/request";

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Collector::default();
    rows.aim(RATE, Target::at_least(2.0, ServerKind::Nginx));
    rows.aim(RATE, Target::at_least(0.8, ServerKind::Bare));
    rows.aim(CPU, Target::at_most(0.4, ServerKind::Nginx));
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
    let (plan, tag) = (&bench.plan, &bench.content.tag);
    verify(server.address, tag).await?;
    let requests = [Request::object(server.address, tag)].into();
    closed_loop(server.address, &requests, plan.tag_connections, plan.tag_warmup_ms).await?;

    let asked_before = bench.origin.tally(&tag.path).await?;
    let load = closed_loop(server.address, &requests, plan.tag_connections, plan.tag_time_ms);
    let (answered, cost) = costed(server, load).await?;
    let asked = bench.origin.tally(&tag.path).await?.since(asked_before);

    let answered = answered as f64;
    rows.add(RATE, server.kind, answered / cost.wall.as_secs_f64());
    rows.add(CPU, server.kind, cost.cpu.as_secs_f64() * 1e6 / answered);
    rows.add("upstream GETs", server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());
    Ok(())
}
