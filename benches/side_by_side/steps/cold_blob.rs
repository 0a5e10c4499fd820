//! One client and a blob that the server has never seen, against the same client going straight to the origin.

use anyhow::{Context, Result};

use super::{GIB, costed, ready_for_cold};
use crate::Bench;
use crate::content::Object;
use crate::load::get_once;
use crate::report::{Collector, Section, Subject};
use crate::server::{Server, ServerKind};
use crate::target::Target;
use crate::transport::verify;

const RELATIVE_TIME: &str = "time ÷ direct";
const FIRST_BYTE: &str = "first byte, ms";
const CPU: &str = "server CPU, s/GiB";

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Collector::default();
    rows.aim(RELATIVE_TIME, Target::limit(1.1));
    rows.aim(RELATIVE_TIME, Target::at_most(1.0, ServerKind::Nginx));
    rows.aim(FIRST_BYTE, Target::at_most_above(3.0, Subject::Direct));
    rows.aim(CPU, Target::at_most(1.0, ServerKind::Nginx));
    for (round, blob) in bench.content.cold.iter().enumerate() {
        // Unmeasured: brings the blob into the page cache, so that no side pays for the origin's disk.
        verify(bench.origin.address(), blob).await.context("direct")?;
        for server in bench.in_turn(round) {
            measure(bench, server, blob, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let title = format!("cold blob of {} MiB: one client", bench.plan.cold_bytes >> 20);
    Ok(rows.finish(title, bench.plan.quick))
}

async fn measure(
    bench: &Bench<'_>,
    server: &Server,
    blob: &Object,
    rows: &mut Collector,
) -> Result<()> {
    ready_for_cold(bench, blob).await?;
    // Right before each server's turn, so that both sides of the ratio meet the same machine.
    let direct = get_once(bench.origin.address(), blob).await.context("direct")?;
    let asked_before = bench.origin.tally(&blob.path).await?;
    let (through, cost) = costed(server, get_once(server.address, blob)).await?;
    let asked = bench.origin.tally(&blob.path).await?.since(asked_before);

    let ratio = through.total.as_secs_f64() / direct.total.as_secs_f64();
    rows.add(RELATIVE_TIME, server.kind, ratio);
    rows.add("time, s", server.kind, through.total.as_secs_f64());
    rows.add("time, s", Subject::Direct, direct.total.as_secs_f64());
    rows.add(FIRST_BYTE, server.kind, through.first_byte.as_secs_f64() * 1e3);
    rows.add(FIRST_BYTE, Subject::Direct, direct.first_byte.as_secs_f64() * 1e3);
    let gib = blob.size_bytes as f64 / GIB;
    rows.add(CPU, server.kind, cost.cpu.as_secs_f64() / gib);
    rows.add("client CPU, s/GiB", server.kind, cost.client_cpu.as_secs_f64() / gib);
    rows.add("upstream GETs", server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());
    // What the cache keeps, and serves from now on, must be right too.
    verify(server.address, blob).await
}
