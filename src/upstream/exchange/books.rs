//! What of each exchange is counted, timed and told.

use std::{sync::Arc, time::Instant};

use http::{Method, StatusCode};
use prometheus::IntGauge;

use super::{Exchange, Kind, Reply, Request};
use crate::{metrics, trace, upstream::Failure};

/// A request whose answer's head has not come yet. Dropped, it was given up: whoever wanted the
/// answer waits no longer.
pub(super) struct UnderWay {
    upstream: Arc<str>,
    kind: Kind,
    in_flight: IntGauge,
    begun: Instant,
    span: Option<trace::Span>,
    is_over: bool,
}

// === impl UnderWay ===

impl UnderWay {
    /// One to `host` is about to be sent.
    pub(super) fn begin(exchange: &Exchange, request: &Request<'_>, host: &str) -> Self {
        let upstream = &*exchange.upstream;
        let in_flight = metrics::UPSTREAM_IN_FLIGHT.with_label_values(&[upstream]);
        in_flight.inc();
        let span = trace::exchange(upstream, request.kind.as_str(), &request.method, host);
        let (begun, upstream) = (Instant::now(), Arc::clone(&exchange.upstream));
        Self { upstream, kind: request.kind, in_flight, begun, span, is_over: false }
    }

    /// It has come to this. Its span goes on as long as the body does.
    pub(super) fn ended(mut self, result: &mut Result<Reply, Failure>) {
        self.is_over = true;
        let labels = [&*self.upstream, self.kind.as_str()];
        let took = self.begun.elapsed().as_secs_f64();
        metrics::UPSTREAM_SECONDS.with_label_values(&labels).observe(took);
        let span = self.span.take();
        match (result, span) {
            (Ok(reply), Some(mut span)) => {
                span.answered(reply.status);
                reply.body.span = Some(span);
            }
            (Err(failure), Some(span)) => span.failed(failure.word()),
            (_, None) => {}
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.in_flight.dec();
        if !self.is_over {
            let word = Failure::GivenUp.word();
            let labels = [&*self.upstream, self.kind.as_str(), word];
            metrics::UPSTREAM_ERRORS.with_label_values(&labels).inc();
            if let Some(span) = self.span.take() {
                span.failed(word);
            }
        }
    }
}

// === impl Exchange ===

impl Exchange {
    pub(super) fn count(&self, request: &Request<'_>, result: &Result<Reply, Failure>) {
        let status =
            result.as_ref().map_or("none".to_owned(), |reply| reply.status.as_u16().to_string());
        let counted = result.as_ref().is_ok_and(|reply| is_counted(request, reply.status));
        let kind = request.kind.as_str();
        let labels = [
            &*self.upstream,
            kind,
            request.method.as_str(),
            &status,
            if counted { "true" } else { "false" },
        ];
        metrics::UPSTREAM_REQUESTS.with_label_values(&labels).inc();
        if let Err(failure) = result {
            let labels = [&*self.upstream, kind, failure.word()];
            metrics::UPSTREAM_ERRORS.with_label_values(&labels).inc();
        }
    }
}

/// What Docker Hub counts: manifest GETs that were answered, conditional ones too.
fn is_counted(request: &Request<'_>, status: StatusCode) -> bool {
    request.kind == Kind::Manifest
        && request.method == Method::GET
        && (status.is_success() || status == StatusCode::NOT_MODIFIED)
}
