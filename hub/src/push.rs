//! Pushes and deletions, as the distribution spec has them: uploads, mounts, manifests, tags.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderName, Method, StatusCode};
use serde_json::Value;

use crate::answer::{Answer, DOCKER_CONTENT_DIGEST};
use crate::content::{Content, subject_of};
use crate::digest::{sha256, sha512};
use crate::seen::{Route, Seen};
use crate::shared::Shared;
use crate::sync::lock;
use crate::uploads::{OutOfOrder, Upload};

/// The most that a request may bring.
const MOST: usize = 1 << 30;

/// `OCI-Chunk-Min-Length` of every upload.
const CHUNK_MIN: &str = "1024";

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Answers a request that writes, or asks about an upload; access was granted.
pub(crate) async fn answer(shared: &Shared, seen: &Seen, body: Body) -> Answer {
    let Ok(body) = axum::body::to_bytes(body, MOST).await else {
        return refused("SIZE_INVALID", "the body ended early, or is too large");
    };
    match (&seen.route, &seen.method) {
        (Route::Uploads { repository }, &Method::POST) => begin(shared, seen, repository, body),
        (Route::Upload { repository, session }, method) => {
            let state = seen.parameter("_state");
            let known = lock(&shared.uploads).find(repository, session, state.as_deref()).cloned();
            match (known, method) {
                (None, _) => unknown("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
                (Some(_), &Method::PATCH) => patch(shared, seen, session, &body),
                (Some(_), &Method::PUT) => finish(shared, seen, session, &body),
                (Some(upload), &Method::GET) => under_way(StatusCode::NO_CONTENT, session, &upload),
                (Some(_), &Method::DELETE) => {
                    lock(&shared.uploads).end(session);
                    Answer::empty(StatusCode::NO_CONTENT)
                }
                _ => unsupported(),
            }
        }
        (Route::Manifest { repository, reference }, &Method::PUT) => {
            put_manifest(shared, seen, repository, reference, body)
        }
        (Route::Manifest { repository, reference }, &Method::DELETE) => {
            delete_manifest(&mut lock(&shared.content), repository, reference)
        }
        (Route::Blob { repository, digest }, &Method::DELETE) => {
            match lock(&shared.content).delete_blob(repository, digest) {
                true => Answer::empty(StatusCode::ACCEPTED),
                false => unknown("BLOB_UNKNOWN", "blob unknown to registry"),
            }
        }
        _ => unsupported(),
    }
}

/// A mount, a whole blob, or the beginning of an upload.
fn begin(shared: &Shared, seen: &Seen, repository: &str, body: Bytes) -> Answer {
    let mount = seen.parameter("mount").zip(seen.parameter("from"));
    if let Some((digest, from)) = mount {
        let mut content = lock(&shared.content);
        if let Some(blob) = content.blob_in(&from, &digest) {
            content.put_blob(repository, digest.clone(), blob);
            return blob_created(repository, &digest);
        }
    }
    if let Some(digest) = seen.parameter("digest") {
        return keep(shared, repository, &digest, body);
    }
    let (session, upload) = lock(&shared.uploads).begin(repository);
    under_way(StatusCode::ACCEPTED, &session, &upload).with(CHUNK_MIN_LENGTH, CHUNK_MIN)
}

fn patch(shared: &Shared, seen: &Seen, session: &str, piece: &[u8]) -> Answer {
    append(shared, seen, session, piece, |upload| under_way(StatusCode::ACCEPTED, session, &upload))
}

/// The last piece, or none, and the digest of the whole.
fn finish(shared: &Shared, seen: &Seen, session: &str, piece: &[u8]) -> Answer {
    let Some(digest) = seen.parameter("digest") else {
        return refused("DIGEST_INVALID", "the digest parameter is missing");
    };
    append(shared, seen, session, piece, |upload| {
        lock(&shared.uploads).end(session);
        keep(shared, &upload.repository, &digest, upload.bytes.into())
    })
}

fn append(
    shared: &Shared,
    seen: &Seen,
    session: &str,
    piece: &[u8],
    then: impl FnOnce(Upload) -> Answer,
) -> Answer {
    let appended = lock(&shared.uploads).append(session, seen.header(CONTENT_RANGE), piece);
    match appended {
        Ok(Some(upload)) => then(upload),
        Ok(None) => unknown("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
        Err(OutOfOrder) => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            Answer::error(status, "BLOB_UPLOAD_INVALID", "the piece is out of order")
        }
    }
}

fn keep(shared: &Shared, repository: &str, digest: &str, body: Bytes) -> Answer {
    if !is_of(digest, &body) {
        return refused("DIGEST_INVALID", "the body has another digest");
    }
    lock(&shared.content).put_blob(repository, digest.to_owned(), body);
    blob_created(repository, digest)
}

fn put_manifest(
    shared: &Shared,
    seen: &Seen,
    repository: &str,
    reference: &str,
    body: Bytes,
) -> Answer {
    let Ok(document) = serde_json::from_slice::<Value>(&body) else {
        return refused("MANIFEST_INVALID", "the manifest is no JSON");
    };
    let by_digest = reference.contains(':');
    if by_digest && !is_of(reference, &body) {
        return refused("DIGEST_INVALID", "the manifest has another digest");
    }
    let mut content = lock(&shared.content);
    if let Some(missing) =
        blobs_of(&document).find(|digest| content.blob_in(repository, digest).is_none())
    {
        return refused("MANIFEST_BLOB_UNKNOWN", missing);
    }
    let subject = subject_of(&body);
    let media_type = seen.header(CONTENT_TYPE).unwrap_or("application/octet-stream");
    let own = content.put_manifest(repository, media_type, body);
    let digest = if by_digest { reference.to_owned() } else { own };
    if !by_digest {
        content.tag(repository, reference, &digest);
    }
    let answer = created(&format!("/v2/{repository}/manifests/{digest}"), &digest);
    match subject {
        Some(subject) => answer.with(SUBJECT, &subject),
        None => answer,
    }
}

/// By digest with all its tags; by tag the tag alone.
fn delete_manifest(content: &mut Content, repository: &str, reference: &str) -> Answer {
    let was_there = match reference.contains(':') {
        true => content.delete_manifest(repository, reference),
        false => {
            let was_there = content.has_tag(repository, reference);
            content.delete_tag(repository, reference);
            was_there
        }
    };
    match was_there {
        true => Answer::empty(StatusCode::ACCEPTED),
        false => unknown("MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

/// Digests of the config and the layers, but for those that lie elsewhere.
fn blobs_of(document: &Value) -> impl Iterator<Item = &str> {
    let layers = document.get("layers").and_then(Value::as_array).into_iter().flatten();
    let all = document.get("config").into_iter().chain(layers);
    let here = all.filter(|descriptor| !lies_elsewhere(descriptor));
    here.filter_map(|descriptor| descriptor.get("digest")?.as_str())
}

/// Layers that may not be distributed are no registry's to have; they say where they are.
fn lies_elsewhere(descriptor: &Value) -> bool {
    let media_type = descriptor.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    ["nondistributable", "foreign"].iter().any(|word| media_type.contains(word))
}

fn is_of(digest: &str, body: &[u8]) -> bool {
    digest == sha256(body) || digest == sha512(body)
}

fn under_way(status: StatusCode, session: &str, upload: &Upload) -> Answer {
    let Upload { repository, state, bytes } = upload;
    let location = format!("/v2/{repository}/blobs/uploads/{session}?_state={state}");
    Answer::empty(status)
        .with(LOCATION, &location)
        .with(RANGE, &format!("0-{}", bytes.len().saturating_sub(1)))
        .with(UPLOAD_UUID, session)
}

fn blob_created(repository: &str, digest: &str) -> Answer {
    created(&format!("/v2/{repository}/blobs/{digest}"), digest)
}

fn created(location: &str, digest: &str) -> Answer {
    let answer = Answer::empty(StatusCode::CREATED).with(LOCATION, location);
    answer.with(DOCKER_CONTENT_DIGEST, digest)
}

fn refused(code: &str, message: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, code, message)
}

fn unknown(code: &str, message: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, code, message)
}

fn unsupported() -> Answer {
    Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "no such operation")
}
