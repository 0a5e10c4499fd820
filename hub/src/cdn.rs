//! The CDN: blobs behind signed, expiring URLs, and no patience for credentials.

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};

use crate::answer::Answer;
use crate::digest::sha256;
use crate::range;
use crate::seen::{Route, Seen};
use crate::shared::Shared;
use crate::sync::lock;

const PREFIX: &str = "/registry-v2/docker/registry/v2/blobs/";

/// Path and query of a signed URL, good until `expires_ms` (milliseconds since 1970).
pub(crate) fn signed(digest: &str, expires_ms: u128, key: u64) -> String {
    let path = path_of(digest);
    let signature = signature(&path, expires_ms, key);
    format!("{path}?expires={expires_ms}&sig={signature}")
}

/// The digest in a path that `signed` made.
pub(crate) fn digest_of(path: &str) -> Option<String> {
    let mut parts = path.strip_prefix(PREFIX)?.strip_suffix("/data")?.split('/');
    let (algorithm, _, hex) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{algorithm}:{hex}"))
}

fn path_of(digest: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
    let fan = hex.get(..2).unwrap_or_default();
    format!("{PREFIX}{algorithm}/{fan}/{hex}/data")
}

fn signature(path: &str, expires_ms: u128, key: u64) -> String {
    let text = format!("{key:x}\n{path}\n{expires_ms}\n{key:x}");
    sha256(text.as_bytes()).split_off("sha256:".len())
}

/// Answers a GET or HEAD of a signed URL.
pub(crate) fn answer(shared: &Shared, seen: &Seen) -> Answer {
    let Route::Cdn { digest } = &seen.route else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    if !matches!(seen.method, Method::GET | Method::HEAD) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
    }
    // S3: "Only one auth mechanism allowed", the URL's signature being one already.
    if seen.headers.contains_key(AUTHORIZATION) {
        return refusal(StatusCode::BAD_REQUEST, "InvalidArgument");
    }
    if !genuine(shared, seen) {
        return refusal(StatusCode::FORBIDDEN, "AccessDenied");
    }
    match lock(&shared.content).blob(digest) {
        Some(blob) => range::answer(&blob, digest, &seen.headers),
        None => refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
    }
}

fn genuine(shared: &Shared, seen: &Seen) -> bool {
    let expires_ms = seen.parameter("expires").and_then(|text| text.parse::<u128>().ok());
    let (Some(expires_ms), Some(sig)) = (expires_ms, seen.parameter("sig")) else {
        return false;
    };
    let key = *lock(&shared.url_key);
    sig == signature(&seen.path, expires_ms, key) && shared.clock.now_ms() < expires_ms
}

fn refusal(status: StatusCode, code: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code></Error>\n");
    Answer::new(status, "application/xml", body)
}
