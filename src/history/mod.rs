//! What happened during the last hour, day and week.

mod series;

pub use series::{Counts, Point, Series, Span};
