//! The primitives that loom can stand in for, to try every interleaving.

#[cfg(not(all(test, feature = "loom")))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(all(test, feature = "loom"))]
pub(crate) use {
    loom::sync::{Arc, Mutex, MutexGuard},
    std::sync::PoisonError,
};
