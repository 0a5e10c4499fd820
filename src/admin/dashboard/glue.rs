//! From what the server reports to what the pages show.

use http::HeaderMap;

use super::{
    figure::{Bytes, BytesPerSecond, Count, Lasting, Moment, PerSecond, Share, Shown},
    view::{
        Account, Budget, Digest, Disk, Event, Fill, Forecast, Frame, Freshness, Head, Kept, Left,
        Mirror, Newcomer, Notice, PerHour, Platform, Process, Ratio, Repository, Tag, Tone, Top,
        Upstream,
    },
};
use crate::{
    blob::{FillReport, FillState},
    config::{Address, Listen},
    events,
    inventory::{FreshnessState, RepositoryInfo, State, TagInfo},
    status::{self, Status},
    upstream::UpstreamReport,
};

/// Problems that are shown.
const MOST_EVENTS: usize = 30;

/// Repositories or clients that are shown.
const MOST_TOP: usize = 10;

/// Ratios come as fractions; figures are parts of this many.
const WHOLE: u64 = 1_000_000;

/// What is around a page, beside what the search field holds.
pub(super) fn frame(status: &Status, search: &str) -> Frame {
    Frame {
        version: status.version,
        search: Shown::new(search),
        uptime: Lasting(status.uptime_seconds),
    }
}

/// What stands above all else.
pub(super) fn notices(status: &Status) -> Vec<Notice> {
    let mut notices = Vec::new();
    if let Some(trouble) = &status.disk.trouble {
        notices.push(Notice {
            tone: Tone::Bad,
            title: "The store is degraded",
            text: Shown::new(trouble),
            remedy: Some(Shown::new(
                "pulls go on without it, each from upstream; see to the disk, and it is used again by itself",
            )),
        });
    }
    if !status.ready {
        notices.push(Notice {
            tone: Tone::Warning,
            title: "Starting or stopping",
            text: Shown::new("no new clients are accepted at this moment"),
            remedy: None,
        });
    }
    notices
}

/// Where clients reach the server whose pages are at `headers`' host; `None` where it listens on
/// Unix sockets alone.
pub(super) fn newcomer(listen: &[Listen], headers: &HeaderMap) -> Option<Newcomer> {
    let (door, address) = listen.iter().find_map(|door| match &door.address {
        Address::Tcp(address) if door.transparent.is_none() => Some((door, *address)),
        _ => None,
    })?;
    let host = match address.ip() {
        ip if !ip.is_unspecified() => std::net::SocketAddr::new(ip, 0).to_string(),
        _ => headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("").to_owned(),
    };
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => &host,
    };
    let bare = if bare.is_empty() { "127.0.0.1" } else { bare };
    let is_local = matches!(bare, "localhost" | "127.0.0.1" | "[::1]");
    let (host, is_plain) = (format!("{bare}:{}", address.port()), door.tls.is_none());
    let scheme = if is_plain { "http" } else { "https" };
    let address = Shown::new(format!("{scheme}://{host}"));
    Some(Newcomer { address, host: Shown::new(host), is_plain, is_local })
}

/// The figures at the top.
pub(super) fn head(status: &Status) -> Head {
    let Status { totals, traffic, hit_ratio, .. } = status;
    let told = status.budgets.iter().filter_map(|budget| budget.remaining.zip(budget.limit));
    let told = told.reduce(|(a, b), (c, d)| (a.saturating_add(c), b.saturating_add(d)));
    Head {
        left: told.map(|(left, limit)| self::left(left, limit)),
        spent: Count(totals.spent),
        saved: Count(totals.saved),
        saved_share: saved_share(totals.spent, totals.saved),
        hits: Ratio { all: ratio(hit_ratio.requests), hour: ratio(hit_ratio.requests_last_hour) },
        hit_bytes: Ratio { all: ratio(hit_ratio.bytes), hour: ratio(hit_ratio.bytes_last_hour) },
        requests: PerSecond(traffic.requests_per_second),
        bytes: BytesPerSecond(traffic.bytes_per_second),
        upstream_bytes: BytesPerSecond(traffic.upstream_bytes_per_second),
        connections: Count(traffic.connections),
        requests_total: Count(totals.requests),
        bytes_total: Bytes(totals.bytes),
    }
}

/// All budgets.
pub(super) fn budgets(status: &Status) -> Vec<Budget> {
    let budget = |budget: &status::Budget| Budget {
        upstream: Shown::new(&budget.upstream),
        spent: Count(budget.spent),
        saved: Count(budget.saved),
        saved_share: saved_share(budget.spent, budget.saved),
        reserve: Shown::new(&budget.reserve),
        is_sparing: budget.is_sparing,
        accounts: budget
            .accounts
            .iter()
            .map(|account| self::account(account, status.now))
            .collect(),
    };
    status.budgets.iter().map(budget).collect()
}

fn account(account: &status::Account, now: u64) -> Account {
    let status::Account { report, forecast } = account;
    let moment = |at| Moment { at, now };
    let told = report.remaining.zip(report.limit);
    Account {
        name: Shown::new(&report.account),
        left: told.map(|(remaining, limit)| left(remaining, limit)),
        window: report.window_seconds.map(Lasting),
        resets: report.resets_at.filter(|at| *at > now).map(moment),
        observed: report.observed_at.map(moment),
        spent: Count(report.spent),
        rate: forecast.spent_per_hour.map(PerHour),
        forecast: match (told, forecast.runs_out_at) {
            (None, _) => Forecast::NoLimit,
            (Some((0, _)), _) => Forecast::Spent,
            (_, Some(at)) => Forecast::RunsOut(moment(at)),
            (_, None) if forecast.spent_per_hour.is_some_and(|rate| rate > 0.0) => Forecast::Lasts,
            (_, None) => Forecast::Still,
        },
        problem: report.problem.as_ref().map(Shown::new),
        source: report.source.as_ref().map(Shown::new),
    }
}

fn left(left: u64, limit: u64) -> Left {
    let share = Share { part: left, whole: limit };
    let tone = match share.percent() {
        _ if left == 0 => Some(Tone::Bad),
        percent if percent <= 10.0 => Some(Tone::Warning),
        _ => None,
    };
    Left { left: Count(left), limit: Count(limit), share, tone }
}

/// The fills that are listed, and how many are not.
pub(super) fn fills(status: &Status) -> (Vec<Fill>, Count) {
    let left_out = status.fills_active.saturating_sub(status.fills.len()) as u64;
    (status.fills.iter().map(|fill| self::fill(fill, status.now)).collect(), Count(left_out))
}

fn fill(fill: &FillReport, now: u64) -> Fill {
    let rest = fill.total_bytes.map(|total| total.saturating_sub(fill.received_bytes));
    let rate = fill.bytes_per_second;
    Fill {
        digest: Digest(fill.digest.to_string()),
        upstream: Shown::new(&fill.upstream),
        repository: Shown::new(&fill.repository),
        state: match fill.state {
            FillState::Waiting => "waiting for its turn",
            FillState::Asking => "asking",
            FillState::Receiving => "receiving",
        },
        received: Bytes(fill.received_bytes),
        total: fill.total_bytes.map(Bytes),
        readers: Count(fill.readers as u64),
        rate: BytesPerSecond(rate),
        since: Moment { at: fill.since, now },
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates"
        )]
        remaining: rest
            .filter(|rest| *rest > 0 && rate >= 1.0)
            .map(|rest| Lasting((rest as f64 / rate).ceil() as u64)),
    }
}

/// Those who ask most.
pub(super) fn top(top: &status::Top) -> Vec<Top> {
    let most = top.by_requests.first().map_or(0, |first| first.requests);
    let entry = |entry: &status::TopEntry| Top {
        name: Shown::new(&entry.name),
        upstream: entry.upstream.as_ref().map(Shown::new),
        requests: Count(entry.requests),
        bytes: Bytes(entry.bytes),
        spent: Count(entry.spent),
        saved: Count(entry.saved),
        share: Share { part: entry.requests, whole: most },
    };
    top.by_requests.iter().take(MOST_TOP).map(entry).collect()
}

/// How the registries are.
pub(super) fn upstreams(reports: &[UpstreamReport]) -> Vec<Upstream> {
    let upstream = |report: &UpstreamReport| Upstream {
        name: Shown::new(&report.name),
        url: Shown::new(&report.url),
        is_offline: report.offline,
        held_back: report.held_back.as_ref().map(Shown::new),
        mirrors: report
            .mirrors
            .iter()
            .map(|mirror| Mirror {
                url: Shown::new(&mirror.url),
                held_back: mirror.held_back.as_ref().map(Shown::new),
            })
            .collect(),
    };
    reports.iter().map(upstream).collect()
}

/// What the store uses.
pub(super) fn disk(disk: &status::Disk) -> Disk {
    Disk {
        directory: Shown::new(disk.directory.to_string_lossy()),
        used: Bytes(disk.used_bytes),
        capacity: Bytes(disk.capacity_bytes),
        share: Share { part: disk.used_bytes, whole: disk.capacity_bytes },
        published: Bytes(disk.published_bytes),
        staged: Bytes(disk.staged_bytes),
        index: Bytes(disk.index_bytes.saturating_add(disk.history_bytes)),
        quarantine: Some(disk.quarantine_bytes).filter(|bytes| *bytes > 0).map(Bytes),
        free: disk.free_bytes.map(Bytes),
    }
}

/// What the process uses.
pub(super) fn process(process: &status::Process) -> Process {
    let files = process.open_files.zip(process.open_files_limit).unwrap_or_default();
    Process {
        memory: process.memory_bytes.map(Bytes),
        fill_memory: Bytes(process.fill_memory_bytes),
        files: process.open_files.map(Count),
        files_limit: process.open_files_limit.map(Count),
        files_share: Share { part: files.0, whole: files.1 },
        load: process.cpu_load.map(|load| format!("{load:.2}")),
    }
}

/// The last problems, the newest first.
pub(super) fn events(recent: Vec<events::Event>, now: u64) -> Vec<Event> {
    let event = |event: events::Event| Event {
        tone: match event.level {
            events::Level::Warning => Tone::Warning,
            events::Level::Error => Tone::Bad,
        },
        last: Moment { at: event.at_ms / 1000, now },
        count: Count(event.count),
        message: Shown::new(event.message),
        fields: event
            .fields
            .into_iter()
            .map(|field| (field.name, Shown::new(field.value)))
            .collect(),
        remedy: event.remedy.map(Shown::new),
    };
    recent.into_iter().rev().take(MOST_EVENTS).map(event).collect()
}

/// One line of the list.
pub(super) fn repository(info: &RepositoryInfo, now: u64) -> Repository {
    Repository {
        upstream: Shown::new(&info.upstream),
        name: Shown::new(&info.repository),
        tags: Count(info.tags),
        objects: Some(Count(info.objects)),
        bytes: Some(Bytes(info.bytes)),
        is_more: info.at_least,
        used: info.used_at.map(|at| Moment { at, now }),
    }
}

/// One of a repository's tags.
pub(super) fn tag(info: TagInfo, now: u64) -> Tag {
    let TagInfo { image, freshness } = info;
    let moment = |at| Moment { at, now };
    let platforms = image.platforms.into_iter().map(|platform| Platform {
        name: Shown::new(platform.platform.as_deref().unwrap_or("any platform")),
        state: kept(platform.state),
        bytes: Bytes(platform.bytes),
    });
    Tag {
        name: Shown::new(image.tag),
        reference: image.reference,
        digest: Digest(image.digest.to_string()),
        state: kept(image.state),
        bytes: Bytes(image.bytes),
        missing: Count(image.missing),
        platforms: platforms.collect(),
        used: image.used_at.map(moment),
        freshness: match freshness.state {
            FreshnessState::Fresh if freshness.immutable => Freshness::Immutable,
            FreshnessState::Fresh => Freshness::Fresh(freshness.fresh_for.map(Lasting)),
            FreshnessState::Due => Freshness::Due,
            FreshnessState::Stale => Freshness::Stale,
            FreshnessState::Gone => Freshness::Gone,
            FreshnessState::Unknown => Freshness::Unknown,
        },
        checked: image.checked_at.map(moment),
        moved: moment(image.moved_at),
        is_pinned: image.pinned,
    }
}

fn kept(state: State) -> Kept {
    match state {
        State::Complete => Kept::Complete,
        State::Partial => Kept::Partial,
        State::Absent => Kept::Absent,
    }
}

fn saved_share(spent: u64, saved: u64) -> Share {
    Share { part: saved, whole: saved.saturating_add(spent) }
}

/// A fraction, which is not all unless it is.
fn ratio(fraction: Option<f64>) -> Share {
    let Some(fraction) = fraction else { return Share::default() };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at most 1")]
    let part = (fraction.clamp(0.0, 1.0) * WHOLE as f64).round() as u64;
    let is_all = fraction >= 1.0;
    Share { part: if is_all { WHOLE } else { part.min(WHOLE - 1) }, whole: WHOLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(listen: &str, host: &str) -> Option<String> {
        let listen = [Listen::plain(listen.parse().unwrap())];
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        newcomer(&listen, &headers).map(|it| it.address.to_string())
    }

    #[test]
    fn a_newcomer_is_told_an_address_that_he_can_reach() {
        for (listen, host, expected) in [
            ("0.0.0.0:5000", "mirror.example.com:5001", "http://mirror.example.com:5000"),
            ("0.0.0.0:5000", "mirror.example.com", "http://mirror.example.com:5000"),
            ("[::]:5000", "[2001:db8::1]:5001", "http://[2001:db8::1]:5000"),
            ("10.0.0.7:80", "localhost:5001", "http://10.0.0.7:80"),
            ("0.0.0.0:5000", "", "http://127.0.0.1:5000"),
        ] {
            assert_eq!(address(listen, host).as_deref(), Some(expected));
        }
        assert_eq!(address("unix:/run/roadstead.sock", "localhost"), None);
    }

    #[test]
    fn a_ratio_is_all_only_if_it_is() {
        let said = |fraction| ratio(fraction).to_string().replace('\u{a0}', " ");
        assert_eq!(said(None), "–");
        assert_eq!(said(Some(0.999_999_99)), "99.9 %");
        assert_eq!(said(Some(1.0)), "100 %");
        assert_eq!(said(Some(f64::NAN)), "0.0 %");
    }

    #[test]
    fn few_pulls_are_a_warning_and_none_are_bad() {
        assert_eq!(left(11, 100).tone, None);
        assert_eq!(left(10, 100).tone, Some(Tone::Warning));
        assert_eq!(left(0, 100).tone, Some(Tone::Bad));
    }
}
