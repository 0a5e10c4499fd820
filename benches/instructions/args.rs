//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Counts what requests on the hit path cost in instructions, and fails where that is far from the baseline.
#[derive(Debug, Parser)]
#[command(name = "instructions")]
pub(crate) struct Args {
    /// A small batch of each kind, of any build, without a verdict: only shows that it works.
    #[arg(long, conflicts_with_all = ["bless", "require"])]
    pub(crate) quick: bool,

    /// Write what is measured as the baseline.
    #[arg(long)]
    pub(crate) bless: bool,

    /// Fail where nothing can be measured or the baseline is of another target, instead of only saying so.
    #[arg(long)]
    pub(crate) require: bool,

    /// The baseline.
    #[arg(
        long,
        value_name = "FILE",
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/baseline.json")
    )]
    pub(crate) baseline: PathBuf,

    /// Keep a batch's profile of each kind in this directory, as NAME.callgrind, for callgrind_annotate.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// Passed by `cargo bench`; without meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}
