//! The API: what is cached and how it goes, as JSON, and what is to be done about it.
//!
//! Everything is below `/api/v1/`; `/api/v1/openapi.json` describes it, made from the handlers'
//! own descriptions. Sizes are bytes, times whole seconds since 1970. What changes something needs
//! the header `X-Roadstead: 1` (`guard` says why) and has a body of at most 64 KiB.
//!
//! An endpoint is a function with `#[utoipa::path]`, listed in its file's `router` through
//! `routes!`, so that it can't be without its description:
//!
//! ```ignore
//! #[utoipa::path(get, path = "/api/v1/fills", tag = TAG, params(Asked),
//!     responses((status = OK, body = Fills), Failures))]
//! /// What is being fetched.
//! async fn fills(State(server): State<Server>, Query(asked): Query<Asked>) -> Answer<Fills> {
//!     blocking(move || server.blobs.fills()).await.map(Json)
//! }
//! ```

mod cache;
mod document;
mod live;
mod log;
mod reload;
mod status;
pub(super) mod tags;
mod upstreams;
mod warm;

use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use super::{Server, reply::Refused};
use crate::inventory::{self, MOST_PER_PAGE};

/// Items of a page where the request does not say.
const PER_PAGE: usize = 100;

/// Images, digests or patterns.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct References {
    /// Such as `alpine`, `ghcr.io/org/app:1`, `library/*` or `sha256:…`.
    #[schema(min_items = 1, max_items = 1000)]
    references: Vec<String>,
}

/// Every endpoint.
pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new()
        .merge(cache::router())
        .merge(tags::router())
        .merge(upstreams::router())
        .merge(status::router())
        .merge(log::router())
        .merge(reload::router())
        .merge(live::router())
        .merge(warm::router())
        .merge(document::router())
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

/// Does what may wait for the disk where it keeps nobody else waiting.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Refused>
where
    T: Send + 'static,
    E: Into<Refused> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => {
            tracing::error!(%error, "a request to the API ended halfway");
            let message = "it ended halfway; the log says why";
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", message))
        }
    }
}

impl From<inventory::Error> for Refused {
    fn from(error: inventory::Error) -> Self {
        match &error {
            inventory::Error::BadReference(_) => {
                Self::new(StatusCode::BAD_REQUEST, "bad_reference", error)
            }
            inventory::Error::Running => Self::new(StatusCode::CONFLICT, "running", error),
            inventory::Error::Store(problem) => {
                tracing::warn!(%problem, "the API could not do what it was asked");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", error)
            }
        }
    }
}
