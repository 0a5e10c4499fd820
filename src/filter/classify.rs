//! Which registry a request is for, and what of it: path, `ns` and `Host`.
//!
//! The world is closed: only configured upstreams are reached. In order:
//! whom the client of a transparent listener wanted, the host that a trusted
//! proxy was asked for among an upstream's `hosts`, `Host` among them, `?ns=`,
//! the first part of the path that is an upstream's name, the first upstream.

use std::sync::Arc;

use async_trait::async_trait;
use http::{header, request::Parts};

use super::{
    Context, Destination, Flow, Mount, Refusal, RequestFilter, Target,
    query::{is_given_twice, parameter},
};
use crate::{
    config::Mode,
    protocol::{Repository, Route},
    upstream::{Caller, Upstream},
};

/// The filter.
#[derive(Debug)]
pub struct Classify {
    /// Never empty; the first is the default.
    upstreams: Vec<Arc<Upstream>>,
}

/// How an upstream was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    /// By `Host` or `ns`: the path is the registry's own, or repeats its name.
    ByName,
    /// By nothing yet.
    ByDefault,
}

// === impl Classify ===

impl Classify {
    /// Chooses among `upstreams`.
    pub fn new(upstreams: Vec<Arc<Upstream>>) -> Self {
        Self { upstreams }
    }

    fn choose(
        &self,
        hosts: [Option<&str>; 2],
        namespace: Option<&str>,
    ) -> Result<(&Arc<Upstream>, Chosen), Refusal> {
        let by_host = hosts.into_iter().flatten().find_map(|host| self.by_host(host));
        if let Some(upstream) = by_host {
            return Ok((upstream, Chosen::ByName));
        }
        if let Some(name) = namespace {
            let found = self.by_name(name).or_else(|| self.by_registry(name));
            let found = found.ok_or_else(|| self.unknown(name))?;
            return Ok((found, Chosen::ByName));
        }
        let first = self.upstreams.first().ok_or_else(|| self.unknown("any"))?;
        Ok((first, Chosen::ByDefault))
    }

    /// The client believes to be connected with this registry, and may ask no other here.
    fn arrived_for(
        &self,
        destination: &Destination,
        host: Option<&str>,
    ) -> Result<(&Arc<Upstream>, Chosen), Refusal> {
        let host = host.unwrap_or_default();
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !bare.trim_end_matches('.').eq_ignore_ascii_case(&destination.host) {
            return Err(Refusal::Misdirected { host: destination.host.clone() });
        }
        let name = &destination.upstream;
        let upstream = self.by_name(name).ok_or_else(|| self.unknown(name))?;
        Ok((upstream, Chosen::ByName))
    }

    fn by_host(&self, host: &str) -> Option<&Arc<Upstream>> {
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.upstreams.iter().find(|upstream| {
            let hosts = &upstream.config().hosts;
            hosts.iter().any(|own| own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(bare))
        })
    }

    fn by_name(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| upstream.name().eq_ignore_ascii_case(name))
    }

    /// Clients say in `ns` what their images' names begin with, whatever we call the registry.
    fn by_registry(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| {
            upstream.config().registry().is_some_and(|own| own.eq_ignore_ascii_case(name))
        })
    }

    fn unknown(&self, name: &str) -> Refusal {
        let known = self.upstreams.iter().map(|upstream| upstream.name().to_string()).collect();
        Refusal::UnknownUpstream { name: name.to_owned(), known }
    }

    /// The upstream and the repository there, of a repository as the client names it.
    fn locate(
        &self,
        chosen: (&Arc<Upstream>, Chosen),
        repository: &Repository,
    ) -> Result<(Arc<Upstream>, Repository), Refusal> {
        let (mut upstream, how) = chosen;
        let mut repository = repository.clone();
        if let Some((first, rest)) = repository.split_first() {
            match (self.by_name(first), how) {
                (Some(named), Chosen::ByDefault) => {
                    upstream = named;
                    repository = rest;
                }
                // containerd's `override_path` names the registry both ways.
                (Some(named), Chosen::ByName) if Arc::ptr_eq(named, upstream) => repository = rest,
                // A first part with a dot is a host, as every client reads it.
                (None, Chosen::ByDefault) if first.contains('.') => return Err(self.unknown(first)),
                _ => {}
            }
        }
        if upstream.config().library_rule() && repository.components().count() == 1 {
            repository = repository.with_prefix("library");
        }
        Ok((Arc::clone(upstream), repository))
    }

    /// `from`, which a client names as it names the repository in the path.
    fn mount(
        &self,
        query: Option<&str>,
        chosen: (&Arc<Upstream>, Chosen),
        upstream: &Arc<Upstream>,
    ) -> Mount {
        let Some(from) = parameter(query, "from") else { return Mount::None };
        if is_given_twice(query, "from") || is_given_twice(query, "mount") {
            return Mount::Elsewhere;
        }
        let from = Repository::parse(&from).ok();
        match from.map(|from| self.locate(chosen, &from)) {
            Some(Ok((other, from))) if Arc::ptr_eq(&other, upstream) => Mount::Named(from),
            _ => Mount::Elsewhere,
        }
    }
}

#[async_trait]
impl RequestFilter for Classify {
    fn name(&self) -> &'static str {
        "classify"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        let route = Route::parse(request.uri.path())?;
        let namespace = parameter(request.uri.query(), "ns");
        let chosen = match &context.destination {
            Some(destination) => self.arrived_for(destination, host(request))?,
            None => self.choose(asked_for(request, context), namespace.as_deref())?,
        };
        context.namespace = namespace;
        let (upstream, route) = match route.repository() {
            None => (Arc::clone(chosen.0), route),
            Some(repository) => {
                let (upstream, repository) = self.locate(chosen, repository)?;
                (upstream, route.with_repository(repository))
            }
        };
        let mount = match &route {
            Route::Uploads { .. } => self.mount(request.uri.query(), chosen, &upstream),
            _ => Mount::None,
        };
        let caller = match upstream.config().credentials.mode {
            Mode::Shared => Caller::Shared,
            // A password that was for us goes no further (P5).
            Mode::Client if context.user.is_some() => Caller::client(None),
            Mode::Client => Caller::client(request.headers.get(header::AUTHORIZATION)),
        };
        context.target = Some(Target { upstream, route, caller, mount });
        Ok(Flow::Continue)
    }
}

/// The host that the client asked a trusted proxy for, then the one that this asks for: either may
/// be the one that selects.
fn asked_for<'a>(request: &'a Parts, context: &'a Context) -> [Option<&'a str>; 2] {
    [context.client.host.as_ref().map(http::uri::Authority::as_str), host(request)]
}

fn host(request: &Parts) -> Option<&str> {
    let header = request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    header.or_else(|| request.uri.authority().map(http::uri::Authority::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn classify() -> Classify {
        let text = "upstreams: [{name: docker.io}, {name: ghcr.io, hosts: [ghcr.lan]}, \
                    {name: corp, url: \"https://registry.corp:5000\", hosts: [corp.lan]}, \
                    {name: hub, url: \"https://harbor.corp\", prefix: dockerhub}]";
        let config = Config::parse(text, "test").unwrap();
        let new = |upstream| Arc::new(Upstream::new(upstream, 1 << 22).unwrap());
        Classify::new(config.upstreams.into_iter().map(new).collect())
    }

    async fn target(uri: &str, host: &str) -> Result<String, Refusal> {
        let request = http::Request::get(uri).header("host", host).body(()).unwrap();
        let mut context = Context::new(None);
        classify().filter(&request.into_parts().0, &mut context).await?;
        let target = context.target.unwrap();
        Ok(format!("{} {}", target.upstream.name(), target.route))
    }

    #[tokio::test]
    async fn upstreams_are_chosen_by_host_then_ns_then_prefix_then_default() {
        let cases = [
            ("/v2/app/manifests/1", "ghcr.lan:5000", "ghcr.io /v2/app/manifests/1"),
            ("/v2/app/manifests/1?ns=docker.io", "ghcr.lan", "ghcr.io /v2/app/manifests/1"),
            ("/v2/org/app/manifests/1?ns=ghcr.io", "x", "ghcr.io /v2/org/app/manifests/1"),
            ("/v2/ghcr.io/org/app/manifests/1", "x", "ghcr.io /v2/org/app/manifests/1"),
            ("/v2/ghcr.io/org/app/manifests/1?ns=ghcr.io", "x", "ghcr.io /v2/org/app/manifests/1"),
            ("/v2/alpine/manifests/1", "x", "docker.io /v2/library/alpine/manifests/1"),
            ("/v2/docker.io/alpine/manifests/1", "x", "docker.io /v2/library/alpine/manifests/1"),
            ("/v2/alpine/manifests/1?ns=ghcr.io", "x", "ghcr.io /v2/alpine/manifests/1"),
            ("/v2/org/app/manifests/1?ns=registry.corp:5000", "x", "corp /v2/org/app/manifests/1"),
            ("/v2/corp/org/app/manifests/1", "x", "corp /v2/org/app/manifests/1"),
            ("/v2/hub/org/app/manifests/1", "x", "hub /v2/org/app/manifests/1"),
            ("/v2/", "x", "docker.io /v2/"),
        ];
        for (uri, host, expected) in cases {
            assert_eq!(target(uri, host).await.unwrap(), expected, "{uri} at {host}");
        }
    }

    #[tokio::test]
    async fn what_a_trusted_proxy_was_asked_for_counts_as_host_and_so_does_what_it_asks_for() {
        for (told, host, expected) in [
            ("ghcr.lan", "127.0.0.1:5000", "ghcr.io"),
            ("mirror.example.com", "ghcr.lan", "ghcr.io"),
            ("ghcr.lan", "corp.lan", "ghcr.io"),
            ("mirror.example.com", "127.0.0.1:5000", "docker.io"),
        ] {
            let request = http::Request::get("/v2/app/manifests/1").header("host", host);
            let mut context = Context::new(None);
            context.client.host = Some(told.parse().unwrap());
            let request = request.body(()).unwrap().into_parts().0;
            classify().filter(&request, &mut context).await.unwrap();
            assert_eq!(context.target.unwrap().upstream.name().as_ref(), expected, "{told} {host}");
        }
    }

    #[tokio::test]
    async fn a_transparent_connection_is_for_one_registry_alone() {
        let destination = Destination { host: "ghcr.io".into(), upstream: "ghcr.io".into() };
        let ask = async |uri: &str, host: &str| {
            let request = http::Request::get(uri).header("host", host).body(()).unwrap();
            let mut context = Context::new(None);
            context.destination = Some(Arc::new(destination.clone()));
            let flow = classify().filter(&request.into_parts().0, &mut context).await;
            flow.map(|_| context.target.unwrap())
                .map(|target| format!("{} {}", target.upstream.name(), target.route))
        };
        for host in ["ghcr.io", "GHCR.io:443", "ghcr.io."] {
            let found = ask("/v2/org/app/manifests/1?ns=docker.io", host).await.unwrap();
            assert_eq!(found, "ghcr.io /v2/org/app/manifests/1");
        }
        for host in ["docker.io", "", "ghcr.io.evil.example"] {
            let refusal = ask("/v2/org/app/manifests/1", host).await.unwrap_err();
            assert!(matches!(refusal, Refusal::Misdirected { .. }), "{host}: {refusal}");
        }
    }

    #[tokio::test]
    async fn an_unknown_registry_is_an_error_that_names_the_known_ones() {
        for (uri, name) in [
            ("/v2/quay.io/org/app/manifests/1", "quay.io"),
            ("/v2/app/manifests/1?ns=quay.io", "quay.io"),
            // Of which we know one project only.
            ("/v2/team/app/manifests/1?ns=harbor.corp", "harbor.corp"),
        ] {
            let refusal = target(uri, "x").await.unwrap_err().to_string();
            assert!(refusal.contains(name) && refusal.contains("docker.io, ghcr.io"), "{refusal}");
        }
    }
}
