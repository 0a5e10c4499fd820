//! Asking with one account after the other, until one has an answer.
//!
//! An account that is refused, may not see what is asked for, or has nothing
//! left, gives its turn to the next. Nobody is refused for want of budget before
//! a free HEAD has said that it is spent.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{Method, StatusCode, header};

use super::{
    Caller, Error, Failure,
    account::{Account, Turn},
    accounts::{Choice, Cost},
    ask::Ask,
    conversation::Conversation,
    credential::Login,
    exchange::{Kind, Reply},
    reply::{into_error, is_budget_spent},
    token::TokenError,
};
use crate::protocol::{Reference, Repository};

/// What asking with one account came to.
pub(super) enum Asked {
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
    pub(super) async fn ask_by_turns(&self, ask: &Ask) -> Result<Reply, Error> {
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
            let asked = self.ask_as(ask, &turn).await;
            let account = Arc::clone(&turn.account);
            // What was set apart is spent by now, or is not.
            drop(turn);
            self.accounts.look_ahead(SystemTime::now());
            match asked? {
                Asked::Reply(reply) => return Ok(reply),
                Asked::Spent => continue,
                Asked::Denied(error) => {
                    if let Some(repository) = repository {
                        self.accounts.deny(&account, repository);
                    }
                    refused.get_or_insert(error);
                }
                Asked::Unusable(message) => {
                    refused.get_or_insert(Error::Unauthorized { message, challenge: None });
                }
            }
            tried.push(account);
        }
    }

    /// Asks with the account of this turn alone.
    pub(super) async fn ask_as(&self, ask: &Ask, turn: &Turn) -> Result<Asked, Error> {
        let account = &*turn.account;
        let login = match account.login().await {
            Ok(login) => login,
            Err(problem) => {
                account.has_no_login(&problem);
                return Ok(Asked::Unusable(problem.to_string()));
            }
        };
        let (asked, sent) = (Instant::now(), SystemTime::now());
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
        let is_counted = is_counted(ask, reply.status);
        account.observe(&reply.headers, sent, is_counted);
        if is_counted {
            self.book(ask);
        }
        match reply.status {
            // Where a blob lies has no word on whom the registry knows.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.is_elsewhere(ask, &reply) => {
                Err(refused_elsewhere(ask, reply).await)
            }
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
                    Ok(Asked::Spent)
                }
            },
            status => {
                if status.is_success() || status == StatusCode::NOT_FOUND {
                    account.accepted(asked);
                }
                Ok(Asked::Reply(reply))
            }
        }
    }

    /// True if a blob's answer came from where the registry had sent us.
    pub(super) fn is_elsewhere(&self, ask: &Ask, reply: &Reply) -> bool {
        ask.kind() == Kind::Blob && !self.exchange.is_registry(&reply.body.host)
    }

    /// Enters a counted request into the books; one of a mirror is on the mirror's account.
    pub(super) fn book(&self, ask: &Ask) {
        if let Some(repository) = ask.route.repository()
            && self.mirror.is_none()
        {
            self.ledger.spend(repository, ask.client);
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
        if reply.status != StatusCode::UNAUTHORIZED || self.is_elsewhere(ask, &reply) {
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
    pub(super) async fn limited(&self, ask: &Ask, reply: Reply) -> Result<Error, Failure> {
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
        self.accounts.look_ahead(SystemTime::now());
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

    pub(super) fn nobody(&self) -> Error {
        let now = SystemTime::now();
        let problem = self.accounts.report(now).into_iter().find_map(|account| account.problem);
        let problem = problem.unwrap_or_else(|| "all stand aside".to_owned());
        Failure::NoAccount { problem }.into()
    }
}

/// What a registry may count: a manifest that it gave.
pub(super) fn is_counted(ask: &Ask, status: StatusCode) -> bool {
    ask.cost() == Cost::Pull && (status.is_success() || status == StatusCode::NOT_MODIFIED)
}

/// The one that signed the way to a blob is not believed by the one that has it. A HEAD is only
/// denied: the way may have been signed for GET alone.
pub(super) async fn refused_elsewhere(ask: &Ask, reply: Reply) -> Error {
    let (host, status) = (Arc::clone(&reply.body.host), reply.status);
    reply.body.dismiss().await;
    let message = format!("{host}, where it sent us for the blob, answered {status}");
    match ask.method {
        Method::HEAD => Error::Denied { message },
        _ => Failure::invalid(message).into(),
    }
}
