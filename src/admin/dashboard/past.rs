//! The charts: which lines they have, out of what the history holds.

use super::{
    chart::{Hue, Line, Span, Unit},
    figure::{BytesPerSecond, Count, PerSecond, Share},
    view::{Chart, Named},
};
use crate::history::{self, Counts, Point, Series};

// === impl Span ===

impl From<Span> for history::Span {
    fn from(span: Span) -> Self {
        match span {
            Span::Hour => Self::Hour,
            Span::Day => Self::Day,
            Span::Week => Self::Week,
        }
    }
}

/// The charts of `series`, which ends `now`.
pub(super) fn charts(series: &Series, span: Span, now: u64) -> Vec<Chart> {
    let past = Past { series, span, now };
    // Pulls are too few for a figure by the second.
    let (every, words) = match span {
        Span::Hour => (60.0, "per minute"),
        Span::Day | Span::Week => (3600.0, "per hour"),
    };
    let total = |of: fn(&Counts) -> u64| Count(past.total(of)).to_string();
    vec![
        past.chart(
            "requests",
            "Requests",
            "per second",
            Unit::Things,
            vec![
                past.rate(
                    "all",
                    Hue::Third,
                    false,
                    1.0,
                    |counts| counts.requests,
                    |rate| PerSecond(rate).to_string(),
                ),
                past.rate(
                    "from cache",
                    Hue::Cache,
                    true,
                    1.0,
                    |counts| counts.hits,
                    |rate| PerSecond(rate).to_string(),
                ),
            ],
        ),
        past.chart(
            "bytes",
            "Bytes",
            "per second",
            Unit::Bytes,
            vec![
                past.rate(
                    "to clients",
                    Hue::Cache,
                    true,
                    1.0,
                    |counts| counts.bytes,
                    |rate| BytesPerSecond(rate).to_string(),
                ),
                past.rate(
                    "from upstream",
                    Hue::Upstream,
                    true,
                    1.0,
                    |counts| counts.upstream_bytes,
                    |rate| BytesPerSecond(rate).to_string(),
                ),
            ],
        ),
        past.chart(
            "pulls",
            "Pulls",
            words,
            Unit::Things,
            vec![
                past.rate(
                    "saved",
                    Hue::Cache,
                    true,
                    every,
                    |counts| counts.saved,
                    |_| total(|counts| counts.saved),
                ),
                past.rate(
                    "spent",
                    Hue::Upstream,
                    true,
                    every,
                    |counts| counts.spent,
                    |_| total(|counts| counts.spent),
                ),
            ],
        ),
        past.chart("left", "Pulls left", "to all accounts", Unit::Things, vec![past.left()]),
        past.chart(
            "hits",
            "Hit ratio",
            "percent",
            Unit::Things,
            vec![
                past.ratio("of requests", Hue::Cache, |counts| {
                    (counts.hits, counts.hits.saturating_add(counts.misses))
                }),
                past.ratio("of bytes", Hue::Fourth, Counts::bytes_of_hits),
            ],
        ),
        past.chart(
            "trouble",
            "Errors and stale answers",
            words,
            Unit::Things,
            vec![
                past.rate(
                    "errors",
                    Hue::Upstream,
                    true,
                    every,
                    |counts| counts.errors,
                    |_| total(|counts| counts.errors),
                ),
                past.rate(
                    "stale",
                    Hue::Fourth,
                    false,
                    every,
                    |counts| counts.stale,
                    |_| total(|counts| counts.stale),
                ),
            ],
        ),
    ]
}

#[derive(Clone, Copy)]
struct Past<'a> {
    series: &'a Series,
    span: Span,
    now: u64,
}

// === impl Past ===

impl Past<'_> {
    fn chart(
        self,
        id: &'static str,
        title: &'static str,
        unit_words: &'static str,
        unit: Unit,
        lines: Vec<Named>,
    ) -> Chart {
        let told = lines.iter().map(|named| {
            let values = named.line.points.iter().filter_map(|(_, value)| *value);
            let most = values.fold(0.0, f64::max);
            let most = match unit {
                Unit::Things => PerSecond(most).to_string(),
                Unit::Bytes => BytesPerSecond(most).to_string(),
            };
            format!("{}: {}, at most {most} {unit_words}", named.name, named.figure)
        });
        let told: Vec<_> = told.collect();
        let summary = format!("The last {}. {}.", self.span.word(), told.join("; "));
        Chart { id, title, unit_words, unit, span: self.span, lines, summary }
    }

    /// Points at the middle of their step, in seconds before now.
    fn points(self, value: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
        let half = self.series.step_seconds as f64 / 2.0;
        let mut at = self.series.begins_at as f64 + half - self.now as f64;
        let mut points = Vec::with_capacity(self.series.points.len());
        for point in &self.series.points {
            points.push((at.min(0.0), point.as_ref().and_then(&value)));
            at += self.series.step_seconds as f64;
        }
        points
    }

    /// What was counted `every` so many seconds; `figure` of the last of them.
    fn rate(
        self,
        name: &'static str,
        hue: Hue,
        is_filled: bool,
        every: f64,
        count: fn(&Counts) -> u64,
        figure: impl Fn(f64) -> String,
    ) -> Named {
        let rate = |point: &Point| {
            // A moment's work is no rate.
            (point.seconds >= 1.0).then(|| count(&point.counts) as f64 / point.seconds * every)
        };
        let points = self.points(rate);
        let last = points.iter().rev().find_map(|(_, value)| *value);
        Named { name, figure: figure(last.unwrap_or(0.0)), line: Line { hue, is_filled, points } }
    }

    fn ratio(self, name: &'static str, hue: Hue, of: fn(&Counts) -> (u64, u64)) -> Named {
        let points = self.points(|point| {
            let (part, whole) = of(&point.counts);
            (whole > 0).then(|| Share { part, whole }.percent())
        });
        let (part, whole) = self
            .counted()
            .map(of)
            .fold((0, 0), |(a, b): (u64, u64), (c, d)| (a.saturating_add(c), b.saturating_add(d)));
        let figure = Share { part, whole }.to_string();
        Named { name, figure, line: Line { hue, is_filled: false, points } }
    }

    fn left(self) -> Named {
        let points = self.points(|point| point.left.map(|left| left as f64));
        let last = self.series.points.iter().rev().flatten().find_map(|point| point.left);
        let figure = last.map_or("–".to_owned(), |left| Count(left).to_string());
        Named { name: "left", figure, line: Line { hue: Hue::Third, is_filled: true, points } }
    }

    fn counted(&self) -> impl Iterator<Item = &Counts> {
        self.series.points.iter().flatten().map(|point| &point.counts)
    }

    fn total(self, of: fn(&Counts) -> u64) -> u64 {
        self.counted().map(of).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(requests: u64, hits: u64) -> Option<Point> {
        let counts = Counts { requests, hits, misses: requests - hits, ..Counts::default() };
        Some(Point { at: 0, seconds: 10.0, counts, left: Some(7) })
    }

    #[test]
    fn lines_are_rates_and_gaps_stay_gaps() {
        let points = vec![point(40, 10), None, point(20, 20)];
        let series = Series { span: history::Span::Hour, step_seconds: 10, begins_at: 970, points };
        let charts = charts(&series, Span::Hour, 1000);
        let requests = &charts[0].lines[0];
        assert_eq!(requests.line.points, [(-25.0, Some(4.0)), (-15.0, None), (-5.0, Some(2.0))]);
        assert_eq!(requests.figure, "2.0");
        assert!(charts[0].summary.contains("at most 4.0 per second"), "{}", charts[0].summary);
        let hits = &charts[4].lines[0];
        assert_eq!(hits.figure, "50.0\u{a0}%");
        assert_eq!(hits.line.points[2].1, Some(100.0));
        // Nothing was sent, so nothing can be told of bytes.
        assert_eq!(charts[4].lines[1].figure, "–");
        assert_eq!(charts[3].lines[0].figure, "7");
    }
}
