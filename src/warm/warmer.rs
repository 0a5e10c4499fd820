//! The jobs of a server: begun by request or by the timetable, watched, ended.
//!
//! What is asked for is carried out by [`Warmer::run`], which owns all tasks;
//! when it is dropped they end. Jobs are forgotten some time after their end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    BadRequest, Means, image,
    job::Job,
    order::Order,
    report::{BudgetLeft, JobReport, JobState, JobSummary, WarmOverview, WarmRequest},
    schedule::Schedule,
};
use crate::{
    blob::Blobs,
    config::{self, Config},
    inventory::Names,
    manifest::Manifests,
    permits::resize,
    upstream::{Roster, Upstream},
};

/// Jobs under way that were asked for; scheduled ones come besides.
const MOST_RUNNING: usize = 8;

/// Ended jobs that are remembered.
const REMEMBERED: usize = 16;

/// Layers on their way, of all jobs together; the rest of `fill.max_active` is for clients.
const PLACES: usize = 32;

/// Warms.
#[derive(Debug)]
pub struct Warmer {
    means: Arc<Means>,
    plan: Mutex<Arc<Plan>>,
    /// Wakes who keeps the timetable: there is another plan.
    replanned: Notify,
    /// The newest first.
    jobs: Mutex<VecDeque<Arc<Job>>>,
    begun: mpsc::UnboundedSender<Arc<Job>>,
    /// Taken by who carries jobs out.
    to_run: Mutex<Option<mpsc::UnboundedReceiver<Arc<Job>>>>,
}

/// What of the configuration concerns warming.
#[derive(Debug)]
pub struct Plan {
    names: Names,
    schedules: Vec<Arc<Schedule>>,
    /// For layers on their way.
    places: usize,
}

/// Too much is asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_RUNNING} jobs run already; wait for the end of one, or cancel one")]
pub struct Busy;

/// Why a job is not begun.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is asked for wrongly.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// There are too many.
    #[error(transparent)]
    Busy(#[from] Busy),
}

// === impl Warmer ===

impl Warmer {
    /// Warms what `config` schedules, and what it is asked for. The error names what of `warm` in
    /// the configuration can't be.
    pub fn new(
        config: &Config,
        upstreams: Arc<Roster>,
        manifests: Arc<Manifests>,
        blobs: Arc<Blobs>,
    ) -> Result<Self, String> {
        let (begun, to_run) = mpsc::unbounded_channel();
        let plan = Plan::new(config, None)?;
        let places = Arc::new(Semaphore::new(plan.places));
        Ok(Self {
            means: Arc::new(Means { manifests, blobs, upstreams, places }),
            plan: Mutex::new(Arc::new(plan)),
            replanned: Notify::new(),
            jobs: Mutex::default(),
            begun,
            to_run: Mutex::new(Some(to_run)),
        })
    }

    /// What another configuration has warmed. The error changes nothing.
    pub fn prepare(&self, config: &Config) -> Result<Plan, String> {
        Plan::new(config, Some(&self.plan()))
    }

    /// Follows another plan. Jobs that run go on, and a schedule that is in both keeps its time;
    /// layers on their way that are more than there are places for now end first. Within a runtime.
    pub fn follow(&self, plan: Plan) {
        let now = plan.places;
        let before = {
            let mut place = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, Arc::new(plan))
        };
        resize(&self.means.places, before.places, now);
        self.replanned.notify_one();
    }

    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What of `warm` in the configuration can't be.
    pub fn check(config: &Config) -> Result<(), String> {
        Plan::new(config, None).map(drop)
    }

    /// Begins a job.
    pub fn start(&self, request: WarmRequest) -> Result<JobReport, Refused> {
        let order = Order::new(request, &self.plan().names)?;
        let running = self.jobs().iter().filter(|job| job.is_running()).count();
        if running >= MOST_RUNNING {
            return Err(Busy.into());
        }
        Ok(self.report_of(&self.begin(order, None)))
    }

    /// Begins a job of the timetable.
    pub(super) fn start_scheduled(
        &self,
        request: WarmRequest,
        key: &str,
    ) -> Result<Arc<Job>, BadRequest> {
        Ok(self.begin(Order::new(request, &self.plan().names)?, Some(key.to_owned())))
    }

    fn begin(&self, order: Order, schedule: Option<String>) -> Arc<Job> {
        // So that after a restart nobody takes another's job for the own one.
        let id = format!("{:012x}", fastrand::u64(..1 << 48));
        let job = Arc::new(Job::new(id, order, schedule, now()));
        let mut jobs = self.jobs();
        jobs.push_front(Arc::clone(&job));
        let mut ended = 0;
        jobs.retain(|job| {
            ended += usize::from(!job.is_running());
            job.is_running() || ended <= REMEMBERED
        });
        // Nobody receives once the server stops; the job then ends with the others.
        let _ = self.begun.send(Arc::clone(&job));
        job
    }

    /// A job, if it is known.
    pub fn report(&self, id: &str) -> Option<JobReport> {
        self.find(id).map(|job| self.report_of(&job))
    }

    /// Has a job end. What is on its way is kept, as if a client had left.
    pub fn cancel(&self, id: &str) -> Option<JobReport> {
        let job = self.find(id)?;
        job.cancel();
        Some(self.report_of(&job))
    }

    /// All jobs and schedules.
    pub fn overview(&self) -> WarmOverview {
        let jobs = self.jobs().clone();
        let summary = |job: &Arc<Job>| {
            let mut summary = job.summary();
            self.add_budgets(job, &mut summary);
            summary
        };
        WarmOverview {
            jobs: jobs.iter().map(summary).collect(),
            schedules: self.plan().schedules.iter().map(|schedule| schedule.report()).collect(),
        }
    }

    fn report_of(&self, job: &Arc<Job>) -> JobReport {
        let mut report = job.report();
        self.add_budgets(job, &mut report.summary);
        report
    }

    fn add_budgets(&self, job: &Job, summary: &mut JobSummary) {
        let is_concerned = |upstream: &&Arc<Upstream>| {
            let mut names = job.order.images.iter().filter_map(|image| image.name.as_ref().ok());
            names.any(|name| name.upstream == *upstream.name())
        };
        let upstreams = self.means.upstreams.all();
        let concerned = upstreams.iter().filter(is_concerned);
        summary.budgets = concerned
            .map(|upstream| {
                let outlook = upstream.outlook();
                BudgetLeft {
                    upstream: upstream.name().to_string(),
                    remaining: outlook.left.map(|(left, _)| left),
                    limit: outlook.left.map(|(_, limit)| limit),
                    is_sparing: outlook.is_sparing,
                }
            })
            .collect();
    }

    fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.jobs().iter().find(|job| job.id == id).cloned()
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Warmer: at work ===

impl Warmer {
    /// Carries jobs out, and keeps the timetable, for as long as it is polled. To be called once.
    pub async fn run(self: &Arc<Self>) {
        let to_run = self.to_run.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut to_run) = to_run else { return };
        let mut jobs = JoinSet::new();
        loop {
            let mut timetable = JoinSet::new();
            for schedule in &self.plan().schedules {
                let (warmer, schedule) = (Arc::clone(self), Arc::clone(schedule));
                timetable.spawn(async move { schedule.keep(&warmer).await });
            }
            loop {
                tokio::select! {
                    job = to_run.recv() => match job {
                        Some(job) => drop(jobs.spawn(carry_out(Arc::clone(&self.means), job))),
                        None => return,
                    },
                    Some(_) = jobs.join_next(), if !jobs.is_empty() => {}
                    () = self.replanned.notified() => break,
                }
            }
            // What kept the time of the plan before ends first, so that no run begins twice.
            timetable.shutdown().await;
        }
    }

    /// The server stops: what is still under way has ended.
    pub fn stop(&self) {
        for job in self.jobs().iter().filter(|job| job.is_running()) {
            job.cancel();
            job.end(true, now());
            tell(job);
        }
    }
}

// === impl Plan ===

impl Plan {
    fn new(config: &Config, before: Option<&Self>) -> Result<Self, String> {
        let names = Names::new(&config.upstreams);
        // Each goes on as one: of two that are alike, the first is the first one's.
        let mut known: Vec<_> = before.iter().flat_map(|plan| &plan.schedules).collect();
        let schedule = |(index, warm): (usize, &config::Warm)| {
            let schedule = Schedule::new(index, warm.clone(), &names)?;
            let same = known.iter().position(|known| known.is_like(&schedule));
            Ok::<_, String>(Arc::new(match same.map(|place| known.remove(place)) {
                Some(before) => schedule.succeeding(before),
                None => schedule,
            }))
        };
        let schedules = config.warm.iter().enumerate().map(schedule).collect::<Result<_, _>>()?;
        let places = PLACES.min(config.fill.max_active.div_ceil(2));
        Ok(Self { names, schedules, places })
    }
}

async fn carry_out(means: Arc<Means>, job: Arc<Job>) {
    tracing::info!(
        job = %job.id, schedule = job.schedule, images = job.order.images.len(),
        platforms = %job.order.platforms, dry_run = job.order.dry_run, "warming"
    );
    let mut images = JoinSet::new();
    let work = async {
        for index in 0..job.order.images.len() {
            if images.len() >= job.order.parallel {
                let _ = images.join_next().await;
            }
            images.spawn(image::warm(Arc::clone(&means), Arc::clone(&job), index));
        }
        while images.join_next().await.is_some() {}
    };
    let is_early = tokio::select! {
        () = work => false,
        () = job.cancelled() => true,
    };
    images.shutdown().await;
    if !is_early {
        warn_of_size(&means, &job);
    }
    job.end(is_early, now());
    tell(&job);
}

/// Images that don't fit into the store together drive each other out.
fn warn_of_size(means: &Means, job: &Job) {
    let totals = job.summary().totals;
    if let Some(problem) = means.blobs.cannot_keep(totals.bytes) {
        job.note(format!("not all of it can be kept at the same time: {problem}"));
    }
}

/// The log's line about a job that has ended.
fn tell(job: &Job) {
    let summary = job.summary();
    let totals = summary.totals;
    let (id, schedule) = (&summary.id, &summary.schedule);
    match summary.state {
        JobState::Failed => {
            let report = job.report();
            let failed = report.images.iter().find_map(|image| {
                let error = image.error.as_ref()?;
                Some(format!("{}: {error}", image.reference))
            });
            tracing::warn!(
                job = %id, schedule, images = totals.images, failed = totals.images_failed,
                spent = totals.spent, fetched = totals.fetched, first = failed,
                remedy = "GET /api/v1/warm/ID tells of each image; warm again once it is set right",
                "warming ended, and images are missing"
            );
        }
        _ => tracing::info!(
            job = %id, schedule, state = ?summary.state, images = totals.images,
            done = totals.images_done, spent = totals.spent, fetched = totals.fetched,
            "warming ended"
        ),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(images: &str, before: Option<&Plan>) -> Result<Plan, String> {
        let text = format!(
            "warm: [{{ every: 1h, images: [{images}] }}, {{ at: \"03:00\", images: [b] }}]"
        );
        Plan::new(&Config::parse(&text, "test").unwrap(), before)
    }

    #[test]
    fn a_schedule_that_stays_goes_on_and_a_wrong_one_changes_nothing() {
        let before = plan("a", None).unwrap();
        let after = plan("a, c", Some(&before)).unwrap();
        assert!(!before.schedules[0].goes_on_as(&after.schedules[0]));
        assert!(before.schedules[1].goes_on_as(&after.schedules[1]));
        let error = plan("quay.io/a/b", Some(&before)).unwrap_err();
        assert!(error.starts_with("warm[0].images: quay.io/a/b: "), "{error}");
    }

    #[test]
    fn a_schedule_goes_on_wherever_it_stands_now() {
        let plan = |warm: &str, before: Option<&Plan>| {
            let config = Config::parse(&format!("warm: [{warm}]"), "test").unwrap();
            Plan::new(&config, before).unwrap()
        };
        let [a, b, new] = ["a", "b", "c"].map(|it| format!("{{ every: 1h, images: [{it}] }}"));
        let before = plan(&[&*a, &*a, &*b].join(","), None);
        let after = plan(&[&*new, &*b, &*a, &*a].join(","), Some(&before));
        let places = after
            .schedules
            .iter()
            .map(|schedule| before.schedules.iter().position(|before| before.goes_on_as(schedule)));
        assert_eq!(places.collect::<Vec<_>>(), [None, Some(2), Some(0), Some(1)]);
        assert_eq!(after.schedules[2].report().key, "warm[2]");
    }
}
