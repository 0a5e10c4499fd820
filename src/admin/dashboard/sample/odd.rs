//! A server that nobody has used yet, and one whose names and figures are as bad as can be.

use super::{
    busy::{budgets, busy, charts, upstream},
    *,
};

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
