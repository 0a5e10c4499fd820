//! The command line, and the sizes and durations that follow from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::link::Link;
use crate::server::ServerKind;

const MIB: u64 = 1 << 20;
/// What is left of a blob where its step is left out.
const TOKEN_BYTES: u64 = 4096;
/// The same for the slow link's image, which it leaves bytes of.
const TOKEN_SHRUNK_BY: u64 = 1024;

/// Measures Roadstead beside nginx's proxy_cache, docker-registry in proxy mode and a bare Pingora.
#[derive(Debug, Parser)]
#[command(name = "side_by_side")]
pub(crate) struct Args {
    /// Small sizes, one round, no verdicts: only shows that every step works.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Run only these steps (repeat, or separate by commas). Memory is always reported.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Step>,

    /// Measure only these servers (repeat, or separate by commas).
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    servers: Vec<ServerKind>,

    /// Who serves the content: static files as fast as can be, or a real but slower docker-registry.
    #[arg(long, value_enum, default_value = "static", value_name = "KIND")]
    pub(crate) origin: OriginKind,

    /// Rounds to take the median of [default: 3, with --quick 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,

    /// First install what is missing of nginx-light and docker-registry with apt-get (needs root).
    #[arg(long)]
    pub(crate) install: bool,

    /// Where the figures go [default: TARGET/bench/side_by_side.json].
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,

    /// Parent of the run's own directory, 25 GiB at the default sizes, removed at the end [default: TARGET/bench].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Passed by `cargo bench`; without meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// In the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    CachedTag,
    SmallBlobs,
    HotBlob,
    HotBlobTls,
    HotBlobHttp2,
    ColdBlob,
    Herd,
    IdleConnections,
    DiskReads,
    ShapedLink,
    Zipf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OriginKind {
    Static,
    Registry,
}

/// How much of everything: fixed by `--quick` and `--rounds`, and written into the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) tag_connections: usize,
    pub(crate) tag_warmup_ms: u64,
    pub(crate) tag_time_ms: u64,
    pub(crate) hot_bytes: u64,
    pub(crate) hot_readers: usize,
    /// Whole GETs by each reader and round.
    pub(crate) hot_gets: usize,
    pub(crate) cold_bytes: u64,
    pub(crate) herd_bytes: u64,
    pub(crate) herd_clients: usize,
    pub(crate) small_blobs: u64,
    pub(crate) idle_connections: usize,
    /// How long after they were closed it is seen what a server has not given back.
    pub(crate) give_back_ms: u64,
    /// Of the client beside them, and of the one beside the disk's readers when there are none yet.
    pub(crate) latency_time_ms: u64,
    pub(crate) disk_blobs: u64,
    pub(crate) disk_blob_bytes: u64,
    pub(crate) disk_readers: usize,
    pub(crate) link_mbit_per_second: u64,
    pub(crate) link_round_trip_ms: u64,
    /// The slow link's image has 60 MiB, divided by this.
    pub(crate) link_image_shrunk_by: u64,
    pub(crate) crowd_images: usize,
    pub(crate) crowd_pulls: usize,
    pub(crate) crowd_clients: usize,
    pub(crate) crowd_round_trip_ms: u64,
}

// === impl Args ===

impl Args {
    pub(crate) fn measures(&self, kind: ServerKind) -> bool {
        self.servers.is_empty() || self.servers.contains(&kind)
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        let steps = Step::value_variants().iter().copied();
        steps.filter(|step| self.only.is_empty() || self.only.contains(step)).collect()
    }
}

// === impl Step ===

impl Step {
    /// As `--only` names it.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no step is hidden from the command line");
        value.get_name().to_owned()
    }
}

// === impl Plan ===

impl From<&Args> for Plan {
    fn from(args: &Args) -> Self {
        let base = if args.quick { Self::quick() } else { Self::full() };
        let steps = args.steps();
        let any = |of: &[Step]| of.iter().any(|step| steps.contains(step));
        // What no step wants is a token, or nothing: 8 GiB take a while to make.
        let sized = |of: &[Step], full, token| if any(of) { full } else { token };
        let hot = [Step::HotBlob, Step::HotBlobTls, Step::HotBlobHttp2];
        Self {
            rounds: args.rounds.map_or(base.rounds, usize::from),
            hot_bytes: sized(&hot, base.hot_bytes, TOKEN_BYTES),
            cold_bytes: sized(&[Step::ColdBlob], base.cold_bytes, TOKEN_BYTES),
            herd_bytes: sized(&[Step::Herd], base.herd_bytes, TOKEN_BYTES),
            small_blobs: sized(&[Step::SmallBlobs], base.small_blobs, 0),
            disk_blobs: sized(&[Step::DiskReads], base.disk_blobs, 0),
            link_image_shrunk_by: sized(
                &[Step::ShapedLink],
                base.link_image_shrunk_by,
                TOKEN_SHRUNK_BY,
            ),
            crowd_images: if any(&[Step::Zipf]) { base.crowd_images } else { 1 },
            ..base
        }
    }
}

impl Plan {
    fn full() -> Self {
        Self {
            quick: false,
            rounds: 3,
            tag_connections: 64,
            tag_warmup_ms: 1000,
            tag_time_ms: 5000,
            hot_bytes: 256 * MIB,
            hot_readers: 8,
            hot_gets: 4,
            cold_bytes: 768 * MIB,
            herd_bytes: 128 * MIB,
            herd_clients: 32,
            small_blobs: 10_000,
            idle_connections: 10_000,
            give_back_ms: 30_000,
            latency_time_ms: 5000,
            disk_blobs: 64,
            disk_blob_bytes: 64 * MIB,
            disk_readers: 4,
            link_mbit_per_second: 100,
            link_round_trip_ms: 40,
            link_image_shrunk_by: 1,
            crowd_images: 200,
            crowd_pulls: 600,
            crowd_clients: 16,
            crowd_round_trip_ms: 5,
        }
    }

    fn quick() -> Self {
        Self {
            quick: true,
            rounds: 1,
            tag_warmup_ms: 100,
            tag_time_ms: 400,
            hot_bytes: 8 * MIB,
            hot_gets: 2,
            cold_bytes: 16 * MIB,
            herd_bytes: 4 * MIB,
            small_blobs: 200,
            idle_connections: 200,
            give_back_ms: 1000,
            latency_time_ms: 300,
            disk_blobs: 8,
            disk_blob_bytes: 2 * MIB,
            link_image_shrunk_by: 16,
            crowd_images: 10,
            crowd_pulls: 30,
            ..Self::full()
        }
    }

    pub(crate) const fn origin_bytes(&self) -> u64 {
        let in_rounds = self.rounds as u64 * (self.cold_bytes + self.herd_bytes);
        // Small images have three layers each, on average.
        let images = 60 * MIB / self.link_image_shrunk_by + self.crowd_images as u64 * 3 * MIB / 4;
        self.hot_bytes + in_rounds + self.disk_blobs * self.disk_blob_bytes + images
    }

    pub(crate) const fn slow_link(&self) -> Link {
        Link {
            bits_per_second: Some(self.link_mbit_per_second * 1_000_000),
            round_trip: Duration::from_millis(self.link_round_trip_ms),
        }
    }

    /// Fast, but not next door.
    pub(crate) const fn near_link(&self) -> Link {
        Link { bits_per_second: None, round_trip: Duration::from_millis(self.crowd_round_trip_ms) }
    }
}
