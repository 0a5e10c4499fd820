//! The report as a table: our figure, each peer's with our ratio to it in brackets, the target and the verdict.

use crate::report::{Machine, Report, Row, Samples, Subject, Target, Verdict};
use crate::server::ServerKind;

const SUBJECTS: [(Subject, &str); 4] = [
    (Subject::Server(ServerKind::Roadstead), "roadstead"),
    (Subject::Server(ServerKind::Nginx), "nginx"),
    (Subject::Server(ServerKind::DockerRegistry), "docker-registry"),
    (Subject::Direct, "direct"),
];

pub(crate) fn print(report: &Report) {
    let Machine { cpu, cores, kernel, load_average } = &report.machine;
    println!("\n{cores} × {cpu}, Linux {kernel}, load at start {load_average}");
    println!("medians of {} rounds; in brackets: roadstead ÷ the other", report.plan.rounds);
    if report.plan.quick {
        println!("--quick: sizes and times are too small for these figures to mean anything");
    }
    for section in &report.sections {
        println!("\n{}", section.title);
        let names: String = SUBJECTS.iter().map(|(_, name)| format!("{name:>23}")).collect();
        println!("  {:<26}{names}  target", "");
        for row in &section.rows {
            println!("  {}", line(row));
        }
    }
    for skipped in &report.skipped {
        println!("\n{} was skipped: {}", skipped.server.name(), skipped.reason);
    }
}

fn line(row: &Row) -> String {
    let cells: String =
        SUBJECTS.iter().map(|(subject, _)| format!("{:>23}", cell(row, *subject))).collect();
    format!("{:<26}{cells}  {}", row.figure, aim(row)).trim_end().to_owned()
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

fn aim(row: &Row) -> String {
    let target = match row.target {
        None => return String::new(),
        Some(Target::AtLeastNginx) => "≥ nginx".to_owned(),
        Some(Target::AtMost(limit)) => format!("≤ {limit}"),
        Some(Target::Always(wanted)) => format!("{wanted} in every round"),
    };
    let verdict = match row.verdict {
        Some(Verdict::Met) => "met",
        Some(Verdict::Missed) => "MISSED",
        Some(Verdict::NotJudged) | None => "not judged",
    };
    format!("{target}: {verdict}")
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
