//! Requests from Pingora to the router, and its answers back.
//!
//! Heads, bodies and writes have their time. A streamed answer ends with its client or with the
//! server; whatever else is sent is whole and carries its length.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, HttpBody},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, Request, Version, header};
use http_body_util::BodyExt;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream},
    protocols::http::ServerSession,
    server::ShutdownWatch,
};
use tokio::time::timeout;
use tower::ServiceExt;

use super::{
    access::{Access, Client},
    body, reply,
};

/// How long a connection may take to send its first head: one that asks nothing keeps a place from
/// those that do.
const FIRST: Duration = Duration::from_secs(5);

/// How long it may wait for its next request, and take to send that head.
const NEXT: Duration = Duration::from_secs(60);

/// How long a client may take nothing of an answer.
const WRITE: Duration = Duration::from_secs(30);

/// What is answered on each connection.
pub(super) struct Http {
    router: Router,
    access: Access,
}

/// Its client is gone, or takes nothing.
struct Gone;

/// What a connection has from one request to the next.
struct HasAsked;

// === impl Http ===

impl Http {
    /// What `router` answers, to those whom `access` lets in.
    pub(super) fn new(router: Router, access: Access) -> Self {
        Self { router, access }
    }

    async fn answer(&self, session: &mut ServerSession) -> Response {
        let head = session.req_header().as_owned_parts();
        let read = match self.access.check(&head, client(session)).await {
            Ok(()) => body::read(session).await,
            Err(refused) => Err(refused),
        };
        let mut response = match read {
            Ok(body) => {
                let request = Request::from_parts(head, Body::from(body));
                let answered: Result<_, Infallible> = self.router.clone().oneshot(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
            Err(refused) => {
                // What is left of its body would be read as the next request.
                session.set_keepalive(None);
                refused.into_response()
            }
        };
        reply::secure(response.headers_mut());
        response
    }
}

#[async_trait]
impl HttpServerApp for Http {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let has_asked = session.take_connection_user_context().is_some();
        let patience = if has_asked { NEXT } else { FIRST };
        if !matches!(timeout(patience, session.read_request()).await, Ok(Ok(true))) {
            return None;
        }
        let stays = !*shutdown.borrow();
        session.set_keepalive(stays.then_some(NEXT.as_secs()));
        session.set_write_timeout(Some(WRITE));
        let response = self.answer(&mut session).await;
        send(&mut session, response, &mut shutdown.clone()).await.ok()?;
        let mut settings = HttpPersistentSettings::for_session(&session);
        settings.set_user_context(Box::new(HasAsked));
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

fn client(session: &ServerSession) -> Client {
    let address = session.client_addr().and_then(|address| address.as_inet());
    let digest = session.digest().and_then(|digest| digest.ssl_digest.as_ref());
    Client {
        address: address.map(|address| address.ip().to_canonical()),
        has_certificate: digest.is_some_and(|digest| !digest.cert_digest.is_empty()),
    }
}

/// To a HEAD without its body.
async fn send(
    session: &mut ServerSession,
    response: Response,
    shutdown: &mut ShutdownWatch,
) -> Result<(), Gone> {
    let is_head = session.req_header().method == Method::HEAD;
    let (mut head, mut body) = response.into_parts();
    let length = body.size_hint().exact();
    if let Some(length) = length {
        // To a HEAD the router has taken the body away, and said how long it is.
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    } else if session.req_header().version == Version::HTTP_11 {
        let chunked = HeaderValue::from_static("chunked");
        head.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    session.write_response_header(Box::new(head.into())).await.map_err(|_| Gone)?;
    if is_head || length == Some(0) {
        return Ok(());
    }
    if length.is_none() {
        return stream(session, body, shutdown).await;
    }
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(piece) = frame.into_data() {
            session.write_response_body(piece, false).await.map_err(|_| Gone)?;
        }
    }
    session.write_response_body(Default::default(), true).await.map_err(|_| Gone)
}

/// Sends pieces as they come, until there are no more, the client is gone, or the server stops.
async fn stream(
    session: &mut ServerSession,
    mut body: Body,
    shutdown: &mut ShutdownWatch,
) -> Result<(), Gone> {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // It has nothing more to say, so whatever comes of this, it is gone.
            _ = session.read_body_or_idle(true) => return Err(Gone),
            // An error means that the server is gone, which is a shutdown too.
            _ = shutdown.wait_for(|stops| *stops) => None,
        };
        let Some(Ok(frame)) = frame else { break };
        if let Ok(piece) = frame.into_data() {
            session.write_response_body(piece, false).await.map_err(|_| Gone)?;
        }
    }
    session.set_keepalive(None);
    session.write_response_body(Default::default(), true).await.map_err(|_| Gone)
}
