//! The report as tables: every figure with our ratio to each peer's in brackets, then each target with its verdict.

use crate::report::{Machine, Report, Row, Samples, Section, Subject};
use crate::server::ServerKind;
use crate::target::{Aim, Verdict};

/// The columns, in order; a section shows those that it has figures for.
const SUBJECTS: [Subject; 5] = [
    Subject::Server(ServerKind::Roadstead),
    Subject::Server(ServerKind::Nginx),
    Subject::Server(ServerKind::DockerRegistry),
    Subject::Server(ServerKind::Bare),
    Subject::Direct,
];

pub(crate) fn print(report: &Report) {
    let Machine { cpu, cores, kernel, load_average } = &report.machine;
    println!("\n{cores} × {cpu}, Linux {kernel}, load at start {load_average}");
    println!("medians of {} rounds; in brackets: roadstead ÷ the other", report.plan.rounds);
    if report.plan.quick {
        println!("--quick: sizes and times are too small for these figures to mean anything");
    }
    for section in &report.sections {
        print_figures(section);
    }
    print_aims(report);
    for skipped in &report.skipped {
        println!("\n{} was skipped: {}", skipped.server.name(), skipped.reason);
    }
}

fn print_figures(Section { title, rows }: &Section) {
    let shown = |subject: &Subject| rows.iter().any(|row| row.values.contains_key(subject));
    let subjects: Vec<Subject> = SUBJECTS.into_iter().filter(shown).collect();
    let names: String = subjects.iter().map(|subject| format!("{:>20}", subject.name())).collect();
    println!("\n{title}\n  {:<41}{names}", "");
    for row in rows {
        let cells: String =
            subjects.iter().map(|subject| format!("{:>20}", cell(row, *subject))).collect();
        println!("  {:<41}{cells}", row.figure);
    }
}

fn cell(row: &Row, subject: Subject) -> String {
    let Some(Samples { median, .. }) = row.values.get(&subject) else {
        return "–".to_owned();
    };
    match row.ratios.get(&subject) {
        Some(ratio) => format!("{} ({}×)", rounded(*median), rounded(*ratio)),
        None => rounded(*median),
    }
}

/// The targets of all sections, and how many of them are met.
fn print_aims(report: &Report) {
    println!(
        "\n{:<43}{:>10}{:>12}{:>8}  {:<25}verdict",
        "targets", "ours", "the peer's", "ratio", "target"
    );
    for section in &report.sections {
        let mut rows = section.rows.iter().filter(|row| !row.aims.is_empty()).peekable();
        if rows.peek().is_some() {
            println!("{}", section.title);
        }
        for (row, aim) in rows.flat_map(|row| row.aims.iter().map(move |aim| (row, aim))) {
            println!("{}", aim_line(row, aim));
        }
    }
    let count = |verdict| report.verdicts().filter(|it| *it == verdict).count();
    let (met, missed) = (count(Verdict::Met), count(Verdict::Missed));
    println!("\n{met} targets met, {missed} missed, {} not judged", count(Verdict::NotJudged));
}

fn aim_line(row: &Row, aim: &Aim) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), rounded);
    format!(
        "  {:<41}{:>10}{:>12}{:>8}  {:<25}{}",
        row.figure,
        shown(aim.ours),
        shown(aim.theirs),
        shown(aim.ratio),
        aim.wanted,
        aim.verdict
    )
}

/// Three digits are all that such a machine gives.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
