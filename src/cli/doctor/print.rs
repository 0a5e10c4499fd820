//! Telling findings: wrapped to the terminal's width for people, as one document for programs.

use std::io::{self, Write};

use console::{Style, Term};
use serde::Serialize;

use super::finding::{Finding, Level, worst};

/// Columns where the output is no terminal.
const COLUMNS: usize = 80;

/// Lines are not wrapped narrower than this.
const NARROWEST: usize = 24;

/// As wide as the longest level's name, with the space behind it.
const LEVEL: usize = 9;

/// What stands before a remedy.
const ARROW: &str = "→ ";

/// All that was found.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// The worst level among the findings.
    outcome: Level,
    findings: &'a [Finding],
}

/// How lines are laid out.
#[derive(Debug, Clone, Copy)]
struct Layout {
    width: usize,
    is_coloured: bool,
}

/// Prints findings, which are sorted by group.
pub(super) fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match json {
        true => {
            let document = Document { outcome: worst(findings), findings };
            serde_json::to_writer_pretty(&mut out, &document)?;
            writeln!(out)?;
        }
        false => out.write_all(Layout::here().text(findings).as_bytes())?,
    }
    out.flush()
}

// === impl Layout ===

impl Layout {
    /// For standard output; colours only where it is a terminal that shows them and `NO_COLOR` does
    /// not ask for none.
    fn here() -> Self {
        let terminal = Term::stdout();
        let columns = terminal.size_checked().map(|(_, columns)| usize::from(columns));
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: columns.unwrap_or(COLUMNS).clamp(NARROWEST, 100),
            is_coloured: terminal.is_term() && !wants_none && console::colors_enabled(),
        }
    }

    fn text(self, findings: &[Finding]) -> String {
        let mut text = String::new();
        let mut group = None;
        for finding in findings {
            if group != Some(finding.group) {
                let gap = if group.is_some() { "\n" } else { "" };
                let title = self.styled(finding.group.as_str(), &Style::new().bold());
                text.push_str(&format!("{gap}{title}\n"));
                group = Some(finding.group);
            }
            self.finding(&mut text, finding);
        }
        text.push('\n');
        self.wrapped(&mut text, "", "", &summary(findings));
        text
    }

    fn finding(self, text: &mut String, finding: &Finding) {
        // Where there is little room, the level's column is given up.
        let indent = if self.width < 50 { 2 } else { 2 + LEVEL };
        let level = finding.level.as_str();
        let shown = self.styled(level, &colour(finding.level));
        let pad = " ".repeat(LEVEL.saturating_sub(level.len()));
        let hang = " ".repeat(indent);
        let said = match finding.about.is_empty() {
            true => finding.found.clone(),
            false => format!("{}: {}", finding.about, finding.found),
        };
        if self.width < 50 {
            text.push_str(&format!("  {shown}\n"));
            self.wrapped(text, &hang, &hang, &said);
        } else {
            // Escapes have no width, so the first line's beginning is put in afterwards.
            let mut lines = String::new();
            self.wrapped(&mut lines, &hang, &hang, &said);
            text.push_str(&format!("  {shown}{pad}{}", lines.get(indent..).unwrap_or_default()));
        }
        if let Some(remedy) = &finding.remedy {
            self.wrapped(text, &format!("{hang}{ARROW}"), &format!("{hang}  "), remedy);
        }
        // Never wrapped: they are there to be pasted.
        for command in &finding.commands {
            text.push_str(&format!("{hang}    {command}\n"));
        }
    }

    /// Breaks at spaces; what has none stays whole.
    fn wrapped(self, text: &mut String, first: &str, next: &str, said: &str) {
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in said.split_whitespace() {
            let used = line.chars().count();
            if !is_empty && used + 1 + word.chars().count() > self.width {
                text.push_str(line.trim_end());
                text.push('\n');
                line = next.to_owned();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    fn styled(self, text: &str, style: &Style) -> String {
        match self.is_coloured {
            true => style.clone().force_styling(true).apply_to(text).to_string(),
            false => text.to_owned(),
        }
    }
}

fn colour(level: Level) -> Style {
    match level {
        Level::Ok => Style::new().green(),
        Level::Note => Style::new().cyan(),
        Level::Warning => Style::new().yellow().bold(),
        Level::Fault => Style::new().red().bold(),
    }
}

/// `1 fault, 2 warnings, 3 notes, 14 ok`
fn summary(findings: &[Finding]) -> String {
    let levels = [Level::Fault, Level::Warning, Level::Note, Level::Ok];
    let counts = levels.into_iter().filter_map(|level| {
        let count = findings.iter().filter(|finding| finding.level == level).count();
        let plural = if count == 1 || level == Level::Ok { "" } else { "s" };
        (count > 0).then(|| format!("{count} {}{plural}", level.as_str()))
    });
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Check, Group};
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Check(Group::Directory, "space").ok("/var/lib/roadstead", "93.1 GiB are free"),
            Check(Group::Budget, "left")
                .warning(
                    "docker.io as anonymous",
                    "3 of 100 pulls are left in a window of 6 hours, which began some time ago",
                    "add an account under upstreams[].credentials.accounts, or wait",
                )
                .run("roadstead check --config /etc/roadstead/roadstead.yaml"),
        ]
    }

    #[test]
    fn lines_fit_the_width_and_hang_under_their_beginning() {
        let layout = Layout { width: 60, is_coloured: false };
        assert_eq!(
            layout.text(&findings()),
            "directory\n  ok       /var/lib/roadstead: 93.1 GiB are free\n\nbudget\n  \
             warning  docker.io as anonymous: 3 of 100 pulls are left\n           in a window of 6 \
             hours, which began some time ago\n           → add an account under\n             \
             upstreams[].credentials.accounts, or wait\n               roadstead check --config \
             /etc/roadstead/roadstead.yaml\n\n1 warning, 1 ok\n"
        );
        for width in [24, 30, 49, 50, 80] {
            let text = Layout { width, is_coloured: false }.text(&findings());
            for line in text.lines().filter(|line| !line.contains("roadstead check")) {
                let has_room = line.trim().contains(' ');
                assert!(!has_room || line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let plain = Layout { width: 80, is_coloured: false }.text(&findings());
        let coloured = Layout { width: 80, is_coloured: true }.text(&findings());
        assert!(coloured.contains('\u{1b}') && !plain.contains('\u{1b}'));
        assert_eq!(console::strip_ansi_codes(&coloured), plain);
    }
}
