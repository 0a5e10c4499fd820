//! The registries: how they are, what is left of their limits, and whether they are asked at all.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Server,
    extract::Sent,
    reply::{Answer, BodyFailures, Failure, Failures, Json, Refused},
};
use crate::upstream::{BudgetReport, UpstreamReport};

const TAG: &str = "upstreams";

/// What is left of each upstream's limit.
#[derive(Debug, Serialize, ToSchema)]
struct Budgets {
    /// In the order of the configuration.
    upstreams: Vec<BudgetReport>,
}

/// How the upstreams are.
#[derive(Debug, Serialize, ToSchema)]
struct Upstreams {
    /// In the order of the configuration.
    upstreams: Vec<UpstreamReport>,
}

/// Which upstream is asked, and which isn't.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Offline {
    /// Whether it is left alone; what is cached is served.
    offline: bool,
    /// The one to switch; all, if it is not there.
    upstream: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new().routes(routes!(budget)).routes(routes!(upstreams)).routes(routes!(offline))
}

#[utoipa::path(get, path = "/api/v1/budget", tag = TAG,
    responses((status = OK, description = "Each upstream's", body = Budgets), Failures))]
/// What is left of each upstream's limit, and who spent it.
async fn budget(State(server): State<Server>) -> Json<Budgets> {
    let upstreams = server.upstreams.all().iter().map(|upstream| upstream.budget()).collect();
    Json(Budgets { upstreams })
}

#[utoipa::path(get, path = "/api/v1/upstreams", tag = TAG,
    responses((status = OK, description = "Each of them", body = Upstreams), Failures))]
/// How the upstreams and their mirrors are.
async fn upstreams(State(server): State<Server>) -> Json<Upstreams> {
    report(&server)
}

#[utoipa::path(post, path = "/api/v1/offline", tag = TAG, request_body = Offline,
    responses((status = OK, description = "Each of them, as they are now", body = Upstreams),
        (status = NOT_FOUND, description = "There is no such upstream: `not_found`", body = Failure),
        Failures, BodyFailures))]
/// Stops asking an upstream, or all of them, until the next start.
async fn offline(State(server): State<Server>, Sent(switch): Sent<Offline>) -> Answer<Upstreams> {
    let Some(name) = &switch.upstream else {
        for upstream in server.upstreams.all().iter() {
            server.upstreams.set_offline(upstream, switch.offline);
        }
        return Ok(report(&server));
    };
    let Some(upstream) = server.upstreams.named(name) else {
        let all = server.upstreams.all();
        let names: Vec<_> = all.iter().map(|upstream| &**upstream.name()).collect();
        let message = format!("there is no upstream {name}; there are {}", names.join(", "));
        return Err(Refused::not_found(message));
    };
    server.upstreams.set_offline(&upstream, switch.offline);
    Ok(report(&server))
}

fn report(server: &Server) -> Json<Upstreams> {
    let upstreams = server.upstreams.all().iter().map(|upstream| upstream.report()).collect();
    Json(Upstreams { upstreams })
}
