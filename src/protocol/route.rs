//! The registry's URL space: one table, from which paths are parsed and printed.
//!
//! A path is read by its last keyword, so that a repository may be called `manifests`. Queries,
//! hosts and methods are left to the filters.

use std::fmt;

use http::StatusCode;

use super::digest::Digest;
use super::error::ErrorCode;
use super::name::Repository;
use super::reference::{Reference, ReferenceError};

/// An endpoint of the distribution-spec ("Endpoints"), and `_catalog`, which predates it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Route {
    /// Is this a registry?
    Ping,
    /// The list of repositories.
    Catalog,
    /// A manifest by tag or digest.
    Manifest {
        /// Whose manifest.
        repository: Repository,
        /// Which one.
        reference: Reference,
    },
    /// A blob by digest.
    Blob {
        /// In which repository.
        repository: Repository,
        /// Which one.
        digest: Digest,
    },
    /// The list of a repository's tags.
    Tags {
        /// Whose tags.
        repository: Repository,
    },
    /// The manifests whose subject is `digest`.
    Referrers {
        /// In which repository.
        repository: Repository,
        /// The subject.
        digest: Digest,
    },
    /// Where uploads begin.
    Uploads {
        /// Into which repository.
        repository: Repository,
    },
    /// An upload under way.
    Upload {
        /// Into which repository.
        repository: Repository,
        /// The registry's own name for it, one path segment.
        session: String,
    },
}

/// Why a path is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No registry endpoint looks like that.
    #[error("not a registry path")]
    NotRegistry,
    /// The API before the distribution specification, of which `docker search` still makes use.
    #[error("a registry has no search, and API v1 is not spoken: search at https://hub.docker.com")]
    FirstApi,
    /// An endpoint, but its repository is not a name.
    #[error("invalid repository name {0:?}")]
    NameInvalid(String),
    /// A manifest asked by something that is neither tag nor digest.
    #[error("invalid tag {0:?}")]
    TagInvalid(String),
    /// A digest that is malformed or of an unknown algorithm.
    #[error("invalid digest {0:?}")]
    DigestInvalid(String),
    /// An upload whose session is no plain path segment.
    #[error("invalid upload {0:?}")]
    UploadInvalid(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ping,
    Catalog,
    Manifest,
    Blob,
    Tags,
    Referrers,
    Uploads,
    Upload,
}

/// Every endpoint. The first row that fits a path wins; a route prints as the first row of its
/// kind. A hole after the name stands last and is one segment.
const TABLE: &[(Kind, &str)] = &[
    (Kind::Ping, "/v2/"),
    (Kind::Ping, "/v2"),
    (Kind::Catalog, "/v2/_catalog"),
    (Kind::Tags, "/v2/{name}/tags/list"),
    (Kind::Uploads, "/v2/{name}/blobs/uploads/"),
    (Kind::Uploads, "/v2/{name}/blobs/uploads"),
    (Kind::Upload, "/v2/{name}/blobs/uploads/{session}"),
    (Kind::Manifest, "/v2/{name}/manifests/{reference}"),
    (Kind::Blob, "/v2/{name}/blobs/{digest}"),
    (Kind::Referrers, "/v2/{name}/referrers/{digest}"),
];

// === impl Route ===

impl Route {
    /// Parses the raw path of a request, without its query.
    ///
    /// Only `%3A` in a reference or digest is decoded, because clients do write it; any other
    /// escape is refused, `%2F` in a name above all.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let (kind, name, hole) = TABLE
            .iter()
            .find_map(|&(kind, pattern)| fit(pattern, path).map(|(name, hole)| (kind, name, hole)))
            .ok_or_else(|| no_route(path))?;
        let repository =
            || Repository::parse(name).map_err(|_| RouteError::NameInvalid(name.to_owned()));
        Ok(match kind {
            Kind::Ping => Self::Ping,
            Kind::Catalog => Self::Catalog,
            Kind::Tags => Self::Tags { repository: repository()? },
            Kind::Uploads => Self::Uploads { repository: repository()? },
            Kind::Upload => {
                Self::Upload { repository: repository()?, session: parse_session(hole)? }
            }
            Kind::Manifest => {
                Self::Manifest { repository: repository()?, reference: parse_reference(hole)? }
            }
            Kind::Blob => Self::Blob { repository: repository()?, digest: parse_digest(hole)? },
            Kind::Referrers => {
                Self::Referrers { repository: repository()?, digest: parse_digest(hole)? }
            }
        })
    }

    /// The repository, for every route that has one.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Ping | Self::Catalog => None,
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. } => Some(repository),
        }
    }

    /// The same route in another repository; `Ping` and `Catalog` stay as they are.
    #[must_use]
    pub fn with_repository(mut self, renamed: Repository) -> Self {
        match &mut self {
            Self::Ping | Self::Catalog => {}
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. } => *repository = renamed,
        }
        self
    }

    /// The digest that the route names, if any: what it answers never changes, except referrers.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Manifest { reference, .. } => reference.digest(),
            Self::Blob { digest, .. } | Self::Referrers { digest, .. } => Some(digest),
            _ => None,
        }
    }

    /// Whether it is about an upload.
    pub fn is_upload(&self) -> bool {
        matches!(self, Self::Uploads { .. } | Self::Upload { .. })
    }

    /// The methods that the API has for it, as `Allow` lists them.
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Ping | Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => "GET, HEAD",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE",
            Self::Blob { .. } => "GET, HEAD, DELETE",
            Self::Uploads { .. } => "POST",
            Self::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Ping => Kind::Ping,
            Self::Catalog => Kind::Catalog,
            Self::Manifest { .. } => Kind::Manifest,
            Self::Blob { .. } => Kind::Blob,
            Self::Tags { .. } => Kind::Tags,
            Self::Referrers { .. } => Kind::Referrers,
            Self::Uploads { .. } => Kind::Uploads,
            Self::Upload { .. } => Kind::Upload,
        }
    }

    /// What fills the pattern's last hole.
    fn hole(&self) -> String {
        match self {
            Self::Manifest { reference, .. } => reference.to_string(),
            Self::Blob { digest, .. } | Self::Referrers { digest, .. } => digest.to_string(),
            Self::Upload { session, .. } => session.clone(),
            Self::Ping | Self::Catalog | Self::Tags { .. } | Self::Uploads { .. } => String::new(),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = TABLE.iter().find(|(kind, _)| *kind == self.kind());
        let (_, pattern) = row.expect("the table has a row for every kind");
        let (literal, _) = split_hole(pattern);
        let path = match (literal.split_once("{name}"), self.repository()) {
            (Some((before, after)), Some(name)) => format!("{before}{name}{after}{}", self.hole()),
            _ => literal.to_owned(),
        };
        f.pad(&path)
    }
}

// === impl RouteError ===

impl RouteError {
    /// The code that tells a client what is wrong.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotRegistry | Self::FirstApi => ErrorCode::Unsupported,
            Self::NameInvalid(_) => ErrorCode::NameInvalid,
            Self::TagInvalid(_) => ErrorCode::TagInvalid,
            Self::DigestInvalid(_) => ErrorCode::DigestInvalid,
            Self::UploadInvalid(_) => ErrorCode::BlobUploadInvalid,
        }
    }

    /// The status that goes with it: 404 for a path that is no endpoint, else the code's own.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotRegistry | Self::FirstApi => StatusCode::NOT_FOUND,
            _ => self.code().default_status(),
        }
    }
}

// === patterns ===

/// Fits `path` to `pattern`; gives what stands for the name and for the last hole, or empty text.
fn fit<'a>(pattern: &str, path: &'a str) -> Option<(&'a str, &'a str)> {
    let (literal, has_hole) = split_hole(pattern);
    let Some((before, after)) = literal.split_once("{name}") else {
        return (path == literal).then_some(("", ""));
    };
    let rest = path.strip_prefix(before)?;
    let (head, hole) = if has_hole { split_segment(rest)? } else { (rest, "") };
    Some((head.strip_suffix(after)?, hole))
}

/// The pattern up to its last hole, and whether it has one besides the name.
fn split_hole(pattern: &str) -> (&str, bool) {
    match pattern.rsplit_once('{') {
        Some((literal, hole)) if hole.ends_with('}') => (literal, true),
        _ => (pattern, false),
    }
}

/// Splits behind the last slash.
fn split_segment(path: &str) -> Option<(&str, &str)> {
    path.split_at_checked(path.rfind('/')? + 1)
}

fn no_route(path: &str) -> RouteError {
    if path.starts_with("/v1/") { RouteError::FirstApi } else { RouteError::NotRegistry }
}

fn parse_reference(segment: &str) -> Result<Reference, RouteError> {
    let text = decode_colon(segment);
    Reference::parse(&text).map_err(|error| match error {
        ReferenceError::Tag(_) => RouteError::TagInvalid(text),
        ReferenceError::Digest(_) => RouteError::DigestInvalid(text),
    })
}

fn parse_digest(segment: &str) -> Result<Digest, RouteError> {
    let text = decode_colon(segment);
    Digest::parse(&text).map_err(|_| RouteError::DigestInvalid(text))
}

/// A session is opaque, but it is printed into upstream URLs: only what needs no escape (RFC 3986
/// §2.3, and `=`) and is no dot segment.
fn parse_session(segment: &str) -> Result<String, RouteError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~=".contains(c);
    if segment.is_empty() || matches!(segment, "." | "..") || !segment.chars().all(plain) {
        return Err(RouteError::UploadInvalid(segment.to_owned()));
    }
    Ok(segment.to_owned())
}

fn decode_colon(segment: &str) -> String {
    segment.replace("%3A", ":").replace("%3a", ":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::digest::Algorithm;
    use proptest::prelude::*;

    fn name(text: &str) -> Repository {
        Repository::parse(text).expect("a name by the grammar")
    }

    fn manifest(repository: &str, reference: &str) -> Route {
        let reference = Reference::parse(reference).expect("a reference by the grammar");
        Route::Manifest { repository: name(repository), reference }
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    fn parsed(path: &str) -> Route {
        Route::parse(path).expect("a route")
    }

    #[test]
    fn every_endpoint_is_found() {
        let (repository, digest) = (name("library/alpine"), digest());
        let blob = Route::Blob { repository: repository.clone(), digest };
        assert_eq!(parsed("/v2"), Route::Ping);
        assert_eq!(parsed("/v2/"), Route::Ping);
        assert_eq!(parsed("/v2/_catalog"), Route::Catalog);
        assert_eq!(parsed("/v2/library/alpine/manifests/3.20"), manifest("library/alpine", "3.20"));
        assert_eq!(parsed(&format!("/v2/library/alpine/blobs/{digest}")), blob);
        let tags = Route::Tags { repository: repository.clone() };
        assert_eq!(parsed("/v2/library/alpine/tags/list"), tags);
        let referrers = Route::Referrers { repository: repository.clone(), digest };
        assert_eq!(parsed(&format!("/v2/library/alpine/referrers/{digest}")), referrers);
        let uploads = Route::Uploads { repository: repository.clone() };
        assert_eq!(parsed("/v2/library/alpine/blobs/uploads/"), uploads);
        assert_eq!(parsed("/v2/library/alpine/blobs/uploads"), uploads);
        let upload = Route::Upload { repository, session: "a-b_c=".to_owned() };
        assert_eq!(parsed("/v2/library/alpine/blobs/uploads/a-b_c="), upload);
    }

    #[test]
    fn the_last_keyword_decides() {
        assert_eq!(parsed("/v2/a/manifests/manifests/latest"), manifest("a/manifests", "latest"));
        assert_eq!(parsed("/v2/manifests/manifests/manifests"), manifest("manifests", "manifests"));
        assert_eq!(parsed("/v2/a/tags/manifests/list"), manifest("a/tags", "list"));
        let path = format!("/v2/a/blobs/uploads/blobs/{}", digest());
        assert_eq!(parsed(&path).repository(), Some(&name("a/blobs/uploads")));
    }

    #[test]
    fn a_registry_inside_the_name_is_part_of_the_name() {
        let route = manifest("docker.io/library/alpine", "latest");
        assert_eq!(parsed("/v2/docker.io/library/alpine/manifests/latest"), route);
    }

    #[test]
    fn an_escaped_colon_is_decoded_and_nothing_else_is() {
        let escaped = digest().to_string().replace(':', "%3A");
        let by_digest = manifest("a", &digest().to_string());
        assert_eq!(parsed(&format!("/v2/a/manifests/{escaped}")), by_digest);
        assert_eq!(parsed(&format!("/v2/a/manifests/{}", escaped.to_lowercase())), by_digest);
        let refused = RouteError::NameInvalid("a%2Fb".to_owned());
        assert_eq!(Route::parse("/v2/a%2Fb/manifests/latest"), Err(refused));
        assert_eq!(
            Route::parse("/v2/a/manifests/%6Catest"),
            Err(RouteError::TagInvalid("%6Catest".to_owned()))
        );
        assert_eq!(Route::parse("/v2/a%2Fmanifests%2Flatest"), Err(RouteError::NotRegistry));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let code = |path: &str| Route::parse(path).expect_err("no route").code();
        assert_eq!(code("/v2/A/manifests/latest"), ErrorCode::NameInvalid);
        assert_eq!(code("/v2//manifests/latest"), ErrorCode::NameInvalid);
        assert_eq!(code("/v2/a/../b/manifests/latest"), ErrorCode::NameInvalid);
        assert_eq!(code("/v2/a/manifests/"), ErrorCode::TagInvalid);
        assert_eq!(code("/v2/a/manifests/sha256:abc"), ErrorCode::DigestInvalid);
        assert_eq!(code("/v2/a/blobs/latest"), ErrorCode::DigestInvalid);
        assert_eq!(code("/v2/a/blobs/uploads/.."), ErrorCode::BlobUploadInvalid);
        assert_eq!(Route::parse("/v1/search"), Err(RouteError::FirstApi));
        for path in ["", "/", "/v2/a", "/v2/a/", "/v2/manifests/latest", "/V2/", "v2/", "*"] {
            let error = Route::parse(path).expect_err("no route");
            assert_eq!(
                (&error, error.status()),
                (&RouteError::NotRegistry, StatusCode::NOT_FOUND),
                "{path}"
            );
        }
    }

    #[test]
    fn another_repository_changes_nothing_else() {
        let route = manifest("alpine", "latest").with_repository(name("library/alpine"));
        assert_eq!(route.to_string(), "/v2/library/alpine/manifests/latest");
        assert_eq!(Route::Ping.with_repository(name("a")), Route::Ping);
    }

    fn routes() -> impl Strategy<Value = Route> {
        let word = "(a|b\\.c|manifests|blobs|uploads|tags|list|referrers|v2|x--y)";
        let name = proptest::collection::vec(word, 1..5).prop_map(|parts| name(&parts.join("/")));
        let tag = "(latest|manifests|uploads|list|[a-zA-Z0-9_][a-zA-Z0-9._-]{0,8})";
        (0..8, name, tag, any::<bool>(), any::<Vec<u8>>()).prop_map(
            |(kind, repository, tag, by_tag, seed)| {
                let digest = Digest::of(Algorithm::Sha512, &seed);
                let tag = || Reference::parse(&tag).expect("a tag by the grammar");
                match kind {
                    0 => Route::Ping,
                    1 => Route::Catalog,
                    2 => Route::Manifest {
                        repository,
                        reference: if by_tag { tag() } else { digest.into() },
                    },
                    3 => Route::Blob { repository, digest },
                    4 => Route::Tags { repository },
                    5 => Route::Referrers { repository, digest },
                    6 => Route::Uploads { repository },
                    _ => Route::Upload { repository, session: digest.hex() },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(route in routes()) {
            prop_assert_eq!(Route::parse(&route.to_string()), Ok(route));
        }

        #[test]
        fn no_path_panics_and_a_route_prints_a_path_of_itself(
            path in ".{0,40}|/v2/[a-z/%.:]{0,12}(/manifests/|/blobs/|/tags/list|/blobs/uploads/).{0,8}"
        ) {
            if let Ok(route) = Route::parse(&path) {
                prop_assert_eq!(Route::parse(&route.to_string()), Ok(route));
            }
        }
    }
}
