//! `roadstead cache`: what is cached, and what is to be done about it.
//!
//! On a store that a server uses, through the server's admin API; on any other,
//! straight from the directory. The output is the same either way.

pub(super) mod access;
mod du;
pub(super) mod login;
mod ls;
pub(super) mod output;
mod pin;
mod progress;
mod purge;
pub(super) mod remote;
pub(super) mod table;
pub(super) mod units;
mod verify;

use std::{io, process::ExitCode};

use clap::{Args, Subcommand};

use super::{FAILED, Source, WRONG_USAGE, complain};
use crate::inventory::Problem;
use access::{Access, Trouble};
use output::Output;

const ABOUT: &str = "\
Examples:
  roadstead cache ls 'library/**'       images of these repositories
  roadstead cache du                    by upstream and repository
  roadstead cache purge alpine:3.20     an image, with what no other needs
  roadstead cache pin 'ghcr.io/org/*'   never evicted
  roadstead cache verify --repair       read everything again

A running server is asked through its admin API (admin.address, or --admin); without one, the \
store's directory is opened (store.directory, or --data). With --admin alone, without --data and \
without --config, it is the server that is asked.

A server that asks for a password or a certificate is given those of ROADSTEAD_ADMIN_USER and \
ROADSTEAD_ADMIN_PASSWORD_FILE, ROADSTEAD_ADMIN_CLIENT_CERTIFICATE and ROADSTEAD_ADMIN_CLIENT_KEY.

With --json, sizes are bytes and times whole seconds since 1970. `ls` prints one JSON object per \
line and image (or object), the others print one document. Field names do not change.

Exit codes: 0 done; 1 failed, or something is wrong and was not set right; 2 wrong usage.";

/// See and tidy what is cached
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List cached images, or stored objects
    Ls(ls::Ls),
    /// Show how much each upstream and repository uses
    Du(du::Du),
    /// Read everything again and compare it with its digest
    Verify(verify::Verify),
    /// Remove images, with what no other image needs
    Purge(purge::Purge),
    /// Keep images from eviction
    Pin(pin::Pin),
    /// Let images be evicted again
    Unpin(pin::Unpin),
}

/// What every subcommand takes.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    source: Source,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// A subcommand, ready to be carried out.
type Run<'a> = Box<dyn Fn(&Access, &mut Output) -> Result<Ended, Trouble> + 'a>;

/// How a command ended, when it ended well enough to say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    /// Something is wrong, which has been told.
    Wrong,
}

// === impl Cache ===

impl Cache {
    pub(super) fn run(&self) -> ExitCode {
        let (common, run): (_, Run<'_>) = match &self.command {
            Command::Ls(ls) => (&ls.common, Box::new(|at, out| ls.run(at, out))),
            Command::Du(du) => (&du.common, Box::new(|at, out| du.run(at, out))),
            Command::Verify(it) => (&it.common, Box::new(|at, out| it.run(at, out))),
            Command::Purge(it) => (&it.common, Box::new(|at, out| it.run(at, out))),
            Command::Pin(it) => (&it.common, Box::new(|at, out| it.run(at, out))),
            Command::Unpin(it) => (&it.common, Box::new(|at, out| it.run(at, out))),
        };
        let config = match common.source.load() {
            Ok(config) => config,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        let mut output = Output::new(common.json);
        let ended = Access::open(&config, &common.source).and_then(|access| {
            let ended = run(&access, &mut output);
            access.close();
            let ended = ended?;
            output.flush()?;
            Ok(ended)
        });
        match ended {
            Ok(Ended::Done) => ExitCode::SUCCESS,
            Ok(Ended::Wrong) => ExitCode::from(FAILED),
            // Who read the output has seen enough.
            Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(trouble @ Trouble::Usage(_)) => complain(&trouble, WRONG_USAGE),
            Err(trouble) => complain(&trouble, FAILED),
        }
    }
}

/// Tells what could not be done; the references that could are done.
fn tell(problems: &[Problem]) -> Ended {
    for Problem { reference, problem } in problems {
        eprintln!("roadstead: {reference}: {problem}");
    }
    if problems.is_empty() { Ended::Done } else { Ended::Wrong }
}
