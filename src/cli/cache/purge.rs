//! `roadstead cache purge`

use clap::Args;

use super::{
    Common, Ended,
    access::{Access, Trouble},
    output::Output,
    tell,
    units::size,
};
use crate::inventory::{PurgeReport, PurgeRequest};

const EXAMPLES: &str = "\
Examples:
  roadstead cache purge --dry-run 'library/*'    only says what would go
  roadstead cache purge alpine:3.20
  roadstead cache purge --all-tags ghcr.io/org/app
The next pull of what was purged comes from upstream and is counted there.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Purge {
    /// Images (alpine:3.20), digests (one object) or globs (library/*:3.*)
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Purge every tag of the repositories that are named
    #[arg(long)]
    all_tags: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

// === impl Purge ===

impl Purge {
    pub(super) fn run(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        let report = access.purge(&PurgeRequest {
            references: self.references.clone(),
            all_tags: self.all_tags,
            dry_run: self.dry_run,
        })?;
        if output.is_json() {
            output.json(&report)?;
        } else {
            print(&report, output)?;
        }
        Ok(tell(&report.problems))
    }
}

fn print(report: &PurgeReport, output: &mut Output) -> Result<(), Trouble> {
    for tag in &report.tags {
        output.line(tag)?;
    }
    if report.dry_run {
        for object in &report.objects {
            output.line(&format!("  {} ({})", object.digest, size(object.bytes)))?;
        }
    }
    let verb = if report.dry_run { "would free" } else { "freed" };
    let (count, bytes) = (report.objects.len(), size(report.bytes));
    let mut line = format!("{verb} {bytes} in {count} objects");
    if report.kept.objects > 0 {
        let (objects, bytes) = (report.kept.objects, size(report.kept.bytes));
        line.push_str(&format!("; {bytes} in {objects} objects are needed by others"));
    }
    Ok(output.line(&line)?)
}
