//! The measurements. Each warms and verifies outside the measured time, then takes its rounds with the servers in turn.

mod cached_tag;
mod cold_blob;
mod disk_reads;
mod herd;
mod hot_blob;
mod idle_connections;
mod shaped_link;
mod small_blobs;
mod zipf;

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Bench;
use crate::args::Step;
use crate::content::Object;
use crate::proc;
use crate::recipes::ROADSTEAD_MEMORY_MIB;
use crate::report::{Collector, Section};
use crate::server::{Role, Server};
use crate::target::Target;
use crate::transport::Transport;

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
/// A server that used no CPU for this long has finished what it does after the answer.
const IDLE: Duration = Duration::from_millis(200);
const IDLE_WITHIN: Duration = Duration::from_secs(120);

const END: &str = "RssAnon at the end, MiB";
const PEAK_OF_ANY: &str = "peak RssAnon of any step's instance, MiB";
/// What Roadstead may take besides the memory that it is given.
const OWN_MEMORY_MIB: u32 = 64;

/// What one measured piece of work took.
struct Cost {
    wall: Duration,
    /// The server's, including what it did after the last byte was sent.
    cpu: Duration,
    /// This program's: the clients, what watches memory, and the origin where that is built in. It shares the machine
    /// with the server, and may be what limits it.
    client_cpu: Duration,
}

pub(crate) async fn run(step: Step, bench: &Bench<'_>) -> Result<Section> {
    match step {
        Step::CachedTag => cached_tag::run(bench).await,
        Step::SmallBlobs => small_blobs::run(bench).await,
        Step::HotBlob => hot_blob::run(bench, Transport::Plain).await,
        Step::HotBlobTls => hot_blob::run(bench, Transport::Tls).await,
        Step::HotBlobHttp2 => hot_blob::run(bench, Transport::Http2).await,
        Step::ColdBlob => cold_blob::run(bench).await,
        Step::Herd => herd::run(bench).await,
        Step::ShapedLink => shaped_link::run(bench).await,
        Step::Zipf => zipf::run(bench).await,
        Step::IdleConnections => idle_connections::run(bench).await,
        Step::DiskReads => disk_reads::run(bench).await,
    }
}

/// The private memory of the servers that ran from the first step to the last, at its peak and after them, and the
/// highest peak among these and the steps' own instances.
pub(crate) async fn memory(bench: &Bench<'_>, steps: &[Step]) -> Result<Section> {
    let (mut rows, watch) = (Collector::default(), &bench.launcher.memory);
    rows.aim(END, Target::limit(f64::from(OWN_MEMORY_MIB + ROADSTEAD_MEMORY_MIB)));
    for server in &bench.servers {
        let kind = server.kind;
        idle(server).await?;
        let end = proc::anonymous_bytes(server.pid())?;
        rows.add(END, kind, end as f64 / MIB);
        rows.add("peak RssAnon, MiB", kind, watch.peak(kind, Role::Main).max(end) as f64 / MIB);
        rows.add(PEAK_OF_ANY, kind, watch.highest_peak(kind).max(end) as f64 / MIB);
    }
    let covered: Vec<_> =
        steps.iter().filter(|step| uses_main(**step)).map(|it| it.name()).collect();
    let after = if covered.is_empty() { "a start alone".to_owned() } else { covered.join(", ") };
    let title = format!(
        "memory after {after}; target: {OWN_MEMORY_MIB} MiB and roadstead's `store.memory` of {ROADSTEAD_MEMORY_MIB} MiB"
    );
    Ok(rows.finish(title, bench.plan.quick || covered.is_empty()))
}

/// Whether the step measures the servers that run from the first step to the last; else it has its own.
const fn uses_main(step: Step) -> bool {
    match step {
        Step::CachedTag
        | Step::SmallBlobs
        | Step::HotBlob
        | Step::HotBlobTls
        | Step::HotBlobHttp2
        | Step::ColdBlob
        | Step::Herd => true,
        Step::IdleConnections | Step::DiskReads | Step::ShapedLink | Step::Zipf => false,
    }
}

/// Makes the machine ready for a cold blob: a quiet disk, and memory for the copy that the cache will make.
///
/// In a virtual machine, memory that was not used for a while may have gone back to the host, and whoever touches it
/// first waits for it. A scratch file, written and removed, takes that wait: times were steadier, CPU a sixth lower.
async fn ready_for_cold(bench: &Bench<'_>, blob: &Object) -> Result<()> {
    let (scratch, copies) = (blob.file.with_extension("scratch"), 2);
    let left = blob.size_bytes * copies;
    tokio::task::spawn_blocking(move || {
        let mut file = File::create(&scratch)?;
        std::io::copy(&mut std::io::repeat(1).take(left), &mut file)?;
        drop(file);
        fs::remove_file(&scratch)
    })
    .await?
    .context("writing a scratch file")?;
    bench.quiet_disk().await
}

/// Does `work` and answers its result with what it cost `server`.
async fn costed<T>(server: &Server, work: impl Future<Output = Result<T>>) -> Result<(T, Cost)> {
    let cpu_before = idle(server).await?;
    let client_before = proc::own_cpu_time()?;
    let started = Instant::now();
    let done = crate::load::within_reason(work).await?;
    let wall = started.elapsed();
    let client_cpu = proc::own_cpu_time()?.saturating_sub(client_before);
    let cpu = idle(server).await?.saturating_sub(cpu_before);
    server.still_runs()?;
    Ok((done, Cost { wall, cpu, client_cpu }))
}

fn micros_each(cpu: Duration, requests: f64) -> f64 {
    cpu.as_secs_f64() * 1e6 / requests
}

/// Waits until the server rests; answers its CPU time so far.
async fn idle(server: &Server) -> Result<Duration> {
    let deadline = Instant::now() + IDLE_WITHIN;
    let mut last = proc::cpu_time(server.pid())?;
    loop {
        tokio::time::sleep(IDLE).await;
        let now = proc::cpu_time(server.pid())?;
        if now == last {
            return Ok(now);
        }
        if Instant::now() > deadline {
            bail!("{} is still busy after {} s", server.kind.name(), IDLE_WITHIN.as_secs());
        }
        last = now;
    }
}
