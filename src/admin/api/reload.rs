//! The configuration: it is read again, and what came of it is told.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        Server,
        reply::{BodyFailures, Failures, Json, Refused},
    },
    blocking,
};
use crate::config::{Problem, Reloaded};

const TAG: &str = "server";

/// What is wrong with the configuration.
#[derive(Debug, Serialize, ToSchema)]
struct Invalid {
    error: InvalidInside,
}

/// Nothing has changed.
#[derive(Debug, Serialize, ToSchema)]
struct InvalidInside {
    /// `invalid_configuration`
    code: &'static str,
    /// What to do, for people.
    message: &'static str,
    /// All of it.
    problems: Vec<Fault>,
}

/// One fault.
#[derive(Debug, Serialize, ToSchema)]
struct Fault {
    /// The file, `environment`, or `command line`.
    origin: String,
    /// The key, the variable, the flag, or the line.
    key: String,
    /// What is wrong.
    problem: String,
    /// What to write instead.
    remedy: String,
}

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new().routes(routes!(reload))
}

#[utoipa::path(post, path = "/api/v1/reload", tag = TAG, responses(
    (status = OK, description = "It holds, but for what is pending", body = Reloaded),
    (status = UNPROCESSABLE_ENTITY, description = "It can't be used, and nothing has changed", body = Invalid),
    Failures, BodyFailures))]
/// Reads the configuration again: file, environment and command line.
async fn reload(State(server): State<Server>) -> Result<Response, Refused> {
    let reload = server.reload.clone();
    Ok(match blocking(move || Ok::<_, Refused>(reload.run())).await? {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(problems) => {
            let error = InvalidInside::of(problems);
            (StatusCode::UNPROCESSABLE_ENTITY, Json(Invalid { error })).into_response()
        }
    })
}

// === impl InvalidInside ===

impl InvalidInside {
    fn of(problems: Vec<Problem>) -> Self {
        let fault = |Problem { origin, key, refusal }| Fault {
            origin,
            key,
            problem: refusal.what,
            remedy: refusal.remedy,
        };
        Self {
            code: "invalid_configuration",
            message: "nothing has changed; mend what is listed under problems, and reload again",
            problems: problems.into_iter().map(fault).collect(),
        }
    }
}
