//! What is cached: usage, images, blobs, pins, and the verification of all of it.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        Server,
        extract::{MaybeSent, Query, Sent},
        reply::{Answer, BodyFailures, Failure, Failures, Json, Refused},
    },
    References, blocking, given, limit,
};
use crate::inventory::{
    self, BlobPage, ImagePage, PinPage, PinReport, PurgeReport, PurgeRequest, UnpinReport,
    UsageReport, VerifyStatus,
};

const TAG: &str = "cache";

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// The `next` of the page before.
    after: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Which images.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Matching {
    /// A reference or a pattern.
    r#match: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// How to verify.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Verify {
    /// Set right what is wrong.
    repair: bool,
}

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new()
        .routes(routes!(server))
        .routes(routes!(usage))
        .routes(routes!(images))
        .routes(routes!(blobs))
        .routes(routes!(pins))
        .routes(routes!(purge))
        .routes(routes!(pin))
        .routes(routes!(unpin, unpin_by_delete))
        .routes(routes!(verify_status, verify))
        .routes(routes!(verify_cancel))
}

#[utoipa::path(get, path = "/api/v1/", tag = TAG,
    responses((status = OK, description = "It", body = inventory::Server), Failures))]
/// Which server this is, and which store it has.
async fn server(State(server): State<Server>) -> Answer<inventory::Server> {
    blocking(move || Ok::<_, Refused>(server.inventory.server())).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/usage", tag = TAG,
    responses((status = OK, description = "The store, its upstreams and the largest repositories", body = UsageReport), Failures))]
/// Who uses how much.
async fn usage(State(server): State<Server>) -> Answer<UsageReport> {
    blocking(move || server.inventory.usage_soon()).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/images", tag = TAG, params(Matching),
    responses((status = OK, description = "A page of them", body = ImagePage), Failures))]
/// The cached tags.
async fn images(State(server): State<Server>, Query(asked): Query<Matching>) -> Answer<ImagePage> {
    let limit = limit(asked.limit)?;
    let (matching, after) = (given(asked.r#match), given(asked.after));
    let page = move || server.inventory.images(matching.as_deref(), after.as_deref(), limit);
    blocking(page).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/blobs", tag = TAG, params(Part),
    responses((status = OK, description = "A page of them", body = BlobPage), Failures))]
/// The stored blobs, manifests among them.
async fn blobs(State(server): State<Server>, Query(part): Query<Part>) -> Answer<BlobPage> {
    let (after, limit) = (given(part.after), limit(part.limit)?);
    blocking(move || server.inventory.blobs(after.as_deref(), limit)).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/pins", tag = TAG, params(Part),
    responses((status = OK, description = "A page of them", body = PinPage), Failures))]
/// The pins.
async fn pins(State(server): State<Server>, Query(part): Query<Part>) -> Answer<PinPage> {
    let (after, limit) = (given(part.after), limit(part.limit)?);
    blocking(move || server.inventory.pins(after.as_deref(), limit)).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/purge", tag = TAG, request_body = PurgeRequest,
    responses((status = OK, description = "What went, or would", body = PurgeReport), Failures, BodyFailures))]
/// Removes images from the cache.
async fn purge(
    State(server): State<Server>,
    Sent(request): Sent<PurgeRequest>,
) -> Answer<PurgeReport> {
    blocking(move || server.inventory.purge(&request)).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/pin", tag = TAG, request_body = References,
    responses((status = OK, description = "What is pinned now", body = PinReport), Failures, BodyFailures))]
/// Keeps images from being evicted.
async fn pin(State(server): State<Server>, Sent(sent): Sent<References>) -> Answer<PinReport> {
    blocking(move || server.inventory.pin(&sent.references)).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/unpin", tag = TAG, request_body = References,
    responses((status = OK, description = "What is pinned no more", body = UnpinReport), Failures, BodyFailures))]
/// Lets images be evicted again.
async fn unpin(State(server): State<Server>, Sent(sent): Sent<References>) -> Answer<UnpinReport> {
    blocking(move || server.inventory.unpin(&sent.references)).await.map(Json)
}

#[utoipa::path(delete, path = "/api/v1/unpin", tag = TAG, request_body = References,
    responses((status = OK, description = "What is pinned no more", body = UnpinReport), Failures, BodyFailures))]
/// The same as POST.
async fn unpin_by_delete(state: State<Server>, sent: Sent<References>) -> Answer<UnpinReport> {
    unpin(state, sent).await
}

#[utoipa::path(get, path = "/api/v1/verify", tag = TAG,
    responses((status = OK, description = "Of the last, if there was one", body = VerifyStatus), Failures))]
/// How far the last verification is.
async fn verify_status(State(server): State<Server>) -> Answer<VerifyStatus> {
    blocking(move || Ok::<_, Refused>(server.inventory.verify_status())).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/verify", tag = TAG, request_body = Option<Verify>,
    responses((status = ACCEPTED, description = "It has begun", body = VerifyStatus),
        (status = CONFLICT, description = "One runs already: `running`", body = Failure), Failures, BodyFailures))]
/// Begins to compare every stored object with its digest.
async fn verify(
    State(server): State<Server>,
    MaybeSent(how): MaybeSent<Verify>,
) -> Result<(StatusCode, Json<VerifyStatus>), Refused> {
    let begun = blocking(move || server.inventory.start_verify(how.repair)).await?;
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

#[utoipa::path(post, path = "/api/v1/verify/cancel", tag = TAG,
    responses((status = OK, description = "As it was", body = VerifyStatus), Failures, BodyFailures))]
/// Ends a verification.
async fn verify_cancel(State(server): State<Server>) -> Answer<VerifyStatus> {
    blocking(move || Ok::<_, Refused>(server.inventory.cancel_verify())).await.map(Json)
}
