//! An image of ten layers that no server has seen, pulled over a slow link to the upstream.
//!
//! Each pull has a server of its own behind a relay of its own, so that no cache is warm. Where a server asks its
//! upstream as it starts, its pull may find that connection open, one round trip less.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{MIB, costed};
use crate::Bench;
use crate::images::Image;
use crate::link::Link;
use crate::load::within_reason;
use crate::pull::pull;
use crate::relay::Relay;
use crate::report::{Collector, Section, Subject};
use crate::server::{Role, Server, ServerKind};
use crate::target::Target;
use crate::transport::verify;

const TIME: &str = "time, s";
const WIRE_TIMES: &str = "time ÷ the link's limit";
/// All requests for the image start with this.
const IMAGE_PATHS: &str = "/v2/bench/layered/";

pub(super) async fn run(bench: &Bench<'_>) -> Result<Section> {
    let (link, image) = (bench.plan.slow_link(), &bench.content.layered);
    for object in image.objects() {
        // Unmeasured: brings the image into the page cache.
        verify(bench.origin.address(), object).await.context("direct")?;
    }
    let mut rows = Collector::default();
    rows.aim(TIME, Target::at_most(0.7, ServerKind::DockerRegistry));
    rows.aim(TIME, Target::at_most(1.02, Subject::Direct));
    // Not met by a client that goes direct either: the round trips before the first blob are beyond the limit.
    rows.aim(WIRE_TIMES, Target::limit(1.02));
    for round in 0..bench.plan.rounds {
        measure_direct(bench, link, image, &mut rows).await.context("direct")?;
        for server in bench.in_turn(round) {
            measure(bench, server, &mut rows).await.with_context(|| server.kind.name())?;
        }
    }
    let title = format!(
        "cold image of {:.1} MiB, {} blobs, upstream behind {} Mbit/s and {} ms round trip",
        image.pulled_bytes() as f64 / MIB,
        image.blobs.len(),
        bench.plan.link_mbit_per_second,
        bench.plan.link_round_trip_ms,
    );
    Ok(rows.finish(title, bench.plan.quick))
}

async fn measure_direct(
    bench: &Bench<'_>,
    link: Link,
    image: &Image,
    rows: &mut Collector,
) -> Result<()> {
    let relay = Relay::start(link, bench.origin.address()).await?;
    let started = Instant::now();
    within_reason(pull(relay.address(), image)).await?;
    add_times(rows, link, image, Subject::Direct, started.elapsed());
    Ok(())
}

async fn measure(bench: &Bench<'_>, server: &Server, rows: &mut Collector) -> Result<()> {
    let (link, image) = (bench.plan.slow_link(), &bench.content.layered);
    let relay = Relay::start(link, bench.origin.address()).await?;
    let fresh = bench.another_before(server, Role::ShapedLink, relay.address()).await?;
    bench.quiet_disk().await?;
    let asked_before = bench.origin.tally_below(IMAGE_PATHS).await?;
    let ((), cost) = costed(&fresh, pull(fresh.address, image)).await?;
    let asked = bench.origin.tally_below(IMAGE_PATHS).await?.since(asked_before);

    add_times(rows, link, image, server.kind, cost.wall);
    rows.add("server CPU, s", server.kind, cost.cpu.as_secs_f64());
    rows.add("upstream GETs", server.kind, asked.gets.into());
    rows.add("upstream HEADs", server.kind, asked.heads.into());
    for object in image.objects() {
        verify(fresh.address, object).await?;
    }
    fresh.retire()
}

fn add_times(
    rows: &mut Collector,
    link: Link,
    image: &Image,
    subject: impl Into<Subject>,
    took: Duration,
) {
    let (subject, took) = (subject.into(), took.as_secs_f64());
    let wire = link.transmission(image.pulled_bytes()).as_secs_f64();
    rows.add(TIME, subject, took);
    rows.add(WIRE_TIMES, subject, took / wire);
    // Going direct has five: handshake, tag, manifest, first blob, and the handshakes of the other connections.
    rows.add("round trips beyond it", subject, (took - wire) / link.round_trip.as_secs_f64());
}
