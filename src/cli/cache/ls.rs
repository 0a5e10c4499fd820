//! `roadstead cache ls`

use clap::Args;

use super::{
    Common, Ended,
    access::{Access, Trouble},
    output::Output,
    table::{Align, Table},
    units::{age, now, size},
};
use crate::inventory::{BlobKind, Image, MOST_PER_PAGE, Platform, State};

/// Rows of one table: more than that is printed in several, so that a long list begins at once.
const PER_TABLE: usize = 500;

const EXAMPLES: &str = "\
Examples:
  roadstead cache ls                    every image
  roadstead cache ls ghcr.io            those of one upstream
  roadstead cache ls 'library/*:3.*'    by repository and tag
  roadstead cache ls --objects --json   the blobs and manifests themselves, for a program";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ls {
    /// An image, repository, upstream or glob, such as alpine, ghcr.io, library/*:3.*
    pattern: Option<String>,
    /// List stored objects instead of images
    #[arg(long, conflicts_with = "pattern")]
    objects: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

// === impl Ls ===

impl Ls {
    pub(super) fn run(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        if self.objects { objects(access, output) } else { self.images(access, output) }
    }

    fn images(&self, access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
        let mut after: Option<String> = None;
        let mut count = 0;
        loop {
            let page = access.images(self.pattern.as_deref(), after.as_deref(), PER_TABLE)?;
            count += page.images.len();
            print_images(&page.images, output)?;
            if page.next.is_none() {
                break;
            }
            after = page.next;
        }
        if count == 0 && !output.is_json() {
            eprintln!(
                "nothing is cached{}",
                if self.pattern.is_some() { " by this name" } else { "" }
            );
        }
        Ok(Ended::Done)
    }
}

fn print_images(images: &[Image], output: &mut Output) -> Result<(), Trouble> {
    if output.is_json() {
        return Ok(images.iter().try_for_each(|image| output.json(image))?);
    }
    let mut table = Table::new(&[
        ("IMAGE", Align::Left),
        ("SIZE", Align::Right),
        ("PLATFORMS", Align::Left),
        ("CHECKED", Align::Right),
        ("USED", Align::Right),
        ("PINNED", Align::Left),
    ]);
    let now = now();
    let age_if = |time: Option<u64>| time.map_or("-".to_owned(), |time| age(time, now));
    for image in images {
        table.row([
            image.reference.clone(),
            size(image.bytes),
            platforms(image),
            age_if(image.checked_at),
            age_if(image.used_at),
            if image.pinned { "yes" } else { "" }.to_owned(),
        ]);
    }
    if !table.is_empty() {
        output.table(&table)?;
    }
    Ok(())
}

/// The platforms of which anything is stored, those in part marked so; then how many there are.
fn platforms(image: &Image) -> String {
    let name = |platform: &Platform| {
        let name = platform.platform.as_deref().unwrap_or("any");
        // Nearly all are for Linux; the others keep their system's name.
        let name = name.strip_prefix("linux/").unwrap_or(name);
        match platform.state {
            State::Complete => Some(name.to_owned()),
            State::Partial => Some(format!("{name} (part)")),
            State::Absent => None,
        }
    };
    let stored: Vec<_> = image.platforms.iter().filter_map(name).collect();
    let all = image.platforms.len();
    match (image.state, stored.len()) {
        (State::Absent, _) => "not stored".to_owned(),
        (_, 0) => format!("none of {all}"),
        (_, count) if count == all && count <= 2 => stored.join(","),
        (_, 1 | 2) => format!("{} of {all}", stored.join(",")),
        (_, count) => format!("{count} of {all}"),
    }
}

fn objects(access: &Access, output: &mut Output) -> Result<Ended, Trouble> {
    let mut after: Option<String> = None;
    loop {
        let page = access.blobs(after.as_deref(), MOST_PER_PAGE)?;
        if output.is_json() {
            page.blobs.iter().try_for_each(|object| output.json(object))?;
        } else {
            let (mut table, now) = (Table::new(&OBJECT_HEAD), now());
            for object in &page.blobs {
                let kind = match object.kind {
                    BlobKind::Blob => "blob",
                    BlobKind::Manifest => "manifest",
                };
                table.row([
                    object.digest.to_string(),
                    size(object.bytes),
                    kind.to_owned(),
                    age(object.used_at, now),
                    if object.pinned { "yes" } else { "" }.to_owned(),
                ]);
            }
            output.table(&table)?;
        }
        if page.next.is_none() {
            return Ok(Ended::Done);
        }
        after = page.next;
    }
}

const OBJECT_HEAD: [(&str, Align); 5] = [
    ("DIGEST", Align::Left),
    ("SIZE", Align::Right),
    ("KIND", Align::Left),
    ("USED", Align::Right),
    ("PINNED", Align::Left),
];
