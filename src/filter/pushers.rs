//! What a client asks before it pushes: what upstream has, of upstream itself.
//!
//! A client leaves out what a HEAD says is there already, so with `writes:
//! forward` no HEAD of what a digest names is answered from the cache, where it
//! may be though upstream has lost it. The client's own credentials go along:
//! it may see more than ours. Where upstream is in trouble the cache answers.

use http::{HeaderValue, Method, header, request::Parts};

use super::{Context, Target};
use crate::{
    config::Writes,
    manifest::Error,
    protocol::{Digest, Reference, Route},
    upstream::{BlobHead, Caller, ManifestHead},
};

/// What upstream has.
#[derive(Debug)]
pub(super) enum There {
    /// A manifest: its digest, its media type and its size in bytes.
    Manifest(Digest, String, u64),
    /// A blob of so many bytes.
    Blob(Digest, u64),
}

/// Whether upstream takes pushes from clients.
pub(super) fn takes_pushes(target: &Target) -> bool {
    target.upstream.config().writes == Writes::Forward
}

/// The credentials that a client sent for upstream: none where they were for us.
pub(super) fn own_credentials<'a>(
    request: &'a Parts,
    context: &Context,
) -> Option<&'a HeaderValue> {
    let authorization = request.headers.get(header::AUTHORIZATION);
    authorization.filter(|_| context.user.is_none())
}

/// What upstream says to a HEAD that may come before a push. `None` where the cache is to answer.
pub(super) async fn ask(
    request: &Parts,
    context: &Context,
    target: &Target,
) -> Result<Option<There>, Error> {
    if request.method != Method::HEAD || !takes_pushes(target) {
        return Ok(None);
    }
    // What must not be sent in plain text is left out, and we ask for ourselves.
    let own = own_credentials(request, context)
        .filter(|_| target.upstream.may_see_clients_credentials().is_ok());
    if let Route::Manifest { reference: Reference::Tag(_), .. } = target.route
        && own.is_none()
    {
        // So begins a pull: tags are fresh for a while, and a push through us is seen at once.
        return Ok(None);
    }
    let caller = match own {
        Some(own) => Caller::client(Some(own)),
        None => target.caller.clone(),
    };
    let asked = match look(target, &caller).await {
        // A client learns by upstream's challenge to it how to log in; to us it is none.
        Err(Error::Unauthorized { challenge: None, .. } | Error::Denied { .. })
            if own.is_none() && context.user.is_none() =>
        {
            look(target, &Caller::client(None)).await
        }
        asked => asked,
    };
    match asked {
        Err(error) if error.trouble().is_some() => Ok(None),
        asked => asked,
    }
}

async fn look(target: &Target, caller: &Caller) -> Result<Option<There>, Error> {
    let upstream = &target.upstream;
    match &target.route {
        Route::Manifest { repository, reference } => {
            let patience = upstream.config().timeouts.validate;
            let head = upstream.head_manifest(repository, reference, caller, patience).await?;
            Ok(head.and_then(|head| described(reference, head)))
        }
        Route::Blob { repository, digest } => {
            let BlobHead { size } = upstream.head_blob(repository, digest, caller).await?;
            Ok(size.map(|size| There::Blob(*digest, size)))
        }
        _ => Ok(None),
    }
}

fn described(reference: &Reference, head: ManifestHead) -> Option<There> {
    let digest = head.digest.or(reference.digest().copied())?;
    Some(There::Manifest(digest, head.media_type?, head.size?))
}
