//! `roadstead cache pin` and `unpin`

use clap::Args;

use super::{
    Common, Ended,
    access::{Access, Trouble},
    output::Output,
    table::{Align, Table},
    tell,
    units::size,
};
use crate::inventory::Pinned;

const EXAMPLES: &str = "\
Examples:
  roadstead cache pin alpine:3.20 'ghcr.io/org/*'
  roadstead cache pin --list";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Pin {
    /// Images, digests or globs; an image is pinned as it is now
    #[arg(required_unless_present = "list", value_name = "REF")]
    references: Vec<String>,
    /// Show what is pinned
    #[arg(long, conflicts_with = "references")]
    list: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Unpin {
    /// Images, digests or globs
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

// === impl Pin ===

impl Pin {
    pub(super) fn run(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        if self.list {
            let page = access.pins()?;
            if output.is_json() {
                output.json(&page)?;
            } else {
                print(&page.pins, output)?;
            }
            return Ok(Ended::Done);
        }
        let report = access.pin(&self.references)?;
        if output.is_json() {
            output.json(&report)?;
        } else {
            print(&report.pins, output)?;
        }
        Ok(tell(&report.problems))
    }
}

fn print(pins: &[Pinned], output: &mut Output) -> Result<(), Trouble> {
    let mut table = Table::new(&[
        ("PINNED", Align::Left),
        ("OBJECTS", Align::Right),
        ("STORED", Align::Right),
        ("SIZE", Align::Right),
    ]);
    for pin in pins {
        let (objects, stored) = (pin.objects.to_string(), pin.stored.to_string());
        table.row([pin.name.clone(), objects, stored, size(pin.bytes)]);
    }
    if !table.is_empty() {
        output.table(&table)?;
    }
    Ok(())
}

// === impl Unpin ===

impl Unpin {
    pub(super) fn run(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        let report = access.unpin(&self.references)?;
        if output.is_json() {
            output.json(&report)?;
        } else {
            for name in &report.unpinned {
                output.line(name)?;
            }
        }
        Ok(tell(&report.problems))
    }
}
