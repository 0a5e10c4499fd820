//! A crowd of clients on a registry's worth of images, few of them asked for often and many rarely, every cache cold.
//!
//! Each round has fresh servers, each behind a relay of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{MIB, costed};
use crate::Bench;
use crate::content::Object;
use crate::images::{Image, popularity};
use crate::load::{join_all, within_reason};
use crate::pull::pull;
use crate::relay::Relay;
use crate::report::{Collector, Section, Subject};
use crate::server::{Role, Server, ServerKind};
use crate::target::Target;
use crate::transport::verify_all;

const TIME: &str = "time, s";
/// All requests for the crowd's images start with this.
const IMAGE_PATHS: &str = "/v2/bench/crowd/";
/// Connections that verify at a time.
const VERIFIERS: usize = 4;

/// Images in the order in which they are pulled.
type Order = Arc<Vec<Image>>;

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let order: Order = Arc::new(
        popularity(bench.content.crowd.len(), bench.plan.crowd_pulls)
            .into_iter()
            .filter_map(|drawn| bench.content.crowd.get(drawn).cloned())
            .collect(),
    );
    // Unmeasured: brings the images into the page cache.
    verify_pulled(bench.origin.address(), &order).await.context("direct")?;
    let mut rows = Collector::default();
    rows.aim(TIME, Target::at_most(0.3, ServerKind::DockerRegistry));
    for round in 0..bench.plan.rounds {
        measure_direct(bench, &order, &mut rows).await.context("direct")?;
        for server in bench.in_turn(round) {
            let measured = measure(bench, server, &order, &mut rows);
            measured.await.with_context(|| server.kind.name())?;
        }
    }
    Ok(rows.finish(title(bench, &order), bench.plan.quick))
}

async fn measure_direct(bench: &Bench<'_>, order: &Order, rows: &mut Collector) -> Result<()> {
    let relay = Relay::start(bench.plan.near_link(), bench.origin.address()).await?;
    let started = Instant::now();
    within_reason(pull_all(relay.address(), order, bench.plan.crowd_clients)).await?;
    rows.add(TIME, Subject::Direct, started.elapsed().as_secs_f64());
    Ok(())
}

async fn measure(
    bench: &Bench<'_>,
    server: &Server,
    order: &Order,
    rows: &mut Collector,
) -> Result<()> {
    let relay = Relay::start(bench.plan.near_link(), bench.origin.address()).await?;
    let fresh = bench.another_before(server, Role::Zipf, relay.address()).await?;
    bench.quiet_disk().await?;
    let asked_before = bench.origin.tally_below(IMAGE_PATHS).await?;
    let pulls = pull_all(fresh.address, order, bench.plan.crowd_clients);
    let ((), cost) = costed(&fresh, pulls).await?;
    let asked = bench.origin.tally_below(IMAGE_PATHS).await?.since(asked_before);

    rows.add(TIME, server.kind, cost.wall.as_secs_f64());
    rows.add("server CPU, s", server.kind, cost.cpu.as_secs_f64());
    rows.add("upstream GETs", server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());
    verify_pulled(fresh.address, order).await?;
    fresh.retire()
}

/// Each client pulls the next image of the order, until all are pulled.
async fn pull_all(address: SocketAddr, order: &Order, clients: usize) -> Result<()> {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (order, taken) = (order.clone(), taken.clone());
        running.spawn(async move {
            while let Some(image) = order.get(taken.fetch_add(1, Ordering::Relaxed)) {
                pull(address, image).await?;
            }
            anyhow::Ok(())
        });
    }
    join_all(running).await.map(drop)
}

/// Verifies every resource that is pulled, once.
async fn verify_pulled(address: SocketAddr, order: &Order) -> Result<()> {
    let objects = order.iter().flat_map(Image::objects);
    let by_path: BTreeMap<&str, &Object> =
        objects.map(|object| (object.path.as_str(), object)).collect();
    let objects: Vec<Object> = by_path.into_values().cloned().collect();
    verify_all(address, &objects, VERIFIERS).await
}

fn title(bench: &Bench<'_>, order: &Order) -> String {
    let images: BTreeSet<&str> = order.iter().map(|image| image.tagged.path.as_str()).collect();
    let objects = order.iter().flat_map(Image::objects);
    let contents: BTreeSet<&str> = objects.map(|object| object.digest.as_str()).collect();
    format!(
        "zipf: {} clients make {} pulls ({:.0} MiB) of {} among {} images with {} different contents, upstream behind \
         {} ms round trip",
        bench.plan.crowd_clients,
        order.len(),
        order.iter().map(Image::pulled_bytes).sum::<u64>() as f64 / MIB,
        images.len(),
        bench.content.crowd.len(),
        contents.len(),
        bench.plan.crowd_round_trip_ms,
    )
}
