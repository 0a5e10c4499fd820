//! `roadstead warm`: images are fetched before a client asks for them.
//!
//! The server does it, as a job; here the images are gathered, the job is begun
//! and watched, and on Ctrl-C ended.

mod bars;
mod compose;
mod kubernetes;
mod plain;
mod print;
mod rate;
mod sources;
mod substitute;
mod watch;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    FAILED, Source, WRONG_USAGE,
    cache::{access::Trouble, output::Output, remote::Remote},
    complain,
    interrupt::{self, INTERRUPTED},
};
use crate::{
    protocol::platform::Platforms,
    warm::{JobReport, JobState, MOST_PARALLEL, WarmRequest},
};
use sources::Sources;
use watch::Watched;

const ABOUT: &str = "\
The running server does the work, with its upstreams, accounts and limits: it is found by its \
admin address (--admin, or admin.address of --config; 127.0.0.1:5001 without either). What is \
cached already costs no counted request; what a run that was ended left unfinished is resumed by \
the next.

  roadstead warm alpine:3.20 ghcr.io/org/app:1
  roadstead warm --compose compose.yaml --platform linux/amd64 --platform linux/arm64
  roadstead warm --kubernetes manifests/ --dry-run
  kubectl get pods -A -o json | roadstead warm --kubernetes -

Exit codes: 0 all images are there; 1 some are not, or the server can't be asked; 2 wrong usage; \
130 ended by Ctrl-C or SIGTERM, which ends the job on the server too.";

/// Fetch images before a client asks for them
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct Warm {
    #[command(flatten)]
    sources: Sources,
    /// Platforms to fetch, such as linux/arm64, or all; the server's own if none is given
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    platforms: Vec<String>,
    /// Layers to fetch at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
    /// Only say what it would cost in counted requests and bytes; that costs nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: read manifests that are not cached, which is counted, to know all of it
    #[arg(long, requires = "dry_run")]
    read_manifests: bool,
    /// Spend what budget.reserve keeps for clients, too
    #[arg(long)]
    spend_reserve: bool,
    /// Print the job as JSON at the end
    #[arg(long)]
    json: bool,
    /// The server's configuration file, for its admin.address
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's admin address: HOST:PORT
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Images, and what to tell of where they were found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    images: Vec<String>,
    notes: Vec<String>,
}

// === impl Warm ===

impl Warm {
    pub(super) fn run(&self) -> ExitCode {
        match self.carry_out() {
            Ok(code) => code,
            // Who read the output has seen enough.
            Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(trouble @ Trouble::Usage(_)) => complain(&trouble, WRONG_USAGE),
            Err(trouble) => complain(&trouble, FAILED),
        }
    }

    fn carry_out(&self) -> Result<ExitCode, Trouble> {
        let request = self.request()?;
        let remote = self.server()?;
        let interrupted = interrupt::watch()?;
        let job: JobReport = remote.post("warm", &request)?;
        let Watched { job, is_interrupted } = watch::watch(&remote, job, &interrupted, self.json)?;
        let mut output = Output::new(self.json);
        if self.json {
            output.json(&job)?;
        } else {
            print::print(&job, is_interrupted, &mut output)?;
        }
        output.flush()?;
        Ok(match job.summary.state {
            _ if is_interrupted => ExitCode::from(INTERRUPTED),
            JobState::Done => ExitCode::SUCCESS,
            JobState::Cancelled => complain(
                &"the job was ended on the server; run it again, and it goes on from there",
                FAILED,
            ),
            JobState::Running | JobState::Failed => ExitCode::from(FAILED),
        })
    }

    /// What is to be asked for; mistakes are found before the server is asked.
    fn request(&self) -> Result<WarmRequest, Trouble> {
        if !(1..=MOST_PARALLEL).contains(&self.parallel) {
            let problem = format!(
                "--parallel {} is not from 1 to {MOST_PARALLEL}; write one of these",
                self.parallel
            );
            return Err(Trouble::Usage(problem));
        }
        Platforms::parse(&self.platforms)
            .map_err(|error| Trouble::Usage(format!("--platform: {error}")))?;
        let Found { images, notes } = self.sources.read().map_err(Trouble::Usage)?;
        for note in notes {
            eprintln!("roadstead: {}", print::clean(&note));
        }
        Ok(WarmRequest {
            images,
            platforms: self.platforms.clone(),
            parallel: Some(self.parallel),
            dry_run: self.dry_run,
            read_manifests: self.read_manifests,
            spend_reserve: self.spend_reserve,
        })
    }

    /// The server, which must run.
    fn server(&self) -> Result<Remote, Trouble> {
        let source = Source {
            config: self.config.clone(),
            listen: None,
            admin: self.admin.clone(),
            upstreams: Vec::new(),
            data: None,
        };
        let config = source.load().map_err(|error| Trouble::Usage(error.to_string()))?;
        let remote = Remote::new(&config.admin)?;
        let asked = remote.get::<serde_json::Value>("", &[]);
        asked.map_err(|trouble| {
            Trouble::Failed(format!(
                "the server can't be asked ({trouble}); start it with roadstead serve, or name the one \
                 that runs by --admin, or by its configuration with --config"
            ))
        })?;
        Ok(remote)
    }
}
