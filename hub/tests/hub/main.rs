//! The simulator, seen over real connections: it keeps Hub's rules, and breaks them as told.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod client;
mod faults;
mod rules;
