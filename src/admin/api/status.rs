//! How the server is: now, lately, what it fetches, and what went wrong.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Server,
    extract::Query,
    reply::{Failures, Json},
};
use crate::{
    blob::FillReport,
    events::{self, Event},
    history::{Series, Span},
    status::{MOST_FILLS, Status},
};

const TAG: &str = "status";

/// What of the past is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Past {
    /// How far back: `hour` by 10 seconds, `day` by 5 minutes, `week` by 30 minutes.
    #[serde(default = "hour")]
    #[param(inline, required = false)]
    span: Span,
}

/// Which events are known already.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Known {
    /// The largest `id` that is known; 0 for all.
    #[serde(default)]
    #[param(format = "uint64")]
    after: u64,
}

/// Fills under way.
#[derive(Debug, Serialize, ToSchema)]
struct Fills {
    /// The oldest first, at most 100.
    fills: Vec<FillReport>,
    /// How many are under way.
    active: usize,
}

/// Recent problems.
#[derive(Debug, Serialize, ToSchema)]
struct Events {
    /// The one that came last is the last; at most 200.
    events: Vec<Event>,
}

fn hour() -> Span {
    Span::Hour
}

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(history))
        .routes(routes!(fills))
        .routes(routes!(recent))
}

#[utoipa::path(get, path = "/api/v1/status", tag = TAG,
    responses((status = OK, description = "At this moment", body = Status), Failures))]
/// How the server is at this moment.
///
/// Traffic, budgets with a forecast, upstreams, top repositories and clients, fills, disk, process.
async fn status(State(server): State<Server>) -> Json<Status> {
    Json(server.monitor.status())
}

#[utoipa::path(get, path = "/api/v1/history", tag = TAG, params(Past),
    responses((status = OK, description = "Up to now", body = Series), Failures))]
/// What happened during the last hour, day or week, across restarts.
async fn history(State(server): State<Server>, Query(past): Query<Past>) -> Json<Series> {
    Json(server.monitor.history(past.span))
}

#[utoipa::path(get, path = "/api/v1/fills", tag = TAG,
    responses((status = OK, description = "Under way at this moment", body = Fills), Failures))]
/// What is being fetched, and how far it is.
async fn fills(State(server): State<Server>) -> Json<Fills> {
    let mut fills = server.monitor.fills();
    let active = fills.len();
    fills.truncate(MOST_FILLS);
    Json(Fills { fills, active })
}

#[utoipa::path(get, path = "/api/v1/events", tag = TAG, params(Known),
    responses((status = OK, description = "Since then", body = Events), Failures))]
/// Recent warnings and errors, with their remedy.
///
/// As far as the log's level lets them through, since the start; what came again is counted.
async fn recent(Query(known): Query<Known>) -> Json<Events> {
    Json(Events { events: events::recent(known.after) })
}
