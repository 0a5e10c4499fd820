//! Requests that change the registry: to it alone, with the client's own credentials.
//!
//! No mirror sees them, no account of ours pays for them, and none is sent
//! twice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, Method};
use moka::sync::Cache;

use super::{
    BlobHead, Caller, Error, Failure, Forward, ManifestHead, Upstream, ask::Ask, blobs::head_blob,
    registry::head_manifest, reply::expect_ok, uploads,
};
use crate::{
    config::Scheme,
    protocol::{Digest, Reference, Repository, Route},
};

/// How long the registry's word to those without credentials holds.
const GREETING_FOR: Duration = Duration::from_secs(60);

/// What the registry says to `GET /v2/` without credentials.
#[derive(Debug)]
pub(super) struct Greeting(Cache<(), Result<(), Error>>);

// === impl Greeting ===

impl Default for Greeting {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(1).time_to_live(GREETING_FOR).build())
    }
}

// === impl Upstream ===

impl Upstream {
    /// Where a request for `route` that writes is forwarded, with these credentials of the client's.
    pub async fn forward_write(
        &self,
        route: &Route,
        authorization: Option<HeaderValue>,
    ) -> Result<Forward, Error> {
        if authorization.is_some() {
            self.may_see_clients_credentials()?;
        }
        let path = match route {
            Route::Upload { repository, session } if uploads::is_own(session) => {
                let path = self.uploads.path(repository, session);
                path.ok_or_else(unknown_upload)?.to_string()
            }
            _ => self.talk().on_the_wire(route).to_string(),
        };
        Ok(self.talk().exchange.forward_write(path, authorization).await?)
    }

    /// Whether a client's own credentials may be sent to the registry: in plain text only to one on
    /// this machine (P5).
    pub fn may_see_clients_credentials(&self) -> Result<(), Failure> {
        let url = &self.config.url;
        if url.scheme == Scheme::Http && !url.is_loopback() {
            let problem = format!(
                "the client's credentials would go to {url} in plain text; use https as its url"
            );
            return Err(Failure::Untrusted { problem });
        }
        Ok(())
    }

    /// The name of a repository as the registry knows it.
    pub fn name_there(&self, repository: &Repository) -> Repository {
        self.talk().prefixed(repository)
    }

    /// What the registry says to `GET /v2/` with the client's own credentials: without any, as of
    /// the last minute.
    pub async fn greet(&self, authorization: Option<&HeaderValue>) -> Result<(), Error> {
        if authorization.is_some() {
            self.may_see_clients_credentials()?;
        }
        let known = authorization.is_none().then(|| self.greeting.0.get(&())).flatten();
        if let Some(known) = known {
            return known;
        }
        let talk = Arc::clone(self.talk());
        let ask = Ask::ping(&Caller::client(authorization));
        let work = async move {
            let reply = expect_ok(talk.ask(&ask).await?).await?;
            reply.body.dismiss().await;
            Ok(())
        };
        let said = self.talk().detached(self.config.timeouts.validate, work).await;
        let is_answer = said.as_ref().err().is_none_or(|error| error.trouble().is_none());
        if authorization.is_none() && is_answer {
            self.greeting.0.insert((), said.clone());
        }
        said
    }

    /// What the registry itself says to a HEAD of a manifest, in the time that a check has; `None`
    /// where it can't do HEAD.
    pub async fn has_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        caller: &Caller,
    ) -> Result<Option<ManifestHead>, Error> {
        let ask = Ask::manifest(Method::HEAD, repository, reference, caller);
        let work = head_manifest(Arc::clone(self.talk()), ask, self.writes());
        self.talk().detached(self.config.timeouts.validate, work).await
    }

    /// The same of a blob.
    pub async fn has_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        caller: &Caller,
    ) -> Result<BlobHead, Error> {
        let ask = Ask::blob(Method::HEAD, repository, digest, caller);
        let work = head_blob(Arc::clone(self.talk()), ask);
        self.talk().detached(self.config.timeouts.validate, work).await
    }

    /// How many writes the registry has taken through us. What was asked before one and answered
    /// after it may be outdated.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// It has taken one more.
    pub fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::AcqRel);
    }

    /// A blob was pushed: nobody is told any more that it is not there.
    pub fn has_now(&self, repository: &Repository, digest: &Digest) {
        let asked = self.absent.iter().map(|(question, _)| question);
        for question in asked.filter(|question| question.0 == *repository && question.1 == *digest)
        {
            self.absent.invalidate(&*question);
        }
    }
}

fn unknown_upload() -> Error {
    Error::NotFound {
        code: Some("BLOB_UPLOAD_UNKNOWN".to_owned()),
        message: "no such upload is known here any more; begin again".to_owned(),
    }
}
