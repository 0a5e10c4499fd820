//! Lists of what a registry has: tags, referrers, repositories.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};

use super::{Caller, Error, Upstream, ask::Ask, reply::expect_ok};
use crate::protocol::{Repository, Route};

/// A list longer than this is left to those who can stream it. About 40 000 tags.
const LONGEST: u64 = 1 << 20;

static FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A list, or a page of it, as upstream sent it.
#[derive(Debug, Clone)]
pub struct List {
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// Its `Link` to the next page.
    pub link: Option<HeaderValue>,
    /// `OCI-Filters-Applied`.
    pub filters: Option<HeaderValue>,
    /// The document.
    pub body: Bytes,
}

// === impl Upstream ===

impl Upstream {
    /// The list that `route` names, with this query, within `patience`; `None` if it is too long to
    /// be held. Mirrors are not asked: none of them need know all.
    pub async fn list(
        &self,
        route: &Route,
        query: Option<String>,
        caller: &Caller,
        patience: Duration,
    ) -> Result<Option<List>, Error> {
        if let Some(held_back) = self.talk().held_back() {
            return Err(held_back.into());
        }
        let talk = Arc::clone(self.talk());
        let ask = Ask {
            method: Method::GET,
            route: route.clone(),
            query,
            range: None,
            client: None,
            caller: caller.clone(),
        };
        let work = async move {
            let reply = expect_ok(talk.ask(&ask).await?).await?;
            let header = |name: &HeaderName| reply.headers.get(name).cloned();
            let (content_type, link) = (header(&header::CONTENT_TYPE), header(&header::LINK));
            let filters = header(&FILTERS_APPLIED);
            let body = reply.body.collect(LONGEST).await?;
            Ok(body.map(|body| List { content_type, link, filters, body }))
        };
        let list = self.talk().detached(patience, work).await?;
        if let (Some(_), Some(repository)) = (&list, route.repository()) {
            self.listed.remember(caller, repository);
        }
        Ok(list)
    }

    /// Whether a list of this repository may be given again to this caller: upstream has let it list
    /// or pull within the last minute.
    pub fn may_list(&self, caller: &Caller, repository: &Repository) -> bool {
        self.listed.knows(caller, repository) || self.is_authorised(caller, repository)
    }
}
