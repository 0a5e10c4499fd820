//! A conversation with a registry: a question, the token that it wants, the answer.
//!
//! Each runs in a task of its own and ends within its patience. A client that
//! leaves ends nothing, and is never taken for a registry that is silent.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, StatusCode};
use url::Url;

use super::{
    Caller, Error, Failure,
    accounts::{Accounts, Choice, Cost},
    ask::Ask,
    exchange::{Exchange, Forward, Reply},
    ledger::Ledger,
    redirect::{Journey, follow},
    retry::{self, RETRIES, Retries},
    terms::Terms,
    token::TokenError,
    turns::{is_counted, refused_elsewhere},
};
use crate::{
    config::{self, Order},
    protocol::{Repository, Route},
    trace,
};

/// The means to talk to one registry.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) name: Arc<str>,
    pub(super) accounts: Accounts,
    base: Url,
    prefix: Option<Repository>,
    pub(super) exchange: Arc<Exchange>,
    retries: Retries,
    pub(super) ledger: Arc<Ledger>,
    pub(super) mirror: Option<Order>,
    terms: Terms,
}

// === impl Conversation ===

impl Conversation {
    /// With the registry of `config`, or its mirror: then `place` names it. `before` is the one under
    /// the configuration before, which goes on if nothing that concerns it has changed.
    pub(super) fn new(
        config: &config::Upstream,
        place: Option<(&str, Order)>,
        offline: &Arc<AtomicBool>,
        ledger: &Arc<Ledger>,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let terms = Terms::of(config);
        if let Some(before) = before.filter(|before| before.terms == terms) {
            return Ok(Arc::clone(before));
        }
        let base = Url::parse(&config.url.to_string()).map_err(|error| error.to_string())?;
        let name: Arc<str> = config.name.as_str().into();
        let exchange = match before.filter(|before| before.terms.connect_like(&terms)) {
            Some(before) => Arc::clone(&before.exchange),
            None => Exchange::new(config, base.clone(), offline)?,
        };
        let accounts = Accounts::new(
            &name,
            place.map(|(place, _)| place),
            &config.credentials,
            &config.budget,
            before.filter(|before| before.terms.log_in_like(&terms)).map(|it| &it.accounts),
        );
        Ok(Arc::new(Self {
            accounts,
            exchange,
            retries: Retries::new(config.breaker.retries_percent),
            prefix: config.prefix.clone(),
            ledger: Arc::clone(ledger),
            mirror: place.map(|(_, order)| order),
            name,
            base,
            terms,
        }))
    }

    /// Where the registry is, for the log.
    pub(super) fn place(&self) -> &Url {
        &self.base
    }

    /// Why the registry is not asked now, if it isn't.
    pub(super) fn held_back(&self) -> Option<Failure> {
        self.exchange.held_back()
    }

    /// Runs `work` in a task of its own, for at most `patience`.
    pub(super) async fn detached<T: Send + 'static>(
        self: &Arc<Self>,
        patience: Duration,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let task = tokio::spawn(trace::inherit(tokio::time::timeout(patience, work)));
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

    /// Asks, with a token where one is wanted, once more after a 401. Reads the budget, and goes on
    /// to another account where one is refused or spent.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Reply, Error> {
        // Neither a login nor a token is fetched for who is not asked.
        if let Some(held_back) = self.held_back() {
            return Err(held_back.into());
        }
        let authorization = match &ask.caller {
            Caller::Client { authorization, .. } => authorization,
            // Boxed: what waits for it should not carry its weight.
            Caller::Shared => return Box::pin(self.ask_by_turns(ask)).await,
        };
        let reply = self.send(ask, authorization.as_ref()).await?;
        if is_counted(ask, reply.status) {
            self.book(ask);
        }
        let is_refused = matches!(reply.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refused && self.is_elsewhere(ask, &reply) {
            return Err(refused_elsewhere(ask, reply).await);
        }
        if reply.status != StatusCode::TOO_MANY_REQUESTS {
            return Ok(reply);
        }
        Err(self.limited(ask, reply).await.unwrap_or_else(|failure| failure.into()))
    }

    /// Where, and with which credentials, a request for `route` is forwarded.
    pub(super) async fn forward(&self, route: &Route, caller: &Caller) -> Result<Forward, Error> {
        let authorization = match caller {
            Caller::Client { authorization, .. } => authorization.clone(),
            Caller::Shared => self.authorization(route).await?,
        };
        let path = self.on_the_wire(route).to_string();
        Ok(self.exchange.forward(path, authorization).await?)
    }

    async fn authorization(&self, route: &Route) -> Result<Option<HeaderValue>, Error> {
        let now = SystemTime::now();
        let choice = self.accounts.choose(Cost::Free, route.repository(), &[], now);
        let Choice::Use(turn) = choice else { return Err(self.nobody()) };
        let account = &turn.account;
        let login = account.login().await.map_err(|problem| {
            account.has_no_login(&problem);
            Failure::NoAccount { problem: problem.to_string() }
        })?;
        if !account.tokens.is_known() {
            // The ping teaches how the registry wants to be asked; what it answers does not matter.
            match self.ask(&Ask::ping(&Caller::Shared)).await {
                Ok(reply) => reply.body.dismiss().await,
                Err(Error::Trouble(failure)) => return Err(failure.into()),
                Err(_) => {}
            }
        }
        let scope = self.scope(route);
        let token = account.tokens.before_asked(&self.exchange, scope.as_deref(), login.as_ref());
        match token.await {
            Ok(authorization) => Ok(authorization),
            Err(TokenError::Failed(error)) => Err(error),
            Err(TokenError::Denied(message)) => Err(Error::Denied { message }),
            Err(TokenError::Refused(message)) => {
                if login.is_some() {
                    account.refuse_login(login.as_ref(), &message);
                }
                Err(Error::Unauthorized { message, challenge: None })
            }
        }
    }

    /// Sends, and again where that is free and may help.
    pub(super) async fn send(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, Failure> {
        let mut url = self.base.clone();
        url.set_path(&self.on_the_wire(&ask.route).to_string());
        url.set_query(ask.query.as_deref());
        let mut journey = Journey {
            method: ask.method.clone(),
            url: &url,
            kind: ask.kind(),
            authorization,
            headers: ask.headers(),
            is_retry: false,
        };
        self.retries.earn();
        let mut attempt = 0;
        loop {
            let result = follow(&self.exchange, &journey).await;
            // A GET may be counted, and a fill has its own way of going on.
            let is_free = ask.method == Method::HEAD;
            if !is_free
                || attempt == RETRIES
                || !retry::is_transient(&result)
                || self.held_back().is_some()
                || !self.retries.spend()
            {
                return result;
            }
            attempt += 1;
            journey.is_retry = true;
            tokio::time::sleep(retry::wait(attempt)).await;
        }
    }

    /// The route as the registry knows it.
    pub(super) fn on_the_wire(&self, route: &Route) -> Route {
        match route.repository() {
            Some(repository) if self.prefix.is_some() => {
                route.clone().with_repository(self.prefixed(repository))
            }
            _ => route.clone(),
        }
    }

    /// The repository as the registry knows it.
    pub(super) fn prefixed(&self, repository: &Repository) -> Repository {
        match &self.prefix {
            Some(prefix) => repository.with_prefix(prefix.as_str()),
            None => repository.clone(),
        }
    }

    /// The scope of a token for `route` (distribution's token specification).
    pub(super) fn scope(&self, route: &Route) -> Option<String> {
        let route = self.on_the_wire(route);
        route.repository().map(|repository| format!("repository:{repository}:pull"))
    }
}
