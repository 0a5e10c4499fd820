//! Warming: images are fetched before clients ask for them.

use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Server,
    extract::{Path, Sent},
    reply::{Answer, BodyFailures, Failure, Failures, Json, Refused},
};
use crate::warm::{self, JobReport, WarmOverview, WarmRequest};

const TAG: &str = "warm";

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new().routes(routes!(overview, start)).routes(routes!(job, cancel))
}

#[utoipa::path(get, path = "/api/v1/warm", tag = TAG,
    responses((status = OK, description = "All of them", body = WarmOverview), Failures))]
/// The jobs of warming, the newest first, and the schedules of the configuration.
async fn overview(State(server): State<Server>) -> Json<WarmOverview> {
    Json(server.warmer.overview())
}

#[utoipa::path(post, path = "/api/v1/warm", tag = TAG, request_body = WarmRequest,
    responses((status = ACCEPTED, description = "The job, which goes on by itself", body = JobReport),
        (status = TOO_MANY_REQUESTS, description = "Too many jobs run: `busy`", body = Failure),
        Failures, BodyFailures))]
/// Fetches images, or with `dry_run` says what that would cost.
async fn start(
    State(server): State<Server>,
    Sent(request): Sent<WarmRequest>,
) -> Result<(StatusCode, Json<JobReport>), Refused> {
    Ok((StatusCode::ACCEPTED, Json(server.warmer.start(request)?)))
}

#[utoipa::path(get, path = "/api/v1/warm/{id}", tag = TAG,
    params(("id" = String, Path, description = "The job's `id`")),
    responses((status = OK, description = "The job", body = JobReport),
        (status = NOT_FOUND, description = "There is no such job: `not_found`", body = Failure),
        Failures))]
/// How a job is.
async fn job(State(server): State<Server>, Path(id): Path<String>) -> Answer<JobReport> {
    server.warmer.report(&id).map(Json).ok_or_else(|| unknown(&id))
}

#[utoipa::path(delete, path = "/api/v1/warm/{id}", tag = TAG,
    params(("id" = String, Path, description = "The job's `id`")),
    responses((status = OK, description = "The job, which is about to end", body = JobReport),
        (status = NOT_FOUND, description = "There is no such job: `not_found`", body = Failure),
        Failures, BodyFailures))]
/// Has a job end. What is on its way is kept, and the next job goes on from there.
async fn cancel(State(server): State<Server>, Path(id): Path<String>) -> Answer<JobReport> {
    server.warmer.cancel(&id).map(Json).ok_or_else(|| unknown(&id))
}

fn unknown(id: &str) -> Refused {
    let id: String = id.chars().take(20).collect();
    Refused::not_found(format!(
        "there is no job {id:?}; jobs are forgotten some time after their end, and with the server"
    ))
}

impl From<warm::Refused> for Refused {
    fn from(refused: warm::Refused) -> Self {
        match refused {
            warm::Refused::Bad(problem) => Self::bad_request(problem),
            warm::Refused::Busy(busy) => Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", busy),
        }
    }
}
