//! One line and one set of counts per request.
//!
//! A line names time, client, method, path, upstream, status, bytes,
//! milliseconds, what the cache did, what it spent and has left of the pull
//! budget, and the bytes that a push brought. Headers are never
//! logged, but for the two that Apache's combined format has.
//!
//! Formatting a line by `tracing` costs more than a cached answer does, so the
//! process may take the lines as they are to be written; they look the same.

mod combined;

use std::{
    cell::RefCell,
    io::Write as _,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use http::{Method, Version, header};
use pingora::{prelude::Error, proxy::Session};
use serde::Serialize;

use super::{Journey, clock, millis, span};
use crate::{
    metrics::{self, Timing},
    traffic::Traffic,
};

/// How access lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`, as `tracing` formats an event.
    Text,
    /// One JSON object.
    Json,
    /// Apache's combined format.
    Combined,
}

/// Where access lines go.
pub trait AccessLines: Send + Sync {
    /// Takes a line, with its end; it may keep it for a while.
    fn take(&self, line: &[u8]);

    /// Writes what it has kept.
    fn flush(&self);
}

/// Whoever takes them.
struct Taker {
    format: Format,
    lines: Box<dyn AccessLines>,
}

/// One request that has ended.
#[derive(Debug, Default, Serialize)]
#[serde(default)]
pub(super) struct Line<'a> {
    #[serde(serialize_with = "address")]
    pub(super) client: Option<IpAddr>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) upstream: &'a str,
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) ms: u64,
    pub(super) cache: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    // Only where Apache's format has them.
    #[serde(skip)]
    pub(super) user: Option<&'a str>,
    #[serde(skip)]
    pub(super) version: &'static str,
    #[serde(skip)]
    pub(super) referer: &'a [u8],
    #[serde(skip)]
    pub(super) agent: &'a [u8],
}

/// A line as JSON.
#[derive(Serialize)]
struct Event<'a> {
    timestamp: &'a str,
    level: &'static str,
    #[serde(flatten)]
    line: &'a Line<'a>,
    target: &'static str,
}

/// What requests over HTTP/1.1 say in Apache's format.
pub(super) const HTTP_11: &str = "HTTP/1.1";

static TAKER: OnceLock<Taker> = OnceLock::new();

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// From now on `lines` gets each access line instead of `tracing`, which still says whether there
/// are any (target `access`). False if another takes them already.
pub fn take_access_lines(format: Format, lines: impl AccessLines + 'static) -> bool {
    TAKER.set(Taker { format, lines: Box::new(lines) }).is_ok()
}

/// Has what was taken written: the process is about to end.
pub fn flush_access_lines() {
    if let Some(taker) = TAKER.get() {
        taker.lines.flush();
    }
}

/// Writes the access line of a request that has ended, and counts it.
pub(super) fn request(
    session: &Session,
    error: Option<&Error>,
    journey: &mut Journey,
    traffic: &Traffic,
) {
    let span = journey.span.take();
    let Some(context) = &journey.context else {
        return;
    };
    let head = session.req_header();
    // 499, as nginx has it: the client left before there was an answer.
    let status = session.response_written().map_or(499, |response| response.status.as_u16());
    let elapsed = journey.started.elapsed();
    let bytes = match journey.sent.bytes {
        0 => session.body_bytes_sent() as u64,
        bytes => bytes,
    };
    let header = |name| head.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let received = session.as_ref().body_bytes_read() as u64;
    let line = Line {
        client: context.client.address,
        method: head.method.as_str(),
        path: head.uri.path(),
        upstream: context.upstream_name(),
        status,
        bytes,
        ms: millis(elapsed),
        cache: context.cache,
        spent: context.is_counted.then_some(1),
        left: context.left,
        received: (received > 0).then_some(received),
        error: error.map(|error| error.to_string()),
        user: context.user.as_deref(),
        version: version(head.version),
        referer: header(header::REFERER),
        agent: header(header::USER_AGENT),
    };
    let now = SystemTime::now();
    line.write(now);
    if let Some(span) = span {
        span.end(&span::of(&line, method(&head.method), context.kind()), now);
    }
    let labels = [
        context.upstream_name(),
        context.kind(),
        method(&head.method),
        &status.to_string(),
        context.cache,
    ];
    metrics::REQUESTS.with_label_values(&labels).inc();
    let labels = [context.upstream_name(), context.kind(), context.cache];
    metrics::RESPONSE_BYTES.with_label_values(&labels).inc_by(bytes);
    if received > 0 {
        let labels = [context.upstream_name(), context.kind()];
        metrics::REQUEST_BYTES.with_label_values(&labels).inc_by(received);
    }
    // Whoever asks for what is not there makes no name known.
    if let Some(target) = context.target.as_ref().filter(|_| status < 400)
        && let Some(repository) = target.route.repository()
    {
        let place = (Arc::clone(target.upstream.name()), repository.clone());
        traffic.enter(&place, context.client.address, bytes);
    }
    let first = journey.sent.first.map(|first| first - journey.started);
    Timing::of(context.kind(), context.cache).observe(first, elapsed);
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => HTTP_11,
    }
}

/// A label of few values, whatever a client sends.
pub(super) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

// === impl Line ===

impl Line<'_> {
    /// Writes it, if anybody wants access lines.
    pub(super) fn write(&self, now: SystemTime) {
        if !tracing::enabled!(target: "access", tracing::Level::INFO) {
            return;
        }
        let Some(taker) = TAKER.get() else {
            return self.trace();
        };
        BUFFER.with_borrow_mut(|line| {
            line.clear();
            match taker.format {
                Format::Text => self.text(now, line),
                Format::Json => self.json(now, line),
                Format::Combined => combined::write(self, now, line),
            }
            line.push(b'\n');
            taker.lines.take(line);
        });
    }

    fn trace(&self) {
        tracing::info!(
            target: "access",
            client = self.client.map_or_else(|| "-".to_owned(), |ip| ip.to_string()),
            method = %self.method,
            path = self.path,
            upstream = self.upstream,
            status = self.status,
            bytes = self.bytes,
            ms = self.ms,
            cache = self.cache,
            spent = self.spent,
            left = self.left,
            received = self.received,
            error = self.error,
        );
    }

    fn text(&self, now: SystemTime, out: &mut Vec<u8>) {
        clock::stamp(now, out);
        out.extend_from_slice(b"  INFO access: client=\"");
        match self.client {
            Some(IpAddr::V4(client)) => {
                for (at, byte) in client.octets().into_iter().enumerate() {
                    if at > 0 {
                        out.push(b'.');
                    }
                    number(out, byte.into());
                }
            }
            // A vector takes all that is written.
            Some(client) => drop(write!(out, "{client}")),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b"\" method=");
        out.extend_from_slice(self.method.as_bytes());
        for (name, value) in [(" path=", self.path), (" upstream=", self.upstream)] {
            out.extend_from_slice(name.as_bytes());
            quoted(out, value);
        }
        let numbers =
            [(" status=", self.status.into()), (" bytes=", self.bytes), (" ms=", self.ms)];
        for (name, value) in numbers {
            out.extend_from_slice(name.as_bytes());
            number(out, value);
        }
        out.extend_from_slice(b" cache=");
        quoted(out, self.cache);
        let numbers =
            [(" spent=", self.spent), (" left=", self.left), (" received=", self.received)];
        for (name, value) in numbers {
            if let Some(value) = value {
                out.extend_from_slice(name.as_bytes());
                number(out, value);
            }
        }
        if let Some(error) = &self.error {
            out.extend_from_slice(b" error=");
            quoted(out, error);
        }
    }

    fn json(&self, now: SystemTime, out: &mut Vec<u8>) {
        let mut stamp = Vec::new();
        clock::stamp(now, &mut stamp);
        let timestamp = std::str::from_utf8(&stamp).unwrap_or_default();
        let event = Event { timestamp, level: "INFO", line: self, target: "access" };
        // Strings and numbers can always be written.
        let _ = serde_json::to_writer(out, &event);
    }
}

/// As a string of Rust.
fn quoted(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A vector takes all that is written.
        let _ = write!(out, "{text:?}");
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn address<S: serde::Serializer>(
    client: &Option<IpAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match client {
        Some(client) => serializer.collect_str(client),
        None => serializer.serialize_str("-"),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn lines() -> Vec<Line<'static>> {
        let hit = Line {
            client: Some([192, 0, 2, 100].into()),
            method: "GET",
            path: "/v2/library/alpine/manifests/latest",
            upstream: "docker.io",
            status: 200,
            bytes: u64::MAX,
            ms: 0,
            cache: "hit",
            ..Line::default()
        };
        let odd = Line {
            client: "2001:db8::1".parse().ok(),
            path: "/v2/\"\\\u{e9}\n",
            spent: Some(1),
            left: Some(99),
            received: Some(10),
            error: Some("an \"error\"".to_owned()),
            ..hit
        };
        vec![Line { client: None, ..Line::default() }, odd, Line { ms: 12, ..hit_again() }]
    }

    fn hit_again() -> Line<'static> {
        Line { client: Some([10, 0, 0, 1].into()), method: "HEAD", status: 404, ..Line::default() }
    }

    /// The line without its time, which comes first.
    fn rest(line: &[u8]) -> String {
        let line = String::from_utf8(line.to_vec()).unwrap();
        line.split_once('Z').unwrap().1.trim_end().to_owned()
    }

    #[test]
    fn a_line_looks_as_tracing_would_write_it() {
        for line in lines() {
            let (text, json) = (Lines::default(), Lines::default());
            let log = tracing_subscriber::fmt().with_ansi(false).with_writer(text.clone());
            tracing::subscriber::with_default(log.finish(), || line.trace());
            let log = tracing_subscriber::fmt().json().flatten_event(true);
            let log = log.with_writer(json.clone());
            tracing::subscriber::with_default(log.finish(), || line.trace());
            let mut own = Vec::new();
            line.text(SystemTime::now(), &mut own);
            assert_eq!(rest(&own), rest(&text.0.lock().unwrap()));
            own.clear();
            line.json(SystemTime::now(), &mut own);
            assert_eq!(rest(&own), rest(&json.0.lock().unwrap()));
        }
    }
}
