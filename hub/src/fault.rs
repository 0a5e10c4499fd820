//! Faults: what goes wrong, with which requests, how many times.
//!
//! Some take the place of the answer and act before authorization, budget and content. The others
//! alter a good answer; a challenge or an error passes them by and does not use them up.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::seen::Seen;
use crate::target::Target;

/// An action for the requests of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    #[serde(default)]
    pub target: Target,
    /// What happens to them.
    pub action: Action,
    /// How many of them; `None`: all, for ever.
    #[serde(default)]
    pub times: Option<u32>,
}

/// Names a fault among those of one simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FaultId(pub(crate) u64);

/// What happens to a request. Offsets and lengths are of the body as it would have been sent (for
/// a range: of the part).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    // In place of the answer.
    /// This status with the spec's error JSON.
    Status(u16),
    /// This status, with headers and body to go with it.
    StatusWith {
        /// HTTP status.
        status: u16,
        /// Further headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
    },
    /// 429 with TOOMANYREQUESTS in JSON, as of a spent budget.
    RateLimited,
    /// 429 as of the abuse limit: text, `Retry-After: 60`, connection closed.
    Abuse,
    /// No answer; the connection stays open.
    Hang,
    /// No answer; the connection is closed.
    Drop,
    /// 200 with a login page.
    Html,
    /// 307 to this URL.
    Redirect(String),
    /// 401 without a challenge.
    MissingAuthenticate,
    /// 401 with a challenge that names this realm.
    Realm(String),

    // To a good answer.
    /// It comes this much later.
    Delay(#[serde(with = "millis")] Duration),
    /// It stops after this many bytes, and the connection stays open.
    HangBodyAfter(u64),
    /// The connection closes after this many bytes, short of `Content-Length`.
    CutAfter(u64),
    /// The byte at this offset is wrong.
    FlipByte(u64),
    /// `Docker-Content-Digest` names another digest.
    WrongDigestHeader,
    /// `Docker-Content-Digest` is missing.
    NoDigestHeader,
    /// `Content-Length` is off by this much. Said too long, the connection closes after the body;
    /// said too short, the body ends there.
    Length(i64),
    /// Chunked, without `Content-Length`.
    NoLength,
    /// Chunked, and ends as if complete after this many bytes.
    EndEarlyWithoutLength(u64),
    /// The whole blob with 200, whatever range was asked for.
    IgnoreRange,
    /// Some bytes at a time.
    Drip {
        /// How many.
        bytes: u64,
        /// How often; milliseconds in JSON.
        #[serde(with = "millis")]
        every: Duration,
    },
    /// At most this many bytes a second.
    Throttle(u64),
    /// Rate-limit headers without their number: `;w=21600`.
    BadHeaders,
    /// Another body, with its own length, under the headers of the right one.
    Substitute(#[serde(with = "text")] Bytes),
}

/// Faults in force, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    next: u64,
    list: Vec<(FaultId, Fault)>,
}

// === impl Fault ===

impl Fault {
    /// For all matching requests from now on.
    pub fn new(target: Target, action: Action) -> Self {
        Self { target, action, times: None }
    }

    /// For the next `times` of them only.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

// === impl Action ===

impl Action {
    /// Whether this acts on a body, and so has nothing to do with a HEAD.
    fn needs_body(&self) -> bool {
        match self {
            Self::HangBodyAfter(_)
            | Self::CutAfter(_)
            | Self::FlipByte(_)
            | Self::EndEarlyWithoutLength(_)
            | Self::IgnoreRange
            | Self::Drip { .. }
            | Self::Throttle(_)
            | Self::Substitute(_) => true,
            Self::Status(_)
            | Self::StatusWith { .. }
            | Self::RateLimited
            | Self::Abuse
            | Self::Hang
            | Self::Drop
            | Self::Html
            | Self::Redirect(_)
            | Self::MissingAuthenticate
            | Self::Realm(_)
            | Self::Delay(_)
            | Self::WrongDigestHeader
            | Self::NoDigestHeader
            | Self::Length(_)
            | Self::NoLength
            | Self::BadHeaders => false,
        }
    }
}

// === impl Faults ===

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> FaultId {
        self.next += 1;
        self.list.push((FaultId(self.next), fault));
        FaultId(self.next)
    }

    /// Uses up one time of the first fault that matches.
    pub(crate) fn take(&mut self, seen: &Seen, carries_blob: bool) -> Option<(FaultId, Action)> {
        let head = seen.method == http::Method::HEAD;
        let (id, fault) = self.list.iter_mut().find(|(_, fault)| {
            fault.times != Some(0)
                && fault.target.matches(seen, carries_blob)
                && !(head && fault.action.needs_body())
        })?;
        fault.times = fault.times.map(|times| times - 1);
        Some((*id, fault.action.clone()))
    }

    /// Gives back a time that found no good answer to alter.
    pub(crate) fn give_back(&mut self, id: FaultId) {
        if let Some((_, fault)) = self.list.iter_mut().find(|(one, _)| *one == id) {
            fault.times = fault.times.map(|times| times + 1);
        }
    }

    pub(crate) fn remove(&mut self, id: FaultId) {
        self.list.retain(|(one, _)| *one != id);
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }
}

/// Durations in JSON are milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// Bodies in JSON are text.
mod text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(body: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&String::from_utf8_lossy(body))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        String::deserialize(from).map(Bytes::from)
    }
}
