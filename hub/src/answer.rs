//! An answer before it meets the wire: status, headers, whole body.
//!
//! Handlers give these; `deliver` sends them, or what a fault makes of them.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::budget::Standing;

pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
pub(crate) const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub(crate) const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_SOURCE: HeaderName = HeaderName::from_static("docker-ratelimit-source");

const RATE_LIMITED: &str = "You have reached your pull rate limit. You may increase the limit by \
    authenticating and upgrading: https://www.docker.com/increase-rate-limit";
const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\
    <body><form method=\"post\"><input name=\"user\"></form></body></html>\n";

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        let answer = Self { status, headers: HeaderMap::new(), body: body.into() };
        answer.with(CONTENT_TYPE, content_type)
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// An error in the form of the distribution spec.
    pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "errors": [{ "code": code, "message": message }] }))
    }

    /// The 429 of a spent budget.
    pub(crate) fn rate_limited() -> Self {
        Self::error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", RATE_LIMITED)
            .with(CACHE_CONTROL, "no-store")
    }

    /// The 429 of the abuse limit: no JSON, no budget, a wait, and the connection closed.
    pub(crate) fn abuse() -> Self {
        let body = "Too Many Requests (HAP429).\n";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "text/plain", body)
            .with(RETRY_AFTER, "60")
            .with(CONNECTION, "close")
    }

    /// What a captive portal or a company proxy puts in place of the answer.
    pub(crate) fn login_page() -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", LOGIN_PAGE)
    }

    /// Sets a header; a value that cannot be one is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn with_standing(self, standing: Option<Standing>) -> Self {
        let Some(Standing { limit, remaining, window_s, source }) = standing else {
            return self;
        };
        self.with(RATELIMIT_LIMIT, &format!("{limit};w={window_s}"))
            .with(RATELIMIT_REMAINING, &format!("{remaining};w={window_s}"))
            .with(RATELIMIT_SOURCE, &source)
    }
}
