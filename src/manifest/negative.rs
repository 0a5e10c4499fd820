//! Answers that say no, remembered for a moment.
//!
//! cosign asks four times for signatures that most images don't have. A no is
//! kept per repository, reference and caller, and for [`KEEP`] at the most.

use std::time::Duration;

use moka::sync::Cache;

use crate::{
    protocol::{Digest, Reference, Repository},
    upstream,
};

/// DESIGN: a 404 is remembered for at most 10 s.
const KEEP: Duration = Duration::from_secs(10);

/// Answers kept.
const ENTRIES: u64 = 10_000;

/// What was asked, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) upstream: std::sync::Arc<str>,
    pub(super) repository: Repository,
    pub(super) reference: Reference,
    pub(super) identity: Option<Digest>,
}

/// The answers.
#[derive(Debug)]
pub(super) struct Negatives {
    answers: Cache<Question, upstream::Error>,
}

// === impl Negatives ===

impl Default for Negatives {
    fn default() -> Self {
        Self { answers: Cache::builder().max_capacity(ENTRIES).time_to_live(KEEP).build() }
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
