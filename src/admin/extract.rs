//! What handlers take of a request, with the one shape of errors.

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::reply::Refused;

/// What the path names, percent-decoded.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

/// The query's parameters; give `T` `deny_unknown_fields`.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

/// The body as JSON; give `T` `deny_unknown_fields`.
#[derive(Debug)]
pub(super) struct Sent<T>(pub(super) T);

/// The body as JSON, or what `T` is without one.
#[derive(Debug)]
pub(super) struct MaybeSent<T>(pub(super) T);

// === impl ===

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let axum::extract::Path(read) = read.map_err(|error| {
            Refused::bad_request(format!(
                "{}; /api/v1/openapi.json lists the paths",
                error.body_text()
            ))
        })?;
        Ok(Self(read))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let axum::extract::Query(read) = read.map_err(|error| {
            Refused::bad_request(format!(
                "{}; /api/v1/openapi.json lists the parameters",
                error.body_text()
            ))
        })?;
        Ok(Self(read))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        parse(&whole(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for MaybeSent<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let body = whole(request).await?;
        match body.trim_ascii().is_empty() {
            true => Ok(Self(T::default())),
            // `null` says nothing either.
            false => parse::<Option<T>>(&body).map(|sent| Self(sent.unwrap_or_default())),
        }
    }
}

/// It was read before, within its limits.
async fn whole(request: Request) -> Result<Vec<u8>, Refused> {
    let body = request.into_body().collect().await;
    let body = body.map_err(|_| Refused::bad_request("the body ended too early; send it again"))?;
    Ok(body.to_bytes().into())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Refused::bad_request(format!(
            "the body is not what this needs: {error}; /api/v1/openapi.json lists its fields"
        ))
    })
}
