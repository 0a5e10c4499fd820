//! Progress on a terminal: a bar for each layer on its way, and a line for all of them.
//!
//! There are no more bars than fit on the screen, and what stands beside a bar
//! gives way on a narrow one. A terminal that is resized gets new lines.

use std::time::Instant;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{print::clean, rate::Rate};
use crate::{
    cli::cache::units::size,
    warm::{ImageReport, JobReport, LayerReport, LayerState},
};

/// The most bars.
const MOST: usize = 8;

/// Bars are drawn so often in a second.
const HERTZ: u8 = 10;

/// Columns of a bar below which it says less than a percentage.
const LEAST_BAR: usize = 8;

/// Columns of an image's name, and those that it keeps before what stands beside it goes.
const MOST_NAME: usize = 44;
const LEAST_NAME: usize = 20;

/// Columns that stay free: a line that is full to the last one runs into the next when the terminal
/// is resized.
const FREE: usize = 1;

/// Which layer of which image.
type Key = (usize, usize);

/// The bars.
pub(super) struct Bars {
    screen: MultiProgress,
    term: Term,
    /// Rows and columns when it was last drawn.
    size: (usize, usize),
    layers: Vec<(Key, ProgressBar)>,
    sum: ProgressBar,
    is_plain: bool,
}

// === impl Bars ===

impl Bars {
    pub(super) fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HERTZ));
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let sum = screen.add(ProgressBar::new(0));
        sum.set_style(style("{msg}"));
        let term = Term::stderr();
        let size = size_of(&term);
        Self { screen, term, size, layers: Vec::new(), sum, is_plain }
    }

    /// Lets something else be written to the terminal.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.screen.suspend(write)
    }

    pub(super) fn show(&mut self, job: &JobReport, rate: &Rate) {
        let size = size_of(&self.term);
        if size != self.size {
            self.clear_broken_lines(size.1);
            self.size = size;
        }
        let (rows, columns) = size;
        let active = active(job);
        let room = rows.saturating_sub(2).clamp(1, MOST);
        self.keep_places(&active, room);
        let widest = |(key, _): &(Key, ProgressBar)| {
            find(job, *key).map_or(0, |(image, _)| clean(&image.reference).chars().count())
        };
        let widest = self.layers.iter().map(widest).max().unwrap_or_default();
        for (key, bar) in &self.layers {
            if let Some((image, layer)) = find(job, *key) {
                draw(bar, &parts(image, layer, widest, columns), layer, columns, self.is_plain);
            }
        }
        let hidden = active.len().saturating_sub(self.layers.len());
        self.sum.set_message(sum(job, rate.per_second(Instant::now()), hidden, columns));
    }

    /// A layer keeps its line as long as it is on its way; another one takes it then.
    fn keep_places(&mut self, active: &[Key], room: usize) {
        let is_shown = |key: &Key| self.layers.iter().any(|(one, _)| one == key);
        let mut new: Vec<Key> = active.iter().filter(|key| !is_shown(key)).copied().collect();
        new.reverse();
        for (key, _) in &mut self.layers {
            if !active.contains(key)
                && let Some(next) = new.pop()
            {
                *key = next;
            }
        }
        let screen = &self.screen;
        let mut count = 0;
        self.layers.retain(|(key, bar)| {
            count += 1;
            let stays = active.contains(key) && count <= room;
            if !stays {
                screen.remove(bar);
            }
            stays
        });
        while self.layers.len() < room
            && let Some(key) = new.pop()
        {
            let bar = self.screen.insert_before(&self.sum, ProgressBar::new(0));
            self.layers.push((key, bar));
        }
    }

    /// Clears what was drawn before the terminal was resized, and is broken into more lines now.
    fn clear_broken_lines(&self, columns: usize) {
        let (_, before) = self.size;
        // A screen that can't be written to shows nothing wrong either.
        let _ = self.screen.clear();
        if !breaks_lines() || columns == 0 {
            return;
        }
        let of_bar = before.saturating_sub(FREE).div_ceil(columns).saturating_sub(1);
        // The last line is filled up with blanks.
        let of_sum = before.div_ceil(columns).saturating_sub(1);
        let _ = self.term.clear_last_lines(of_bar * self.layers.len() + of_sum);
    }

    pub(super) fn end(&self) {
        for (_, bar) in &self.layers {
            self.screen.remove(bar);
        }
        self.sum.finish_and_clear();
        let _ = self.screen.clear();
    }
}

/// Whether the terminal breaks lines anew when it is resized: all do but these.
fn breaks_lines() -> bool {
    let is_old = ["XTERM_VERSION", "STY"].iter().any(|name| std::env::var_os(name).is_some());
    !is_old && std::env::var("TERM").is_ok_and(|term| term != "linux")
}

fn find(job: &JobReport, (image, layer): Key) -> Option<(&ImageReport, &LayerReport)> {
    let image = job.images.get(image)?;
    Some((image, image.layers.get(layer)?))
}

/// The layers on their way, in the order of the images.
fn active(job: &JobReport) -> Vec<Key> {
    let mut active = Vec::new();
    for (at_image, image) in job.images.iter().enumerate() {
        for (at_layer, layer) in image.layers.iter().enumerate() {
            if layer.state == LayerState::Fetching {
                active.push((at_image, at_layer));
            }
        }
    }
    active
}

/// One bar: image, digest, bar, bytes, as far as there is room.
fn draw(bar: &ProgressBar, parts: &Parts, layer: &LayerReport, columns: usize, is_plain: bool) {
    let Parts { name, digest, bytes } = parts;
    let prefix = [name, digest].into_iter().filter(|part| !part.is_empty());
    let prefix = prefix.map(String::as_str).collect::<Vec<_>>().join(" ");
    let percent = layer.done.saturating_mul(100) / layer.bytes.max(1);
    let gap = if bytes.is_empty() { "" } else { " " };
    let message = format!("{bytes}{gap}{percent:>3}%");
    let beside = prefix.chars().count() + message.chars().count() + 2 + FREE;
    let width = columns.saturating_sub(beside).max(1);
    let colours = if is_plain { "" } else { ".cyan/black.bright" };
    bar.set_style(
        style(&format!("{{prefix}} {{bar:{width}{colours}}} {{msg}}")).progress_chars("━╸─"),
    );
    bar.set_length(layer.bytes.max(1));
    bar.set_position(layer.done);
    bar.set_prefix(prefix);
    bar.set_message(message);
}

/// What stands beside a bar.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    name: String,
    digest: String,
    bytes: String,
}

/// The parts that fit beside a bar, names of up to `widest` columns in a column of one width: first
/// the bytes go, then the digest, and then the name is cut, so that the bar and its percentage stay.
fn parts(image: &ImageReport, layer: &LayerReport, widest: usize, columns: usize) -> Parts {
    let name = clean(&image.reference);
    // Of the digest, its first characters tell as much as all of them.
    let digest = layer.digest.to_string();
    let hex = digest.split(':').nth(1).unwrap_or_default();
    let digest: String = hex.chars().take(12).collect();
    // As wide as it ever gets, so that bars don't jump.
    let bytes = format!("{:>9} / {:<9}", size(layer.done), size(layer.bytes));
    // Blanks and the percentage stand there in any case.
    let room = columns.saturating_sub(LEAST_BAR + 6 + FREE);
    let widest = widest.min(MOST_NAME);
    let for_name = |beside: usize| room.saturating_sub(beside).min(widest);
    let is_enough = |width: usize| width >= widest.min(LEAST_NAME);
    let all = for_name(digest.len() + bytes.len() + 2);
    if is_enough(all) {
        return Parts { name: padded(&name, all), digest, bytes };
    }
    let without_bytes = for_name(digest.len() + 1);
    if is_enough(without_bytes) {
        return Parts { name: padded(&name, without_bytes), digest, bytes: String::new() };
    }
    Parts { name: padded(&name, for_name(0)), digest: String::new(), bytes: String::new() }
}

/// The text in so many columns. Its end tells more than its middle: the tag stays.
fn padded(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return format!("{text:<columns$}");
    }
    let tail = columns.saturating_sub(1) * 2 / 3;
    let head = columns.saturating_sub(1 + tail);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// The last line: how far all of it is.
fn sum(job: &JobReport, rate: Option<u64>, hidden: usize, columns: usize) -> String {
    let totals = &job.summary.totals;
    let over = totals.images_done + totals.images_failed;
    let images = format!("{over}/{} images", totals.images);
    let layers = format!("{}/{} layers", totals.layers_done, totals.layers);
    let bytes = format!("{} / {}", size(totals.done), size(totals.bytes));
    let failed = match totals.images_failed {
        0 => String::new(),
        failed => format!("{failed} failed"),
    };
    let speed = rate.map_or_else(String::new, |rate| format!("{}/s", size(rate)));
    let hidden = if hidden > 0 { format!("{hidden} more on their way") } else { String::new() };
    // In the order of what they tell; those that don't fit are left out.
    let mut line = images;
    for part in [failed, bytes, speed, layers, hidden] {
        if !part.is_empty() && line.chars().count() + 2 + part.chars().count() < columns {
            line.push_str(", ");
            line.push_str(&part);
        }
    }
    line
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn size_of(term: &Term) -> (usize, usize) {
    let (rows, columns) = term.size();
    (usize::from(rows), usize::from(columns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Algorithm, Digest};

    fn layer() -> LayerReport {
        LayerReport {
            digest: Digest::of(Algorithm::Sha256, b"a"),
            state: LayerState::Fetching,
            bytes: 50 << 20,
            done: 12 << 20,
            error: None,
        }
    }

    fn line(reference: &str, columns: usize) -> (usize, Parts) {
        let image = ImageReport::new(reference.to_owned(), None);
        let parts = parts(&image, &layer(), reference.len(), columns);
        let all = [&parts.name, &parts.digest, &parts.bytes];
        let widths =
            all.iter().filter(|part| !part.is_empty()).map(|part| part.chars().count() + 1);
        (widths.sum::<usize>() + " 100%".len(), parts)
    }

    #[test]
    fn what_stands_beside_a_bar_leaves_room_for_it() {
        let long = "registry.example.com/a/very/long/name/of/an/image/indeed:v1.2.3-alpha";
        for reference in ["alpine:3.20", long] {
            for columns in 20..200 {
                let (width, parts) = line(reference, columns);
                assert!(width + LEAST_BAR < columns, "{columns}: {parts:?}");
            }
        }
    }

    #[test]
    fn bytes_give_way_before_the_digest_and_the_tag_stays() {
        let at = |columns| line("ghcr.io/organisation/application:v1", columns).1;
        assert!(!at(120).bytes.is_empty() && !at(120).digest.is_empty());
        assert!(at(60).bytes.is_empty() && !at(60).digest.is_empty());
        assert!(at(40).digest.is_empty() && at(40).name.ends_with(":v1"), "{:?}", at(40));
        // A short name leaves room for all of it.
        assert!(!line("alpine:3.20", 72).1.bytes.is_empty());
    }

    #[test]
    fn no_width_panics() {
        for columns in 0..30 {
            let _ = line("a", columns);
        }
        assert_eq!(padded("abcdefgh", 5), "ab…gh");
    }
}
