//! How far a verification is: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::units::size;
use crate::inventory::VerifyStatus;

/// How often a log gets a line.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// On standard error, so that the output stays what was asked for.
pub(super) enum Progress {
    Bar(ProgressBar),
    Plain {
        /// When the last line was written, or the start.
        last: Instant,
    },
}

// === impl Progress ===

impl Progress {
    pub(super) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Plain { last: Instant::now() };
        }
        let template = "{bar:24} {percent:>3}% {msg} {eta} left";
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::new(0);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    pub(super) fn show(&mut self, status: &VerifyStatus) {
        match self {
            Self::Bar(bar) => {
                // What was published meanwhile is verified too.
                bar.set_length(status.total.bytes.max(status.done.bytes));
                bar.set_position(status.done.bytes);
                bar.set_message(words(status));
            }
            Self::Plain { last } if last.elapsed() >= PLAIN_EVERY => {
                *last = Instant::now();
                eprintln!("{}", words(status));
            }
            Self::Plain { .. } => {}
        }
    }

    pub(super) fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn words(status: &VerifyStatus) -> String {
    format!(
        "{} of {} objects, {} of {}, {} bad",
        status.done.objects,
        status.total.objects,
        size(status.done.bytes),
        size(status.total.bytes),
        status.bad
    )
}
