//! Answers that say no, remembered for a moment.
//!
//! cosign asks four times for signatures that most images don't have. A no is
//! kept per repository, reference and caller, and for [`KEEP`] at the most.
//!
//! Beside them stands what may have been deleted: a no that nobody has heard.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use moka::sync::Cache;

use crate::{
    protocol::{Digest, Reference, Repository},
    store::LinkKey,
    upstream,
};

/// DESIGN: a 404 is remembered for at most 10 s.
const KEEP: Duration = Duration::from_secs(10);

/// Answers kept, and digests in doubt.
const ENTRIES: u64 = 10_000;

/// Nobody asked for it so long: then it is as it would be, had it been deleted past us.
const DOUBTED_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// What was asked, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) upstream: std::sync::Arc<str>,
    /// Of the upstream: another configuration may bring another answer.
    pub(super) epoch: u64,
    pub(super) repository: Repository,
    pub(super) reference: Reference,
    pub(super) identity: Option<Digest>,
}

/// The answers.
#[derive(Debug)]
pub(super) struct Negatives {
    answers: Cache<Question, upstream::Error>,
    doubted: Cache<LinkKey, ()>,
    /// Never was anything doubted; then a hit does not look. Once something was, all look for good:
    /// it happens to few.
    is_free_of_doubt: AtomicBool,
}

// === impl Negatives ===

impl Default for Negatives {
    fn default() -> Self {
        Self {
            answers: Cache::builder().max_capacity(ENTRIES).time_to_live(KEEP).build(),
            doubted: Cache::builder().max_capacity(ENTRIES).time_to_live(DOUBTED_FOR).build(),
            is_free_of_doubt: AtomicBool::new(true),
        }
    }
}

impl Negatives {
    pub(super) fn get(&self, question: &Question) -> Option<upstream::Error> {
        self.answers.get(question)
    }

    /// What was said of a reference of a repository may be true no more, whoever asked.
    pub(super) fn forget(&self, upstream: &str, repository: &Repository, reference: &Reference) {
        let is_outdated = |question: &Question| {
            &*question.upstream == upstream
                && question.repository == *repository
                && question.reference == *reference
        };
        for (question, _) in &self.answers {
            if is_outdated(&question) {
                self.answers.invalidate(&*question);
            }
        }
    }

    /// Forgets one answer.
    pub(super) fn drop(&self, question: &Question) {
        self.answers.invalidate(question);
    }

    /// The repository may not have the digest any more, though it is linked.
    pub(super) fn doubt(&self, key: LinkKey) {
        self.doubted.insert(key, ());
        self.is_free_of_doubt.store(false, Ordering::Release);
    }

    /// Upstream has said whether it has it.
    pub(super) fn settle(&self, key: &LinkKey) {
        self.doubted.invalidate(key);
    }

    /// Whether upstream has yet to say so.
    pub(super) fn is_doubted(&self, key: impl FnOnce() -> LinkKey) -> bool {
        !self.is_free_of_doubt.load(Ordering::Acquire) && self.doubted.contains_key(&key())
    }

    /// Keeps 404s, and bodies that were wrong: asking for those again at once costs budget and
    /// gives the same.
    pub(super) fn remember(&self, question: &Question, error: &upstream::Error) {
        let keep = matches!(
            error,
            upstream::Error::NotFound { .. }
                | upstream::Error::Unusable { .. }
                | upstream::Error::Trouble(upstream::Failure::Invalid { .. })
        );
        if keep {
            self.answers.insert(question.clone(), error.clone());
        }
    }
}
