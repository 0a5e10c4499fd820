//! The single match from what went wrong to status, code and public sentence.
//!
//! DESIGN §7, "What an upstream's trouble means to a client". The sentence says
//! why, and `Retry-After` when; what is private stays in the log.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use pingora::prelude::{Error as PingoraError, ErrorType};

use crate::{
    blob,
    filter::{Answer, Body, Refusal},
    protocol::{ErrorCode, Route, error::error_body},
    store,
    upstream::{Error, Failure},
};

/// When to come back, where upstream does not say: about the time in which a host is probed again.
const RETRY: Duration = Duration::from_secs(5);

/// When to come back after a rate limit without `Retry-After`.
const RETRY_RATE_LIMITED: Duration = Duration::from_secs(60);

/// When to come back to a cache that an operator has taken offline.
const RETRY_OFFLINE: Duration = Duration::from_secs(60);

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    retry_after: Option<Duration>,
    challenge: Option<HeaderValue>,
    /// The methods that would do.
    allowed: &'static str,
}

/// What can always be done.
const READS: &str = "GET, HEAD";

/// The answer to a request for `route` that is not served.
pub(super) fn refuse(refusal: &Refusal, route: Option<&Route>) -> Answer {
    let told = told(refusal, route);
    if told.status.is_server_error() {
        let (status, remedy) = (told.status.as_u16(), remedy(refusal));
        tracing::warn!(status, %refusal, remedy, "a request failed");
    } else {
        tracing::debug!(status = told.status.as_u16(), %refusal, "a request was refused");
    }
    answer(told)
}

/// The status for a request that Pingora could not forward.
pub(super) fn status_of_failure(error: &PingoraError) -> StatusCode {
    match error.etype() {
        ErrorType::HTTPStatus(code) => {
            StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_GATEWAY)
        }
        ErrorType::ConnectTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout
        | ErrorType::TLSHandshakeTimedout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// The answer to a request that Pingora could not forward.
pub(super) fn forward_failed(status: StatusCode) -> Answer {
    let message = "the registry did not answer the forwarded request";
    answer(Told::new(status, ErrorCode::Unavailable, message).retry(RETRY))
}

fn answer(told: Told) -> Answer {
    let json = HeaderValue::from_static("application/json");
    let body = Body::Bytes(error_body(told.code, &told.message, None));
    let mut answer = Answer::new(told.status).with(header::CONTENT_TYPE, json).body(body);
    if let Some(wait) = told.retry_after {
        answer.headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    if let Some(challenge) = told.challenge {
        answer.headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if told.status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers.insert(header::ALLOW, HeaderValue::from_static(told.allowed));
    }
    answer
}

fn told(refusal: &Refusal, route: Option<&Route>) -> Told {
    use ErrorCode::{Denied, NameUnknown, Unauthorized, Unsupported};
    let text = refusal.to_string();
    match refusal {
        Refusal::Malformed(_) => Told::new(StatusCode::BAD_REQUEST, Unsupported, text),
        Refusal::Route(error) => Told::new(error.status(), error.code(), text),
        Refusal::AddressNotAllowed { .. } | Refusal::RepositoryDenied { .. } => {
            Told::new(StatusCode::FORBIDDEN, Denied, text)
        }
        Refusal::PasswordWanted => {
            Told::new(StatusCode::UNAUTHORIZED, Unauthorized, text).challenge(None)
        }
        Refusal::Misdirected { .. } => {
            Told::new(StatusCode::MISDIRECTED_REQUEST, Unsupported, text)
        }
        Refusal::UnknownUpstream { .. } => Told::new(StatusCode::NOT_FOUND, NameUnknown, text),
        Refusal::ReadOnly { .. } => Told::new(StatusCode::METHOD_NOT_ALLOWED, Unsupported, text),
        Refusal::MethodNotAllowed { allowed, .. } => {
            Told { allowed, ..Told::new(StatusCode::METHOD_NOT_ALLOWED, Unsupported, text) }
        }
        Refusal::Manifest(error) | Refusal::Upstream(error) => upstream(error, route),
        Refusal::Blob(error) => blob(error, route),
        Refusal::Custom { status, code, message } => Told::new(*status, *code, message),
    }
}

/// What an operator can do about a request that failed here, where another line of the log does not
/// say it.
fn remedy(refusal: &Refusal) -> Option<&'static str> {
    let failure = match refusal {
        Refusal::Blob(blob::Error::Busy(_)) => {
            return Some(
                "raise fill.max_active or fill.max_readers, or spread what is pulled at once",
            );
        }
        Refusal::Blob(blob::Error::Upstream(error))
        | Refusal::Manifest(error)
        | Refusal::Upstream(error) => error.trouble()?,
        _ => return None,
    };
    match failure {
        Failure::Busy { .. } => Some("raise the limit of this upstream that the line names"),
        Failure::Timeout { .. } => {
            Some("see whether the way to the host is slow, or raise timeouts")
        }
        Failure::Offline => Some("switch the upstream back: POST /api/v1/offline"),
        Failure::NoAccount { .. } => Some("mend the accounts under credentials"),
        Failure::Untrusted { .. } => {
            Some("if upstream may send us there, name the place in its keys")
        }
        _ => None,
    }
}

fn blob(error: &blob::Error, route: Option<&Route>) -> Told {
    let text = error.to_string();
    match error {
        blob::Error::Upstream(error) => upstream(error, route),
        blob::Error::Mismatch(_) => {
            Told::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, text)
        }
        blob::Error::Store(error) => {
            let what = match **error {
                store::Error::Full { .. } => "the cache has no room for this blob (store.disk)",
                _ => "the cache's disk failed; its log says how",
            };
            Told::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, what).retry(RETRY)
        }
        blob::Error::Lost | blob::Error::Moved => {
            Told::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, text).retry(RETRY)
        }
        blob::Error::Busy(_) => {
            Told::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::TooManyRequests, text)
                .retry(RETRY)
        }
    }
}

fn upstream(error: &Error, route: Option<&Route>) -> Told {
    let text = error.to_string();
    match error {
        Error::Unauthorized { challenge, .. } => {
            Told::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, text)
                .challenge(challenge.clone())
        }
        Error::Denied { .. } => Told::new(StatusCode::FORBIDDEN, ErrorCode::Denied, text),
        Error::NotFound { code, .. } => {
            let code = code.as_deref().and_then(ErrorCode::parse);
            Told::new(StatusCode::NOT_FOUND, code.unwrap_or_else(|| unknown(route)), text)
        }
        Error::Refused { status, .. } => Told::new(*status, ErrorCode::Unknown, text),
        Error::Unusable { code, .. } => Told::new(code.default_status(), *code, text),
        Error::Trouble(failure) => trouble(failure, text),
    }
}

fn trouble(failure: &Failure, text: String) -> Told {
    use ErrorCode::{TooManyRequests, Unavailable};
    match failure {
        Failure::RateLimited { retry_after, .. } => {
            Told::new(StatusCode::TOO_MANY_REQUESTS, TooManyRequests, text)
                .retry(retry_after.unwrap_or(RETRY_RATE_LIMITED))
        }
        Failure::Token(inner) => trouble(inner, text),
        Failure::Status { status: StatusCode::SERVICE_UNAVAILABLE, retry_after } => {
            Told::new(StatusCode::SERVICE_UNAVAILABLE, Unavailable, text)
                .retry(retry_after.unwrap_or(RETRY))
        }
        failure if failure.is_timeout() => {
            Told::new(StatusCode::GATEWAY_TIMEOUT, Unavailable, text).retry(RETRY)
        }
        Failure::Busy { .. } => {
            Told::new(StatusCode::SERVICE_UNAVAILABLE, TooManyRequests, text).retry(RETRY)
        }
        Failure::Offline => {
            Told::new(StatusCode::SERVICE_UNAVAILABLE, Unavailable, text).retry(RETRY_OFFLINE)
        }
        // Ours were refused, and what a client sends is not passed on: it is told all the same.
        Failure::NoAccount { .. } => {
            Told::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, text).challenge(None)
        }
        Failure::HeldBack { .. } | Failure::GivenUp => {
            Told::new(StatusCode::SERVICE_UNAVAILABLE, Unavailable, text).retry(RETRY)
        }
        Failure::Status { retry_after, .. } => {
            Told::new(StatusCode::BAD_GATEWAY, Unavailable, text)
                .retry(retry_after.unwrap_or(RETRY))
        }
        Failure::Unreachable { .. }
        | Failure::Timeout { .. }
        | Failure::Invalid { .. }
        | Failure::Untrusted { .. } => {
            Told::new(StatusCode::BAD_GATEWAY, Unavailable, text).retry(RETRY)
        }
    }
}

/// The spec's code for what upstream does not have.
fn unknown(route: Option<&Route>) -> ErrorCode {
    match route {
        Some(Route::Blob { .. }) => ErrorCode::BlobUnknown,
        Some(Route::Manifest { .. }) => ErrorCode::ManifestUnknown,
        _ => ErrorCode::NameUnknown,
    }
}

// === impl Told ===

impl Told {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        let (retry_after, challenge, allowed) = (None, None, READS);
        Self { status, code, message: message.into(), retry_after, challenge, allowed }
    }

    fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// RFC 9110 §11.6.1: a 401 carries a challenge; upstream's where it is the client's to meet.
    fn challenge(mut self, challenge: Option<HeaderValue>) -> Self {
        let own = HeaderValue::from_static("Basic realm=\"roadstead\"");
        self.challenge = Some(challenge.unwrap_or(own));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(failure: Failure) -> (u16, Option<u64>) {
        let told = upstream(&failure.into(), None);
        (told.status.as_u16(), told.retry_after.map(|wait| wait.as_secs()))
    }

    #[test]
    fn trouble_with_what_nobody_has_cached_is_told_by_its_kind() {
        let host: std::sync::Arc<str> = "r".into();
        let rate = |wait: Option<u64>| Failure::RateLimited {
            message: String::new(),
            retry_after: wait.map(Duration::from_secs),
        };
        let code = |status, retry_after| Failure::Status { status, retry_after };
        let timeout = Failure::Timeout { host: host.clone(), waiting_for: "x" };
        let held =
            |timed_out| Failure::HeldBack { host: host.clone(), because: String::new(), timed_out };
        assert_eq!(status(rate(Some(77))), (429, Some(77)));
        assert_eq!(status(rate(None)), (429, Some(60)));
        assert_eq!(status(code(StatusCode::INTERNAL_SERVER_ERROR, None)), (502, Some(5)));
        assert_eq!(status(code(StatusCode::SERVICE_UNAVAILABLE, None)), (503, Some(5)));
        assert_eq!(status(timeout.clone()), (504, Some(5)));
        assert_eq!(status(Failure::Token(Box::new(timeout))), (504, Some(5)));
        assert_eq!(status(held(true)), (504, Some(5)));
        assert_eq!(status(held(false)), (503, Some(5)));
        assert_eq!(status(Failure::invalid("x")), (502, Some(5)));
    }

    #[test]
    fn a_404_comes_with_the_code_of_what_was_asked_for() {
        let route = Route::parse("/v2/a/manifests/b").unwrap();
        let error = |code: Option<&str>| Error::NotFound {
            code: code.map(str::to_owned),
            message: String::new(),
        };
        assert_eq!(upstream(&error(None), Some(&route)).code, ErrorCode::ManifestUnknown);
        assert_eq!(upstream(&error(Some("NAME_UNKNOWN")), None).code, ErrorCode::NameUnknown);
    }
}
