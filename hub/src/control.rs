//! The simulator's own endpoints, under `/_hub/` at the registry: for tests in other languages
//! and for curl. Never counted, never subject to faults.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use crate::fault::{Fault, FaultId};
use crate::image::{Image, ImageSpec};
use crate::shared::Shared;
use crate::stats::{Request, Stats};
use crate::sync::lock;

type Simulator = State<Arc<Shared>>;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/stats", get(stats))
        .route("/requests", get(requests))
        .route("/reset", post(reset))
        .route("/images", post(push))
        .route("/tags", post(tag).delete(delete_tag))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/budget", post(set_budget))
}

async fn stats(State(shared): Simulator) -> Json<Stats> {
    Json(shared.stats())
}

async fn requests(State(shared): Simulator) -> Json<Vec<Request>> {
    Json(lock(&shared.log).requests())
}

async fn reset(State(shared): Simulator) -> StatusCode {
    lock(&shared.log).reset();
    StatusCode::NO_CONTENT
}

async fn push(State(shared): Simulator, Json(spec): Json<ImageSpec>) -> Json<Image> {
    Json(shared.push(&spec))
}

#[derive(Debug, Deserialize)]
struct Tag {
    repository: String,
    tag: String,
    #[serde(default)]
    digest: String,
}

async fn tag(State(shared): Simulator, Json(tag): Json<Tag>) -> StatusCode {
    lock(&shared.content).tag(&tag.repository, &tag.tag, &tag.digest);
    StatusCode::NO_CONTENT
}

async fn delete_tag(State(shared): Simulator, Json(tag): Json<Tag>) -> StatusCode {
    lock(&shared.content).delete_tag(&tag.repository, &tag.tag);
    StatusCode::NO_CONTENT
}

async fn add_fault(State(shared): Simulator, Json(fault): Json<Fault>) -> Json<FaultId> {
    Json(lock(&shared.faults).add(fault))
}

async fn clear_faults(State(shared): Simulator) -> StatusCode {
    lock(&shared.faults).clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Budget {
    #[serde(default)]
    account: Option<String>,
    remaining: u64,
}

async fn set_budget(State(shared): Simulator, Json(budget): Json<Budget>) -> StatusCode {
    let now = Instant::now();
    lock(&shared.budgets).set(budget.account.as_deref(), budget.remaining, now);
    StatusCode::NO_CONTENT
}
