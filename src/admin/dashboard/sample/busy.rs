//! A server in the middle of its day.

use super::*;

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

pub(super) fn budgets() -> Vec<Budget> {
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

pub(super) fn upstream(
    name: &str,
    url: &str,
    held_back: Option<&str>,
    is_offline: bool,
) -> Upstream {
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

pub(super) fn charts(span: Span) -> Vec<Chart> {
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
