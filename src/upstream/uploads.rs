//! Where uploads go on: a registry's `Location`, as a client of ours must follow it.
//!
//! A client goes on through us, on the path that it knows the repository by.
//! Most registries name a path of the API, and that is rewritten; some name
//! another path of their own, or a query that our front would refuse, which is
//! remembered here under a session of our making. A client can't make one up,
//! so nothing but what the registry named is ever reached by it. They are in
//! memory: after a restart such an upload begins again.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use url::Url;

use super::{Failure, Upstream};
use crate::{
    config::{BaseUrl, Scheme},
    protocol::{Repository, Route, encoded},
};

/// What a session of our making begins with; RFC 3986 lets it stand in a path as it is.
const OWN: char = '~';

/// A path longer than this is none.
const LONGEST: usize = 8 * 1024;

/// Memory for paths, for all uploads of an upstream.
const PATHS: u64 = 8 << 20;

/// An upload that nobody goes on with for so long is given up.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// A place that a registry named, by the session that stands for it.
#[derive(Debug)]
pub(super) struct Uploads {
    elsewhere: Cache<String, (Repository, Arc<str>)>,
}

/// The request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its route, as the registry knows it but for a configured prefix.
    pub route: &'a Route,
    /// Its repository, as the client wrote it.
    pub name: &'a Repository,
    /// Its `ns`.
    pub namespace: Option<&'a str>,
}

// === impl Uploads ===

impl Default for Uploads {
    fn default() -> Self {
        let weight = |session: &String, (name, path): &(Repository, Arc<str>)| {
            let bytes = session.len() + name.as_str().len() + path.len();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let elsewhere = Cache::builder().max_capacity(PATHS).weigher(weight).time_to_idle(KEEP);
        Self { elsewhere: elsewhere.build() }
    }
}

impl Uploads {
    /// The registry's path and query for a session of our making, in the repository that it is for.
    pub(super) fn path(&self, repository: &Repository, session: &str) -> Option<Arc<str>> {
        let (owner, path) = self.elsewhere.get(session)?;
        (owner == *repository).then_some(path)
    }

    fn remember(&self, repository: &Repository, path: &str) -> String {
        let session = format!("{OWN}{:032x}", fastrand::u128(..));
        self.elsewhere.insert(session.clone(), (repository.clone(), path.into()));
        session
    }
}

/// Whether a session is of our making.
pub(super) fn is_own(session: &str) -> bool {
    session.starts_with(OWN)
}

// === impl Upstream ===

impl Upstream {
    /// What a client is told where the registry says `location`: a path of ours, or, on a host that
    /// the operator has listed under `redirect_hosts`, the URL as it is. Any other host is refused:
    /// the client would send there what is for this registry, its credentials too (P5).
    pub fn own_location(&self, location: &str, asked: Asked<'_>) -> Result<String, Failure> {
        let wire = self.talk().on_the_wire(asked.route);
        let mut from = self.talk().place().clone();
        from.set_path(&wire.to_string());
        if let Route::Upload { repository, session } = asked.route
            && let Some(place) = self.uploads.path(repository, session)
        {
            // The registry knows nothing of a session of ours.
            from = from.join(&place).unwrap_or(from);
        }
        let to = from.join(location).map_err(|_| {
            Failure::invalid("an upload that goes on at no URL (Location)".to_owned())
        })?;
        if !to.username().is_empty() || to.password().is_some() {
            return Err(Failure::invalid("an upload that goes on at a URL with credentials"));
        }
        if !is_home(&from, &to) {
            return self.abroad(&to);
        }
        if to.path().len() > LONGEST {
            return Err(Failure::invalid("an upload that goes on at a path of no end"));
        }
        let query = to.query().filter(|query| !has_control(query));
        let session = match query.is_some() == to.query().is_some() {
            true => self.session(asked.route, &wire, to.path())?,
            false => self.remembered(asked.route, &wire, &to)?,
        };
        let mut path = format!("/v2/{}/blobs/uploads/{session}", asked.name);
        let mut separator = '?';
        if let Some(query) = query {
            path.push(separator);
            path.push_str(query);
            separator = '&';
        }
        if let Some(namespace) = asked.namespace {
            path.push_str(&format!("{separator}ns={}", encoded(namespace)));
        }
        Ok(path)
    }

    /// The registry's own session where its path is one of the API, in the same repository.
    fn session(&self, route: &Route, wire: &Route, path: &str) -> Result<String, Failure> {
        let parsed = Route::parse(path);
        if let Ok(Route::Upload { repository, session }) = &parsed
            && Some(repository) == wire.repository()
            && !is_own(session)
        {
            return Ok(session.clone());
        }
        self.remember(route, wire, path, path)
    }

    /// A session for path and query together.
    fn remembered(&self, route: &Route, wire: &Route, to: &Url) -> Result<String, Failure> {
        let place = &to[url::Position::BeforePath..url::Position::AfterQuery];
        self.remember(route, wire, to.path(), place)
    }

    /// A session of our making for `place`, whose path is `path`.
    fn remember(
        &self,
        route: &Route,
        wire: &Route,
        path: &str,
        place: &str,
    ) -> Result<String, Failure> {
        let is_same_upload = match Route::parse(path) {
            Ok(Route::Upload { repository, session }) => {
                Some(&repository) == wire.repository() && !is_own(&session)
            }
            // Any other endpoint would be reached past our rules for it.
            Ok(_) => false,
            Err(_) => true,
        };
        match route.repository() {
            Some(repository) if is_same_upload && place.len() <= LONGEST => {
                Ok(self.uploads.remember(repository, place))
            }
            _ => Err(Failure::invalid(format!("an upload that goes on at {path}"))),
        }
    }

    fn abroad(&self, to: &Url) -> Result<String, Failure> {
        // The client would send its credentials along, so in plain text from a registry on this
        // machine to another one there at the most (P5).
        let is_plain_here = |url: &BaseUrl| url.scheme == Scheme::Http && url.is_loopback();
        let is_allowed = match to.scheme() {
            "https" => true,
            "http" => {
                is_plain_here(&self.config.url)
                    && BaseUrl::from_url(to).is_some_and(|to| is_plain_here(&to))
            }
            _ => false,
        };
        if is_allowed && self.talk().exchange.trust().is_listed(to) {
            return Ok(to.to_string());
        }
        let host = &to[url::Position::BeforeHost..url::Position::AfterPort];
        Err(Failure::Untrusted {
            problem: format!(
                "the upload goes on at {host}, which is not the registry; if it is right, list it under upstreams[].redirect_hosts, and it must be https"
            ),
        })
    }
}

/// Whether a query holds an encoded space or control character.
fn has_control(query: &str) -> bool {
    query.as_bytes().windows(3).any(|part| {
        matches!(part, [b'%', b'0' | b'1', _] | [b'%', b'2', b'0'] | [b'%', b'7', b'f' | b'F'])
    })
}

/// Whether `to` is on the registry's host. Its scheme is not looked at, nor a port that it leaves
/// out: a registry behind a terminator may know neither, and only the path is used.
fn is_home(registry: &Url, to: &Url) -> bool {
    let same_port = to.port_or_known_default() == registry.port_or_known_default();
    to.host() == registry.host() && (same_port || to.port().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn upstream() -> Upstream {
        let text = "upstreams: [{name: r, url: 'https://r.example', prefix: team, redirect_hosts: [store.example]}]";
        let mut config = Config::parse(text, "test").unwrap();
        Upstream::new(config.upstreams.remove(0), 1 << 22).unwrap()
    }

    fn located(upstream: &Upstream, location: &str) -> Result<String, String> {
        let route = Route::parse("/v2/app/blobs/uploads/").unwrap();
        let name = Repository::parse("r/app").unwrap();
        let asked = Asked { route: &route, name: &name, namespace: None };
        upstream.own_location(location, asked).map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_upload_goes_on_through_us() {
        let upstream = upstream();
        let here = "/v2/r/app/blobs/uploads/1-2?_state=a%2Bb%3D%3D";
        for location in [
            "/v2/team/app/blobs/uploads/1-2?_state=a%2Bb%3D%3D",
            "https://r.example/v2/team/app/blobs/uploads/1-2?_state=a%2Bb%3D%3D",
            "http://r.example/v2/team/app/blobs/uploads/1-2?_state=a%2Bb%3D%3D",
            "1-2?_state=a%2Bb%3D%3D",
        ] {
            assert_eq!(located(&upstream, location).unwrap(), here, "{location}");
        }
        let route = Route::parse("/v2/app/blobs/uploads/").unwrap();
        let name = Repository::parse("app").unwrap();
        let asked = Asked { route: &route, name: &name, namespace: Some("r") };
        let location = upstream.own_location("1", asked).unwrap();
        assert_eq!(location, "/v2/app/blobs/uploads/1?ns=r");
    }

    #[test]
    fn a_place_of_the_registrys_own_is_remembered_for_its_repository() {
        let upstream = upstream();
        let location = located(&upstream, "/v2/team/app/blobs/upload/1/2?x=y").unwrap();
        let (path, query) = location.split_once('?').unwrap();
        assert_eq!(query, "x=y");
        let Route::Upload { repository: _, session } = Route::parse(path).unwrap() else {
            panic!("{path} is no upload");
        };
        let app = Repository::parse("app").unwrap();
        let path = upstream.uploads.path(&app, &session);
        assert_eq!(path.as_deref(), Some("/v2/team/app/blobs/upload/1/2"));
        assert_eq!(upstream.uploads.path(&Repository::parse("b").unwrap(), &session), None);
        // What the registry says next is said of its own path.
        let route = Route::Upload { repository: app.clone(), session: session.clone() };
        let name = Repository::parse("r/app").unwrap();
        let asked = Asked { route: &route, name: &name, namespace: None };
        let next = upstream.own_location("3", asked).unwrap();
        let next = next.strip_prefix("/v2/r/app/blobs/uploads/").unwrap();
        let path = upstream.uploads.path(&app, next);
        assert_eq!(path.as_deref(), Some("/v2/team/app/blobs/upload/1/3"));
        // What a client may have taught the registry to say.
        let own = located(&upstream, &format!("/v2/team/app/blobs/uploads/{session}"));
        assert!(own.is_err(), "{own:?}");
    }

    #[test]
    fn a_query_that_could_not_come_back_is_remembered_too() {
        let upstream = upstream();
        let place = "/v2/team/app/blobs/uploads/1?_state=a%20b%0A";
        let location = located(&upstream, place).unwrap();
        let session = location.strip_prefix("/v2/r/app/blobs/uploads/").unwrap();
        let path = upstream.uploads.path(&Repository::parse("app").unwrap(), session);
        assert_eq!(path.as_deref(), Some(place));
        assert!(located(&upstream, "/v2/team/other/blobs/uploads/1?_state=a%20b").is_err());
    }

    /// P5: the client would send its credentials along.
    #[test]
    fn an_upload_goes_on_in_plain_text_on_this_machine_only() {
        let hosts = "[store.example, 127.0.0.1, localhost]";
        for (url, here) in [("http://127.0.0.1:5000", true), ("http://r.example", false)] {
            let text = format!("upstreams: [{{name: r, url: '{url}', redirect_hosts: {hosts}}}]");
            let mut config = Config::parse(&text, "test").unwrap();
            let upstream = Upstream::new(config.upstreams.remove(0), 1 << 22).unwrap();
            for host in ["127.0.0.1:9000", "localhost"] {
                let said = located(&upstream, &format!("http://{host}/x"));
                assert_eq!(said.is_ok(), here, "{url}: {said:?}");
            }
            assert!(located(&upstream, "http://store.example/x").is_err(), "{url}");
            assert!(located(&upstream, "https://store.example/x").is_ok(), "{url}");
        }
    }

    #[test]
    fn no_upload_goes_on_where_nobody_vouches_for() {
        let upstream = upstream();
        let listed = "https://store.example/x?sig=1";
        assert_eq!(located(&upstream, listed).unwrap(), listed);
        assert!(located(&upstream, "http://store.example/x?sig=1").is_err());
        assert!(located(&upstream, "ftp://store.example/x?sig=1").is_err());
        let foreign = located(&upstream, "https://evil.example/x").unwrap_err();
        assert!(
            foreign.contains("evil.example") && foreign.contains("redirect_hosts"),
            "{foreign}"
        );
        for location in [
            "https://r.example:8443/v2/team/app/blobs/uploads/1",
            "https://u:p@r.example/v2/team/app/blobs/uploads/1",
            "/v2/team/other/blobs/uploads/1",
            "/v2/team/app/manifests/latest",
            "/v2/_catalog",
        ] {
            assert!(located(&upstream, location).is_err(), "{location}");
        }
    }
}
