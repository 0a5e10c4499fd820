//! Looks at the totals once a second: what of them is new goes into the history.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval_at, timeout},
};

use super::{
    Account, Budget, Disk, HitRatio, MOST_FILLS, Process, Status, Traffic,
    forecast::{Left, Spending},
    process, top, totals,
};
use crate::{
    blob::{Blobs, FillReport},
    history::{Counts, History, Sample, Series, Span},
    metrics,
    store::{DiskReport, FileSystem, Store},
    traffic,
    upstream::{BudgetReport, Roster, Upstream},
};

/// How often totals are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks between two writings of the history.
const LOOKS_PER_SAVE: u32 = 10;

/// Looks that traffic is averaged over.
const LOOKS_REMEMBERED: usize = 10;

/// How long the end of the process waits for the history to be written.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// Nothing is averaged over less: a moment's work is no rate.
const LEAST_SECONDS: f64 = 0.1;

/// What is looked at.
#[derive(Debug)]
pub struct Sources {
    /// True from when the server accepts clients until it begins to stop.
    pub ready: Arc<AtomicBool>,
    /// The registries, in the order of the configuration.
    pub upstreams: Arc<Roster>,
    /// The store.
    pub store: Arc<Store>,
    /// The blobs, for their fills.
    pub blobs: Arc<Blobs>,
    /// Who asks for what.
    pub traffic: Arc<traffic::Traffic>,
}

/// Whoever looks.
#[derive(Debug)]
pub struct Monitor {
    sources: Sources,
    history: History,
    started: Instant,
    started_at: SystemTime,
    /// As of the last save: whoever asks must not wait for a disk that hangs.
    file_system: Mutex<Option<FileSystem>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last looks, the oldest first. Never empty.
    looks: VecDeque<Look>,
    /// By upstream and account.
    spending: HashMap<(String, String), Spent>,
}

/// The totals at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    totals: Counts,
    cpu: Duration,
}

/// What an account has spent, and how fast.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    pulls: u64,
    spending: Spending,
}

// === impl Monitor: looking ===

impl Monitor {
    /// Looks at `sources`; the history goes on where the process before left it. Blocks.
    pub fn new(sources: Sources) -> Arc<Self> {
        let place = sources.store.place_for_history(History::file_bytes());
        let (started, started_at) = (Instant::now(), SystemTime::now());
        let first = Look::now(started, &sources);
        let state = State { looks: VecDeque::from([first]), spending: HashMap::new() };
        let history = History::open(place, started_at);
        let file_system = Mutex::new(sources.store.file_system());
        let state = Mutex::new(state);
        Arc::new(Self { sources, history, started, started_at, file_system, state })
    }

    /// Looks, for ever.
    pub async fn run(self: &Arc<Self>) {
        // The first one after a while, so that what it sees has taken one.
        let first = tokio::time::Instant::now() + LOOK_EVERY;
        let mut looks = interval_at(first, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saving: Option<JoinHandle<()>> = None;
        let mut count = 0_u32;
        loop {
            looks.tick().await;
            self.look(Instant::now(), SystemTime::now());
            // A disk that hangs must not have one task after the other wait for it.
            let is_free = saving.as_ref().is_none_or(JoinHandle::is_finished);
            if count.is_multiple_of(LOOKS_PER_SAVE) && is_free {
                let own = Arc::clone(self);
                saving = Some(tokio::task::spawn_blocking(move || own.save()));
            }
            count = count.wrapping_add(1);
        }
    }

    /// Writes what is new, at the end of the process; a disk that hangs is not waited for.
    pub async fn finish(self: &Arc<Self>) {
        self.look(Instant::now(), SystemTime::now());
        let own = Arc::clone(self);
        let saving = tokio::task::spawn_blocking(move || own.save());
        if timeout(LAST_SAVE, saving).await.is_err() {
            tracing::debug!("the last seconds of the history were not written in time");
        }
    }

    fn look(&self, at: Instant, now: SystemTime) {
        let look = Look::now(at, &self.sources);
        let mut state = self.lock();
        let before = state.looks.back().copied().unwrap_or(look);
        let elapsed = at.saturating_duration_since(before.at);
        state.looks.push_back(look);
        while state.looks.len() > LOOKS_REMEMBERED {
            state.looks.pop_front();
        }
        self.note_spending(&mut state, elapsed, now);
        drop(state);
        let sample = Sample {
            millis: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            counts: look.totals.since(&before.totals),
            left: totals::left(&self.sources.upstreams.all()),
        };
        self.history.add(&sample, now);
        if metrics::FILLS_ACTIVE.get() > 0 {
            // So that their rates are of the last seconds, whoever looks at them when.
            self.sources.blobs.fills();
        }
    }

    fn note_spending(&self, state: &mut State, elapsed: Duration, now: SystemTime) {
        for upstream in self.sources.upstreams.all().iter() {
            for account in upstream.accounts(now) {
                let key = (upstream.name().to_string(), account.account);
                let known = state.spending.entry(key).or_default();
                let pulls = account.spent.saturating_sub(known.pulls);
                known.spending.add(pulls, elapsed.as_secs_f64());
                known.pulls = account.spent;
            }
        }
    }

    fn save(&self) {
        let file_system = self.sources.store.file_system();
        *self.file_system.lock().unwrap_or_else(PoisonError::into_inner) = file_system;
        // Where another process has taken over, the file is its own.
        if self.sources.store.is_ours() {
            self.history.save();
        } else {
            self.history.let_go();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Monitor: telling ===

impl Monitor {
    /// How the server is now. Waits for no disk.
    pub fn status(&self) -> Status {
        let Sources { traffic, store, ready, .. } = &self.sources;
        let upstreams = &*self.sources.upstreams.all();
        let (at, now) = (Instant::now(), SystemTime::now());
        let look = Look::now(at, &self.sources);
        let since = self.lock().looks.front().copied().unwrap_or(look);
        let mut fills = self.fills();
        let fills_active = fills.len();
        fills.truncate(MOST_FILLS);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            now: seconds(now),
            started_at: seconds(self.started_at),
            uptime_seconds: at.saturating_duration_since(self.started).as_secs(),
            ready: ready.load(Ordering::Acquire),
            traffic: look.traffic(&since),
            totals: look.totals,
            hit_ratio: self.hit_ratio(&look.totals, now),
            budgets: upstreams.iter().map(|upstream| self.budget(upstream, now)).collect(),
            upstreams: upstreams.iter().map(|upstream| upstream.report()).collect(),
            repositories: top::repositories(traffic, upstreams),
            clients: top::clients(traffic, upstreams),
            fills,
            fills_active,
            disk: self.disk(store.disk()),
            process: Process { cpu_load: look.cpu_load(&since), ..process::process() },
        }
    }

    /// A span's past, up to now.
    pub fn history(&self, span: Span) -> Series {
        self.history.series(span, SystemTime::now())
    }

    /// The fills under way, the oldest first.
    pub fn fills(&self) -> Vec<FillReport> {
        self.sources.blobs.fills()
    }

    fn disk(&self, disk: DiskReport) -> Disk {
        let file_system = *self.file_system.lock().unwrap_or_else(PoisonError::into_inner);
        Disk {
            directory: disk.directory,
            capacity_bytes: disk.capacity,
            used_bytes: disk.used,
            published_bytes: disk.published,
            staged_bytes: disk.staged,
            index_bytes: disk.index,
            quarantine_bytes: disk.quarantine,
            history_bytes: disk.history,
            free_bytes: file_system.map(|system| system.free),
            file_system_bytes: file_system.map(|system| system.size),
            trouble: disk.trouble,
        }
    }

    fn hit_ratio(&self, totals: &Counts, now: SystemTime) -> HitRatio {
        let hour = self.history.series(Span::Hour, now).sum();
        HitRatio {
            requests: totals.hit_ratio(),
            bytes: totals.byte_hit_ratio(),
            requests_last_hour: hour.hit_ratio(),
            bytes_last_hour: hour.byte_hit_ratio(),
        }
    }

    fn budget(&self, upstream: &Upstream, now: SystemTime) -> Budget {
        let BudgetReport {
            upstream, remaining, limit, reserve, is_sparing, total, accounts, ..
        } = upstream.budget_listing(0);
        let state = self.lock();
        let account = |report: crate::upstream::AccountReport| {
            let left = Left {
                remaining: report.remaining,
                resets_at: report.resets_at,
                window_seconds: report.window_seconds,
            };
            let known = state.spending.get(&(upstream.clone(), report.account.clone()));
            let spending = known.map(|known| known.spending).unwrap_or_default();
            Account { forecast: spending.forecast(&left, seconds(now)), report }
        };
        let accounts = accounts.into_iter().map(account).collect();
        let (spent, saved) = (total.spent, total.saved);
        Budget { upstream, remaining, limit, reserve, is_sparing, spent, saved, accounts }
    }
}

// === impl Look ===

impl Look {
    fn now(at: Instant, sources: &Sources) -> Self {
        Self { at, totals: totals::totals(sources.upstreams.pulls()), cpu: process::cpu_time() }
    }

    fn seconds_since(&self, before: &Self) -> Option<f64> {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        (seconds >= LEAST_SECONDS).then_some(seconds)
    }

    fn traffic(&self, before: &Self) -> Traffic {
        let connections = u64::try_from(metrics::CONNECTIONS.get()).unwrap_or_default();
        let Some(seconds) = self.seconds_since(before) else {
            return Traffic { connections, ..Traffic::default() };
        };
        let counts = self.totals.since(&before.totals);
        let per_second = |count: u64| count as f64 / seconds;
        Traffic {
            over_seconds: seconds,
            requests_per_second: per_second(counts.requests),
            bytes_per_second: per_second(counts.bytes),
            upstream_bytes_per_second: per_second(counts.upstream_bytes),
            connections,
        }
    }

    fn cpu_load(&self, before: &Self) -> Option<f64> {
        let seconds = self.seconds_since(before)?;
        Some(self.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
