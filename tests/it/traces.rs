//! Spans by OTLP: what a request did, as one trace, and never at a client's expense.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hub::{Hub, ImageSpec};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::client::get;
use crate::pull::{accepting, manifest_path, pull};
use crate::roadstead::{Roadstead, Setup, eventually, free_address};

const NAME: &str = "library/alpine";
const SOON: Duration = Duration::from_secs(20);

/// A trace that a client says it belongs to, and the span there.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// What was posted: its head, in lower case, and its body.
type Post = (String, Vec<u8>);

/// A collector, and what it got.
#[derive(Clone)]
struct Collector {
    at: SocketAddr,
    got: Arc<Mutex<Vec<Post>>>,
    /// Connections that were made to it.
    met: Arc<AtomicUsize>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this =
            Self { at: listener.local_addr().unwrap(), got: Arc::default(), met: Arc::default() };
        let collector = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                collector.met.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(collector.clone().serve(stream));
            }
        });
        this
    }

    /// One post after the other, each answered with an empty response.
    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let whole = head_end.and_then(|end| {
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let body_end = end + 4 + length.unwrap().trim().parse::<usize>().unwrap();
                (bytes.len() >= body_end).then_some((head, end + 4, body_end))
            });
            if let Some((head, start, end)) = whole {
                self.got.lock().unwrap().push((head, bytes[start..end].to_vec()));
                bytes.drain(..end);
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            if stream.read_buf(&mut bytes).await.is_ok_and(|count| count == 0) {
                return;
            }
        }
    }

    fn heads(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let got = self.got.lock().unwrap();
        let decode = |(_, body): &Post| ExportTraceServiceRequest::decode(&**body);
        got.iter().map(|post| decode(post).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let all = self.requests().into_iter().flat_map(|request| request.resource_spans);
        all.flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans).collect()
    }

    /// The spans once `enough` of them are there.
    async fn until(&self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        eventually("the spans have come", SOON, || enough(&self.spans())).await;
        self.spans()
    }

    fn telemetry(&self, percent: u8) -> serde_json::Value {
        let endpoint = format!("http://{}", self.at);
        json!({ "otlp": { "endpoint": endpoint, "sample_percent": percent } })
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text.clone()),
        AnyValue { value: Some(Value::IntValue(number)) } => Some(number.to_string()),
        AnyValue { value: Some(Value::BoolValue(is)) } => Some(is.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_server(span: &Span) -> bool {
    span.kind == SpanKind::Server as i32
}

fn is_client(span: &Span) -> bool {
    span.kind == SpanKind::Client as i32
}

async fn traced(at: SocketAddr, flags: &str) -> u16 {
    let traceparent = format!("00-{TRACE}-{PARENT}-{flags}");
    let request = accepting(get(at, manifest_path(NAME, "latest")));
    request.header("traceparent", traceparent).send().await.status
}

#[tokio::test]
async fn a_pull_is_a_trace_with_its_exchanges_below() {
    let (hub, collector) = (Hub::start().await, Collector::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    fs::write(&headers, "X-Login: s3cret\n").unwrap();
    let mut telemetry = collector.telemetry(1);
    telemetry["otlp"]["headers_file"] = headers.to_str().unwrap().into();
    telemetry["otlp"]["service_name"] = "mirror".into();
    let setup = Setup::of(&hub).key("telemetry", telemetry);
    let setup = setup.key("trusted_proxies", json!(["127.0.0.1"]));
    let setup =
        setup.with("credentials.accounts", json!([{ "username": "ann", "password": "pw-of-ann" }]));
    let roadstead = setup.start().await;
    // 1 % would hardly have it; the proxy wants it.
    assert_eq!(traced(roadstead.at(), "01").await, 200);
    let spans = collector.until(|spans| spans.iter().any(is_server)).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let server: Vec<_> = spans.iter().filter(|span| is_server(span)).collect();
    let [server] = server[..] else { panic!("{spans:#?}") };
    assert_eq!((hex(&server.parent_span_id), &*server.name), (PARENT.to_owned(), "GET manifest"));
    let of_server = |name: &str| attribute(&server.attributes, name).unwrap_or_default();
    assert_eq!(of_server("url.path"), manifest_path(NAME, "latest"));
    assert_eq!(of_server("http.response.status_code"), "200");
    assert_eq!(of_server("roadstead.cache"), "miss");
    assert_eq!(of_server("roadstead.counted"), "true");
    let below: Vec<_> = spans.iter().filter(|span| is_client(span)).collect();
    let names: Vec<_> = below.iter().map(|span| &*span.name).collect();
    for name in ["HEAD manifest", "GET manifest", "GET token"] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    for span in below {
        assert_eq!(span.parent_span_id, server.span_id, "{span:#?}");
        assert_eq!(attribute(&span.attributes, "server.address").unwrap(), "127.0.0.1");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let request = &collector.requests()[0];
    let resource = request.resource_spans[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").unwrap(), "mirror");
    let head = &collector.heads()[0];
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("x-login: s3cret"), "{head}");
    // Nothing of credentials or signed URLs is told.
    let told = format!("{:?}", collector.requests()).to_lowercase();
    for secret in ["authorization", "bearer", "pw-of-ann", "scope=", "signature", "s3cret"] {
        assert!(!told.contains(secret), "{secret} is in a span");
    }
    assert!(!roadstead.log().contains("s3cret"));
}

#[tokio::test]
async fn a_download_belongs_to_the_request_that_began_it() {
    let (hub, collector) = (Hub::start().await, Collector::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = Setup::of(&hub).key("telemetry", collector.telemetry(100)).start().await;
    pull(roadstead.at(), NAME, "latest").await;
    let is_blob = |span: &Span| span.name == "GET blob";
    let ended = |spans: &[Span]| {
        let of = |kind: fn(&Span) -> bool| spans.iter().filter(|s| is_blob(s) && kind(s)).count();
        of(is_server) > 1 && of(is_client) > of(is_server)
    };
    let spans = collector.until(ended).await;
    for span in spans.iter().filter(|span| is_blob(span) && is_client(span)) {
        let parent = spans.iter().find(|parent| parent.span_id == span.parent_span_id);
        let parent = parent.unwrap_or_else(|| panic!("no parent of {span:#?}"));
        assert!(is_server(parent) && is_blob(parent), "{parent:#?}");
        assert_eq!(parent.trace_id, span.trace_id);
    }
    let sizes = spans.iter().filter(|span| is_client(span) && is_blob(span));
    let sizes = sizes.filter_map(|span| attribute(&span.attributes, "http.response.body.size"));
    assert!(sizes.count() > 0, "no body's size is told");
}

#[tokio::test]
async fn a_repeated_answer_is_one_span() {
    let (hub, collector) = (Hub::start().await, Collector::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let setup = Setup::of(&hub).with("tags.fresh_for", "1h");
    let roadstead = setup.key("telemetry", collector.telemetry(100)).start().await;
    let tag = accepting(get(roadstead.at(), manifest_path(NAME, "latest")));
    for _ in 0..6 {
        assert_eq!(tag.clone().send().await.status, 200);
    }
    assert!(roadstead.metric(&["roadstead_repeated_answers_total"]).await > 0.0);
    let all = |spans: &[Span]| spans.iter().filter(|span| is_server(span)).count() == 6;
    let spans = collector.until(all).await;
    let hits = spans.iter().filter(|span| {
        is_server(span) && attribute(&span.attributes, "roadstead.cache").unwrap() == "hit"
    });
    assert!(hits.count() >= 3, "{spans:#?}");
    // The collector has them a moment before its answer is counted.
    let deadline = Instant::now() + SOON;
    while roadstead.metric(&["roadstead_trace_exports_total", "delivered"]).await == 0.0 {
        assert!(Instant::now() < deadline, "nothing was delivered");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_is_not_trusted_does_not_say_what_is_traced() {
    let (hub, collector) = (Hub::start().await, Collector::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = Setup::of(&hub).key("telemetry", collector.telemetry(100)).start().await;
    assert_eq!(traced(roadstead.at(), "00").await, 200);
    let spans = collector.until(|spans| spans.iter().any(is_server)).await;
    for span in &spans {
        assert_ne!(hex(&span.trace_id), TRACE);
    }
    let server = spans.iter().find(|span| is_server(span)).unwrap();
    assert!(server.parent_span_id.is_empty(), "{server:#?}");
}

#[tokio::test]
async fn the_environment_sends_no_span_through_a_proxy() {
    let (hub, collector, proxy) =
        (Hub::start().await, Collector::start().await, Collector::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let mut setup = Setup::of(&hub).key("telemetry", collector.telemetry(100));
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        setup = setup.variable(name, format!("http://{}", proxy.at));
    }
    // Nothing that the environment excepts by itself.
    setup = setup.variable("no_proxy", "").variable("NO_PROXY", "");
    let roadstead = setup.with("proxy", "none").start().await;
    let reply = accepting(get(roadstead.at(), manifest_path(NAME, "latest"))).send().await;
    assert_eq!(reply.status, 200);
    collector.until(|spans| spans.iter().any(is_server)).await;
    assert_eq!(proxy.met.load(Ordering::Acquire), 0, "{:?}", proxy.heads());
}

#[tokio::test]
async fn the_last_spans_are_delivered_by_a_process_that_ends() {
    let (hub, collector) = (Hub::start().await, Collector::start().await);
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let setup = Setup::of(&hub).key("telemetry", collector.telemetry(100));
    let mut roadstead = setup.start().await;
    let reply = accepting(get(roadstead.at(), manifest_path(NAME, "latest"))).send().await;
    assert_eq!(reply.status, 200);
    assert!(roadstead.terminate().await.success());
    assert!(collector.spans().iter().any(is_server), "{:#?}", collector.spans());
}

/// Roadstead with spans for `at`; pulls go on, and it ends when it is told to.
async fn undisturbed(at: SocketAddr) -> (Roadstead, String) {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let otlp = json!({ "endpoint": format!("http://{at}"), "sample_percent": 100 });
    let setup = Setup::of(&hub).key("telemetry", json!({ "otlp": otlp }));
    let mut roadstead = setup.start().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..300 {
        let reply = accepting(get(roadstead.at(), manifest_path(NAME, "latest"))).send().await;
        assert_eq!(reply.status, 200);
        slowest = slowest.max(reply.took);
    }
    assert!(slowest < Duration::from_secs(5), "a request waited: {slowest:?}");
    pull(roadstead.at(), NAME, "latest").await;
    let told = Instant::now();
    assert!(roadstead.terminate().await.success());
    assert!(told.elapsed() < Duration::from_secs(9), "the spans kept it: {:?}", told.elapsed());
    let log = roadstead.log();
    (roadstead, log)
}

#[tokio::test]
async fn a_collector_that_is_not_there_disturbs_nobody() {
    let (_roadstead, log) = undisturbed(free_address()).await;
    let lines = log.lines().filter(|line| line.contains("spans can't be delivered"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[tokio::test]
async fn a_collector_that_hangs_disturbs_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    undisturbed(listener.local_addr().unwrap()).await;
}
