//! Which requests a fault or a gate is about.

use serde::{Deserialize, Serialize};

use crate::seen::{Place, Seen};
use crate::stats::Kind;

/// A set of requests; each further call narrows it.
///
/// ```
/// use hub::Target;
/// let target = Target::manifest("latest").repository("library/alpine").method("HEAD");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    scope: Scope,
    reference: Option<String>,
    repository: Option<String>,
    method: Option<String>,
    authorized: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    #[default]
    Any,
    Ping,
    Token,
    Manifests,
    Blobs,
    Redirect,
    Cdn,
    Tags,
    Referrers,
}

// === impl Target ===

impl Target {
    fn of(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// Every request to any of the three servers.
    pub fn any() -> Self {
        Self::of(Scope::Any)
    }

    /// `/v2/`.
    pub fn ping() -> Self {
        Self::of(Scope::Ping)
    }

    /// The token server.
    pub fn token() -> Self {
        Self::of(Scope::Token)
    }

    /// Manifest GETs and HEADs.
    pub fn manifests() -> Self {
        Self::of(Scope::Manifests)
    }

    /// GETs and HEADs of this tag or digest.
    pub fn manifest(reference: impl Into<String>) -> Self {
        Self { reference: Some(reference.into()), ..Self::manifests() }
    }

    /// Answers that are a blob: all at the CDN, and at the registry those it does not redirect.
    pub fn blobs() -> Self {
        Self::of(Scope::Blobs)
    }

    /// Those for this digest.
    pub fn blob(digest: impl Into<String>) -> Self {
        Self { reference: Some(digest.into()), ..Self::blobs() }
    }

    /// The registry's answer to a blob GET.
    pub fn redirect() -> Self {
        Self::of(Scope::Redirect).method("GET")
    }

    /// Every request to the CDN.
    pub fn cdn() -> Self {
        Self::of(Scope::Cdn)
    }

    /// Tag lists.
    pub fn tags() -> Self {
        Self::of(Scope::Tags)
    }

    /// Referrers.
    pub fn referrers() -> Self {
        Self::of(Scope::Referrers)
    }

    /// Only requests by this method.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Only requests for this tag or digest.
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Only requests for this repository; those to the CDN and for tokens name none.
    pub fn repository(mut self, repository: impl Into<String>) -> Self {
        self.repository = Some(repository.into());
        self
    }

    /// Only requests with an `Authorization` header: lets the challenge before them pass.
    pub fn authorized(mut self) -> Self {
        self.authorized = true;
        self
    }

    /// `carries_blob`: whether the answer would be the blob itself.
    pub(crate) fn matches(&self, seen: &Seen, carries_blob: bool) -> bool {
        self.scope.matches(seen, carries_blob)
            && narrowed(&self.reference, seen.reference())
            && narrowed(&self.repository, seen.repository())
            && narrowed(&self.method, Some(seen.method.as_str()))
            && (!self.authorized || seen.headers.contains_key(http::header::AUTHORIZATION))
    }
}

fn narrowed(wanted: &Option<String>, found: Option<&str>) -> bool {
    wanted.is_none() || wanted.as_deref() == found
}

impl Scope {
    fn matches(self, seen: &Seen, carries_blob: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Ping => seen.kind == Kind::Ping,
            Self::Token => seen.place == Place::Token,
            Self::Manifests => matches!(seen.kind, Kind::ManifestGet | Kind::ManifestHead),
            Self::Blobs => carries_blob,
            Self::Redirect => matches!(seen.kind, Kind::BlobGet | Kind::BlobHead),
            Self::Cdn => seen.place == Place::Cdn,
            Self::Tags => seen.kind == Kind::Tags,
            Self::Referrers => seen.kind == Kind::Referrers,
        }
    }
}
