//! What Pingora forwards: the head that upstream gets, and the head that the client gets back.
//!
//! Credentials go where they belong (P5): in a read ours, or the client's own
//! where the configuration says so; in a write the client's own. An upload goes
//! on through us, whatever the registry calls itself.

use http::{HeaderValue, Response, StatusCode, header, request::Parts, response};
use pingora::http::{RequestHeader, ResponseHeader};

use super::name;
use crate::{
    filter::{Context, Refusal, Target, blob_digest, own_link, query_there},
    metrics,
    protocol::{ErrorCode, Repository, Route, encoded},
    upstream::{Asked, Caller, Forward},
};

/// Headers of a client that are no business of upstream's.
const DROPPED: [&str; 10] = [
    "cookie",
    "forwarded",
    "accept-encoding",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    // Which requests of a network belong together is its own business.
    "traceparent",
    "tracestate",
    "baggage",
];

/// Where the request goes, once a filter has let it pass.
pub(super) async fn prepare(request: &Parts, context: &Context) -> Result<Forward, Refusal> {
    let target = context.target.as_ref().ok_or(Refusal::Malformed("nothing to forward"))?;
    let Target { upstream, route, caller, .. } = target;
    if !target.is_write(&request.method) {
        return Ok(upstream.forward(route, caller).await?);
    }
    // Those that were for us go no further.
    let own = request.headers.get(header::AUTHORIZATION).filter(|_| context.user.is_none());
    let own = own.cloned().map(|mut value| {
        value.set_sensitive(true);
        value
    });
    Ok(upstream.forward_write(route, own).await?)
}

/// Makes a client's head upstream's.
pub(super) fn to_upstream(
    head: &mut RequestHeader,
    query: Option<&str>,
    forward: &Forward,
    target: &Target,
) -> pingora::Result<()> {
    let path = match query_there(query, target) {
        // An upload's place may have a query already.
        Some(query) if forward.path.contains('?') => format!("{}&{query}", forward.path),
        Some(query) => format!("{}?{query}", forward.path),
        None => forward.path.clone(),
    };
    head.set_raw_path(path.as_bytes())?;
    head.insert_header(header::HOST, &forward.host)?;
    head.remove_header(&header::AUTHORIZATION);
    if let Some(authorization) = &forward.authorization {
        head.insert_header(header::AUTHORIZATION, authorization)?;
    }
    head.remove_header(&header::PROXY_AUTHORIZATION);
    if let Some(authorization) = &forward.proxy_authorization {
        head.insert_header(header::PROXY_AUTHORIZATION, authorization)?;
    }
    for name in DROPPED {
        head.remove_header(name);
    }
    head.insert_header(header::ACCEPT_ENCODING, "identity")?;
    Ok(())
}

/// Makes upstream's head ours.
pub(super) fn to_client(
    head: &mut ResponseHeader,
    request: &Parts,
    context: &Context,
    is_write: bool,
) -> pingora::Result<()> {
    let status = match is_write {
        true => "roadstead; fwd=method",
        false => "roadstead; fwd=bypass",
    };
    head.insert_header("docker-distribution-api-version", "registry/2.0")?;
    head.insert_header("cache-status", status)?;
    head.remove_header(&header::SET_COOKIE);
    let link = head.headers.get(header::LINK).and_then(|link| link.to_str().ok());
    if let Some(link) = link.and_then(|link| own_link(link, &request.uri)) {
        head.insert_header(header::LINK, link)?;
    }
    let caller = context.target.as_ref().map(|target| &target.caller);
    if !is_write && matches!(caller, Some(Caller::Shared)) {
        // The challenge is ours to meet, and no client's.
        head.remove_header(&header::WWW_AUTHENTICATE);
    }
    // One that no header can hold is left out: what was asked for is done by now.
    if let Some(namespace) = &context.namespace
        && let Ok(namespace) = HeaderValue::from_str(namespace)
    {
        head.insert_header(name("oci-namespace"), namespace)?;
    }
    Ok(())
}

/// Where the client goes on after a write; a refusal if it can't be told. `None` where upstream
/// names no place.
pub(super) fn location(
    head: &ResponseHeader,
    request: &Parts,
    context: &Context,
) -> Result<Option<HeaderValue>, Refusal> {
    let Some(target) = &context.target else { return Ok(None) };
    if head.status == StatusCode::UNAUTHORIZED && context.user.is_some() {
        // A challenge would have the client send its password for upstream in place of that for us.
        return Err(Refusal::Custom {
            status: StatusCode::FORBIDDEN,
            code: ErrorCode::Denied,
            message: "the registry wants credentials for this, and those of the request are for this proxy (access.htpasswd)".to_owned(),
        });
    }
    let asked = Route::parse(request.uri.path())?;
    let Some(name) = asked.repository() else { return Ok(None) };
    let namespace = context.namespace.as_deref();
    if head.status == StatusCode::CREATED {
        let place = created(request, target, name, head);
        let place = match namespace {
            Some(namespace) => format!("{place}?ns={}", encoded(namespace)),
            None => place,
        };
        return Ok(HeaderValue::from_str(&place).ok());
    }
    let Some(location) = head.headers.get(header::LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| bad_location())?;
    let asked = Asked { route: &target.route, name, namespace };
    let place = target.upstream.own_location(location, asked);
    let place = place.map_err(|failure| Refusal::Upstream(failure.into()))?;
    HeaderValue::from_str(&place).map(Some).map_err(|_| bad_location())
}

/// Where what was pushed can be pulled.
fn created(request: &Parts, target: &Target, name: &Repository, head: &ResponseHeader) -> String {
    match (&target.route, blob_digest(request, &head.headers)) {
        (Route::Manifest { .. }, Some(digest)) => format!("/v2/{name}/manifests/{digest}"),
        (Route::Uploads { .. } | Route::Upload { .. }, Some(digest)) => {
            format!("/v2/{name}/blobs/{digest}")
        }
        _ => request.uri.path().to_owned(),
    }
}

fn bad_location() -> Refusal {
    Refusal::Custom {
        status: StatusCode::BAD_GATEWAY,
        code: ErrorCode::Unavailable,
        message: "the registry's answer says in no readable way where the upload goes on"
            .to_owned(),
    }
}

/// Counts a write that upstream has answered.
pub(super) fn count(request: &Parts, context: &Context, status: StatusCode) {
    let method = super::log::method(&request.method);
    let labels = [context.upstream_name(), "write", method, status.as_str(), "false"];
    metrics::UPSTREAM_REQUESTS.with_label_values(&labels).inc();
}

/// What the filters see where a write had no answer.
pub(super) fn no_answer() -> response::Parts {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer.into_parts().0
}

/// The head as the filters see it.
pub(super) fn parts(head: &ResponseHeader) -> response::Parts {
    let head: &response::Parts = head;
    head.clone()
}
