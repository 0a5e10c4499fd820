//! The events that are kept, and which of them are the same.

use std::collections::VecDeque;

use super::{Event, Field, Level};

/// Events that are kept.
const MOST: usize = 200;

/// Fields that say what an event is about. Where they differ it is another one; all others (a
/// digest, an error's text) are those of the last time.
const SUBJECTS: [&str; 6] = ["upstream", "host", "account", "status", "state", "limit"];

/// The events, the last one last.
#[derive(Debug)]
pub(super) struct List {
    events: VecDeque<Event>,
    last_id: u64,
}

/// What a line of the log says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Vec<Field>,
    pub(super) remedy: Option<String>,
}

// === impl List ===

impl List {
    pub(super) const fn new() -> Self {
        Self { events: VecDeque::new(), last_id: 0 }
    }

    /// Keeps what was said at `now_ms`.
    pub(super) fn add(&mut self, said: Said, now_ms: u64) {
        self.last_id += 1;
        let before = self.events.iter().position(|event| said.is_again(event));
        let before = before.and_then(|place| self.events.remove(place));
        if before.is_none() && self.events.len() >= MOST {
            self.events.pop_front();
        }
        let (first_at_ms, count) =
            before.map_or((now_ms, 0), |event| (event.first_at_ms, event.count));
        let Said { level, message, fields, remedy } = said;
        self.events.push_back(Event {
            id: self.last_id,
            at_ms: now_ms,
            first_at_ms,
            count: count + 1,
            level,
            message,
            fields,
            remedy,
        });
    }

    pub(super) fn recent(&self, after: u64) -> Vec<Event> {
        self.events.iter().filter(|event| event.id > after).cloned().collect()
    }
}

// === impl Said ===

impl Said {
    fn is_again(&self, event: &Event) -> bool {
        self.level == event.level
            && self.message == event.message
            && SUBJECTS.iter().all(|name| value(&self.fields, name) == value(&event.fields, name))
    }
}

fn value<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    fields.iter().find(|field| field.name == name).map(|field| field.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, fields: &[(&'static str, &str)]) -> Said {
        let field = |(name, value): &(&'static str, &str)| Field { name, value: (*value).into() };
        let fields = fields.iter().map(field).collect();
        Said { level: Level::Warning, message: message.to_owned(), fields, remedy: None }
    }

    #[test]
    fn what_comes_again_is_counted_and_comes_last() {
        let mut list = List::new();
        list.add(said("down", &[("host", "a"), ("error", "reset")]), 1);
        list.add(said("down", &[("host", "b")]), 2);
        list.add(said("down", &[("host", "a"), ("error", "refused")]), 3);
        let told = list.recent(0);
        let told: Vec<_> = told.iter().map(|it| (it.id, it.count, it.first_at_ms)).collect();
        assert_eq!(told, [(2, 1, 2), (3, 2, 1)]);
        let again = list.recent(2);
        assert_eq!(again.len(), 1);
        assert_eq!(value(&again[0].fields, "error"), Some("refused"));
    }

    #[test]
    fn a_flood_of_one_kind_leaves_the_others() {
        let mut list = List::new();
        list.add(said("down", &[("host", "a")]), 0);
        for n in 0..10 * MOST {
            list.add(said("a fill failed", &[("digest", &n.to_string())]), 1);
        }
        assert_eq!(list.recent(0).len(), 2);
        for n in 0..10 * MOST {
            list.add(said("down", &[("host", &n.to_string())]), 2);
        }
        assert_eq!(list.recent(0).len(), MOST);
    }
}
