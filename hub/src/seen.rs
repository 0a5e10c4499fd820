//! A request as the simulator sees it: which server, which kind, about what, from whom.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, Method, header, request::Parts};

use crate::cdn;
use crate::stats::{Kind, Request};

/// Another source address than the peer's, so that one machine can play several clients.
const SOURCE: HeaderName = HeaderName::from_static("x-hub-source");

/// Which of the three servers a request reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Registry,
    Token,
    Cdn,
}

/// The paths of the distribution spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Catalog,
    Manifest { repository: String, reference: String },
    Blob { repository: String, digest: String },
    Tags { repository: String },
    Referrers { repository: String, digest: String },
    Uploads { repository: String },
    Upload { repository: String, session: String },
    Token,
    Cdn { digest: String },
    Other,
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) place: Place,
    pub(crate) route: Route,
    pub(crate) kind: Kind,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) source: String,
}

// === impl Seen ===

impl Seen {
    pub(crate) fn new(place: Place, parts: &Parts, peer: SocketAddr) -> Self {
        let path = parts.uri.path().to_owned();
        let route = Route::parse(place, &path);
        let source = parts.headers.get(SOURCE).and_then(|value| value.to_str().ok());
        Self {
            place,
            kind: route.kind(&parts.method),
            route,
            method: parts.method.clone(),
            path,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers.clone(),
            source: source.map_or_else(|| peer.ip().to_string(), str::to_owned),
        }
    }

    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first query parameter of this name, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// Repositories with which the `scope` parameters ask to do `action`: `pull` or `push`.
    pub(crate) fn scopes(&self, action: &str) -> Vec<String> {
        let named = |value: &str| {
            value.split(' ').filter_map(|scope| allowed(scope, action)).collect::<Vec<_>>()
        };
        form_urlencoded::parse(self.query.as_bytes())
            .filter(|(key, _)| key == "scope")
            .flat_map(|(_, value)| named(&value))
            .collect()
    }

    /// Whether it is for `push` to answer.
    pub(crate) fn is_push(&self) -> bool {
        self.place == Place::Registry && self.repository().is_some() && self.writes()
    }

    /// Whether it changes the registry, or is about an upload.
    pub(crate) fn writes(&self) -> bool {
        let upload = matches!(self.route, Route::Uploads { .. } | Route::Upload { .. });
        upload || !matches!(self.method, Method::GET | Method::HEAD)
    }

    pub(crate) fn repository(&self) -> Option<&str> {
        match &self.route {
            Route::Manifest { repository, .. }
            | Route::Blob { repository, .. }
            | Route::Tags { repository }
            | Route::Uploads { repository }
            | Route::Upload { repository, .. }
            | Route::Referrers { repository, .. } => Some(repository),
            _ => None,
        }
    }

    /// Tag or digest.
    pub(crate) fn reference(&self) -> Option<&str> {
        match &self.route {
            Route::Manifest { reference, .. } => Some(reference),
            Route::Blob { digest, .. } | Route::Referrers { digest, .. } => Some(digest),
            Route::Cdn { digest } => Some(digest),
            _ => None,
        }
    }

    /// The log entry, still without status.
    pub(crate) fn record(&self, account: Option<String>) -> Request {
        let text = |name| self.header(name).map(str::to_owned);
        let accept = self.headers.get_all(header::ACCEPT).iter();
        Request {
            kind: self.kind,
            method: self.method.to_string(),
            path: self.path.clone(),
            query: (!self.query.is_empty()).then(|| self.query.clone()),
            repository: self.repository().map(str::to_owned),
            reference: self.reference().map(str::to_owned),
            status: 0,
            authorization: self.headers.contains_key(header::AUTHORIZATION),
            account,
            range: text(header::RANGE),
            accept: accept
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(',').map(|one| one.trim().to_owned()))
                .collect(),
            if_none_match: text(header::IF_NONE_MATCH),
            user_agent: text(header::USER_AGENT),
            bytes_sent: 0,
            host: text(header::HOST).unwrap_or_default(),
            source: self.source.clone(),
        }
    }
}

/// The name out of `repository:NAME:ACTIONS`, if `action` is among the actions.
fn allowed(scope: &str, action: &str) -> Option<String> {
    let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    let is_there = actions.split(',').any(|one| one == action || one == "*");
    is_there.then(|| name.to_owned())
}

// === impl Route ===

impl Route {
    fn parse(place: Place, path: &str) -> Self {
        match place {
            Place::Registry => Self::registry(path).unwrap_or(Self::Other),
            Place::Token if path == "/token" => Self::Token,
            Place::Token => Self::Other,
            Place::Cdn => cdn::digest_of(path).map_or(Self::Other, |digest| Self::Cdn { digest }),
        }
    }

    fn registry(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?.trim_start_matches('/');
        match rest {
            "" => return Some(Self::Ping),
            "_catalog" => return Some(Self::Catalog),
            _ => {}
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags { repository: repository.to_owned() });
        }
        let uploads = rest.trim_end_matches('/').strip_suffix("/blobs/uploads");
        if let Some(repository) = uploads {
            return Some(Self::Uploads { repository: repository.to_owned() });
        }
        let (front, last) = rest.rsplit_once('/')?;
        if let Some(repository) = front.strip_suffix("/blobs/uploads") {
            let (repository, session) = (repository.to_owned(), last.to_owned());
            return Some(Self::Upload { repository, session });
        }
        let (repository, word) = front.rsplit_once('/')?;
        let (repository, last) = (repository.to_owned(), last.to_owned());
        match word {
            "manifests" => Some(Self::Manifest { repository, reference: last }),
            "blobs" => Some(Self::Blob { repository, digest: last }),
            "referrers" => Some(Self::Referrers { repository, digest: last }),
            _ => None,
        }
    }

    fn kind(&self, method: &Method) -> Kind {
        let head = method == Method::HEAD;
        match self {
            Self::Ping => Kind::Ping,
            Self::Token => Kind::Token,
            Self::Tags { .. } => Kind::Tags,
            Self::Referrers { .. } => Kind::Referrers,
            Self::Manifest { .. } if head => Kind::ManifestHead,
            Self::Blob { .. } if head => Kind::BlobHead,
            Self::Cdn { .. } if head => Kind::CdnHead,
            Self::Manifest { .. } if method == Method::GET => Kind::ManifestGet,
            Self::Blob { .. } if method == Method::GET => Kind::BlobGet,
            Self::Cdn { .. } if method == Method::GET => Kind::CdnGet,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_may_hold_slashes_and_spec_words() {
        let route = Route::registry("/v2/a/manifests/b/manifests/latest");
        let (repository, reference) = ("a/manifests/b".to_owned(), "latest".to_owned());
        assert_eq!(route, Some(Route::Manifest { repository, reference }));
        let repository = "a/blobs".to_owned();
        let uploads = Route::Uploads { repository: repository.clone() };
        assert_eq!(Route::registry("/v2/a/blobs/blobs/uploads/"), Some(uploads));
        let upload = Route::Upload { repository, session: "1".to_owned() };
        assert_eq!(Route::registry("/v2/a/blobs/blobs/uploads/1"), Some(upload));
        assert_eq!(Route::registry("/v2/"), Some(Route::Ping));
        assert_eq!(Route::registry("/metrics"), None);
    }

    #[test]
    fn a_scope_without_pull_names_nothing() {
        assert_eq!(
            allowed("repository:library/alpine:pull,push", "pull").as_deref(),
            Some("library/alpine")
        );
        assert_eq!(allowed("repository:library/alpine:push", "pull"), None);
        assert_eq!(allowed("registry:catalog:*", "pull"), None);
    }
}
