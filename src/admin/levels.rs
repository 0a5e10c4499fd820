//! What is logged, changed while the server runs.
//!
//! The log belongs to whoever runs the server, so that it is given here.

use std::sync::OnceLock;

/// Who can say what is logged, and change it.
pub trait LogLevels: Send + Sync {
    /// What is logged now, as `RUST_LOG` is written.
    fn levels(&self) -> String;

    /// Logs what `levels` say from now on; the error says what is wrong with them.
    fn set(&self, levels: &str) -> Result<(), String>;
}

static LEVELS: OnceLock<Box<dyn LogLevels>> = OnceLock::new();

/// From now on the API's `log-level` is about `levels`. False if there are others already.
pub fn take_log_levels(levels: impl LogLevels + 'static) -> bool {
    LEVELS.set(Box::new(levels)).is_ok()
}

/// Those that were given.
pub(super) fn levels() -> Option<&'static dyn LogLevels> {
    LEVELS.get().map(|levels| &**levels)
}
