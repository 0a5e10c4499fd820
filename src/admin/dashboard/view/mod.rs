//! What the pages show, as values: no page shows anything that is not here.
//!
//! Names and sentences of others are [`Shown`], figures print themselves
//! (`figure`); what HTML means by a character is seen to by the templates, which
//! are compiled in.

mod cached;
mod charts;

use askama::Template;

use super::{
    asset,
    chart::{Size, Span},
    figure::{Bytes, BytesPerSecond, Count, Lasting, Moment, PerSecond, Share, Shown},
};

pub(crate) use cached::{
    Freshness, Kept, Platform, Repositories, Repository, RepositoryPage, Tag, repository_path,
};
pub(crate) use charts::{Chart, Named};

/// What is around every page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(crate) version: &'static str,
    /// What the search field holds.
    pub(crate) search: Shown,
    /// How long the process runs.
    pub(crate) uptime: Lasting,
}

/// `/`.
#[derive(Debug, Template)]
#[template(path = "overview.html")]
pub(crate) struct Overview {
    pub(crate) frame: Frame,
    pub(crate) notices: Vec<Notice>,
    pub(crate) newcomer: Option<Newcomer>,
    pub(crate) head: Head,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) fills: Vec<Fill>,
    /// Those under way that are not listed.
    pub(crate) fills_left_out: Count,
    pub(crate) repositories: Vec<Top>,
    pub(crate) clients: Vec<Top>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) disk: Disk,
    pub(crate) process: Process,
    pub(crate) events: Vec<Event>,
    pub(crate) span: Span,
    /// None where only what changes each second was asked for.
    pub(crate) charts: Vec<Chart>,
}

/// What an operator must know before all else.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) tone: Tone,
    pub(crate) title: &'static str,
    pub(crate) text: Shown,
    pub(crate) remedy: Option<Shown>,
}

/// How something is. Always shown with a word too: a colour alone says nothing to some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
    Quiet,
}

/// What who has just begun is told.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    /// Where clients reach it: `http://mirror:5000`.
    pub(crate) address: Shown,
    /// The same without the scheme.
    pub(crate) host: Shown,
    /// Whether its traffic is plain HTTP.
    pub(crate) is_plain: bool,
    /// Whether the address is one of this machine alone.
    pub(crate) is_local: bool,
}

/// The figures at the top.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) left: Option<Left>,
    pub(crate) spent: Count,
    pub(crate) saved: Count,
    /// Saved, of both.
    pub(crate) saved_share: Share,
    pub(crate) hits: Ratio,
    pub(crate) hit_bytes: Ratio,
    pub(crate) requests: PerSecond,
    pub(crate) bytes: BytesPerSecond,
    pub(crate) upstream_bytes: BytesPerSecond,
    pub(crate) connections: Count,
    pub(crate) requests_total: Count,
    pub(crate) bytes_total: Bytes,
}

/// Pulls left to all accounts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Left {
    pub(crate) left: Count,
    pub(crate) limit: Count,
    pub(crate) share: Share,
    pub(crate) tone: Option<Tone>,
}

/// A share since the start, and that of the last hour.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ratio {
    pub(crate) all: Share,
    pub(crate) hour: Share,
}

/// An upstream's budget.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pub(crate) upstream: Shown,
    pub(crate) spent: Count,
    pub(crate) saved: Count,
    pub(crate) saved_share: Share,
    pub(crate) reserve: Shown,
    pub(crate) is_sparing: bool,
    pub(crate) accounts: Vec<Account>,
}

/// What an account has left.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: Shown,
    /// Left and limit, where the registry told.
    pub(crate) left: Option<Left>,
    pub(crate) window: Option<Lasting>,
    pub(crate) resets: Option<Moment>,
    pub(crate) observed: Option<Moment>,
    pub(crate) spent: Count,
    /// Pulls spent per hour, lately.
    pub(crate) rate: Option<PerHour>,
    pub(crate) forecast: Forecast,
    /// Why it stands aside.
    pub(crate) problem: Option<Shown>,
    /// Whom the registry charges.
    pub(crate) source: Option<Shown>,
}

/// So many each hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PerHour(pub(crate) f64);

/// What comes of an account's pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forecast {
    /// The registry does not say how many there are.
    NoLimit,
    /// Nothing is spent at present.
    Still,
    /// It lasts until the window ends.
    Lasts,
    /// Nothing is left after.
    RunsOut(Moment),
    /// Nothing is left.
    Spent,
}

/// A blob on its way.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    pub(crate) digest: Digest,
    pub(crate) upstream: Shown,
    pub(crate) repository: Shown,
    pub(crate) state: &'static str,
    pub(crate) received: Bytes,
    pub(crate) total: Option<Bytes>,
    pub(crate) readers: Count,
    pub(crate) rate: BytesPerSecond,
    pub(crate) since: Moment,
    /// How long it takes from now on, at this rate.
    pub(crate) remaining: Option<Lasting>,
}

/// A digest, whole and as far as it tells one from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) String);

/// A repository or client among those that ask most.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    pub(crate) name: Shown,
    /// Of a repository.
    pub(crate) upstream: Option<Shown>,
    pub(crate) requests: Count,
    pub(crate) bytes: Bytes,
    pub(crate) spent: Count,
    pub(crate) saved: Count,
    /// Of the requests of the one that asks most.
    pub(crate) share: Share,
}

/// How a registry is.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) name: Shown,
    pub(crate) url: Shown,
    pub(crate) is_offline: bool,
    /// Why it is not asked, if it isn't.
    pub(crate) held_back: Option<Shown>,
    pub(crate) mirrors: Vec<Mirror>,
}

/// How a registry's mirror is.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    pub(crate) url: Shown,
    pub(crate) held_back: Option<Shown>,
}

/// What the store uses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) directory: Shown,
    pub(crate) used: Bytes,
    pub(crate) capacity: Bytes,
    pub(crate) share: Share,
    pub(crate) published: Bytes,
    pub(crate) staged: Bytes,
    pub(crate) index: Bytes,
    pub(crate) quarantine: Option<Bytes>,
    pub(crate) free: Option<Bytes>,
}

/// What the process uses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    pub(crate) memory: Option<Bytes>,
    pub(crate) fill_memory: Bytes,
    pub(crate) files: Option<Count>,
    pub(crate) files_limit: Option<Count>,
    pub(crate) files_share: Share,
    /// Processors' worth of work, in hundredths.
    pub(crate) load: Option<String>,
}

/// Something that went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) tone: Tone,
    pub(crate) last: Moment,
    pub(crate) count: Count,
    pub(crate) message: Shown,
    pub(crate) fields: Vec<(&'static str, Shown)>,
    pub(crate) remedy: Option<Shown>,
}

/// A page that says that there is none.
#[derive(Debug, Template)]
#[template(path = "trouble.html")]
pub(crate) struct Trouble {
    pub(crate) frame: Frame,
    pub(crate) title: &'static str,
    pub(crate) text: Shown,
}

// === impl ===

impl Overview {
    /// All that are under way.
    fn fills_active(&self) -> Count {
        Count(self.fills_left_out.0.saturating_add(self.fills.len() as u64))
    }
}

impl Left {
    /// The class of its bar.
    pub(crate) fn class(&self) -> &'static str {
        match self.tone {
            Some(Tone::Bad) => "bad",
            Some(Tone::Warning) => "warning",
            _ => "cache",
        }
    }
}

impl Tone {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }
}

impl std::fmt::Display for PerHour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            rate if rate > 0.0 && rate < 0.1 => f.write_str("under 0.1"),
            rate => write!(f, "{}", PerSecond(rate)),
        }
    }
}

impl Digest {
    /// As far as it tells one from another on a page.
    pub(crate) fn short(&self) -> &str {
        let (_, hex) = self.0.split_once(':').unwrap_or(("", &self.0));
        hex.get(..12).unwrap_or(hex)
    }
}

impl Fill {
    /// Where the page of its repository is.
    pub(crate) fn path(&self) -> String {
        repository_path(self.upstream.as_str(), self.repository.as_str())
    }

    /// How far it is.
    pub(crate) fn share(&self) -> Share {
        Share { part: self.received.0, whole: self.total.map_or(0, |total| total.0) }
    }
}

impl Upstream {
    pub(crate) fn tone(&self) -> Tone {
        match (self.is_offline, &self.held_back) {
            (true, _) => Tone::Quiet,
            (false, Some(_)) => Tone::Bad,
            (false, None) => Tone::Good,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self.tone() {
            Tone::Quiet => "offline by order",
            Tone::Bad => "not asked",
            _ => "reachable",
        }
    }
}

impl Top {
    /// Where its page is, if it is a repository.
    pub(crate) fn path(&self) -> Option<String> {
        let upstream = self.upstream.as_ref()?;
        Some(repository_path(upstream.as_str(), self.name.as_str()))
    }
}
