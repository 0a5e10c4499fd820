//! What the second listener answers: a page or JSON, and the one shape of errors.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// `Allow`, where the method was wrong.
    allow: Option<&'static str>,
}

/// Why the API does not do what it was asked: `{"error": {"code", "message"}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// One word for programs; it does not change.
    pub(super) code: &'static str,
    /// What is wrong and what to do, for people.
    pub(super) message: String,
}

// === impl Reply ===

impl Reply {
    pub(super) fn new(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, body, allow: None }
    }

    pub(super) fn text(status: StatusCode, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
    }

    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let mut body = serde_json::to_vec(value).expect("reports are text, numbers and lists");
        body.push(b'\n');
        Self::new(status, "application/json", body)
    }

    pub(super) fn allowing(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// The answer as it is sent; to a HEAD without its body.
    pub(super) fn into_response(self, is_head: bool) -> Response<Vec<u8>> {
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, self.content_type)
            .header(header::CONTENT_LENGTH, self.body.len())
            // What is here is of this moment, and no page to be guessed at.
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if let Some(methods) = self.allow {
            response = response.header(header::ALLOW, HeaderValue::from_static(methods));
        }
        let body = if is_head { Vec::new() } else { self.body };
        response.body(body).expect("a response of constant headers can be built")
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
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        let Refused { status, code, message } = refused;
        Self::json(status, &json!({ "error": { "code": code, "message": message } }))
    }
}
