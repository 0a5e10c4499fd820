//! Pages of made-up servers: a busy one, one that nobody has used, and one whose figures and names
//! are as bad as can be.

mod busy;
mod cached;
mod odd;

use super::{
    chart::{Hue, Line, Span, Unit},
    figure::{Bytes, BytesPerSecond, Count, Lasting, Moment, PerSecond, Share, Shown},
    view::{
        Account, Budget, Chart, Digest, Disk, Event, Fill, Forecast, Frame, Freshness, Head, Kept,
        Left, Mirror, Named, Newcomer, Notice, Overview, PerHour, Platform, Process, Ratio,
        Repositories, Repository, RepositoryPage, Tag, Tone, Top, Upstream,
    },
};

use busy::busy;
use cached::{hostile_repository, repositories, repository};
use odd::{empty, hostile};

const NOW: u64 = 1_764_132_300;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a client or registry may try to be shown as.
pub(super) const HOSTILE: &str =
    "\"><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}gnp.exe\u{1b}[31m'`{{7*7}}";

/// The same where a grammar has let it pass, of which control characters are no part.
pub(super) const HOSTILE_NAME: &str =
    "\"><script>alert(1)</script><img src=x onerror=alert(2)>'`{{7*7}}";

pub(super) fn frame() -> Frame {
    Frame { version: "0.1.0", search: Shown::default(), uptime: Lasting(5 * 86_400 + 3 * 3600) }
}

fn at(ago: i64) -> Moment {
    Moment { at: NOW.saturating_add_signed(-ago), now: NOW }
}

fn share(part: u64, whole: u64) -> Share {
    Share { part, whole }
}

fn digest(seed: u64) -> Digest {
    Digest(format!("sha256:{:016x}{:048x}", seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), seed))
}

fn left(left: u64, limit: u64, tone: Option<Tone>) -> Left {
    Left { left: Count(left), limit: Count(limit), share: share(left, limit), tone }
}

/// All of them by name.
pub(super) fn pages() -> Vec<(&'static str, String)> {
    let render = |page: &dyn askama::DynTemplate| page.dyn_render().expect("nothing here can fail");
    vec![
        ("busy", render(&busy())),
        ("empty", render(&empty())),
        ("hostile", render(&hostile())),
        ("repositories", render(&repositories())),
        (
            "nothing-found",
            render(&Repositories {
                rows: Vec::new(),
                frame: Frame { search: Shown::new(HOSTILE), ..frame() },
                next: None,
                ..repositories()
            }),
        ),
        (
            "nothing-cached",
            render(&Repositories {
                rows: Vec::new(),
                newcomer: empty().newcomer,
                next: None,
                ..repositories()
            }),
        ),
        ("repository", render(&repository())),
        ("repository-hostile", render(&hostile_repository())),
        ("repository-empty", render(&RepositoryPage { tags: Vec::new(), ..repository() })),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every page; where `ROADSTEAD_PAGES` names a folder they are written there, to be looked at.
    #[test]
    fn pages_show_foreign_text_as_text() {
        let pages = pages();
        for (name, page) in &pages {
            assert!(page.starts_with("<!doctype html>"), "{name}");
            for wrong in
                ["<script>alert", "<img src=x", "\u{202e}", "\u{1b}", " style=", " onclick="]
            {
                assert!(!page.contains(wrong), "{name} has {wrong:?}");
            }
        }
        let Some(folder) = std::env::var_os("ROADSTEAD_PAGES") else { return };
        for (name, page) in pages {
            std::fs::write(std::path::Path::new(&folder).join(name).with_extension("html"), page)
                .unwrap();
        }
    }

    #[test]
    fn nothing_comes_from_another_host() {
        for (name, page) in pages() {
            for attribute in [" src=\"", " href=\"", " action=\""] {
                for value in page.split(attribute).skip(1) {
                    let is_own = value.starts_with(['/', '#', '?']) && !value.starts_with("//");
                    assert!(is_own, "{name}: {attribute}{}", value.get(..60).unwrap_or(value));
                }
            }
        }
    }
}
