//! Pages of made-up servers: a busy one, one that nobody has used, and one whose figures and names
//! are as bad as can be.

use super::{
    chart::{Hue, Line, Span, Unit},
    figure::{Bytes, BytesPerSecond, Count, Lasting, Moment, PerSecond, Share, Shown},
    view::{
        Account, Budget, Chart, Digest, Disk, Event, Fill, Forecast, Frame, Freshness, Head, Kept,
        Left, Mirror, Named, Newcomer, Notice, Overview, PerHour, Platform, Process, Ratio,
        Repositories, Repository, RepositoryPage, Tag, Tone, Top, Upstream,
    },
};

const NOW: u64 = 1_764_132_300;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a client or registry may try to be shown as.
pub(super) const HOSTILE: &str =
    "\"><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}gnp.exe\u{1b}[31m'`{{7*7}}";

pub(super) fn frame() -> Frame {
    Frame { version: "0.1.0", search: String::new(), uptime: Lasting(5 * 86_400 + 3 * 3600) }
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

/// A server in the middle of its day.
pub(super) fn busy() -> Overview {
    Overview {
        frame: frame(),
        notices: Vec::new(),
        newcomer: None,
        head: Head {
            left: Some(left(337, 400, None)),
            spent: Count(143),
            saved: Count(12_480),
            saved_share: share(12_480, 12_623),
            hits: Ratio { all: share(96_412, 98_000), hour: share(4100, 4133) },
            hit_bytes: Ratio { all: share(931, 1000), hour: share(958, 1000) },
            requests: PerSecond(42.3),
            bytes: BytesPerSecond(96.4 * 1_048_576.0),
            upstream_bytes: BytesPerSecond(11.2 * 1_048_576.0),
            connections: Count(38),
            requests_total: Count(98_212),
            bytes_total: Bytes(2_318 * GIB),
        },
        budgets: budgets(),
        fills: fills(),
        fills_left_out: Count(0),
        repositories: tops(
            &[
                "library/node",
                "library/python",
                "library/postgres",
                "bitnami/redis-cluster",
                "library/alpine",
                "grafana/grafana-oss",
                "library/nginx",
                "library/golang",
            ],
            Some("docker.io"),
        ),
        clients: tops(
            &[
                "10.20.4.17",
                "10.20.4.18",
                "10.20.7.203",
                "10.20.1.5",
                "2001:db8:4::a12f",
                "10.20.9.44",
            ],
            None,
        ),
        upstreams: vec![
            upstream("docker.io", "https://registry-1.docker.io", None, false),
            Upstream {
                mirrors: vec![Mirror { url: Shown::new("https://mirror.gcr.io"), held_back: None }],
                ..upstream(
                    "ghcr.io",
                    "https://ghcr.io",
                    Some("no answer within 5 s; asked again in 12 s"),
                    false,
                )
            },
            upstream("quay.io", "https://quay.io", None, true),
        ],
        disk: Disk {
            directory: Shown::new("/var/lib/roadstead"),
            used: Bytes(612 * GIB / 10),
            capacity: Bytes(100 * GIB),
            share: share(612, 1000),
            published: Bytes(598 * GIB / 10),
            staged: Bytes(1340 * MIB),
            index: Bytes(38 * MIB),
            quarantine: None,
            free: Some(Bytes(212 * GIB)),
        },
        process: Process {
            memory: Some(Bytes(183 * MIB)),
            fill_memory: Bytes(24 * MIB),
            files: Some(Count(214)),
            files_limit: Some(Count(65_536)),
            files_share: share(214, 65_536),
            load: Some("0.31".to_owned()),
        },
        events: events(),
        span: Span::Hour,
        charts: charts(Span::Hour),
    }
}

fn budgets() -> Vec<Budget> {
    let account = |name: &str, have, spent, forecast| Account {
        name: Shown::new(name),
        left: have,
        window: Some(Lasting(21_600)),
        resets: Some(at(-4200)),
        observed: Some(at(95)),
        spent: Count(spent),
        rate: Some(PerHour(14.0)),
        forecast,
        problem: None,
        source: None,
    };
    vec![
        Budget {
            upstream: Shown::new("docker.io"),
            spent: Count(131),
            saved: Count(11_902),
            saved_share: share(11_902, 12_033),
            reserve: Shown::new("10%"),
            is_sparing: false,
            accounts: vec![
                account("buildfarm", Some(left(187, 200, None)), 61, Forecast::Lasts),
                account("buildfarm2", Some(left(150, 200, None)), 58, Forecast::Still),
                Account {
                    source: Some(Shown::new("203.0.113.7")),
                    ..account(
                        "anonymous",
                        Some(left(9, 100, Some(Tone::Warning))),
                        12,
                        Forecast::RunsOut(at(-2300)),
                    )
                },
            ],
        },
        Budget {
            upstream: Shown::new("ghcr.io"),
            spent: Count(12),
            saved: Count(578),
            saved_share: share(578, 590),
            reserve: Shown::new("10%"),
            is_sparing: false,
            accounts: vec![Account {
                window: None,
                resets: None,
                observed: None,
                rate: None,
                ..account("anonymous", None, 12, Forecast::NoLimit)
            }],
        },
    ]
}

fn fills() -> Vec<Fill> {
    let fill =
        |seed, repository: &str, received: u64, total: Option<u64>, readers, rate: f64, state| {
            Fill {
                digest: digest(seed),
                upstream: Shown::new("docker.io"),
                repository: Shown::new(repository),
                state,
                received: Bytes(received * MIB),
                total: total.map(|total| Bytes(total * MIB)),
                readers: Count(readers),
                rate: BytesPerSecond(rate * 1_048_576.0),
                since: at(14),
                remaining: total.map(|total| Lasting((total - received) / 12)),
            }
        };
    vec![
        fill(1, "library/node", 143, Some(198), 12, 6.4, "receiving"),
        fill(2, "library/python", 31, Some(412), 1, 4.8, "receiving"),
        fill(3, "nvidia/cuda", 0, None, 3, 0.0, "asking"),
    ]
}

fn tops(names: &[&str], of: Option<&str>) -> Vec<Top> {
    let top = |(index, name): (usize, &&str)| {
        let requests = 31_000 / (index as u64 + 1);
        Top {
            name: Shown::new(name),
            upstream: of.map(Shown::new),
            requests: Count(requests),
            bytes: Bytes(requests * 31 * MIB),
            spent: Count(40 / (index as u64 + 1)),
            saved: Count(requests / 8),
            share: share(requests, 31_000),
        }
    };
    names.iter().enumerate().map(top).collect()
}

fn upstream(name: &str, url: &str, held_back: Option<&str>, is_offline: bool) -> Upstream {
    let held_back = held_back.map(Shown::new);
    Upstream {
        name: Shown::new(name),
        url: Shown::new(url),
        is_offline,
        held_back,
        mirrors: Vec::new(),
    }
}

fn events() -> Vec<Event> {
    vec![
        Event {
            tone: Tone::Bad,
            last: at(48),
            count: Count(14),
            message: Shown::new("an upstream does not answer; what is cached is served meanwhile"),
            fields: vec![
                ("upstream", Shown::new("ghcr.io")),
                ("error", Shown::new("connect timed out after 5 s")),
            ],
            remedy: Some(Shown::new(
                "see whether this host reaches https://ghcr.io, and upstreams[].proxy if it needs one",
            )),
        },
        Event {
            tone: Tone::Warning,
            last: at(1900),
            count: Count(1),
            message: Shown::new("less than the reserve is left: tags stay fresh for longer"),
            fields: vec![
                ("upstream", Shown::new("docker.io")),
                ("account", Shown::new("anonymous")),
            ],
            remedy: Some(Shown::new("add an account under upstreams[].credentials.accounts")),
        },
        Event {
            tone: Tone::Warning,
            last: at(8100),
            count: Count(3),
            message: Shown::new("a certificate could not be read again; the one before is shown"),
            fields: vec![("file", Shown::new("/etc/roadstead/tls.crt"))],
            remedy: None,
        },
    ]
}

/// The same waves every time.
fn wave(index: u32, seed: u32) -> f64 {
    let x = f64::from(index);
    let s = f64::from(seed);
    let noise = f64::from((index.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 16) % 1000)
        / 1000.0;
    (0.55 + 0.3 * (x / 41.0 + s).sin() + 0.15 * (x / 13.0 + s * 2.0).sin() + 0.22 * (noise - 0.5))
        .max(0.0)
}

fn charts(span: Span) -> Vec<Chart> {
    let points = |seed: u32, scale: f64| {
        let many = 360;
        let at = move |index: u32| {
            -span.seconds() + span.seconds() / f64::from(many) * f64::from(index + 1)
        };
        (0..many)
            .map(|index| {
                (at(index), (!(70..82).contains(&index)).then(|| wave(index, seed) * scale))
            })
            .collect()
    };
    let named = |name, hue, figure: &str, is_filled, seed, scale| Named {
        name,
        figure: figure.to_owned(),
        line: Line { hue, is_filled, points: points(seed, scale) },
    };
    let chart = |id, title, unit_words, unit, lines| Chart {
        id,
        title,
        unit_words,
        unit,
        span,
        lines,
        summary: format!("{title} over the last {}.", span.word()),
    };
    let mib = 1_048_576.0;
    vec![
        chart(
            "requests",
            "Requests",
            "per second",
            Unit::Things,
            vec![
                named("all", Hue::Third, "42.3", false, 1, 61.0),
                named("from cache", Hue::Cache, "41.0", true, 1, 57.0),
            ],
        ),
        chart(
            "bytes",
            "Bytes",
            "per second",
            Unit::Bytes,
            vec![
                named("to clients", Hue::Cache, "96.4\u{a0}MiB/s", true, 2, 140.0 * mib),
                named("from upstream", Hue::Upstream, "11.2\u{a0}MiB/s", true, 3, 16.0 * mib),
            ],
        ),
        chart(
            "pulls",
            "Pulls",
            "per minute",
            Unit::Things,
            vec![
                named("saved", Hue::Cache, "84", true, 4, 90.0),
                named("spent", Hue::Upstream, "1", true, 5, 6.0),
            ],
        ),
        chart(
            "left",
            "Pulls left",
            "all accounts",
            Unit::Things,
            vec![named("left", Hue::Third, "337", false, 6, 400.0)],
        ),
        chart(
            "hits",
            "Hit ratio",
            "percent",
            Unit::Things,
            vec![
                named("of requests", Hue::Cache, "97.4\u{a0}%", false, 7, 97.0),
                named("of bytes", Hue::Fourth, "93.1\u{a0}%", false, 8, 90.0),
            ],
        ),
        chart(
            "trouble",
            "Errors and stale answers",
            "per minute",
            Unit::Things,
            vec![
                named("errors", Hue::Upstream, "0", true, 9, 3.0),
                named("stale", Hue::Fourth, "2", false, 10, 2.0),
            ],
        ),
    ]
}

/// A server that has just been started.
pub(super) fn empty() -> Overview {
    let newcomer = Newcomer {
        address: Shown::new("http://mirror.example.com:5000"),
        host: Shown::new("mirror.example.com:5000"),
        is_plain: true,
        is_local: false,
    };
    let charts = charts(Span::Hour).into_iter().map(|mut chart| {
        for named in &mut chart.lines {
            named.figure = "0".to_owned();
            named
                .line
                .points
                .iter_mut()
                .for_each(|(at, value)| *value = (*at > -120.0).then_some(0.0));
        }
        chart
    });
    Overview {
        frame: Frame { uptime: Lasting(41), ..frame() },
        newcomer: Some(newcomer),
        head: Head::default(),
        budgets: vec![Budget {
            spent: Count(0),
            saved: Count(0),
            saved_share: share(0, 0),
            accounts: vec![Account {
                left: None,
                window: None,
                resets: None,
                observed: None,
                rate: None,
                spent: Count(0),
                forecast: Forecast::NoLimit,
                ..budgets().remove(0).accounts.remove(2)
            }],
            ..budgets().remove(0)
        }],
        fills: Vec::new(),
        repositories: Vec::new(),
        clients: Vec::new(),
        upstreams: vec![upstream("docker.io", "https://registry-1.docker.io", None, false)],
        disk: Disk {
            used: Bytes(1 << 20),
            share: share(1, 102_400),
            published: Bytes(0),
            staged: Bytes(0),
            index: Bytes(1 << 20),
            ..busy().disk
        },
        events: Vec::new(),
        charts: charts.collect(),
        ..busy()
    }
}

/// A server with the worst names and the largest figures.
pub(super) fn hostile() -> Overview {
    let bad = || Shown::new(HOSTILE);
    let long = || Shown::new("a-very-long-name/".repeat(12));
    let most = Count(u64::MAX);
    let mut page = busy();
    page.notices = vec![
        Notice {
            tone: Tone::Bad,
            title: "The store is degraded",
            text: bad(),
            remedy: Some(long()),
        },
        Notice { tone: Tone::Warning, title: "Starting or stopping", text: long(), remedy: None },
    ];
    page.head = Head {
        left: Some(left(u64::MAX - 1, u64::MAX, None)),
        spent: most,
        saved: most,
        saved_share: share(u64::MAX, u64::MAX),
        requests: PerSecond(f64::MAX),
        bytes: BytesPerSecond(f64::MAX),
        upstream_bytes: BytesPerSecond(f64::NAN),
        connections: most,
        requests_total: most,
        bytes_total: Bytes(u64::MAX),
        ..page.head
    };
    for account in page.budgets.iter_mut().flat_map(|budget| &mut budget.accounts) {
        account.name = long();
        account.problem = Some(bad());
        account.source = Some(bad());
        account.spent = most;
        account.left = Some(left(u64::MAX, u64::MAX, Some(Tone::Bad)));
    }
    for fill in &mut page.fills {
        fill.repository = long();
        fill.readers = most;
        fill.received = Bytes(u64::MAX / 2);
        fill.total = Some(Bytes(u64::MAX));
    }
    page.fills_left_out = most;
    for top in page.repositories.iter_mut().chain(&mut page.clients) {
        (top.name, top.requests, top.bytes, top.spent, top.saved) =
            (long(), most, Bytes(u64::MAX), most, most);
    }
    page.clients.iter_mut().for_each(|top| top.name = bad());
    for upstream in &mut page.upstreams {
        (upstream.name, upstream.url, upstream.held_back) = (bad(), long(), Some(bad()));
    }
    for event in &mut page.events {
        (event.message, event.remedy, event.count) = (bad(), Some(long()), most);
        event.fields = vec![("error", bad()), ("url", long())];
    }
    page.disk.directory = long();
    page
}

/// The repositories of the busy server.
pub(super) fn repositories() -> Repositories {
    let names = [
        "library/alpine",
        "library/debian",
        "library/golang",
        "library/nginx",
        "library/node",
        "library/postgres",
        "library/python",
        "bitnami/redis-cluster",
        "grafana/grafana-oss",
    ];
    let row = |(index, name): (usize, &&str)| {
        let many = index as u64 + 2;
        Repository {
            upstream: Shown::new("docker.io"),
            name: Shown::new(name),
            tags: Count(many),
            objects: Some(Count(many * 13)),
            bytes: Some(Bytes(many * 173 * MIB)),
            is_more: index == 8,
            used: Some(at(i64::try_from(many * many * 137).unwrap_or(0))),
        }
    };
    Repositories {
        frame: frame(),
        refused: None,
        rows: names.iter().enumerate().map(row).collect(),
        next: Some("/repositories?after=docker.io%2Fgrafana".to_owned()),
        is_later: false,
        newcomer: None,
    }
}

/// One of them.
pub(super) fn repository() -> RepositoryPage {
    let platform = |name: &str, state, mib| Platform {
        name: Shown::new(name),
        state,
        bytes: Bytes(mib * MIB),
    };
    let tag = |name: &str, seed, state, freshness, is_pinned| Tag {
        name: Shown::new(name),
        reference: format!("docker.io/library/node:{name}"),
        digest: digest(seed),
        state,
        bytes: Bytes(388 * MIB),
        missing: Count(if state == Kept::Partial { 7 } else { 0 }),
        platforms: vec![
            platform("linux/amd64", Kept::Complete, 388),
            platform("linux/arm64/v8", Kept::Partial, 121),
            platform("linux/ppc64le", Kept::Absent, 0),
            platform("linux/s390x", Kept::Absent, 0),
        ],
        used: Some(at(312)),
        freshness,
        checked: Some(at(44)),
        moved: at(86_400 * 9),
        is_pinned,
    };
    RepositoryPage {
        frame: frame(),
        whole: repositories().rows.remove(4),
        reference: "docker.io/library/node".to_owned(),
        tags: vec![
            tag("22-bookworm-slim", 11, Kept::Complete, Freshness::Fresh(Some(Lasting(16))), true),
            tag("22.11.0", 12, Kept::Complete, Freshness::Immutable, false),
            tag("latest", 13, Kept::Complete, Freshness::Due, false),
            tag("lts-alpine3.20", 14, Kept::Partial, Freshness::Stale, false),
            Tag {
                platforms: Vec::new(),
                used: None,
                checked: None,
                bytes: Bytes(0),
                ..tag("20", 15, Kept::Absent, Freshness::Gone, false)
            },
        ],
        next: None,
        is_later: false,
    }
}

/// A repository and tags with names that no grammar would let pass.
pub(super) fn hostile_repository() -> RepositoryPage {
    let mut page = repository();
    page.whole.name = Shown::new(HOSTILE);
    page.reference = HOSTILE.to_owned();
    for tag in &mut page.tags {
        tag.name = Shown::new("x".repeat(128));
        tag.reference = HOSTILE.to_owned();
        tag.digest = Digest(HOSTILE.to_owned());
        tag.bytes = Bytes(u64::MAX);
        tag.platforms.iter_mut().for_each(|platform| platform.name = Shown::new(HOSTILE));
    }
    page
}

#[cfg(test)]
mod tests {
    use askama::Template;

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
            for attribute in ["src=\"", "href=\"", "action=\""] {
                for value in page.split(attribute).skip(1) {
                    let is_own = value.starts_with(['/', '#', '?']) && !value.starts_with("//");
                    assert!(is_own, "{name}: {attribute}{}", value.get(..60).unwrap_or(value));
                }
            }
        }
    }
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
                frame: Frame { search: HOSTILE.to_owned(), ..frame() },
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
