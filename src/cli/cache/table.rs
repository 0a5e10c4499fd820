//! Tables of aligned columns, the first of which gives way on a narrow terminal.

use std::fmt;

/// A table; every row has as many cells as the head.
pub(in crate::cli) struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Columns of the terminal; `None` where there is none.
    width: Option<usize>,
}

/// Where a cell stands in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Align {
    Left,
    Right,
}

/// Between two columns.
const GAP: usize = 2;

/// The first column is not cut below this.
const LEAST: usize = 16;

// === impl Table ===

impl Table {
    /// A table for standard output.
    pub(in crate::cli) fn new(head: &[(&'static str, Align)]) -> Self {
        let width = console_width();
        Self { head: head.to_vec(), rows: Vec::new(), width }
    }

    pub(in crate::cli) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<_> = self.head.iter().map(|(name, _)| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        if let (Some(most), Some(first)) = (self.width, widths.first_mut()) {
            let excess = total.saturating_sub(most);
            *first = first.saturating_sub(excess).max(LEAST.min(*first));
        }
        widths
    }

    fn line(&self, widths: &[usize], cells: &[String]) -> String {
        let mut line = String::new();
        for (at, ((cell, width), (_, align))) in
            cells.iter().zip(widths).zip(&self.head).enumerate()
        {
            if at > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = shortened(cell, *width);
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line.trim_end().to_owned()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let head: Vec<_> = self.head.iter().map(|(name, _)| (*name).to_owned()).collect();
        writeln!(f, "{}", self.line(&widths, &head))?;
        for row in &self.rows {
            writeln!(f, "{}", self.line(&widths, row))?;
        }
        Ok(())
    }
}

/// A reference's end tells more than its middle: the tag stays.
fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let tail = width.saturating_sub(1) / 2;
    let head = width.saturating_sub(1 + tail);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// The columns of the terminal that standard output is; what is piped is never cut.
fn console_width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_column_gives_way_and_keeps_its_end() {
        let head = vec![("REFERENCE", Align::Left), ("SIZE", Align::Right)];
        let mut table = Table { head, rows: Vec::new(), width: Some(32) };
        table.row(["docker.io/library/alpine:3.20".to_owned(), "12.3 MiB".to_owned()]);
        let text = table.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 32), "{text}");
        assert!(text.contains("pine:3.20") && text.contains("12.3 MiB"), "{text}");
        table.width = None;
        assert!(table.to_string().contains("docker.io/library/alpine:3.20  12.3 MiB"));
    }
}
