//! An upstream examined: does it answer, what is its time, does it take our accounts, what is left.
//!
//! Nothing here is counted: `/v2/` is asked by GET, the budget's probe by HEAD. Each account is
//! asked on its own, also where others would have been asked instead.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{Method, StatusCode, header};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    AccountReport, Caller, Error, Failure, Upstream, account::Account, ask::Ask,
    conversation::Conversation, turns::Asked,
};
use crate::{
    config::{Mode, Probe},
    protocol::Reference,
};

/// What one registry, the upstream itself or a mirror of it, came to.
#[derive(Debug)]
pub struct Examination {
    /// Its URL.
    pub place: String,
    /// What it said to `/v2/`.
    pub answer: Result<Answer, Error>,
    /// Its accounts, those with a login first; none where clients bring their own.
    pub accounts: Vec<Examined>,
}

/// An answer to `/v2/`.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 401 is as good as 200: it asks for a token, which is another question.
    pub status: StatusCode,
    /// Its `Date`.
    pub date: Option<SystemTime>,
    /// Our time, halfway between question and answer.
    pub at: SystemTime,
    /// From the question to the answer, connecting included.
    pub took: Duration,
}

/// What one account came to.
#[derive(Debug)]
pub struct Examined {
    /// As it is after the question: with what is left, if the registry says so.
    pub report: AccountReport,
    /// Whether it has a login; "anonymous" has none.
    pub has_login: bool,
    /// What the registry made of it.
    pub verdict: Verdict,
}

/// What a registry made of an account.
#[derive(Debug)]
pub enum Verdict {
    /// It was let in, with a token or password where the registry asked for one.
    Taken,
    /// Nobody asked who it is, so a login was not tried.
    Unasked,
    /// It was let in, and the budget's probe is not there.
    NoProbe,
    /// It may not see the budget's probe, or `/v2/`.
    Denied(String),
    /// Its login can't be had, or is refused.
    Refused(String),
    /// There was no answer.
    Failed(Error),
}

// === impl Upstream ===

impl Upstream {
    /// Asks the upstream and its mirrors, all at the same time; each question has `patience`.
    pub async fn examine(&self, patience: Duration) -> Vec<Examination> {
        let config = self.config();
        let are_ours = config.credentials.mode == Mode::Shared;
        let registries = self.registries.all().map(|talk| {
            // A mirror's own budget is none of the upstream's probe's business.
            let is_upstream = Arc::ptr_eq(talk, self.talk());
            let probe = config.budget.probe.clone().filter(|_| is_upstream);
            tokio::spawn(examine(Arc::clone(talk), are_ours, probe, patience))
        });
        joined(registries.collect()).await
    }
}

async fn examine(
    talk: Arc<Conversation>,
    are_ours: bool,
    probe: Option<Probe>,
    patience: Duration,
) -> Examination {
    let accounts = talk.accounts.all().filter(|_| are_ours).map(|account| {
        let (talk, account, probe) = (Arc::clone(&talk), Arc::clone(account), probe.clone());
        tokio::spawn(async move { talk.examine_account(&account, probe, patience).await })
    });
    let accounts: Vec<_> = accounts.collect();
    let answer = timeout(patience, talk.ping()).await;
    let answer = answer.unwrap_or_else(|_| Err(late(&talk).into()));
    let place = talk.place().as_str().trim_end_matches('/').to_owned();
    Examination { place, answer, accounts: joined(accounts).await }
}

/// What tasks came to, in their order; one that panicked has said so itself.
async fn joined<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.ok());
    }
    done
}

fn late(talk: &Conversation) -> Failure {
    Failure::Timeout { host: Arc::clone(&talk.name), waiting_for: "an answer" }
}

// === impl Conversation ===

impl Conversation {
    async fn ping(&self) -> Result<Answer, Error> {
        if let Some(held_back) = self.held_back() {
            return Err(held_back.into());
        }
        let (asked, began) = (SystemTime::now(), Instant::now());
        let reply = self.send(&Ask::ping(&Caller::Shared), None).await?;
        let took = began.elapsed();
        let date = reply.headers.get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let status = reply.status;
        reply.body.dismiss().await;
        Ok(Answer { status, date, at: asked + took / 2, took })
    }

    async fn examine_account(
        &self,
        account: &Arc<Account>,
        probe: Option<Probe>,
        patience: Duration,
    ) -> Examined {
        let ask = match probe {
            Some(Probe { repository, tag }) => {
                Ask::manifest(Method::HEAD, &repository, &Reference::Tag(tag), &Caller::Shared)
            }
            None => Ask::ping(&Caller::Shared),
        };
        let verdict = match timeout(patience, self.verdict(&ask, account)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Failed(late(self).into()),
        };
        let report = account.report(SystemTime::now());
        Examined { report, has_login: !account.is_anonymous(), verdict }
    }

    async fn verdict(&self, ask: &Ask, account: &Arc<Account>) -> Verdict {
        if let Some(held_back) = self.held_back() {
            return Verdict::Failed(held_back.into());
        }
        let reply = match self.ask_as(ask, &account.use_free()).await {
            Ok(Asked::Reply(reply)) => reply,
            Ok(Asked::Denied(error)) => return Verdict::Denied(error.to_string()),
            Ok(Asked::Unusable(why)) => return Verdict::Refused(why),
            Ok(Asked::Spent) => return Verdict::Taken,
            Err(error) => return Verdict::Failed(error),
        };
        let status = reply.status;
        reply.body.dismiss().await;
        match status {
            StatusCode::NOT_FOUND => Verdict::NoProbe,
            status if status.is_server_error() => {
                Verdict::Failed(Failure::Status { status, retry_after: None }.into())
            }
            _ if account.tokens.is_known() => Verdict::Taken,
            _ => Verdict::Unasked,
        }
    }
}
