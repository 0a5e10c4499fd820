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
    filters: Vec<Box<dyn RequestFilter>>,
    repeats: Option<Repeats>,
    forwarded: Arc<Forwarded>,
    traffic: Arc<Traffic>,
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
        extra: Vec<Box<dyn RequestFilter>>,
    ) -> Result<Self, String> {
        let forwarded = Arc::new(Forwarded::new(config.trusted_proxies.clone()));
        let access = Arc::new(Access::new(&config.access)?);
        let mut filters: Vec<Box<dyn RequestFilter>> = vec![
            Box::new(Arc::clone(&forwarded)),
            Box::new(Arc::clone(&access)),
            Box::new(Classify::new(upstreams)),
            Box::new(Policy),
        ];
        // What others put into the chain sees each request, and each says who sends it.
        let is_long = !extra.is_empty() || access.wants_passwords();
        let (memory, cached) = (config.store.memory_of_heads(), Arc::clone(&blobs));
        let traffic = Arc::<Traffic>::default();
        let trusted = Arc::clone(&forwarded);
        let repeats = (!is_long).then(|| {
            let counted = Arc::clone(&traffic);
            Repeats::new(memory, Arc::clone(&manifests), cached, trusted, access, counted)
        });
        filters.extend(extra);
        filters.push(Box::new(Lists::new(Arc::clone(&manifests))));
        filters.push(Box::new(Cache::new(manifests, blobs)));
        Ok(Self { filters, repeats, forwarded, traffic })
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
        &self.traffic
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
