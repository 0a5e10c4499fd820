//! Registry errors: code, status and the JSON which carries them, in both directions.
//!
//! What we print is always the spec's document; what upstream prints is read leniently, since it
//! only feeds logs and messages. Which error a failure deserves is left to `proxy/respond.rs`.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// An error code (distribution-spec, "Error Codes"; the last four as CNCF distribution has them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is unknown to the registry.
    BlobUnknown,
    /// The upload is invalid.
    BlobUploadInvalid,
    /// The upload is unknown to the registry.
    BlobUploadUnknown,
    /// The digest is malformed or does not match the content.
    DigestInvalid,
    /// A manifest references a blob or manifest that is unknown.
    ManifestBlobUnknown,
    /// The manifest is invalid.
    ManifestInvalid,
    /// The manifest is unknown to the registry.
    ManifestUnknown,
    /// The repository name is invalid.
    NameInvalid,
    /// The repository is unknown to the registry.
    NameUnknown,
    /// The length does not match the content.
    SizeInvalid,
    /// Credentials are needed.
    Unauthorized,
    /// The credentials do not suffice.
    Denied,
    /// The operation is not supported.
    Unsupported,
    /// The client asks too often.
    TooManyRequests,
    /// The tag is malformed.
    TagInvalid,
    /// The requested range cannot be had.
    RangeInvalid,
    /// The service cannot answer at this moment.
    Unavailable,
    /// None of the others.
    Unknown,
}

/// The most errors read from one upstream body.
const MAX_ERRORS: usize = 32;

/// The longest message kept from upstream, in characters.
const MAX_MESSAGE_CHARS: usize = 512;

#[derive(Serialize)]
struct Document<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// Every code, in the order of the enum.
    pub const ALL: [Self; 18] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
        Self::TagInvalid,
        Self::RangeInvalid,
        Self::Unavailable,
        Self::Unknown,
    ];

    /// The code as it stands in the JSON.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status that goes with the code when nothing more specific is known (CNCF distribution,
    /// `registry/api/v2/errors.go` and `errcode/register.go`).
    pub fn default_status(self) -> StatusCode {
        self.row().1
    }

    /// The code whose text is `text`, if we know it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", StatusCode::NOT_FOUND),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", StatusCode::NOT_FOUND),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", StatusCode::NOT_FOUND),
            Self::DigestInvalid => ("DIGEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", StatusCode::BAD_REQUEST),
            Self::ManifestInvalid => ("MANIFEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", StatusCode::NOT_FOUND),
            Self::NameInvalid => ("NAME_INVALID", StatusCode::BAD_REQUEST),
            Self::NameUnknown => ("NAME_UNKNOWN", StatusCode::NOT_FOUND),
            Self::SizeInvalid => ("SIZE_INVALID", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::Denied => ("DENIED", StatusCode::FORBIDDEN),
            Self::Unsupported => ("UNSUPPORTED", StatusCode::METHOD_NOT_ALLOWED),
            Self::TooManyRequests => ("TOOMANYREQUESTS", StatusCode::TOO_MANY_REQUESTS),
            Self::TagInvalid => ("TAG_INVALID", StatusCode::BAD_REQUEST),
            Self::RangeInvalid => ("RANGE_INVALID", StatusCode::RANGE_NOT_SATISFIABLE),
            Self::Unavailable => ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unknown => ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === the JSON ===

/// The body of an error answer: `{"errors":[{"code":…,"message":…,"detail":…}]}`
/// (distribution-spec, "Error Codes"). Without a detail the key is left out.
pub fn error_body(code: ErrorCode, message: &str, detail: Option<Value>) -> Bytes {
    let document = Document { errors: [Entry { code: code.as_str(), message, detail }] };
    serde_json::to_vec(&document).expect("strings and JSON values always serialise").into()
}

/// Reads `(code, message)` pairs from whatever JSON an upstream or a token server answered; empty
/// if it was none. Also understands a lone object and the shapes of OAuth (`error`,
/// `error_description`, RFC 6749 §5.2) and of Docker Hub's token endpoint (`details`).
pub fn parse_errors(body: &[u8]) -> Vec<(String, String)> {
    let Ok(document) = serde_json::from_slice::<Value>(body) else {
        return Vec::new();
    };
    let entries = match document.get("errors") {
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(entry) => std::slice::from_ref(entry),
        None => std::slice::from_ref(&document),
    };
    entries.iter().filter_map(parse_entry).take(MAX_ERRORS).collect()
}

fn parse_entry(entry: &Value) -> Option<(String, String)> {
    if let Value::String(message) = entry {
        return Some((String::new(), clip(message)));
    }
    let code = first_text(entry, &["code", "error"]);
    let message = first_text(entry, &["message", "error_description", "details", "detail"]);
    (code.is_some() || message.is_some())
        .then(|| (code.unwrap_or_default(), message.unwrap_or_default()))
}

fn first_text(entry: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match entry.get(key)? {
        Value::String(text) => Some(clip(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(body: &str) -> Vec<(String, String)> {
        parse_errors(body.as_bytes())
    }

    fn pair(code: &str, message: &str) -> Vec<(String, String)> {
        vec![(code.to_owned(), message.to_owned())]
    }

    #[test]
    fn the_body_is_the_specs_document() {
        let body = error_body(ErrorCode::NameUnknown, "no \"such\" name", None);
        assert_eq!(body, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no \"such\" name"}]}"#);
        let detailed = error_body(ErrorCode::Denied, "no", Some(serde_json::json!({"a": 1})));
        assert_eq!(detailed, r#"{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}"#);
    }

    #[test]
    fn every_code_reads_back_from_its_text() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert!(
                code.default_status().is_client_error() || code.default_status().is_server_error()
            );
        }
        assert_eq!(ErrorCode::parse("NOPE"), None);
    }

    #[test]
    fn upstreams_in_many_dialects_are_understood() {
        let hub = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#;
        assert_eq!(pairs(hub), pair("UNAUTHORIZED", "authentication required"));
        assert_eq!(pairs(r#"{"details":"incorrect password"}"#), pair("", "incorrect password"));
        assert_eq!(
            pairs(r#"{"error":"invalid_grant","error_description":"expired"}"#),
            pair("invalid_grant", "expired")
        );
        assert_eq!(pairs(r#"{"errors":[{"code":500,"message":null}]}"#), pair("500", ""));
        assert_eq!(pairs(r#"{"errors":"down"}"#), pair("", "down"));
    }

    #[test]
    fn what_is_no_error_document_gives_nothing() {
        for body in
            ["", "<html>", "[]", "{}", "null", "{\"errors\":[]}", "{\"errors\":[1,null]}", "{\"err"]
        {
            assert!(pairs(body).is_empty(), "{body:?}");
        }
    }

    #[test]
    fn a_huge_message_is_clipped() {
        let body = serde_json::json!({"message": "é".repeat(10_000)}).to_string();
        let lengths: Vec<_> =
            pairs(&body).iter().map(|(_, message)| message.chars().count()).collect();
        assert_eq!(lengths, [MAX_MESSAGE_CHARS]);
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(message in ".{0,100}", at in 0..ErrorCode::ALL.len()) {
            let code = ErrorCode::ALL.into_iter().nth(at).expect("within the list");
            let body = error_body(code, &message, None);
            prop_assert_eq!(parse_errors(&body), pair(code.as_str(), &message));
        }

        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = parse_errors(&body);
        }
    }
}
