//! Charts over time, as SVG.
//!
//! A chart is drawn in colours that the style sheet knows and replaces by the
//! theme's (`[stroke="#…"]`), so that one drawing serves light and dark. It is
//! drawn twice, wide and narrow, for letters that shrink with a drawing can't be
//! read on a phone.

use std::ops::Range;

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{
        Shift,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    },
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    prelude::{Cartesian2d, SVGBackend},
    series::{AreaSeries, LineSeries},
    style::{
        Color, IntoFont, RGBColor, ShapeStyle, TRANSPARENT, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// Drawn this many times larger than shown: plotters places points on whole pixels.
const FINER: u32 = 4;

/// Letters' height as shown.
const LETTERS: u32 = 12;

/// The grid, and the letters beside it.
const GRID: RGBColor = RGBColor(0xD8, 0xDD, 0xE3);
const INK: RGBColor = RGBColor(0x5B, 0x66, 0x73);

/// How far back a chart looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Span {
    #[default]
    Hour,
    Day,
    Week,
}

/// What a chart's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things; those of a chart of rates too.
    Things,
    Bytes,
}

/// Which colour a line has, and with it what it means: the same on every chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hue {
    /// What the cache gave.
    Cache,
    /// What upstream gave.
    Upstream,
    /// Further ones, where several of a kind are compared.
    Third,
    Fourth,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) hue: Hue,
    /// The area below it is tinted.
    pub(crate) is_filled: bool,
    /// Seconds before now (negative) and the value there; a gap where none is known.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// Where a chart is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Wide,
    Narrow,
}

/// An axis from the first to the last of its marks.
struct Axis(Vec<f64>);

type Canvas<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
type Failed = DrawingAreaErrorKind<std::io::Error>;

// === impl Span ===

impl Span {
    pub(crate) const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// As it stands in an address.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// As it stands above the charts.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Hour => "Hour",
            Self::Day => "Day",
            Self::Week => "Week",
        }
    }

    /// What `word` prints; anything else is the hour.
    pub(crate) fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|span| span.word() == word).unwrap_or_default()
    }

    pub(crate) fn seconds(self) -> f64 {
        match self {
            Self::Hour => 3600.0,
            Self::Day => 86_400.0,
            Self::Week => 604_800.0,
        }
    }

    /// Where time is written, in seconds before now, and how.
    fn marks(self, size: Size) -> Vec<f64> {
        let many = match (self, size) {
            (Self::Hour | Self::Day, Size::Wide) => 4,
            (Self::Week, Size::Wide) => 7,
            _ => 2,
        };
        (0..=many).map(|mark| -self.seconds() * f64::from(many - mark) / f64::from(many)).collect()
    }

    fn label(self, seconds: f64) -> String {
        if seconds > -1.0 {
            return "now".to_owned();
        }
        let (unit, name) = match self {
            Self::Hour => (60.0, "min"),
            Self::Day => (3600.0, "h"),
            Self::Week => (86_400.0, "d"),
        };
        let many = (seconds / -unit * 10.0).round() / 10.0;
        format!("−{many}\u{a0}{name}")
    }
}

// === impl Hue ===

impl Hue {
    fn colour(self) -> RGBColor {
        match self {
            Self::Cache => RGBColor(0x1B, 0x6E, 0xC2),
            Self::Upstream => RGBColor(0xC2, 0x5A, 0x0C),
            Self::Third => RGBColor(0x0B, 0x7A, 0x6A),
            Self::Fourth => RGBColor(0x8A, 0x4B, 0xB8),
        }
    }

    /// The class of what explains a line.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Upstream => "upstream",
            Self::Third => "third",
            Self::Fourth => "fourth",
        }
    }
}

// === impl Axis ===

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let Range { start: low, end: high } = self.range();
        let along = ((value - low) / (high - low)).clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "between two pixels, and it saturates")]
        let steps = (along * f64::from(end - start)).round() as i32;
        start + steps
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.clone()
    }

    fn range(&self) -> Range<f64> {
        let first = self.0.first().copied().unwrap_or(0.0);
        first..self.0.last().copied().unwrap_or(1.0)
    }
}

// === impl Size ===

impl Size {
    pub(crate) fn pixels(self) -> (u32, u32) {
        match self {
            Self::Wide => (420, 160),
            Self::Narrow => (320, 150),
        }
    }

    /// The whole drawing, as `viewBox` has it.
    pub(crate) fn view_box(self) -> String {
        let (width, height) = self.pixels();
        format!("0 0 {} {}", width * FINER, height * FINER)
    }
}

/// The lines over `span` as an SVG element; an empty one in the unlikely case that plotters fails.
pub(crate) fn draw(lines: &[Line], span: Span, unit: Unit, size: Size) -> String {
    let mut svg = String::new();
    match draw_on(&mut svg, lines, span, unit, size) {
        Ok(()) => svg,
        Err(error) => {
            tracing::warn!(%error, "a chart could not be drawn");
            String::new()
        }
    }
}

fn draw_on(
    svg: &mut String,
    lines: &[Line],
    span: Span,
    unit: Unit,
    size: Size,
) -> Result<(), Failed> {
    let (width, height) = size.pixels();
    let root = SVGBackend::with_string(svg, (width * FINER, height * FINER)).into_drawing_area();
    let values = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
    let rungs = rungs(values.filter(|value| value.is_finite()).fold(0.0, f64::max), unit);
    let mut canvas = canvas(&root, span, size, rungs)?;
    mesh(&mut canvas, span, unit)?;
    for line in lines {
        for run in runs(&line.points) {
            let colour = line.hue.colour();
            if line.is_filled {
                let tint = colour.mix(0.14).filled();
                canvas.draw_series(AreaSeries::new(run.iter().copied(), 0.0, tint))?;
            }
            let stroke: ShapeStyle = colour.stroke_width(FINER * 3 / 2);
            canvas.draw_series(LineSeries::new(run, stroke))?;
        }
    }
    root.present()
}

fn canvas<'a, 'b>(
    root: &'a DrawingArea<SVGBackend<'b>, Shift>,
    span: Span,
    size: Size,
    rungs: Vec<f64>,
) -> Result<Canvas<'a, 'b>, Failed> {
    ChartBuilder::on(root)
        .margin_top(FINER * 9)
        .margin_right(FINER * 16)
        .x_label_area_size(FINER * 24)
        .y_label_area_size(FINER * 58)
        .build_cartesian_2d(Axis(span.marks(size)), Axis(rungs))
}

fn mesh(canvas: &mut Canvas<'_, '_>, span: Span, unit: Unit) -> Result<(), Failed> {
    let letters = ("sans-serif", LETTERS * FINER).into_font();
    let style = |anchor| TextStyle::from(letters.clone()).color(&INK).pos(anchor);
    canvas
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID.stroke_width(FINER))
        .light_line_style(TRANSPARENT)
        .axis_style(GRID.stroke_width(FINER))
        .x_label_style(style(Pos::new(HPos::Center, VPos::Top)))
        .y_label_style(style(Pos::new(HPos::Right, VPos::Center)))
        .x_label_formatter(&|seconds| span.label(*seconds))
        .y_label_formatter(&|value| rung_label(*value, unit))
        .set_all_tick_mark_size(FINER * 4)
        .draw()
}

/// The points between gaps. One that stands alone is drawn as a short stroke.
fn runs(points: &[(f64, Option<f64>)]) -> Vec<Vec<(f64, f64)>> {
    let known = points.split(|(_, value)| !value.is_some_and(f64::is_finite));
    let runs = known.filter(|run| !run.is_empty());
    runs.map(|run| {
        let mut run: Vec<_> = run.iter().map(|(at, value)| (*at, value.unwrap_or(0.0))).collect();
        if let [(at, value)] = *run {
            run.push((at + 1.0, value));
        }
        run
    })
    .collect()
}

/// The values that have a line of the grid: nought, and two or four above it up to at least `most`.
fn rungs(most: f64, unit: Unit) -> Vec<f64> {
    let base: f64 = match unit {
        Unit::Things => 1.0,
        Unit::Bytes if most < 1024.0 => 1.0,
        Unit::Bytes => 1024f64.powf((most.ln() / 1024f64.ln()).floor()),
    };
    let most = (most / base).max(1.0);
    let magnitude = 10f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    let found = steps.into_iter().map(|step| step * magnitude).find(|top| *top >= most);
    // 1000 of something are 1024 of the unit below it, nearly: a top of 1024 is the cleaner one.
    let top = found.unwrap_or(10.0 * magnitude) * base;
    let parts = if (top - 1.0).abs() < f64::EPSILON { 1 } else { 2 };
    (0..=parts).map(|rung| top * f64::from(rung) / f64::from(parts)).collect()
}

fn rung_label(value: f64, unit: Unit) -> String {
    if value <= 0.0 {
        return "0".to_owned();
    }
    let short = |value: f64| {
        let text = format!("{value:.1}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    let (step, names): (f64, [&str; 7]) = match unit {
        Unit::Things => (1000.0, ["", "k", "M", "G", "T", "P", "E"]),
        Unit::Bytes => (
            1024.0,
            [
                "\u{a0}B",
                "\u{a0}KiB",
                "\u{a0}MiB",
                "\u{a0}GiB",
                "\u{a0}TiB",
                "\u{a0}PiB",
                "\u{a0}EiB",
            ],
        ),
    };
    let mut value = value;
    let mut names = names.into_iter();
    let mut name = names.next().unwrap_or_default();
    while value >= step {
        let Some(next) = names.next() else { break };
        value /= step;
        name = next;
    }
    format!("{}{name}", short(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: Vec<(f64, Option<f64>)>) -> Line {
        Line { hue: Hue::Cache, is_filled: true, points }
    }

    #[test]
    fn a_chart_has_its_lines_and_labels() {
        let points = (0..60)
            .map(|minute| (f64::from(minute - 59) * 60.0, Some(f64::from(minute))))
            .collect();
        let svg = draw(&[line(points)], Span::Hour, Unit::Things, Size::Wide);
        assert!(svg.contains("<polyline"), "{svg}");
        for label in ["now", "−30\u{a0}min", "60"] {
            assert!(svg.contains(label), "{label} is missing in {svg}");
        }
    }

    #[test]
    fn gaps_end_a_line_and_nonsense_is_left_out() {
        let points = [1.0, f64::NAN, 2.0, 3.0, f64::INFINITY, 4.0];
        let mut points: Vec<_> = points.into_iter().map(|value| (-1.0, Some(value))).collect();
        points.push((0.0, None));
        assert_eq!(runs(&points).len(), 3);
        let svg = draw(&[line(points)], Span::Week, Unit::Bytes, Size::Narrow);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn the_grid_has_round_numbers() {
        assert_eq!(rungs(0.0, Unit::Things), [0.0, 1.0]);
        assert_eq!(rungs(97.0, Unit::Things), [0.0, 50.0, 100.0]);
        let mib = 1024.0 * 1024.0;
        assert_eq!(rungs(37.0 * mib, Unit::Bytes), [0.0, 20.0 * mib, 40.0 * mib]);
        assert!(rungs(1e300, Unit::Bytes).iter().all(|rung| rung.is_finite()));
        for (value, expected) in [(1500.0, "1.5k"), (20.0, "20"), (0.5, "0.5")] {
            assert_eq!(rung_label(value, Unit::Things), expected);
        }
        assert_eq!(rung_label(20.0 * mib, Unit::Bytes), "20\u{a0}MiB");
    }
}
