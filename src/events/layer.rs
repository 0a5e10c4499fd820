//! From a line of the log to an event.

use std::{
    fmt::{self, Write as _},
    time::SystemTime,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::{LONGEST_VALUE, Level, RECENT, event, list::Said};

/// Whose lines are kept.
const CRATE: &str = "roadstead";

/// Fields of one line that are kept.
const MOST_FIELDS: usize = 16;

/// Keeps warnings and errors. It is asked about every line that the log lets through, and has no
/// filter of its own: one would have each line asked about each time, access lines too.
pub(super) struct Keeper;

/// The fields of a line.
#[derive(Default)]
struct Fields {
    message: String,
    remedy: Option<String>,
    others: Vec<event::Field>,
}

/// Text up to a limit.
struct Bounded(String);

// === impl Keeper ===

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(level) = level(event.metadata()) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, remedy, others } = fields;
        let said = Said { level, message, fields: others, remedy };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        RECENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(said, now_ms);
    }
}

/// How bad a line of ours is; `None` if it is not kept.
fn level(metadata: &Metadata<'_>) -> Option<Level> {
    let level = match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        _ => return None,
    };
    let rest = metadata.target().strip_prefix(CRATE)?;
    (rest.is_empty() || rest.starts_with("::")).then_some(level)
}

// === impl Fields ===

impl Fields {
    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "remedy" => self.remedy = Some(value),
            name if self.others.len() < MOST_FIELDS => {
                self.others.push(event::Field { name, value })
            }
            _ => {}
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded(String::new());
        // An error means that the rest does not fit.
        let _ = write!(text, "{value:?}");
        self.take(field, text.0);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Bounded(String::new());
        let _ = text.write_str(value);
        self.take(field, text.0);
    }
}

// === impl Bounded ===

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST_VALUE - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let mark = '…';
        let end = text.floor_char_boundary(room.saturating_sub(mark.len_utf8()));
        self.0.push_str(text.get(..end).unwrap_or_default());
        if self.0.len() + mark.len_utf8() <= LONGEST_VALUE {
            self.0.push(mark);
        }
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn told(message: &str) -> Option<event::Event> {
        super::super::recent(0).into_iter().find(|event| event.message == message)
    }

    #[test]
    fn warnings_and_errors_of_ours_are_kept_with_their_remedy() {
        let log = tracing_subscriber::registry().with(super::super::layer());
        tracing::subscriber::with_default(log, || {
            let (host, long) = ("<script>", "é".repeat(LONGEST_VALUE));
            tracing::error!(host, error = %long, remedy = "wait", "it burns: {}", 7);
            tracing::info!("all is well");
            tracing::warn!(target: "roadstead_others", "not ours");
            tracing::warn!(target: "pingora_core", "not ours either");
        });
        let event = told("it burns: 7").unwrap();
        assert_eq!((event.level, event.remedy.as_deref()), (Level::Error, Some("wait")));
        let names: Vec<_> = event.fields.iter().map(|field| field.name).collect();
        assert_eq!(names, ["host", "error"]);
        assert_eq!(event.fields[0].value, "<script>");
        assert!(event.fields[1].value.len() <= LONGEST_VALUE);
        assert!(event.fields[1].value.ends_with('…'));
        for message in ["all is well", "not ours", "not ours either"] {
            assert!(told(message).is_none(), "{message}");
        }
    }
}
