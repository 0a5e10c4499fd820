//! Who answers which path.

use axum::{
    Router,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri};

use super::{
    Server, api, dashboard, probes,
    reply::{Refused, text},
};

/// Where the API is.
pub(super) const API: &str = "/api/";

/// Everything that the second listener answers.
pub(super) fn router(server: Server) -> Router {
    let (api, _) = api::router().split_for_parts();
    api.merge(probes::router())
        .merge(dashboard::router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(server)
}

async fn not_found(uri: Uri) -> Response {
    if uri.path().starts_with(API) {
        let message = "there is no such endpoint; /api/v1/openapi.json lists them";
        return Refused::new(StatusCode::NOT_FOUND, "not_found", message).into_response();
    }
    let known = "there are /, /healthz, /readyz, /metrics and /api/v1/\n";
    (StatusCode::NOT_FOUND, text(known)).into_response()
}

/// Which methods there are says `Allow`.
async fn method_not_allowed(uri: Uri) -> Response {
    let message = "the method is not answered here; the header Allow lists those that are";
    if uri.path().starts_with(API) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Refused::new(status, "method_not_allowed", message).into_response();
    }
    (StatusCode::METHOD_NOT_ALLOWED, text(&format!("{message}\n"))).into_response()
}
