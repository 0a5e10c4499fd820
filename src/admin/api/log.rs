//! What is logged.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Server,
    extract::Sent,
    levels::{LogLevels, levels},
    reply::{Answer, BodyFailures, Failure, Failures, Json, Refused},
};

const TAG: &str = "server";

/// The longest text of levels.
const MOST_BYTES: usize = 4096;

/// What is logged.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Levels {
    /// As the variable RUST_LOG is written: levels by target, such as
    /// `warn,roadstead=debug,access=info`; `access` is the lines about requests.
    #[schema(max_length = 4096, example = "warn,roadstead=debug,access=info")]
    levels: String,
}

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new().routes(routes!(log_level, set_log_level))
}

#[utoipa::path(get, path = "/api/v1/log-level", tag = TAG,
    responses((status = OK, description = "What is logged now", body = Levels),
        (status = NOT_FOUND, description = "There are none to change: `not_found`", body = Failure),
        Failures))]
/// What is logged now.
async fn log_level() -> Answer<Levels> {
    Ok(Json(Levels { levels: owner()?.levels() }))
}

#[utoipa::path(put, path = "/api/v1/log-level", tag = TAG, request_body = Levels,
    responses((status = OK, description = "What is logged from now on", body = Levels),
        (status = NOT_FOUND, description = "There are none to change: `not_found`", body = Failure),
        Failures, BodyFailures))]
/// Logs more or less, until the next start.
async fn set_log_level(Sent(sent): Sent<Levels>) -> Answer<Levels> {
    let owner = owner()?;
    if sent.levels.len() > MOST_BYTES {
        let message = format!("levels have at most {MOST_BYTES} bytes; write fewer targets");
        return Err(Refused::bad_request(message));
    }
    owner.set(&sent.levels).map_err(Refused::bad_request)?;
    tracing::info!(levels = %owner.levels(), "the log's levels were changed");
    Ok(Json(Levels { levels: owner.levels() }))
}

fn owner() -> Result<&'static dyn LogLevels, Refused> {
    levels().ok_or_else(|| {
        let message = "this server's log has no levels to change; `roadstead serve` has";
        Refused::new(StatusCode::NOT_FOUND, "not_found", message)
    })
}
