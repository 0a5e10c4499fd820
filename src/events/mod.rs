//! Recent problems: what the log warned of, kept for those who look later.
//!
//! [`layer`] stands beside whatever writes the log and keeps warnings and errors
//! of this crate, as far as the log's level lets them through. A problem that
//! comes again is counted and not listed twice; the list is bounded, and the
//! one that is quiet for longest makes room.
//!
//! A field `remedy` of a log line is what an operator can do about it.

mod event;
mod layer;
mod list;

use std::sync::{Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

pub use event::{Event, Field, LONGEST_VALUE, Level};
use list::List;

/// The list of the process: so is the log.
static RECENT: Mutex<List> = Mutex::new(List::new());

/// What keeps the warnings and errors of a log.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    layer::Keeper
}

/// The events with a larger id than `after`, the oldest first.
pub fn recent(after: u64) -> Vec<Event> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).recent(after)
}
