//! What the second listener answers: text, JSON, and the one shape of errors.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// A page shows and runs only what comes from here, from files of its own: no inline script or
/// style, nothing of another host, and no frame around it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                           img-src 'self' data:; font-src 'self'; connect-src 'self'; \
                           form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Of every answer that does not say otherwise.
const SECURE: [(HeaderName, &str); 5] = [
    // What is here is of this moment, and no page to be guessed at.
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What makes a browser ask for a password (RFC 7617).
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"Roadstead\", charset=\"UTF-8\"");

/// An answer as JSON, with a line's end.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// What a handler of the API answers.
pub(super) type Answer<T> = Result<Json<T>, Refused>;

/// Why the API does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// One word for programs; it does not change.
    pub(super) code: &'static str,
    /// What is wrong and what to do, for people.
    pub(super) message: String,
}

/// How a refusal is written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Failure {
    pub(super) error: FailureInside,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureInside {
    /// One word for programs; it does not change.
    pub(super) code: &'static str,
    /// What is wrong and what to do, for people.
    pub(super) message: String,
}

/// How a question is refused.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes")]
pub(super) enum Failures {
    /// The question can't be read: `bad_request` or `bad_reference`.
    #[response(status = BAD_REQUEST)]
    Wrong(Failure),
    /// A user and password of admin.htpasswd are wanted: `unauthorized`.
    #[response(status = UNAUTHORIZED)]
    Unknown(Failure),
    /// It may be another site's, or a client certificate is wanted: `forbidden`.
    #[response(status = FORBIDDEN)]
    Foreign(Failure),
    /// It did not work out; the log says why: `store_failed`.
    #[response(status = INTERNAL_SERVER_ERROR)]
    Broken(Failure),
}

/// How a body is refused, besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes")]
pub(super) enum BodyFailures {
    /// It took too long: `timeout`.
    #[response(status = REQUEST_TIMEOUT)]
    Slow(Failure),
    /// It is larger than 64 KiB: `too_large`.
    #[response(status = PAYLOAD_TOO_LARGE)]
    Large(Failure),
}

/// A page of plain text.
pub(super) fn text(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
}

/// Sets what keeps browsers from doing more with an answer than they should.
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in SECURE {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

// === impl Json ===

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = serde_json::to_vec(&self.0).expect("reports are text, numbers and lists");
        body.push(b'\n');
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string() }
    }

    pub(super) fn bad_request(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn forbidden(message: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn not_found(message: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let error = FailureInside { code, message };
        let mut response = (status, Json(Failure { error })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}
