//! What a write that upstream took has changed there.

use http::{Method, StatusCode, header::HeaderMap, request::Parts, response};

use super::{Context, Target, query::parameter};
use crate::{
    config::Writes,
    protocol::{Digest, Reference, Repository, Route},
};

/// A change of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written<'a> {
    /// It has a manifest under this reference now; upstream named it by the digest.
    Manifest(&'a Repository, &'a Reference, Option<Digest>),
    /// It has no such manifest or tag any more.
    ManifestGone(&'a Repository, &'a Reference),
    /// It may or may not have the manifest now: it failed, or nobody knows how it ended.
    Unsure(&'a Repository, &'a Reference),
    /// It has a blob.
    Blob(&'a Repository, Digest),
    /// It has it no more.
    BlobGone(&'a Repository, Digest),
}

// === impl Written ===

impl<'a> Written<'a> {
    /// What upstream's answer to a request says; `None` where nothing changed that anybody keeps.
    pub(super) fn of(
        request: &Parts,
        context: &'a Context,
        answer: &response::Parts,
    ) -> Option<(&'a Target, Self)> {
        let target = context.target.as_ref()?;
        let is_write =
            target.upstream.config().writes == Writes::Forward && target.is_write(&request.method);
        let (is_taken, may_be_taken) =
            (answer.status.is_success(), answer.status.is_server_error());
        let written = match (&target.route, &request.method) {
            _ if !is_write || !(is_taken || may_be_taken) => return None,
            (Route::Manifest { repository, reference }, &Method::PUT | &Method::DELETE)
                if may_be_taken =>
            {
                Self::Unsure(repository, reference)
            }
            _ if may_be_taken => return None,
            (Route::Manifest { repository, reference }, &Method::PUT) => {
                Self::Manifest(repository, reference, content_digest(&answer.headers))
            }
            (Route::Manifest { repository, reference }, &Method::DELETE) => {
                Self::ManifestGone(repository, reference)
            }
            (Route::Blob { repository, digest }, &Method::DELETE) => {
                Self::BlobGone(repository, *digest)
            }
            (Route::Uploads { repository } | Route::Upload { repository, .. }, _)
                if answer.status == StatusCode::CREATED =>
            {
                Self::Blob(repository, blob_digest(request, &answer.headers)?)
            }
            _ => return None,
        };
        Some((target, written))
    }
}

/// The digest of the blob that a 201 is about: as upstream says, or as the client asked for.
pub fn blob_digest(request: &Parts, headers: &HeaderMap) -> Option<Digest> {
    let asked = || {
        let query = request.uri.query();
        let text = parameter(query, "digest").or_else(|| parameter(query, "mount"))?;
        Digest::parse(&text).ok()
    };
    content_digest(headers).or_else(asked)
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get("docker-content-digest")?.to_str().ok()?).ok()
}
