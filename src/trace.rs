//! Spans: how long a request took, and each exchange with upstream below it.
//!
//! Off until [`install`]ed, and then for the share of requests that the sampler takes: one that is
//! not taken costs the sampler's look, and everything below it a look into the task. Nothing here
//! holds a request up, and nothing of what may be secret (headers, queries, the places of a CDN) is
//! told. Who begins a task for a request hands on its span with [`inherit`].

use std::{
    borrow::Cow,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, StatusCode};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    },
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span as SdkSpan},
};

/// A longer path is cut.
const LONGEST_PATH: usize = 256;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

tokio::task_local! {
    /// The span of the request that the task works for.
    static CURRENT: Option<SpanContext>;
}

/// A span under way; dropped, it has ended.
#[derive(Debug)]
pub struct Span(Box<SdkSpan>);

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// Its method, `other` for one that is none of HTTP's.
    pub method: &'static str,
    /// Its path.
    pub path: &'a str,
    /// What kind of object it was about.
    pub kind: &'static str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The status that the client got.
    pub status: u16,
    /// Body bytes that the client got.
    pub bytes: u64,
    /// What the cache did.
    pub cache: &'a str,
    /// Whether it cost a pull.
    pub is_counted: bool,
}

/// From now on spans go to `tracer`; false if they go elsewhere already.
pub fn install(tracer: SdkTracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// Whether there are spans at all.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The span of a request that came at `started`, if it is to have one. `headers` are those of a
/// client that may say which trace it belongs to, and whether that is recorded.
pub fn request(headers: Option<&HeaderMap>, started: SystemTime) -> Option<Span> {
    let parent = headers.map_or_else(Context::new, |headers| {
        TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers))
    });
    let builder = SpanBuilder::from_name("request").with_kind(SpanKind::Server);
    begun(builder.with_start_time(started), &parent)
}

/// A request that was answered within one look, as a span of its own, if it is to have one.
pub fn answered(answered: &Answered<'_>, started: SystemTime, took: Duration) {
    if let Some(span) = request(None, started) {
        span.end(answered, started + took);
    }
}

/// The span of a request to `host`, if the task works for a request that has one.
pub fn exchange(upstream: &str, kind: &'static str, method: &Method, host: &str) -> Option<Span> {
    let parent = CURRENT.try_with(Clone::clone).ok().flatten()?;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("server.address", name.to_owned()),
        KeyValue::new("roadstead.upstream", upstream.to_owned()),
        KeyValue::new("roadstead.kind", kind),
    ];
    if let Ok(port) = port.parse::<i64>() {
        attributes.push(KeyValue::new("server.port", port));
    }
    let name = Cow::Owned(format!("{method} {kind}"));
    let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
    let parent = Context::new().with_remote_span_context(parent);
    begun(builder.with_attributes(attributes), &parent)
}

fn begun(builder: SpanBuilder, parent: &Context) -> Option<Span> {
    let span = TRACER.get()?.build_with_context(builder, parent);
    span.is_recording().then(|| Span(Box::new(span)))
}

/// `future`, in the name of the request that the task works for now.
pub fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(CURRENT.try_with(Clone::clone).ok().flatten(), future)
}

// === impl Span ===

impl Span {
    /// `future`, with this as the span of all that it does.
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(Some(self.0.span_context().clone()), future)
    }

    /// Ends the span of a request.
    pub fn end(mut self, answered: &Answered<'_>, at: SystemTime) {
        let Answered { method, path, kind, upstream, status, bytes, cache, is_counted } = *answered;
        self.0.update_name(format!("{method} {kind}"));
        self.0.set_attributes([
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.path", path.chars().take(LONGEST_PATH).collect::<String>()),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("http.response.body.size", clamped(bytes)),
            KeyValue::new("roadstead.kind", kind),
            KeyValue::new("roadstead.upstream", upstream.to_owned()),
            KeyValue::new("roadstead.cache", cache.to_owned()),
            KeyValue::new("roadstead.counted", is_counted),
        ]);
        if status >= 500 {
            self.0.set_status(Status::error(""));
        }
        self.0.end_with_timestamp(at);
    }

    /// Upstream has answered; the body is still to come.
    pub fn answered(&mut self, status: StatusCode) {
        let code = i64::from(status.as_u16());
        self.0.set_attribute(KeyValue::new("http.response.status_code", code));
        if status.is_client_error() || status.is_server_error() {
            self.0.set_status(Status::error(""));
        }
    }

    /// Upstream gave no answer; `word` says why.
    pub fn failed(mut self, word: &'static str) {
        self.0.set_attribute(KeyValue::new("error.type", word));
        self.0.set_status(Status::error(word));
    }

    /// The body has ended after so many bytes.
    pub fn received(mut self, bytes: u64) {
        self.0.set_attribute(KeyValue::new("http.response.body.size", clamped(bytes)));
    }
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_tracer_there_are_no_spans() {
        assert!(!is_on());
        assert!(request(None, SystemTime::now()).is_none());
        assert!(inherit(async { exchange("r", "blob", &Method::GET, "h:1") }).await.is_none());
    }
}
