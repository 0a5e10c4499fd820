//! What is told in words: of each image when it has ended, and of all of them at the end.
//!
//! Registries and files put in what stands here; no character of theirs moves the cursor.

use std::io::{self, Write};

use crate::{
    cli::cache::{
        access::Trouble,
        output::Output,
        table::{Align, Table},
        units::size,
    },
    warm::{ImageReport, ImageState, JobReport, Totals},
};

/// A text on one line, without control characters and marks that turn its direction.
pub(super) fn clean(text: &str) -> String {
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_bad, "?")
}

/// Tells of an image that has ended: what is there on standard output, what is not on the other.
pub(super) fn image(image: &ImageReport) -> Result<(), Trouble> {
    let name = clean(&image.reference);
    match (&image.error, image.state) {
        (Some(error), _) => eprintln!("roadstead: {name}: {}", clean(error)),
        (None, ImageState::Cancelled) => {}
        (None, state) => {
            let bytes = size(image.bytes);
            let mut line = match state {
                ImageState::Cached => format!("{name}: cached, {bytes}"),
                _ => format!("{name}: fetched {} of {bytes}", size(image.fetched)),
            };
            line.push_str(&format!(" ({}", plural(image.layer_count, "layer")));
            if image.spent > 0 {
                line.push_str(&format!(", {}", plural(image.spent, "pull")));
            }
            if image.platforms.len() > 1 {
                line.push_str(&format!(", {}", clean(&image.platforms.join(", "))));
            }
            line.push(')');
            writeln!(io::stdout(), "{line}")?;
        }
    }
    for note in &image.notes {
        eprintln!("roadstead: {name}: {}", clean(note));
    }
    Ok(())
}

/// Tells how it ended.
pub(super) fn print(
    job: &JobReport,
    is_interrupted: bool,
    output: &mut Output,
) -> Result<(), Trouble> {
    let totals = &job.summary.totals;
    if job.summary.dry_run {
        table(job, output)?;
    }
    for note in &job.summary.notes {
        eprintln!("roadstead: {}", clean(note));
    }
    let line = match job.summary.dry_run {
        true => price(job),
        false => format!(
            "{} of {} images are there; {} fetched, {} spent{}",
            totals.images_done,
            totals.images,
            size(totals.fetched),
            plural(totals.spent, "pull"),
            left(job)
        ),
    };
    if is_interrupted {
        eprintln!("roadstead: interrupted; run it again, and it goes on from there");
    }
    Ok(output.line(&line)?)
}

fn price(job: &JobReport) -> String {
    let totals: &Totals = &job.summary.totals;
    let at_least = if totals.is_estimate { "at least " } else { "" };
    let read = match totals.spent {
        0 => String::new(),
        spent => format!("; {} spent on manifests that were read", plural(spent, "pull")),
    };
    format!(
        "a run would cost {}, and fetch {at_least}{}{read}{}",
        plural(totals.to_spend, "pull"),
        size(totals.to_fetch),
        left(job)
    )
}

/// What the registries that have a limit have left.
fn left(job: &JobReport) -> String {
    let known = job.summary.budgets.iter().filter_map(|budget| {
        let (left, limit) = (budget.remaining?, budget.limit?);
        let kept = if budget.is_sparing { ", kept for clients" } else { "" };
        Some(format!("; {} has {left} of {limit} pulls left{kept}", clean(&budget.upstream)))
    });
    known.collect()
}

/// What each image would cost.
fn table(job: &JobReport, output: &mut Output) -> Result<(), Trouble> {
    let mut table = Table::new(&[
        ("IMAGE", Align::Left),
        ("PULLS", Align::Right),
        ("FETCH", Align::Right),
        ("CACHED", Align::Right),
    ]);
    let is_priced = |image: &&ImageReport| image.error.is_none() && image.is_over();
    for image in job.images.iter().filter(is_priced) {
        let fetch = match image.is_estimate {
            true if image.to_fetch == 0 => "?".to_owned(),
            true => format!("> {}", size(image.to_fetch)),
            false => size(image.to_fetch),
        };
        let pulls = image.to_spend.to_string();
        table.row([clean(&image.reference), pulls, fetch, size(image.done)]);
    }
    if !table.is_empty() {
        output.table(&table)?;
    }
    // What they have in common is told once, in the order of its first.
    let mut told: Vec<&String> = Vec::new();
    for image in &job.images {
        let name = clean(&image.reference);
        if let Some(error) = &image.error {
            eprintln!("roadstead: {name}: {}", clean(error));
        }
        for note in &image.notes {
            if !told.contains(&note) {
                told.push(note);
                eprintln!("roadstead: {name}: {}", clean(note));
            }
        }
    }
    Ok(())
}

fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_moves_the_cursor() {
        let text = "a\u{1b}[2Jb\r\nc\u{9b}31m\u{202e}d\u{7f}é…";
        assert_eq!(clean(text), "a?[2Jb??c?31m?d?é…");
    }
}
