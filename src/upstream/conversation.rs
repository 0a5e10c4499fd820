//! A conversation with a registry: a question, the token that it wants, the answer.
//!
//! Each runs in a task of its own and ends within its patience. A client that
//! leaves ends nothing, and is never taken for a registry that is silent.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{
    Budget, Caller, Error, Failure,
    exchange::{Exchange, Forward, Kind, Reply},
    redirect::{Journey, follow},
    token::Tokens,
};
use crate::{
    config,
    protocol::{Digest, Reference, Repository, Route, media_type::ACCEPT_MANIFESTS},
};

/// The means to talk to one registry.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) name: Arc<str>,
    pub(super) budget: Budget,
    base: Url,
    exchange: Arc<Exchange>,
    tokens: Tokens,
}

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) range: Option<String>,
    caller: Caller,
}

// === impl Conversation ===

impl Conversation {
    pub(super) fn new(config: &config::Upstream) -> Result<Arc<Self>, String> {
        let base = Url::parse(&config.url.to_string()).map_err(|error| error.to_string())?;
        let name: Arc<str> = config.name.as_str().into();
        let account = config.credentials.accounts.first().cloned();
        let budget = Budget::new(Arc::clone(&name), account.as_ref().map(|a| a.username.as_str()));
        let exchange = Exchange::new(config, base.clone())?;
        Ok(Arc::new(Self { name, budget, base, exchange, tokens: Tokens::new(account) }))
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.exchange.is_held_back()
    }

    /// Runs `work` in a task of its own, for at most `patience`.
    pub(super) async fn detached<T: Send + 'static>(
        self: &Arc<Self>,
        patience: Duration,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let task = tokio::spawn(tokio::time::timeout(patience, work));
        match task.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                let host = Arc::clone(&self.name);
                Err(Failure::Timeout { host, waiting_for: "an answer" }.into())
            }
            // The runtime is stopping, or the task panicked and has said so.
            Err(_) => Err(Failure::GivenUp.into()),
        }
    }

    /// Asks, with a token where one is wanted, once more after a 401. Reads the budget.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Reply, Error> {
        let scope = scope(&ask.route);
        let authorization = match &ask.caller {
            Caller::Client { authorization, .. } => authorization.clone(),
            Caller::Shared => self.tokens.before_asked(&self.exchange, scope.as_deref()).await?,
        };
        let mut reply = self.send(ask, authorization.as_ref()).await?;
        if reply.status != StatusCode::UNAUTHORIZED || !matches!(ask.caller, Caller::Shared) {
            return Ok(reply);
        }
        // The token may come from the same host, and it must not wait for us.
        reply.body.yield_place();
        let used = authorization.as_ref();
        let headers = &reply.headers;
        let retry = self.tokens.after_refusal(&self.exchange, headers, scope.as_deref(), used);
        if let Some(authorization) = retry.await? {
            reply.body.dismiss().await;
            reply = self.send(ask, Some(&authorization)).await?;
        }
        // The challenge was ours to meet, and no client's.
        reply.headers.remove(header::WWW_AUTHENTICATE);
        Ok(reply)
    }

    /// Where, and with which credentials, a request for `route` is forwarded.
    pub(super) async fn forward(&self, route: &Route, caller: &Caller) -> Result<Forward, Error> {
        let authorization = match caller {
            Caller::Client { authorization, .. } => authorization.clone(),
            Caller::Shared => {
                if !self.tokens.is_known() {
                    // The ping teaches how the registry wants to be asked; what it answers does
                    // not matter.
                    self.ask(&Ask::ping(caller)).await?.body.dismiss().await;
                }
                self.tokens.before_asked(&self.exchange, scope(route).as_deref()).await?
            }
        };
        Ok(self.exchange.forward(route.to_string(), authorization).await?)
    }

    async fn send(&self, ask: &Ask, authorization: Option<&HeaderValue>) -> Result<Reply, Failure> {
        let mut url = self.base.clone();
        url.set_path(&ask.route.to_string());
        let journey = Journey {
            method: ask.method.clone(),
            url: &url,
            kind: ask.kind(),
            authorization,
            headers: ask.headers(),
        };
        let reply = follow(&self.exchange, &journey).await?;
        if matches!(ask.caller, Caller::Shared) {
            self.budget.observe(&reply.headers);
        }
        Ok(reply)
    }
}

// === impl Ask ===

impl Ask {
    pub(super) fn manifest(
        method: Method,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
    ) -> Self {
        let route =
            Route::Manifest { repository: repository.clone(), reference: reference.clone() };
        Self { method, route, range: None, caller: caller.clone() }
    }

    pub(super) fn blob(
        method: Method,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Self {
        let route = Route::Blob { repository: repository.clone(), digest: *digest };
        Self { method, route, range: None, caller: caller.clone() }
    }

    pub(super) fn ping(caller: &Caller) -> Self {
        Self { method: Method::GET, route: Route::Ping, range: None, caller: caller.clone() }
    }

    fn kind(&self) -> Kind {
        match self.route {
            Route::Manifest { .. } => Kind::Manifest,
            Route::Blob { .. } => Kind::Blob,
            _ => Kind::Ping,
        }
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.kind() == Kind::Manifest {
            headers.push((header::ACCEPT, HeaderValue::from_static(ACCEPT_MANIFESTS)));
        }
        if let Some(range) = self.range.as_deref().and_then(|range| range.parse().ok()) {
            headers.push((header::RANGE, range));
        }
        headers
    }
}

/// The scope of a token for `route` (distribution's token specification).
fn scope(route: &Route) -> Option<String> {
    route.repository().map(|repository| format!("repository:{repository}:pull"))
}
