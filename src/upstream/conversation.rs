//! A conversation with a registry: a question, the token that it wants, the answer.
//!
//! Each runs in a task of its own and ends within its patience. A client that
//! leaves ends nothing, and is never taken for a registry that is silent.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{
    Caller, Error, Failure,
    account::{Account, Turn},
    accounts::{Accounts, Choice, Cost},
    credential::Login,
    exchange::{Exchange, Forward, Kind, Reply},
    ledger::Ledger,
    redirect::{Journey, follow},
    reply::{into_error, is_budget_spent},
    retry::{self, RETRIES, Retries},
    token::TokenError,
};
use crate::{
    config,
    protocol::{Digest, Reference, Repository, Route, media_type::ACCEPT_MANIFESTS},
};

/// The means to talk to one registry.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) name: Arc<str>,
    pub(super) accounts: Accounts,
    base: Url,
    prefix: Option<Repository>,
    exchange: Arc<Exchange>,
    retries: Retries,
    ledger: Arc<Ledger>,
}

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) range: Option<String>,
    /// The client that caused it, for the books.
    pub(super) client: Option<IpAddr>,
    pub(super) caller: Caller,
}

/// What asking with one account came to.
enum Asked {
    Reply(Reply),
    /// The account may not see what was asked for.
    Denied(Error),
    /// The account can't be used at all now.
    Unusable(String),
    /// Its budget is spent.
    Spent,
}

// === impl Conversation ===

impl Conversation {
    /// With the registry of `config`, or its mirror: then `place` names it.
    pub(super) fn new(
        config: &config::Upstream,
        place: Option<&str>,
        offline: &Arc<AtomicBool>,
        ledger: &Arc<Ledger>,
    ) -> Result<Arc<Self>, String> {
        let base = Url::parse(&config.url.to_string()).map_err(|error| error.to_string())?;
        let name: Arc<str> = config.name.as_str().into();
        Ok(Arc::new(Self {
            accounts: Accounts::new(&name, place, &config.credentials, &config.budget),
            exchange: Exchange::new(config, base.clone(), offline)?,
            retries: Retries::new(config.breaker.retries_percent),
            prefix: config.prefix.clone(),
            ledger: Arc::clone(ledger),
            name,
            base,
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

    /// Asks, with a token where one is wanted, once more after a 401. Reads the budget, and goes on
    /// to another account where one is refused or spent.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Reply, Error> {
        let authorization = match &ask.caller {
            Caller::Client { authorization, .. } => authorization,
            // Boxed: what waits for it should not carry its weight.
            Caller::Shared => return Box::pin(self.ask_by_turns(ask)).await,
        };
        let reply = self.send(ask, authorization.as_ref()).await?;
        if reply.status != StatusCode::TOO_MANY_REQUESTS {
            return Ok(reply);
        }
        Err(self.limited(ask, reply).await.unwrap_or_else(|failure| failure.into()))
    }

    async fn ask_by_turns(&self, ask: &Ask) -> Result<Reply, Error> {
        let (mut tried, mut refused) = (Vec::new(), None);
        loop {
            let now = SystemTime::now();
            let repository = ask.route.repository();
            let turn = match self.accounts.choose(ask.cost(), repository, &tried, now) {
                Choice::Use(turn) => turn,
                Choice::Wait => {
                    self.accounts.settled().await;
                    continue;
                }
                Choice::Spent { until } => match self.accounts.to_verify(&tried, now) {
                    Some(account) => {
                        self.verify(ask, &account).await;
                        continue;
                    }
                    None => return Err(self.spent(until, now).into()),
                },
                // The file with the password may just have been mended.
                Choice::Nobody if tried.is_empty() && self.accounts.look_again().await => continue,
                // Who is asked for instead of a broken account has no last word.
                Choice::Nobody if self.accounts.is_any_aside() => return Err(self.nobody()),
                Choice::Nobody => return Err(refused.unwrap_or_else(|| self.nobody())),
            };
            match self.ask_as(ask, &turn).await? {
                Asked::Reply(reply) => return Ok(reply),
                Asked::Spent => continue,
                Asked::Denied(error) => {
                    if let Some(repository) = repository {
                        self.accounts.deny(&turn.account, repository);
                    }
                    refused.get_or_insert(error);
                }
                Asked::Unusable(message) => {
                    refused.get_or_insert(Error::Unauthorized { message, challenge: None });
                }
            }
            tried.push(Arc::clone(&turn.account));
        }
    }

    async fn ask_as(&self, ask: &Ask, turn: &Turn) -> Result<Asked, Error> {
        let account = &*turn.account;
        let login = match account.login().await {
            Ok(login) => login,
            Err(problem) => {
                account.has_no_login(&problem);
                return Ok(Asked::Unusable(problem.to_string()));
            }
        };
        let sent = SystemTime::now();
        let mut reply = match self.send_as(ask, account, login.as_ref()).await {
            Ok(reply) => reply,
            Err(TokenError::Failed(error)) => return Err(error),
            Err(TokenError::Denied(message)) => {
                return Ok(Asked::Denied(Error::Denied { message }));
            }
            Err(TokenError::Refused(message)) if login.is_none() => {
                return Ok(Asked::Denied(Error::Unauthorized { message, challenge: None }));
            }
            Err(TokenError::Refused(message)) => {
                account.refuse_login(login.as_ref(), &message);
                return Ok(Asked::Unusable(message));
            }
        };
        // The challenge was ours to meet, and no client's.
        reply.headers.remove(header::WWW_AUTHENTICATE);
        let is_counted = ask.cost() == Cost::Pull
            && (reply.status.is_success() || reply.status.is_redirection());
        account.observe(&reply.headers, sent, is_counted);
        self.accounts.look_ahead(SystemTime::now());
        if is_counted && let Some(repository) = ask.route.repository() {
            self.ledger.spend(repository, ask.client);
        }
        match reply.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Ok(Asked::Denied(into_error(reply).await))
            }
            // What a stranger may not see is no answer where an account would see it.
            StatusCode::NOT_FOUND if account.is_anonymous() && self.accounts.has_named() => {
                reply.body.dismiss().await;
                Ok(Asked::Denied(self.nobody()))
            }
            StatusCode::TOO_MANY_REQUESTS => match self.limited(ask, reply).await {
                Ok(error) => Err(error),
                Err(failure) => {
                    let Failure::RateLimited { retry_after, .. } = failure else {
                        return Err(failure.into());
                    };
                    account.refuse_budget(retry_after);
                    self.accounts.look_ahead(SystemTime::now());
                    Ok(Asked::Spent)
                }
            },
            _ => {
                account.accepted();
                Ok(Asked::Reply(reply))
            }
        }
    }

    /// Sends with the account's token, and once more with what the challenge wants.
    async fn send_as(
        &self,
        ask: &Ask,
        account: &Account,
        login: Option<&Login>,
    ) -> Result<Reply, TokenError> {
        let scope = self.scope(&ask.route);
        let scope = scope.as_deref();
        let authorization = account.tokens.before_asked(&self.exchange, scope, login).await?;
        let used = authorization.as_ref();
        let mut reply = self.send(ask, used).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        // The token may come from the same host, and it must not wait for us.
        reply.body.yield_place();
        let headers = &reply.headers;
        let retry = account.tokens.after_refusal(&self.exchange, headers, scope, login, used);
        if let Some(authorization) = retry.await? {
            reply.body.dismiss().await;
            reply = self.send(ask, Some(&authorization)).await?;
        }
        Ok(reply)
    }

    /// What a 429 means: a spent budget is the failure; any other has the host left alone, and is
    /// an error for all.
    async fn limited(&self, ask: &Ask, reply: Reply) -> Result<Error, Failure> {
        let host = Arc::clone(&reply.body.host);
        let headers = reply.headers.clone();
        match into_error(reply).await {
            Error::Trouble(failure) => {
                if ask.cost() == Cost::Pull && is_budget_spent(&headers, &failure) {
                    return Err(failure);
                }
                self.exchange.hold_off(&host, &failure);
                Ok(failure.into())
            }
            other => Ok(other),
        }
    }

    /// Asks, for free, whether the account's budget is as spent as was said.
    async fn verify(&self, ask: &Ask, account: &Arc<Account>) {
        let head = Ask { method: Method::HEAD, range: None, ..ask.clone() };
        match self.ask_as(&head, &account.use_free()).await {
            Ok(Asked::Reply(reply)) => reply.body.dismiss().await,
            Ok(Asked::Denied(_) | Asked::Unusable(_) | Asked::Spent) => {}
            Err(error) => tracing::debug!(%error, "what is left of a budget could not be asked"),
        }
    }

    /// Asks every account what it has left, by a free HEAD of `probe`. Others are told by the way.
    pub(super) async fn learn_budget(&self, repository: &Repository, tag: &Reference) {
        let ask = Ask::manifest(Method::HEAD, repository, tag, &Caller::Shared);
        for account in self.accounts.all() {
            if !account.is_aside() {
                self.verify(&ask, account).await;
            }
        }
    }

    fn spent(&self, until: SystemTime, now: SystemTime) -> Failure {
        let wait = until.duration_since(now).unwrap_or_default();
        let limit = self.accounts.left(now).map(|(_, limit)| format!(" of {limit}"));
        let resets = httpdate::fmt_http_date(until);
        let message = format!(
            "no pull{} is left (pull rate limit); more are at {resets} at the latest; what is cached is served all the same",
            limit.unwrap_or_default()
        );
        Failure::RateLimited { message, retry_after: Some(wait) }
    }

    fn nobody(&self) -> Error {
        let now = SystemTime::now();
        let problem = self.accounts.report(now).into_iter().find_map(|account| account.problem);
        let problem = problem.unwrap_or_else(|| "all stand aside".to_owned());
        Failure::NoAccount { problem }.into()
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
    async fn send(&self, ask: &Ask, authorization: Option<&HeaderValue>) -> Result<Reply, Failure> {
        let mut url = self.base.clone();
        url.set_path(&self.on_the_wire(&ask.route).to_string());
        let journey = Journey {
            method: ask.method.clone(),
            url: &url,
            kind: ask.kind(),
            authorization,
            headers: ask.headers(),
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
            tokio::time::sleep(retry::wait(attempt)).await;
        }
    }

    /// The route as the registry knows it.
    fn on_the_wire(&self, route: &Route) -> Route {
        match (&self.prefix, route.repository()) {
            (Some(prefix), Some(repository)) => {
                route.clone().with_repository(repository.with_prefix(prefix.as_str()))
            }
            _ => route.clone(),
        }
    }

    /// The scope of a token for `route` (distribution's token specification).
    fn scope(&self, route: &Route) -> Option<String> {
        let route = self.on_the_wire(route);
        route.repository().map(|repository| format!("repository:{repository}:pull"))
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
        Self { method, route, range: None, client: None, caller: caller.clone() }
    }

    pub(super) fn blob(
        method: Method,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Self {
        let route = Route::Blob { repository: repository.clone(), digest: *digest };
        Self { method, route, range: None, client: None, caller: caller.clone() }
    }

    pub(super) fn ping(caller: &Caller) -> Self {
        let (method, route) = (Method::GET, Route::Ping);
        Self { method, route, range: None, client: None, caller: caller.clone() }
    }

    /// What Docker Hub counts: GETs of manifests.
    fn cost(&self) -> Cost {
        match self.route {
            Route::Manifest { .. } if self.method == Method::GET => Cost::Pull,
            _ => Cost::Free,
        }
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
