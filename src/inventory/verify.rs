//! Verification: every stored byte read again and compared with its digest.
//!
//! One job at a time, in a thread of its own that ends with the process, when it
//! is cancelled, or when it has seen everything. Where it is can be asked at any
//! moment; what it found is kept until the next one starts.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    Error, Finding, Inventory, VerifyState, VerifyStatus,
    catalogue::{Catalogue, all_objects},
    report::Amount,
};
use crate::{
    protocol::Digest,
    store::{self, Verdict},
};

/// Findings that are listed; further ones are only counted.
const MOST_FINDINGS: usize = 1000;

/// One verification.
#[derive(Debug)]
pub(super) struct Job {
    status: Mutex<VerifyStatus>,
    is_cancelled: AtomicBool,
}

/// A job whose thread ends by any other way than its own has failed.
struct Ending(Arc<Job>);

// === impl Inventory ===

impl Inventory {
    /// Starts the job; with `repair`, bad objects are set aside and unknown good files recorded.
    /// Blocks for a moment.
    pub fn start_verify(self: &Arc<Self>, repair: bool) -> Result<VerifyStatus, Error> {
        let mut slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|job| job.is_running()) {
            return Err(Error::Running);
        }
        let usage = self.catalogue.usage()?;
        let total = Amount { objects: usage.objects, bytes: usage.published };
        let job = Arc::new(Job::new(repair, total));
        let (inventory, ending) = (Arc::clone(self), Ending(Arc::clone(&job)));
        let work = move || ending.0.run(&*inventory.catalogue);
        let thread = thread::Builder::new().name("verify".to_owned());
        thread.spawn(work).map_err(store::Error::from)?;
        let status = job.status().clone();
        *slot = Some(job);
        Ok(status)
    }

    /// Where the job is, or how the last one ended.
    pub fn verify_status(&self) -> VerifyStatus {
        let slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|job| job.status().clone()).unwrap_or_default()
    }

    /// Has the job end before its next object; what it has done stays done.
    pub fn cancel_verify(&self) -> VerifyStatus {
        let slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = &*slot {
            job.is_cancelled.store(true, Ordering::Release);
        }
        drop(slot);
        self.verify_status()
    }
}

// === impl Job ===

impl Job {
    fn new(repair: bool, total: Amount) -> Self {
        let state = VerifyState::Running;
        let status = VerifyStatus { state, repair, total, ..VerifyStatus::default() };
        Self { status: Mutex::new(status), is_cancelled: AtomicBool::new(false) }
    }

    fn run(&self, catalogue: &dyn Catalogue) {
        let ended = self.look_at_all(catalogue);
        let mut status = self.status();
        match ended {
            Ok(state) => status.state = state,
            Err(error) => {
                status.state = VerifyState::Failed;
                status.error = Some(error.to_string());
            }
        }
        let (state, bad) = (status.state, status.bad);
        let (unrecorded, repaired) = (status.unrecorded, status.repaired);
        tracing::info!(?state, bad, unrecorded, repaired, "verification ended");
    }

    fn look_at_all(&self, catalogue: &dyn Catalogue) -> Result<VerifyState, store::Error> {
        let repair = self.status().repair;
        for object in all_objects(catalogue) {
            let object = object?;
            if self.is_cancelled.load(Ordering::Acquire) {
                return Ok(VerifyState::Cancelled);
            }
            let verdict = catalogue.verify(&object.digest, repair);
            self.note(object.digest, object.size, verdict);
        }
        for digest in catalogue.unrecorded()? {
            if self.is_cancelled.load(Ordering::Acquire) {
                return Ok(VerifyState::Cancelled);
            }
            let adopted = repair.then(|| catalogue.adopt(&digest));
            self.note_unrecorded(digest, adopted);
        }
        Ok(VerifyState::Done)
    }

    fn note(&self, digest: Digest, bytes: u64, verdict: Result<Verdict, store::Error>) {
        let mut status = self.status();
        status.done.add(bytes);
        let repair = status.repair;
        match verdict {
            Ok(Verdict::Good { .. }) => status.good += 1,
            Ok(Verdict::Gone) => status.gone += 1,
            Ok(Verdict::Bad { problem }) => {
                status.bad += 1;
                status.found(Finding { digest, problem, repaired: repair });
            }
            // One file that can't be read says nothing about the others.
            Err(error) => {
                status.bad += 1;
                status.found(Finding { digest, problem: error.to_string(), repaired: false });
            }
        }
    }

    fn note_unrecorded(&self, digest: Digest, adopted: Option<Result<Verdict, store::Error>>) {
        let (problem, repaired) = match adopted {
            Some(Ok(Verdict::Gone)) => return,
            None => ("the index does not know this file".to_owned(), false),
            Some(Ok(Verdict::Good { .. })) => {
                ("the index did not know this file; it does now".to_owned(), true)
            }
            Some(Ok(Verdict::Bad { problem })) => {
                (format!("the index did not know this file; {problem}"), true)
            }
            Some(Err(error)) => (error.to_string(), false),
        };
        let mut status = self.status();
        status.unrecorded += 1;
        status.found(Finding { digest, problem, repaired });
    }

    fn is_running(&self) -> bool {
        self.status().state == VerifyState::Running
    }

    fn status(&self) -> MutexGuard<'_, VerifyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VerifyStatus {
    fn found(&mut self, finding: Finding) {
        self.repaired += u64::from(finding.repaired);
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut status = self.0.status();
        if status.state == VerifyState::Running {
            status.state = VerifyState::Failed;
            status.error = Some("it ended halfway; the log says why".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{Fake, Shape};

    fn verified(fake: &Fake, repair: bool) -> VerifyStatus {
        let job = Job::new(repair, Amount::default());
        job.run(fake);
        let status = job.status().clone();
        assert_eq!(status.state, VerifyState::Done);
        status
    }

    fn stage() -> Fake {
        let fake = Fake::default();
        fake.image("docker.io", "library/a", "1", &Shape::new(&["base", "one"]));
        fake.rot(b"one");
        fake.unrecorded(b"a file of an earlier life", true);
        fake.unrecorded(b"a bad file", false);
        fake
    }

    #[test]
    fn what_is_wrong_is_found_and_told() {
        let fake = stage();
        let status = verified(&fake, false);
        assert_eq!((status.good, status.bad, status.unrecorded, status.repaired), (3, 1, 2, 0));
        assert_eq!((status.done.objects, status.findings.len()), (4, 3));
        assert!(!status.is_clean());
        assert_eq!(verified(&fake, false), status, "nothing was touched");
    }

    #[test]
    fn repair_sets_bad_ones_aside_and_adopts_good_ones() {
        let fake = stage();
        let status = verified(&fake, true);
        assert_eq!((status.bad, status.unrecorded, status.repaired), (1, 2, 3));
        assert!(status.is_clean());
        assert!(!fake.has(b"one") && fake.has(b"a file of an earlier life"));
        let again = verified(&fake, false);
        assert_eq!((again.good, again.bad, again.unrecorded), (4, 0, 0));
    }

    #[test]
    fn a_cancelled_job_ends_before_its_next_object() {
        let fake = stage();
        let job = Job::new(false, Amount::default());
        job.is_cancelled.store(true, Ordering::Release);
        job.run(&fake);
        let status = job.status().clone();
        assert_eq!((status.state, status.done.objects), (VerifyState::Cancelled, 0));
    }

    #[test]
    fn a_job_that_breaks_off_has_failed() {
        let job = Arc::new(Job::new(false, Amount::default()));
        drop(Ending(Arc::clone(&job)));
        assert_eq!(job.status().state, VerifyState::Failed);
    }
}
