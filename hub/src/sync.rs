//! Locks that outlive a panicking test.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks plain data; a poisoned lock is entered all the same, since each holder leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
