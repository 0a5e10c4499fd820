//! The face to Pingora: one [`ProxyHttp`] that runs the chain and writes answers.
//!
//! The cache answers from `request_filter`; Pingora itself only forwards what
//! the chain lets pass. `session.cache` is never enabled.

mod between;
mod clock;
mod connection;
mod drain;
mod entrance;
mod forward;
mod front;
mod guarded;
mod head;
mod idle;
mod log;
mod respond;
mod rules;
mod send;
mod span;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, StatusCode, Version, header, request::Parts};
use pingora::{
    http::{RequestHeader, ResponseHeader},
    prelude::{Error, ErrorSource, ErrorType, HttpPeer},
    proxy::{FailToProxy, ProxyHttp, Session},
};

pub use connection::Connections;
use drain::Counted;
pub use drain::Drain;
pub use entrance::{Bounds, Door, Entrance, TransparentDoor, Tunnels};
pub use log::{AccessLines, Format, flush_access_lines, take_access_lines};
pub use rules::{Live, Rules};
use send::Sent;

use crate::{
    filter::{Answer, Chain, Context, Flow, Refusal},
    trace,
    upstream::Forward,
};

/// The proxy's service.
#[derive(Debug)]
pub struct Proxy {
    live: Arc<Live>,
    drain: Arc<Drain>,
}

/// A request on its way through Pingora.
#[derive(Debug)]
pub struct Journey {
    started: Instant,
    /// Those in force when it began.
    rules: Arc<Rules>,
    /// Made when the head has been read.
    context: Option<Context>,
    /// Where Pingora forwards the request to.
    forward: Option<Forward>,
    /// Why upstream's answer to a forwarded request is not passed on.
    refused: Option<Refusal>,
    /// What was written by ourselves, and since when anything is.
    sent: Sent,
    /// Of the request, where it has one.
    span: Option<trace::Span>,
    /// A stop waits for the request while this lives.
    _under_way: Counted,
}

// === impl Proxy ===

impl Proxy {
    /// Serves by the rules that are `live`; `drain` counts the requests.
    pub fn new(live: Arc<Live>, drain: Arc<Drain>) -> Self {
        Self { live, drain }
    }

    /// What the chain says; an error if the client left meanwhile.
    async fn decide(
        chain: &Chain,
        session: &mut Session,
        request: &Parts,
        context: &mut Context,
    ) -> pingora::Result<Result<Flow, Refusal>> {
        if let Err(malformed) = front::check(session) {
            session.set_keepalive(None);
            return Ok(Err(Refusal::Malformed(malformed)));
        }
        let decision = chain.run(request, context);
        tokio::pin!(decision);
        tokio::select! {
            biased;
            decision = &mut decision => Ok(decision),
            // Nothing else notices while we wait that the client has gone. A body is not read here:
            // it belongs to the request that is forwarded.
            gone = client_gone(session) => Err(gone),
        }
    }

    /// Makes the answer to a write ours: where the client goes on, and what is known from now on.
    async fn wrote(
        &self,
        request: &Parts,
        response: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> pingora::Result<()> {
        let Some(context) = &journey.context else { return Ok(()) };
        if response.status.is_informational() {
            return Ok(());
        }
        forward::count(request, context, response.status);
        journey.rules.chain.answered(request, context, &forward::parts(response)).await;
        match forward::location(response, request, context) {
            Ok(None) => {}
            Ok(Some(place)) => response.insert_header(header::LOCATION, place)?,
            Err(refusal) => {
                journey.refused = Some(refusal);
                return Err(Error::new_str("upstream's answer is not passed on").into_up());
            }
        }
        Ok(())
    }

    async fn answer(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        answer: Answer,
    ) -> pingora::Result<()> {
        send::send(session, answer, &mut journey.sent).await
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Journey;

    fn new_ctx(&self) -> Journey {
        Journey {
            started: Instant::now(),
            rules: self.live.load_full(),
            context: None,
            forward: None,
            refused: None,
            sent: Sent::default(),
            span: None,
            _under_way: self.drain.request(),
        }
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {
        // None: bodies pass as stored, and compression is a module.
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        journey: &mut Journey,
    ) -> pingora::Result<()> {
        guarded::head_is_read(session);
        let downstream = &journey.rules.downstream;
        // Only where client and version keep the connection at all; 0 would mean for ever.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(downstream.keepalive.as_secs().max(1)));
        }
        if session.is_http2() {
            // The guard sees the connection, and not the one stream that its client does not read.
            session.set_write_timeout(Some(downstream.write));
        }
        session.set_read_timeout(Some(downstream.write));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        journey: &mut Journey,
    ) -> pingora::Result<bool> {
        let request: Parts = (**session.req_header()).clone();
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(|a| a.ip());
        let rules = Arc::clone(&journey.rules);
        let context = journey.context.insert(Context::new(peer));
        context.destination = entrance::destination(session);
        context.is_repeatable = rules.chain.repeats().is_some() && !session.is_http2();
        journey.span = span::begin(&rules.chain, &request, context.client.peer, journey.started);
        let decision = match &journey.span {
            None => Self::decide(&rules.chain, session, &request, context).await?,
            // Boxed: what waits without one should not carry its weight.
            Some(span) => {
                let deciding = Self::decide(&rules.chain, session, &request, context);
                Box::pin(span.around(deciding)).await?
            }
        };
        let decision = match decision {
            Ok(Flow::Forward | Flow::Continue) => match forward::prepare(&request, context).await {
                Ok(forward) => {
                    journey.forward = Some(forward);
                    return Ok(false);
                }
                Err(refusal) => Err(refusal),
            },
            Ok(Flow::Respond(answer)) => {
                if let Some((repeats, h1)) =
                    rules.chain.repeats().zip(session.as_downstream().as_http1())
                {
                    let head = h1.get_headers_raw_bytes();
                    repeats.remember(&head, &request, context, &answer, head::lasting);
                }
                Ok(answer)
            }
            Err(refusal) => Err(refusal),
        };
        let route = journey.context.as_ref().and_then(|context| context.target.as_ref());
        let answer = decision
            .unwrap_or_else(|refusal| respond::refuse(&refusal, route.map(|target| &target.route)));
        self.answer(session, journey, answer).await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        journey: &mut Journey,
    ) -> pingora::Result<Box<HttpPeer>> {
        let forward = journey.forward.as_ref();
        let forward = forward.ok_or_else(|| Error::new_str("a request without a destination"))?;
        Ok(Box::new(forward.peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        journey: &mut Journey,
    ) -> pingora::Result<()> {
        let target = journey.context.as_ref().and_then(|context| context.target.as_ref());
        let Some((forward, target)) = journey.forward.as_ref().zip(target) else {
            return Ok(());
        };
        forward::to_upstream(request, session.req_header().uri.query(), forward, target)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> pingora::Result<()> {
        let is_relayed = journey.forward.as_ref().is_some_and(|forward| forward.is_relayed);
        if is_relayed && response.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            // Our login at the proxy is no client's business.
            let what = "the proxy refused the request: 407";
            return Err(Error::explain(ErrorType::ConnectProxyFailure, what).into_up());
        }
        if session.req_header().version <= Version::HTTP_10
            && response.remove_header(&header::TRANSFER_ENCODING).is_some()
        {
            // RFC 9112 §6.1: it knows no chunks; the body ends with the connection.
            session.set_keepalive(None);
        }
        let is_write = journey.forward.as_ref().is_some_and(|forward| forward.is_write);
        let request: &Parts = session.req_header();
        if !response.status.is_informational() {
            journey.sent.begin();
        }
        if is_write {
            self.wrote(request, response, journey).await?;
        }
        if let Some(context) = &mut journey.context {
            context.cache = "forward";
            forward::to_client(response, request, context, is_write)?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        journey: &mut Journey,
    ) -> pingora::Result<Option<Duration>> {
        let forward = journey.forward.as_ref();
        Ok(forward.zip(body.as_ref()).and_then(|(forward, body)| forward.received(body.len())))
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        journey: &mut Journey,
        client_reused: bool,
    ) -> Box<Error> {
        let is_write = journey.forward.as_ref().is_some_and(|forward| forward.is_write);
        // A write may have been done, however the connection ended.
        if is_write || session.as_ref().retry_buffer_truncated() {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        journey: &mut Journey,
    ) -> FailToProxy {
        let is_write = journey.forward.as_ref().is_some_and(|forward| forward.is_write);
        if let Some(context) = journey.context.as_ref().filter(|_| is_write)
            && journey.refused.is_none()
        {
            // It may have been done.
            let chain = &journey.rules.chain;
            chain.answered(session.req_header(), context, &forward::no_answer()).await;
        }
        if *error.esource() == ErrorSource::Downstream {
            // The client has gone: there is nobody to answer.
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let code = respond::status_of_failure(error);
        if session.response_written().is_none() && code != StatusCode::OK {
            let answer = match &journey.refused {
                Some(refusal) => respond::refuse(refusal, None),
                None => respond::forward_failed(code),
            };
            // The client may be the one that is gone.
            if self.answer(session, journey, answer).await.is_err() {
                return FailToProxy { error_code: 0, can_reuse_downstream: false };
            }
        }
        FailToProxy { error_code: code.as_u16(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, journey: &mut Journey) {
        let traffic = Arc::clone(journey.rules.chain.traffic());
        log::request(session, error, journey, &traffic);
    }

    fn suppress_error_log(&self, _: &Session, _: &Journey, _: &Error) -> bool {
        // The access line says it.
        true
    }
}

/// Resolves when the client has closed its connection, or broken the protocol on it.
async fn client_gone(session: &mut Session) -> Box<Error> {
    if !session.as_downstream_mut().is_body_done() {
        std::future::pending::<()>().await;
    }
    match session.as_downstream_mut().read_body_or_idle(true).await {
        Ok(_) => Error::new_str("the client sent more than its request").into_down(),
        Err(error) => error.into_down(),
    }
}

/// Names that the proxy and its answers use.
fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

/// How long something took, in milliseconds, for the log.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
