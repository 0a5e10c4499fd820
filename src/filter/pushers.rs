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
    protocol::{Digest, Reference, Route, Tag},
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
    if let Route::Manifest { reference: Reference::Tag(tag), .. } = &target.route
        && (own.is_none() || is_held(target, tag))
    {
        // So begins a pull: tags are fresh for a while, and a push through us is seen at once. What
        // has yet to cool, or may not move, is not told by another way either.
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

/// Whether a tag may name something else here than upstream says.
fn is_held(target: &Target, tag: &Tag) -> bool {
    let policy = &target.upstream.config().tags;
    policy.immutable.matches(tag.as_str()) || !policy.cooldown_of(tag.as_str()).is_zero()
}

/// Mirrors are not asked: what they have, upstream may lack. Nor for long, for the cache can answer.
async fn look(target: &Target, caller: &Caller) -> Result<Option<There>, Error> {
    let upstream = &target.upstream;
    match &target.route {
        Route::Manifest { repository, reference } => {
            let head = upstream.has_manifest(repository, reference, caller).await?;
            Ok(head.and_then(|head| described(reference, head)))
        }
        Route::Blob { repository, digest } => {
            let BlobHead { size } = upstream.has_blob(repository, digest, caller).await?;
            Ok(size.map(|size| There::Blob(*digest, size)))
        }
        _ => Ok(None),
    }
}

fn described(reference: &Reference, head: ManifestHead) -> Option<There> {
    let digest = head.digest.or(reference.digest().copied())?;
    Some(There::Manifest(digest, head.media_type?, head.size?))
}
