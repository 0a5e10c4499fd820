//! The dashboard: pages at `/` and below, and what they are made of.
//!
//! ```text
//! reports ─► glue, past ─► view (figure, chart) ─► templates/*.html ─► a page
//! ```
//!
//! Pages are rendered here and hold every figure; the script beside them only
//! loads them again when `/api/v1/stream` says so, and does what their buttons
//! say through the API. Nothing comes from elsewhere, and nothing is inline.

mod asset;
mod chart;
mod figure;
mod glue;
mod past;
#[cfg(test)]
mod sample;
mod view;

use std::{borrow::Cow, fmt::Display, time::SystemTime};

use askama::Template;
use axum::{
    Router,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};

use super::{Admin, Server, api::tags::freshness};
use crate::{events, inventory::Error};
use asset::Asset;
use chart::Span;
use figure::Shown;
use view::{Overview, Repositories, RepositoryPage, Trouble};

/// Rows of a page.
const PER_PAGE: usize = 100;

/// The pages and their files.
pub(super) fn router() -> Router<Server> {
    Router::new()
        .route("/", get(overview))
        .route("/repositories", get(repositories))
        .route("/repositories/{*name}", get(repository))
        .route("/assets/{file}", get(asset))
}

/// `part=figures` leaves out the charts, which change less often.
async fn overview(
    State(server): State<Server>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let span = Span::parse(&parameter(&query, "span").unwrap_or_default());
    let is_whole = parameter(&query, "part").is_none();
    page(move || {
        let status = server.monitor.status();
        let (fills, fills_left_out) = glue::fills(&status);
        let is_new = status.totals.requests == 0;
        let charts = || past::charts(&server.monitor.history(span.into()), span, status.now);
        let overview = Overview {
            frame: glue::frame(&status, ""),
            notices: glue::notices(&status),
            newcomer: glue::newcomer(&server.listen, &headers).filter(|_| is_new),
            head: glue::head(&status),
            budgets: glue::budgets(&status),
            fills,
            fills_left_out,
            repositories: glue::top(&status.repositories),
            clients: glue::top(&status.clients),
            upstreams: glue::upstreams(&status.upstreams),
            disk: glue::disk(&status.disk),
            process: glue::process(&status.process),
            events: glue::events(events::recent(0), status.now),
            span,
            charts: if is_whole { charts() } else { Vec::new() },
        };
        html(StatusCode::OK, &overview)
    })
    .await
}

async fn repositories(
    State(server): State<Server>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let matching = parameter(&query, "match");
    let after = parameter(&query, "after");
    page(move || {
        let status = server.monitor.status();
        let frame = glue::frame(&status, matching.as_deref().unwrap_or_default());
        let found = server.inventory.repositories(matching.as_deref(), after.as_deref(), PER_PAGE);
        let (code, found, refused) = match found {
            Ok(found) => (StatusCode::OK, Some(found), None),
            Err(error @ Error::BadReference(_)) => (StatusCode::BAD_REQUEST, None, Some(error)),
            Err(error) => return failed(&server, &error),
        };
        let (rows, next) = found.map_or_else(Default::default, |it| (it.repositories, it.next));
        let is_empty = rows.is_empty() && next.is_none() && matching.is_none() && after.is_none();
        let page = Repositories {
            frame,
            refused: refused.map(|error| Shown::new(error.to_string())),
            rows: rows.iter().map(|row| glue::repository(row, status.now)).collect(),
            next: next
                .map(|next| link("/repositories", &[("match", matching), ("after", Some(next))])),
            is_later: after.is_some(),
            newcomer: glue::newcomer(&server.listen, &headers).filter(|_| is_empty),
        };
        html(code, &page)
    })
    .await
}

async fn repository(
    State(server): State<Server>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let after = parameter(&query, "after");
    page(move || {
        let unknown = |why: &dyn Display| {
            trouble(&server, StatusCode::NOT_FOUND, "There is no such repository", why)
        };
        let Path(name) = match name {
            Ok(name) => name,
            Err(rejection) => return unknown(&rejection.body_text()),
        };
        let now = SystemTime::now();
        let judge = |key: &_, record: &_| freshness(&server, key, record, now);
        let found = match server.inventory.tags(&name, after.as_deref(), PER_PAGE, judge) {
            Ok(found) => found,
            Err(error @ Error::BadReference(_)) => return unknown(&error),
            Err(error) => return failed(&server, &error),
        };
        let status = server.monitor.status();
        let info = found.repository;
        let page = RepositoryPage {
            frame: glue::frame(&status, ""),
            reference: format!("{}/{}", info.upstream, info.repository),
            whole: glue::repository(&info, status.now),
            tags: found.tags.into_iter().map(|tag| glue::tag(tag, status.now)).collect(),
            next: found.next.map(|next| link("", &[("after", Some(next))])),
            is_later: after.is_some(),
        };
        html(StatusCode::OK, &page)
    })
    .await
}

async fn asset(file: Result<Path<String>, PathRejection>) -> Response {
    match file.ok().and_then(|Path(file)| Asset::at(&format!("/assets/{file}"))) {
        Some(asset) => {
            let kind = (header::CONTENT_TYPE, asset.content_type);
            let for_ever = (header::CACHE_CONTROL, "public, max-age=31536000, immutable");
            ([kind, for_ever], asset.text).into_response()
        }
        None => {
            (StatusCode::NOT_FOUND, "there is no such file; load the page again\n").into_response()
        }
    }
}

/// Makes a page where it may wait for the disk.
async fn page(make: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(make).await {
        Ok(made) => made,
        Err(error) => {
            tracing::error!(%error, "a page of the dashboard ended halfway");
            let text = "the page ended halfway; the log says why\n";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(page) => {
            let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
            (status, [kind], page).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page of the dashboard could not be written");
            let text = "the page could not be written; the log says why\n";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

fn failed(server: &Admin, error: &Error) -> Response {
    tracing::warn!(%error, "the dashboard could not show what is cached");
    trouble(server, StatusCode::INTERNAL_SERVER_ERROR, "The store can't be read", error)
}

fn trouble(server: &Admin, code: StatusCode, title: &'static str, why: &dyn Display) -> Response {
    let frame = glue::frame(&server.monitor.status(), "");
    html(code, &Trouble { frame, title, text: Shown::new(why.to_string()) })
}

/// A parameter that is there and not empty.
fn parameter(query: &Option<String>, name: &str) -> Option<String> {
    let query = query.as_deref().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let found = pairs.find(|(key, value)| key == name && !value.is_empty());
    found.map(|(_, value): (_, Cow<'_, str>)| value.into_owned())
}

fn link(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("{path}?{}", query.finish())
}
