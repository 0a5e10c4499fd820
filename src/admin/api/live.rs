//! The state of the server, live.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode, header};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Server,
    reply::{Failure, Failures, Refused},
};

const TAG: &str = "server";

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new().routes(routes!(stream))
}

#[utoipa::path(get, path = "/api/v1/stream", tag = TAG,
    responses((status = OK, description = "Events named `status`, each with a JSON document",
            body = String, content_type = "text/event-stream"),
        (status = SERVICE_UNAVAILABLE, description = "Too many watch already: `busy`", body = Failure),
        Failures))]
/// The state each second, as server-sent events, until the client leaves.
async fn stream(State(server): State<Server>, method: Method) -> Result<Response, Refused> {
    // What has no end has no head to be shown without it.
    if method == Method::HEAD {
        let message = "the stream is answered to GET alone; send that";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let refused = Refused::new(status, "method_not_allowed", message);
        return Ok(([(header::ALLOW, "GET")], refused).into_response());
    }
    let maker = Arc::clone(&server);
    let begin = Box::new(move || drop(tokio::spawn(make(maker))));
    let seen = server.viewers.join(begin).map_err(|_| {
        let message = "too many watch already; close a dashboard, or ask for the status instead";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    })?;
    let body = Body::from_stream(seen.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// Makes events; ends by itself when nobody watches.
async fn make(server: Server) {
    let event = async || {
        let asked = Arc::clone(&server);
        let made =
            tokio::task::spawn_blocking(move || event("status", &asked.monitor.status())).await;
        made.unwrap_or_default()
    };
    server.viewers.make(event).await;
}

/// JSON has no line ends, so that it is one line of data.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("reports are text, numbers and lists");
    format!("event: {name}\ndata: {data}\n\n").into()
}
