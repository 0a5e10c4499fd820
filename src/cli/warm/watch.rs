//! A job as it is watched: asked for again and again, shown, and on Ctrl-C ended.

use std::{
    io::{IsTerminal, stderr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{bars::Bars, plain::Plain, print, rate::Rate};
use crate::{
    cli::cache::{access::Trouble, remote::Remote},
    warm::{JobReport, JobState},
};

/// How often the job is looked at, unless a look takes long.
const STEP: Duration = Duration::from_millis(200);

/// A look takes no more than this part of the time.
const PART: u32 = 10;

/// How often a server may fail to answer in a row.
const FAILURES: u32 = 5;

/// How long a job may take to end after Ctrl-C.
const LEAVE: Duration = Duration::from_secs(10);

/// What became of it.
pub(super) struct Watched {
    pub(super) job: JobReport,
    pub(super) is_interrupted: bool,
}

/// Where progress is shown.
enum Shown {
    Bars(Box<Bars>),
    Plain(Plain),
}

/// Watches a job to its end.
pub(super) fn watch(
    remote: &Remote,
    mut job: JobReport,
    interrupted: &AtomicBool,
    is_json: bool,
) -> Result<Watched, Trouble> {
    let path = format!("warm/{}", job.summary.id);
    let mut shown = Shown::new();
    let mut told = vec![is_json || job.summary.dry_run; job.images.len()];
    let (mut rate, mut failures, mut left_at) = (Rate::default(), 0, None::<Instant>);
    loop {
        rate.look(&job, Instant::now());
        shown.show(&job, &rate, &mut told)?;
        if job.summary.state != JobState::Running || left_at.is_some_and(|at| at.elapsed() > LEAVE)
        {
            break;
        }
        let mut pause = STEP;
        let asked = Instant::now();
        let is_leaving = interrupted.load(Ordering::Acquire) && left_at.is_none();
        let answer = if is_leaving {
            left_at = Some(Instant::now());
            remote.delete(&path)
        } else {
            remote.get(&path, &[])
        };
        match answer {
            Ok(next) => (job, failures) = (next, 0),
            Err(trouble) => {
                failures += 1;
                if failures == FAILURES || left_at.is_some() {
                    shown.end();
                    return Err(gone(&trouble));
                }
                pause *= 2;
            }
        }
        sleep(pause.max(asked.elapsed() * PART), interrupted, left_at.is_some());
    }
    shown.end();
    Ok(Watched { job, is_interrupted: left_at.is_some() })
}

/// Sleeps, unless there is somebody to take leave of.
fn sleep(pause: Duration, interrupted: &AtomicBool, has_left: bool) {
    let end = Instant::now() + pause.min(Duration::from_secs(5));
    let step = Duration::from_millis(20);
    while Instant::now() < end && (has_left || !interrupted.load(Ordering::Acquire)) {
        thread::sleep(step);
    }
}

fn gone(trouble: &Trouble) -> Trouble {
    Trouble::Failed(format!(
        "the server does not tell of the job any more ({trouble}); what was fetched is kept: run \
         this again, and it goes on from there"
    ))
}

// === impl Shown ===

impl Shown {
    fn new() -> Self {
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        match stderr().is_terminal() && !is_dumb {
            true => Self::Bars(Box::new(Bars::new())),
            false => Self::Plain(Plain::new()),
        }
    }

    /// Shows how far it is, and tells of the images that have ended since.
    fn show(&mut self, job: &JobReport, rate: &Rate, told: &mut [bool]) -> Result<(), Trouble> {
        let mut lines = Vec::new();
        for (image, told) in job.images.iter().zip(told) {
            if image.is_over() && !*told {
                *told = true;
                lines.push(image);
            }
        }
        let tell = || lines.iter().try_for_each(|image| print::image(image));
        match self {
            Self::Bars(bars) => {
                if !lines.is_empty() {
                    bars.aside(tell)?;
                }
                bars.show(job, rate);
            }
            Self::Plain(plain) => {
                tell()?;
                plain.show(&job.summary);
            }
        }
        Ok(())
    }

    fn end(&self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}
