//! What a check found, and what is to be done about it.
//!
//! Whatever came over the network or out of a file is made plain here: no control character of it
//! reaches a terminal, and none of it is long.

use serde::Serialize;

/// The longest sentence that is told; what a registry says may have no end.
const LONGEST: usize = 600;

/// How good or bad it is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Nothing is wrong; something is worth knowing.
    Note,
    /// It works, and will not always.
    Warning,
    /// It does not work.
    Fault,
}

/// What is looked at, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Group {
    Configuration,
    Directory,
    Files,
    Certificates,
    Dns,
    Upstreams,
    Clock,
    Credentials,
    Budget,
    Server,
    Listeners,
    Docker,
    Containerd,
    Podman,
}

/// A check: its group, and its name there. Both are a contract of `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check(pub(super) Group, pub(super) &'static str);

/// What a check found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) group: Group,
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What was looked at.
    pub(super) about: String,
    /// What was seen or measured.
    pub(super) found: String,
    /// What to do, in a sentence; `None` where all is well.
    pub(super) remedy: Option<String>,
    /// Commands that do it, ready to be pasted.
    pub(super) commands: Vec<String>,
}

// === impl Level ===

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

// === impl Group ===

impl Group {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Directory => "directory",
            Self::Files => "files",
            Self::Certificates => "certificates",
            Self::Dns => "dns",
            Self::Upstreams => "upstreams",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::Budget => "budget",
            Self::Server => "server",
            Self::Listeners => "listeners",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
        }
    }
}

// === impl Check ===

impl Check {
    pub(super) fn ok(self, about: impl ToString, found: impl ToString) -> Finding {
        self.finding(Level::Ok, &about.to_string(), &found.to_string(), None)
    }

    pub(super) fn note(
        self,
        about: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Finding {
        self.at(Level::Note, about, found, remedy)
    }

    pub(super) fn warning(
        self,
        about: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Finding {
        self.at(Level::Warning, about, found, remedy)
    }

    pub(super) fn fault(
        self,
        about: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Finding {
        self.at(Level::Fault, about, found, remedy)
    }

    /// At a level that is not `Ok`.
    pub(super) fn at(
        self,
        level: Level,
        about: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Finding {
        let remedy = Some(plain(&remedy.to_string()));
        self.finding(level, &about.to_string(), &found.to_string(), remedy)
    }

    fn finding(self, level: Level, about: &str, found: &str, remedy: Option<String>) -> Finding {
        let Self(group, check) = self;
        let (about, found) = (plain(about), plain(found));
        Finding { group, check, level, about, found, remedy, commands: Vec::new() }
    }
}

// === impl Finding ===

impl Finding {
    /// With a command that carries the remedy out.
    #[must_use]
    pub(super) fn run(mut self, command: impl ToString) -> Self {
        self.commands.push(plain(&command.to_string()));
        self
    }
}

/// The worst of all; `Ok` for none.
pub(super) fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// Text of others, as it can be shown: one line, no control characters or marks that turn the
/// direction of writing, and no more than a terminal's screen.
fn plain(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let shown = text.chars().map(|c| match c {
        '\n' | '\t' => ' ',
        c if is_harmful(c) => '\u{fffd}',
        c => c,
    });
    let mut line: String = shown.clone().take(LONGEST).collect();
    if shown.count() > LONGEST {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_can_do_nothing_to_a_terminal() {
        let said = format!("a\u{1b}[2Jb\r\nc\u{202e}d{}", "x".repeat(2000));
        let finding = Check(Group::Upstreams, "answer").fault("it", said, "do\x07so").run("a\nb");
        let all = format!("{}{:?}{:?}", finding.found, finding.remedy, finding.commands);
        assert!(!all.contains(['\u{1b}', '\r', '\u{202e}', '\x07']), "{all}");
        assert!(finding.found.ends_with('…') && finding.found.chars().count() == LONGEST + 1);
        assert_eq!(finding.commands, ["a b"]);
    }

    #[test]
    fn the_worst_counts() {
        let check = Check(Group::Dns, "hosts");
        let (ok, note) = (check.ok("a", "b"), check.note("a", "b", "c"));
        assert_eq!(worst(&[]), Level::Ok);
        assert_eq!(worst(&[note.clone(), ok.clone()]), Level::Note);
        assert_eq!(worst(&[ok, check.fault("a", "b", "c"), note]), Level::Fault);
    }
}
