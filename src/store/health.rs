//! Whether the disk takes what is written, and how that became known.
//!
//! A change is logged once, and shows in the metrics and at `/readyz`. While
//! the disk fails nothing is staged; a probe finds out when it works again.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use crate::metrics;

/// What is wrong with the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The file system is full before `store.disk` is reached. What fits is still stored.
    Full {
        /// Bytes that did not fit.
        wanted: u64,
    },
    /// Writing, syncing, renaming or opening failed.
    Failing {
        /// What was tried, and what the system said.
        problem: String,
    },
    /// It takes seconds for what should take milliseconds.
    Slow {
        /// What was tried.
        what: &'static str,
    },
}

/// The state of the disk.
#[derive(Debug, Default)]
pub(super) struct Health {
    trouble: Mutex<Option<Trouble>>,
}

// === impl Trouble ===

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { wanted } => write!(
                f,
                "the file system is full: {wanted} bytes did not fit, though store.disk allows them; free space there, or lower store.disk"
            ),
            Self::Failing { problem } => {
                write!(f, "the disk fails: {problem}; nothing is stored until it works again")
            }
            Self::Slow { what } => {
                write!(f, "the disk takes seconds to {what}; nothing is stored until it is faster")
            }
        }
    }
}

impl Trouble {
    /// What an operator can do.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Full { .. } => {
                "free space on the file system of store.directory, or lower store.disk"
            }
            Self::Failing { .. } => {
                "look at the kernel's log and the rights of store.directory; storing goes on by itself"
            }
            Self::Slow { .. } => {
                "see what else keeps the disk busy (iostat), or move store.directory to a faster one"
            }
        }
    }
}

// === impl Health ===

impl Health {
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True while nothing should be staged.
    pub(super) fn is_failing(&self) -> bool {
        matches!(self.trouble(), Some(Trouble::Failing { .. } | Trouble::Slow { .. }))
    }

    /// Something failed: the state is what it says from now on.
    pub(super) fn failed(&self, what: &'static str, error: &io::Error) {
        metrics::STORE_ERRORS.with_label_values(&[what]).inc();
        let trouble = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Trouble::Full { wanted: 0 }
            }
            _ => Trouble::Failing { problem: format!("could not {what}: {error}") },
        };
        self.set(trouble);
    }

    pub(super) fn slow(&self, what: &'static str) {
        self.set(Trouble::Slow { what });
    }

    pub(super) fn full(&self, wanted: u64) {
        self.set(Trouble::Full { wanted });
    }

    /// The disk works; what was wrong is over.
    pub(super) fn recovered(&self) {
        let before = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if before.is_some() {
            metrics::STORE_HEALTHY.set(1);
            tracing::info!("the store has recovered");
        }
    }

    fn set(&self, trouble: Trouble) {
        let mut state = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = match (&*state, &trouble) {
            (None, _) => true,
            (Some(before), now) => std::mem::discriminant(before) != std::mem::discriminant(now),
        };
        // A full disk that also fails is a failing one.
        if matches!((&*state, &trouble), (Some(Trouble::Failing { .. }), Trouble::Full { .. })) {
            return;
        }
        if is_news {
            metrics::STORE_HEALTHY.set(0);
            let remedy = trouble.remedy();
            tracing::warn!(state = %trouble, remedy, "the store is degraded; pulls go on");
        }
        *state = Some(trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_disk_stays_one_until_it_recovers() {
        let health = Health::default();
        health.full(7);
        assert!(!health.is_failing());
        health.failed("write", &io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        assert!(health.is_failing());
        health.failed("write", &io::Error::from(io::ErrorKind::StorageFull));
        assert!(health.is_failing());
        health.recovered();
        assert_eq!(health.trouble(), None);
    }
}
