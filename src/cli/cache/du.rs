//! `roadstead cache du`

use clap::Args;

use super::{
    Common, Ended,
    access::{Access, Trouble},
    output::Output,
    table::{Align, Table},
    units::size,
};
use crate::inventory::StoreUsage;

const EXAMPLES: &str = "\
A blob that several repositories have counts in each, and once in the sum.

Examples:
  roadstead cache du
  roadstead cache du --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Du {
    #[command(flatten)]
    pub(super) common: Common,
}

// === impl Du ===

impl Du {
    pub(super) fn run(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        let report = access.usage()?;
        if output.is_json() {
            output.json(&report)?;
            return Ok(Ended::Done);
        }
        let mut table = Table::new(&[
            ("REPOSITORY", Align::Left),
            ("TAGS", Align::Right),
            ("OBJECTS", Align::Right),
            ("SIZE", Align::Right),
        ]);
        for it in &report.repositories {
            let name = format!("{}/{}", it.upstream, it.repository);
            table.row([name, it.tags.to_string(), it.objects.to_string(), size(it.bytes)]);
        }
        for it in &report.upstreams {
            let name = format!("{} (shared counted once)", it.upstream);
            table.row([name, it.tags.to_string(), it.objects.to_string(), size(it.bytes)]);
        }
        if !table.is_empty() {
            output.table(&table)?;
            output.line("")?;
        }
        if report.repositories_left_out > 0 {
            let count = report.repositories_left_out;
            output.line(&format!("{count} smaller repositories are not listed"))?;
        }
        output.line(&store_line(&report.store))?;
        Ok(Ended::Done)
    }
}

/// What counts, then what of it is not images.
fn store_line(store: &StoreUsage) -> String {
    let mut line = format!(
        "{} of {} used: {} in {} objects",
        size(store.used),
        size(store.capacity),
        size(store.published),
        store.objects
    );
    for (bytes, what) in
        [(store.staged, "unfinished"), (store.index, "index"), (store.quarantine, "set aside")]
    {
        if bytes > 0 {
            line.push_str(&format!(", {} {what}", size(bytes)));
        }
    }
    if store.pinned > 0 {
        line.push_str(&format!("; {} pinned", size(store.pinned)));
    }
    line
}
