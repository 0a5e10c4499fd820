//! `roadstead cache verify`
//!
//! The job runs where the store is open; here it is started, watched, and on
//! Ctrl-C told to end.

use std::{sync::atomic::Ordering, thread, time::Duration};

use clap::Args;

use super::{
    Common, Ended,
    access::{Access, Trouble},
    output::Output,
    progress::Progress,
    units::size,
};
use crate::cli::interrupt;
use crate::inventory::{VerifyState, VerifyStatus};

/// How often the job is looked at.
const STEP: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Ctrl-C stops it. Exit code 1 when something is wrong and was not set right.

Examples:
  roadstead cache verify
  roadstead cache verify --repair";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// Set bad objects aside, so that the next pull fetches them again, and record good files that
    /// the index misses
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

// === impl Verify ===

impl Verify {
    pub(super) fn run(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        let interrupted = interrupt::watch()?;
        let mut status = access.start_verify(self.repair)?;
        let mut progress = Progress::new();
        let mut is_cancelled = false;
        while status.state == VerifyState::Running {
            progress.show(&status);
            thread::sleep(STEP);
            if interrupted.load(Ordering::Acquire) && !is_cancelled {
                is_cancelled = true;
                access.cancel_verify()?;
            }
            status = access.verify_status()?;
        }
        progress.end();
        if output.is_json() {
            output.json(&status)?;
        } else {
            print(&status, output)?;
        }
        if status.state == VerifyState::Done && status.is_clean() {
            return Ok(Ended::Done);
        }
        if let Some(error) = &status.error {
            return Err(Trouble::Failed(format!("the verification failed: {error}")));
        }
        if status.state == VerifyState::Done && !self.repair {
            eprintln!("roadstead: something is wrong; --repair sets it right");
        }
        Ok(Ended::Wrong)
    }
}

fn print(status: &VerifyStatus, output: &mut Output) -> Result<(), Trouble> {
    for finding in &status.findings {
        let repaired = if finding.repaired { " (repaired)" } else { "" };
        output.line(&format!("{}: {}{repaired}", finding.digest, finding.problem))?;
    }
    if status.findings_left_out > 0 {
        output.line(&format!("and {} more", status.findings_left_out))?;
    }
    let how = match status.state {
        VerifyState::Cancelled => "cancelled after",
        _ => "verified",
    };
    let mut line = format!(
        "{how} {} objects, {}: {} good, {} bad",
        status.done.objects,
        size(status.done.bytes),
        status.good,
        status.bad
    );
    for (count, what) in [
        (status.unrecorded, "unknown to the index"),
        (status.gone, "gone meanwhile"),
        (status.repaired, "repaired"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    Ok(output.line(&line)?)
}
