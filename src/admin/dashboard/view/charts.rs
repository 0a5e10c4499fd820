//! The charts of the overview, with what explains them.

use crate::admin::dashboard::chart::{self, Hue, Line, Size, Span, Unit};

/// A chart with what explains it.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    /// Its place in the page.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What one unit of the upright axis is.
    pub(crate) unit_words: &'static str,
    pub(crate) unit: Unit,
    pub(crate) span: Span,
    pub(crate) lines: Vec<Named>,
    /// In a sentence, for who does not see it.
    pub(crate) summary: String,
}

/// A line of a chart, with its name and the figure that stands for it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) figure: String,
    pub(crate) line: Line,
}

// === impl ===

impl Chart {
    fn lines(&self) -> Vec<Line> {
        self.lines.iter().map(|named| named.line.clone()).collect()
    }

    /// The drawing for `size`.
    pub(crate) fn svg(&self, size: Size) -> String {
        chart::draw(&self.lines(), self.span, self.unit, size)
    }
}

impl Named {
    pub(crate) fn hue(&self) -> Hue {
        self.line.hue
    }
}
