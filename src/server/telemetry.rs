//! Spans on their way to a collector, by OTLP over HTTP.
//!
//! A thread of its own takes them out of a bounded queue and posts them in batches; while the
//! collector is away or slow they are dropped, and no request waits. The log says once that it is,
//! and once that it is back.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tokio_rustls::rustls::crypto::ring;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use super::StartError;
use crate::{config, metrics, trace};

/// Spans that wait at most; more are dropped.
const QUEUE: usize = 4096;

/// Spans that are posted together.
const BATCH: usize = 512;

/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(2);

/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last spans may keep a process that ends.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The largest answer of a collector that is read.
const ANSWER_BYTES: u64 = 64 << 10;

/// What delivers spans, if anything does, until it is stopped.
#[derive(Debug, Clone)]
pub(super) struct Spans(Arc<Mutex<Option<SdkTracerProvider>>>);

/// The way to the collector.
#[derive(Debug)]
struct Collector {
    agent: Agent,
    endpoint: String,
    headers_file: Option<PathBuf>,
    is_away: AtomicBool,
}

// === impl Spans ===

impl Spans {
    /// From now on requests have spans, if `config` names a collector. It need not be there.
    pub(super) fn start(config: &config::Telemetry) -> Result<Self, StartError> {
        let Some(otlp) = &config.otlp else { return Ok(Self(Arc::default())) };
        let endpoint = otlp.traces().to_string();
        let problem = |error: &dyn std::fmt::Display| {
            StartError::Config(format!("telemetry.otlp.endpoint: {endpoint}: {error}; correct it"))
        };
        let collector = Collector::new(otlp, endpoint.clone());
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&endpoint)
            .build()
            .map_err(|error| problem(&error))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let share = f64::from(otlp.sample_percent) / 100.0;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
        let resource = Resource::builder()
            .with_service_name(otlp.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        trace::install(provider.tracer("roadstead"));
        tracing::info!(endpoint, sample_percent = otlp.sample_percent, "spans are sent");
        Ok(Self(Arc::new(Mutex::new(Some(provider)))))
    }

    /// Delivers the last ones, if the collector takes them soon. Blocks.
    pub(super) fn stop(&self) {
        // Held meanwhile: who else would end the process waits for them too.
        let mut provider = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(provider) = provider.take() else { return };
        if let Err(error) = provider.shutdown_with_timeout(LAST_PATIENCE) {
            tracing::debug!(%error, "the last spans could not be delivered");
        }
    }
}

// === impl Collector ===

impl Collector {
    fn new(otlp: &config::Otlp, endpoint: String) -> Self {
        let system = rustls_native_certs::load_native_certs().unwrap_or_default();
        let roots: Vec<_> =
            system.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        let agent = Agent::config_builder()
            // ureq would take one from the environment, and tell it whatever is in `headers_file`.
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            // What is for the collector goes to no other host.
            .max_redirects(0)
            .tls_config(tls)
            .build();
        let (agent, headers_file) = (Agent::new_with_config(agent), otlp.headers_file.clone());
        Self { agent, endpoint, headers_file, is_away: AtomicBool::new(false) }
    }

    /// Blocks; only ever called on the thread that posts spans.
    fn post(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (mut parts, body) = request.into_parts();
        if let Some(path) = &self.headers_file {
            parts.headers.extend(config::read_headers(path)?);
        }
        let answer = self.agent.run(http::Request::from_parts(parts, body.to_vec()))?;
        let (parts, body) = answer.into_parts();
        let body = body.into_with_config().limit(ANSWER_BYTES).read_to_vec()?;
        if !parts.status.is_success() {
            return Err(format!("it answered {}", parts.status).into());
        }
        Ok(http::Response::from_parts(parts, body.into()))
    }

    fn note(&self, error: Option<&HttpError>) {
        let outcome = if error.is_some() { "failed" } else { "delivered" };
        metrics::TRACE_EXPORTS.with_label_values(&[outcome]).inc();
        let was_away = self.is_away.swap(error.is_some(), Ordering::Relaxed);
        let endpoint = &self.endpoint;
        match error {
            Some(error) if !was_away => tracing::warn!(
                endpoint, %error,
                remedy = "look after the collector, or correct telemetry.otlp",
                "spans can't be delivered and are dropped; requests go on"
            ),
            None if was_away => tracing::info!(endpoint, "spans are delivered again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let result = self.post(request);
        self.note(result.as_ref().err());
        result
    }
}
