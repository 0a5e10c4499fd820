//! Cached blobs that the page cache does not hold: how fast they come from the disk, and how long a cached tag waits
//! meanwhile.
//!
//! Roadstead and nginx have instances of their own for it, nginx with `aio threads`, so that all of their files can be
//! dropped from the page cache. A round in which much came from there all the same tells nothing, and is left out.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::{GIB, costed};
use crate::Bench;
use crate::content::Object;
use crate::drive::{p99_ms_during, p99_ms_for};
use crate::load::{BLOB_BUFFER_BYTES, Connection, Request, join_all};
use crate::page_cache;
use crate::proc;
use crate::report::{Collector, Section};
use crate::server::{Role, Server, ServerKind};
use crate::target::Target;
use crate::transport::{verify, verify_all};

const RATE: &str = "GiB/s";
const RELATIVE_P99: &str = "tag's p99, meanwhile ÷ idle";
/// Of what was read in a round that counts.
const FROM_DISK_PERCENT: f64 = 90.0;

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let (plan, blobs) = (&bench.plan, &bench.content.disk);
    let mut servers = Vec::new();
    for server in bench.servers.iter().filter(|it| it.kind != ServerKind::DockerRegistry) {
        let server = bench.another(server, Role::DiskReads).await?;
        fill(bench, &server).await.with_context(|| server.kind.name())?;
        servers.push(server);
    }
    let (mut rows, mut left_out) = (Collector::default(), Vec::new());
    rows.aim(RATE, Target::at_least(1.0, ServerKind::Nginx));
    rows.aim(RELATIVE_P99, Target::limit(2.0));
    for round in 0..plan.rounds {
        for turn in 0..servers.len() {
            let server = servers.get((round + turn) % servers.len()).context("a server's turn")?;
            let kind = server.kind;
            if !measure(bench, server, &mut rows).await.with_context(|| kind.name())? {
                left_out.push(format!("{} in round {}", kind.name(), round + 1));
            }
        }
    }
    for server in servers {
        // What came from the disk must be right too.
        verify_all(server.address, blobs, plan.disk_readers).await?;
        server.retire()?;
    }
    let (count, mib, readers) = (blobs.len(), plan.disk_blob_bytes >> 20, plan.disk_readers);
    let mut title = format!("{count} blobs of {mib} MiB, from the disk: {readers} readers");
    if !left_out.is_empty() {
        title += &format!("; left out, for it came from the page cache: {}", left_out.join(", "));
    }
    Ok(rows.finish(title, plan.quick))
}

async fn fill(bench: &Bench<'_>, server: &Server) -> Result<()> {
    verify(server.address, &bench.content.tag).await?;
    verify_all(server.address, &bench.content.disk, bench.plan.disk_readers).await
}

/// False where the round does not count.
async fn measure(bench: &Bench<'_>, server: &Server, rows: &mut Collector) -> Result<bool> {
    let (plan, address, kind) = (&bench.plan, server.address, server.kind);
    let request = Request::object(address, &bench.content.tag);
    let idle_ms = p99_ms_for(address, &request, plan.latency_time_ms).await?;
    bench.quiet_disk().await?;
    let home = server.home.clone();
    if !tokio::task::spawn_blocking(move || page_cache::forget(&home)).await?? {
        return Ok(false);
    }

    let disk_before = proc::disk_bytes_read(server.pid())?;
    let reading = read_all(address, &bench.content.disk, plan.disk_readers);
    let (((), meanwhile_ms), cost) =
        costed(server, p99_ms_during(address, &request, reading)).await?;
    let from_disk = proc::disk_bytes_read(server.pid())?.saturating_sub(disk_before) as f64;

    let bytes = bench.content.disk.iter().map(|blob| blob.size_bytes).sum::<u64>() as f64;
    let from_disk_percent = from_disk * 100.0 / bytes;
    rows.add("read from the disk, %", kind, from_disk_percent);
    if from_disk_percent < FROM_DISK_PERCENT {
        return Ok(false);
    }
    rows.add(RATE, kind, bytes / GIB / cost.wall.as_secs_f64());
    rows.add(RELATIVE_P99, kind, meanwhile_ms / idle_ms);
    rows.add("tag's p99 idle, ms", kind, idle_ms);
    rows.add("tag's p99 meanwhile, ms", kind, meanwhile_ms);
    Ok(true)
}

/// Each reader has every n-th blob, one after the other.
async fn read_all(address: SocketAddr, blobs: &[Object], readers: usize) -> Result<()> {
    ensure!(!blobs.is_empty(), "there is nothing to read");
    let mut clients = JoinSet::new();
    for reader in 0..readers {
        let share: Vec<Request> = blobs
            .iter()
            .skip(reader)
            .step_by(readers)
            .map(|blob| Request::object(address, blob))
            .collect();
        clients.spawn(async move {
            let mut connection = Connection::open(address, BLOB_BUFFER_BYTES).await?;
            for request in &share {
                connection.exchange(request, |_| ()).await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(clients).await.map(drop)
}
