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
        reply::{Answer, Json, Refused},
    },
    blocking,
};
use crate::inventory::{
    self, ImagePage, MOST_PER_PAGE, ObjectPage, PinPage, PinReport, PurgeReport, PurgeRequest,
    UnpinReport, UsageReport, VerifyStatus,
};

const TAG: &str = "cache";

/// Items of a page where the request does not say.
const PER_PAGE: usize = 100;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
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
struct Matching {
    /// A reference or a pattern.
    r#match: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Images, digests or patterns.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct References {
    references: Vec<String>,
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
        .routes(routes!(objects))
        .routes(routes!(pins))
        .routes(routes!(purge))
        .routes(routes!(pin))
        .routes(routes!(unpin, unpin_by_delete))
        .routes(routes!(verify_status, verify))
        .routes(routes!(verify_cancel))
}

#[utoipa::path(get, path = "/api/v1/", tag = TAG)]
/// Which server this is, and which store it has.
async fn server(State(server): State<Server>) -> Answer<inventory::Server> {
    blocking(move || Ok::<_, Refused>(server.inventory.server())).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/usage", tag = TAG)]
/// Who uses how much.
async fn usage(State(server): State<Server>) -> Answer<UsageReport> {
    blocking(move || server.inventory.usage()).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/images", tag = TAG, params(Matching))]
/// The cached tags.
async fn images(State(server): State<Server>, Query(asked): Query<Matching>) -> Answer<ImagePage> {
    let limit = limit(asked.limit)?;
    let (matching, after) = (given(asked.r#match), given(asked.after));
    let page = move || server.inventory.images(matching.as_deref(), after.as_deref(), limit);
    blocking(page).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/objects", tag = TAG, params(Part))]
/// The stored objects.
async fn objects(State(server): State<Server>, Query(part): Query<Part>) -> Answer<ObjectPage> {
    let (after, limit) = (given(part.after), limit(part.limit)?);
    blocking(move || server.inventory.objects(after.as_deref(), limit)).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/pins", tag = TAG)]
/// The pins.
async fn pins(State(server): State<Server>) -> Answer<PinPage> {
    blocking(move || server.inventory.pins()).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/purge", tag = TAG)]
/// Removes images from the cache.
async fn purge(
    State(server): State<Server>,
    Sent(request): Sent<PurgeRequest>,
) -> Answer<PurgeReport> {
    blocking(move || server.inventory.purge(&request)).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/pin", tag = TAG)]
/// Keeps images from being evicted.
async fn pin(State(server): State<Server>, Sent(sent): Sent<References>) -> Answer<PinReport> {
    blocking(move || server.inventory.pin(&sent.references)).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/unpin", tag = TAG)]
/// Lets images be evicted again.
async fn unpin(State(server): State<Server>, Sent(sent): Sent<References>) -> Answer<UnpinReport> {
    blocking(move || server.inventory.unpin(&sent.references)).await.map(Json)
}

#[utoipa::path(delete, path = "/api/v1/unpin", tag = TAG)]
/// The same as POST.
async fn unpin_by_delete(state: State<Server>, sent: Sent<References>) -> Answer<UnpinReport> {
    unpin(state, sent).await
}

#[utoipa::path(get, path = "/api/v1/verify", tag = TAG)]
/// How far the last verification is.
async fn verify_status(State(server): State<Server>) -> Answer<VerifyStatus> {
    blocking(move || Ok::<_, Refused>(server.inventory.verify_status())).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/verify", tag = TAG)]
/// Begins to compare every stored object with its digest.
async fn verify(
    State(server): State<Server>,
    MaybeSent(how): MaybeSent<Verify>,
) -> Result<(StatusCode, Json<VerifyStatus>), Refused> {
    let begun = blocking(move || server.inventory.start_verify(how.repair)).await?;
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

#[utoipa::path(post, path = "/api/v1/verify/cancel", tag = TAG)]
/// Ends a verification.
async fn verify_cancel(State(server): State<Server>) -> Answer<VerifyStatus> {
    blocking(move || Ok::<_, Refused>(server.inventory.cancel_verify())).await.map(Json)
}

/// An empty parameter is none.
fn given(parameter: Option<String>) -> Option<String> {
    parameter.filter(|text| !text.is_empty())
}

fn limit(asked: Option<usize>) -> Result<usize, Refused> {
    match asked.unwrap_or(PER_PAGE) {
        limit @ 1..=MOST_PER_PAGE => Ok(limit),
        other => Err(Refused::bad_request(format!(
            "limit={other} is not a number from 1 to {MOST_PER_PAGE}; write one"
        ))),
    }
}
