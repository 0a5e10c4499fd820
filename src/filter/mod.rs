//! The way of a request: filters in a chain, each of which may answer it.
//!
//! [`RequestFilter`] is the crate's public extension point; the built-in steps
//! are plain implementations of it. [`Chain::standard`] puts them in order.

mod access;
mod answer;
mod cache;
mod classify;
mod context;
mod forwarded;
mod headers;
mod hops;
mod htpasswd;
mod lists;
mod policy;
mod pushers;
mod query;
mod ranged;
mod refusal;
mod repeats;
mod written;

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use http::{request::Parts, response};

pub use access::Access;
pub use answer::{Answer, Body};
pub use cache::Cache;
pub use classify::Classify;
pub use context::{Client, Context, Destination, Mount, Target};
pub use forwarded::Forwarded;
pub use headers::varies;
pub use htpasswd::Htpasswd;
pub use lists::Lists;
pub use policy::Policy;
pub use query::{own_link, parameter, query_there};
pub use refusal::Refusal;
pub use repeats::{Again, Peer, Repeat, Repeats};
pub use written::blob_digest;

use written::Written;

use crate::{
    blob::Blobs, config::Config, manifest::Manifests, traffic::Traffic, upstream::Upstream,
};

/// A step on the way of a request.
///
/// ```
/// use roadstead::filter::{Answer, Context, Flow, Refusal, RequestFilter};
///
/// struct Teapot;
///
/// #[async_trait::async_trait]
/// impl RequestFilter for Teapot {
///     fn name(&self) -> &'static str {
///         "teapot"
///     }
///
///     async fn filter(
///         &self,
///         request: &http::request::Parts,
///         _context: &mut Context,
///     ) -> Result<Flow, Refusal> {
///         if request.uri.path() == "/teapot" {
///             return Ok(Flow::Respond(Answer::text(http::StatusCode::IM_A_TEAPOT, "short and stout")));
///         }
///         Ok(Flow::Continue)
///     }
/// }
/// ```
#[async_trait]
pub trait RequestFilter: Send + Sync + 'static {
    /// The filter's name, for the log.
    fn name(&self) -> &'static str;

    /// Looks at a request and says how it goes on. `context` is the request's own, handed from
    /// filter to filter. A [`Refusal`] is answered as the distribution spec's error JSON.
    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal>;

    /// Looks at the head of upstream's answer to a request that was forwarded, before the client
    /// sees it.
    async fn answered(&self, request: &Parts, context: &Context, answer: &response::Parts) {
        let _ = (request, context, answer);
    }
}

#[async_trait]
impl<F: RequestFilter> RequestFilter for Arc<F> {
    fn name(&self) -> &'static str {
        F::name(self)
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        F::filter(self, request, context).await
    }

    async fn answered(&self, request: &Parts, context: &Context, answer: &response::Parts) {
        F::answered(self, request, context, answer).await;
    }
}

/// How a request goes on.
#[derive(Debug)]
pub enum Flow {
    /// To the next filter; from the last one, upstream.
    Continue,
    /// With this answer.
    Respond(Answer),
    /// Upstream, by Pingora, past all other filters.
    Forward,
}

/// The filters in the order in which a request meets them.
pub struct Chain {
    filters: Vec<Arc<dyn RequestFilter>>,
    repeats: Option<Repeats>,
    forwarded: Arc<Forwarded>,
    /// What a chain for another configuration has too.
    lasting: Lasting,
}

/// The parts of a chain that know nothing of the configuration but what each request brings along.
#[derive(Clone)]
struct Lasting {
    manifests: Arc<Manifests>,
    blobs: Arc<Blobs>,
    traffic: Arc<Traffic>,
    extra: Vec<Arc<dyn RequestFilter>>,
    /// In their order.
    last: [Arc<dyn RequestFilter>; 2],
}

// === impl Chain ===

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.filters.iter().map(|filter| filter.name())).finish()
    }
}

impl Chain {
    /// `forwarded`, `access`, `classify`, `policy`, the `extra` ones, `lists`, `cache`: an extra filter sees
    /// who asks for what of which upstream, and comes before anything is answered from the cache.
    pub fn standard(
        config: &Config,
        upstreams: Vec<Arc<Upstream>>,
        manifests: Arc<Manifests>,
        blobs: Arc<Blobs>,
        extra: Vec<Arc<dyn RequestFilter>>,
    ) -> Result<Self, String> {
        let lists = Arc::new(Lists::new(Arc::clone(&manifests)));
        let cache = Arc::new(Cache::new(Arc::clone(&manifests), Arc::clone(&blobs)));
        let (traffic, last) = (Arc::default(), [lists as _, cache as _]);
        Self::of(config, upstreams, Lasting { manifests, blobs, traffic, extra, last })
    }

    /// The chain for another configuration. It remembers no request: under the new rules each goes
    /// the long way first.
    pub fn successor(
        &self,
        config: &Config,
        upstreams: Vec<Arc<Upstream>>,
    ) -> Result<Self, String> {
        Self::of(config, upstreams, self.lasting.clone())
    }

    fn of(
        config: &Config,
        upstreams: Vec<Arc<Upstream>>,
        lasting: Lasting,
    ) -> Result<Self, String> {
        let forwarded = Arc::new(Forwarded::new(config.trusted_proxies.clone()));
        let access = Arc::new(Access::new(&config.access)?);
        let mut filters: Vec<Arc<dyn RequestFilter>> = vec![
            Arc::clone(&forwarded) as _,
            Arc::clone(&access) as _,
            Arc::new(Classify::new(upstreams)),
            Arc::new(Policy),
        ];
        filters.extend(lasting.extra.iter().chain(&lasting.last).map(Arc::clone));
        // What others put into the chain sees each request, and each says who sends it.
        let is_long = !lasting.extra.is_empty() || access.wants_passwords();
        let trusted = Arc::clone(&forwarded);
        let repeats = (!is_long).then(|| {
            let (manifests, blobs) = (Arc::clone(&lasting.manifests), Arc::clone(&lasting.blobs));
            let (memory, counted) = (config.store.memory_of_heads(), Arc::clone(&lasting.traffic));
            Repeats::new(memory, manifests, blobs, trusted, access, counted)
        });
        Ok(Self { filters, repeats, forwarded, lasting })
    }

    /// Another chain is in force: requests under way end on this one, and what it remembers goes.
    pub fn retire(&self) {
        if let Some(repeats) = &self.repeats {
            repeats.forget_all();
        }
    }

    /// The requests that need not go along the chain again, unless all have to.
    pub fn repeats(&self) -> Option<&Repeats> {
        self.repeats.as_ref()
    }

    /// Whether `peer` is a proxy that is trusted to say on whose behalf it asks.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.forwarded.is_trusted(peer.to_canonical())
    }

    /// Who asked for what.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.lasting.traffic
    }

    /// Sends a request along the chain; [`Flow::Continue`] is never its end.
    pub async fn run(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        for filter in &self.filters {
            match filter.filter(request, context).await? {
                Flow::Continue => {}
                end => return Ok(end),
            }
        }
        Ok(Flow::Forward)
    }

    /// Shows every filter what upstream answered to a request that was forwarded.
    pub async fn answered(&self, request: &Parts, context: &Context, answer: &response::Parts) {
        if let Some((target, _)) = Written::of(request, context, answer) {
            // First: what was asked before must not outlive what the filters do now.
            target.upstream.wrote();
        }
        for filter in &self.filters {
            filter.answered(request, context, answer).await;
        }
    }
}
