//! Following redirects: bounded, without credentials on foreign hosts.
//!
//! An `Authorization` sent along breaks signed URLs and hands the credential to
//! a stranger (P5), so it stays with the scheme, host and port that it was for.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{
    Failure,
    exchange::{Exchange, Kind, Reply, Request},
};

/// Hops after the first.
const HOPS: usize = 5;

/// A request that follows redirects.
#[derive(Debug)]
pub(super) struct Journey<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) kind: Kind,
    pub(super) authorization: Option<&'a HeaderValue>,
    /// Sent on every hop.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// It has just failed, and is tried once more.
    pub(super) is_retry: bool,
}

/// Sends the request and follows where it is sent, as far as `Exchange`'s trust goes.
pub(super) async fn follow(exchange: &Exchange, journey: &Journey<'_>) -> Result<Reply, Failure> {
    let mut url = journey.url.clone();
    for _ in 0..=HOPS {
        let mut headers = journey.headers.clone();
        if let Some(value) = journey.authorization
            && same_origin(&url, journey.url)
        {
            headers.push((header::AUTHORIZATION, value.clone()));
        }
        let request = Request {
            method: journey.method.clone(),
            url: &url,
            kind: journey.kind,
            headers: &headers,
            is_retry: journey.is_retry,
        };
        let reply = exchange.send(&request).await?;
        if !is_redirect(reply.status) {
            return Ok(reply);
        }
        let next = target(&url, &reply)?;
        exchange.trust().redirect(&url, &next).map_err(|problem| Failure::Untrusted { problem })?;
        reply.body.dismiss().await;
        url = next;
    }
    Err(Failure::invalid(format!("more than {HOPS} redirects")))
}

fn target(from: &Url, reply: &Reply) -> Result<Url, Failure> {
    let location = reply.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| Failure::invalid("a redirect without a Location"))?;
    let mut next = from
        .join(location)
        .map_err(|error| Failure::invalid(format!("a redirect to no URL: {error}")))?;
    // A registry has no business to hand us credentials in a URL.
    if !next.username().is_empty() || next.password().is_some() || next.host_str().is_none() {
        return Err(Failure::invalid("a redirect to a URL with credentials or without a host"));
    }
    next.set_fragment(None);
    Ok(next)
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}
