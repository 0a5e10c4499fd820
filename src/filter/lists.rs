//! Lists: tags, referrers, and where the operator allows it the repositories that are cached.
//!
//! Tags are asked for each time, referrers once in [`REFERRERS_FRESH`] for each
//! caller; while upstream is in trouble the last answer is given again, to the
//! caller that had it (P6), or for tags what is known of them here.

mod catalog;
mod kept;
mod page;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts, response};

use self::{
    kept::{Kept, Key},
    page::{Page, Wanted},
};
use super::{
    Answer, Body, Context, Flow, Refusal, RequestFilter, Target,
    headers::{CACHE_STATUS, NAMESPACE},
    query::{own_link, query_there},
    written::Written,
};
use crate::{
    config::Catalog,
    manifest::Manifests,
    metrics,
    protocol::{
        Route,
        cache_status::{CacheStatus, Forward},
    },
    upstream::{Caller, Error, Failure, List},
};

/// How long a list of referrers is given again without asking.
const REFERRERS_FRESH: Duration = Duration::from_secs(30);

static FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The filter.
#[derive(Debug)]
pub struct Lists {
    manifests: Arc<Manifests>,
    kept: Kept,
}

// === impl Lists ===

impl Lists {
    /// `manifests` knows tags and repositories.
    pub fn new(manifests: Arc<Manifests>) -> Self {
        Self { manifests, kept: Kept::default() }
    }

    async fn list(
        &self,
        request: &Parts,
        context: &mut Context,
        target: &Target,
    ) -> Result<Option<Answer>, Refusal> {
        let query = query_there(request.uri.query(), target);
        let key = Key::new(target, query.as_deref());
        if let Route::Referrers { .. } = target.route
            && let Some(fresh) = self.kept.fresh(&key, REFERRERS_FRESH)
        {
            context.cache = "hit";
            let (list, left) = fresh.map_err(Refusal::Upstream)?;
            let status = CacheStatus::hit().ttl(left.as_secs().try_into().unwrap_or(i64::MAX));
            return Ok(Some(answer(request, list, &status)));
        }
        let writes = target.upstream.writes();
        let patience = self.patience(target, &key);
        match target.upstream.list(&target.route, query, &target.caller, patience).await {
            Ok(Some(list)) => {
                context.cache = "miss";
                let status = CacheStatus::fwd(Forward::Miss).fwd_status(StatusCode::OK);
                self.keep(target, key, Ok(list.clone()), writes);
                Ok(Some(answer(request, list, &status)))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                if matches!(error, Error::NotFound { .. }) {
                    self.keep(target, key.clone(), Err(error.clone()), writes);
                }
                match error.trouble().map(Failure::word) {
                    None => Err(error.into()),
                    Some(word) => {
                        let stale = self.stale(request, context, target, &key, word).await;
                        stale.map(Some).ok_or_else(|| error.into())
                    }
                }
            }
        }
    }

    /// Keeps what upstream said when it had taken `writes` writes, unless it took more since.
    fn keep(&self, target: &Target, key: Key, list: Result<List, Error>, writes: u64) {
        self.kept.keep(key.clone(), list);
        // Afterwards: a write is counted first, and then what was said is forgotten.
        if target.upstream.writes() != writes {
            self.kept.drop(&key);
        }
    }

    /// Who can be answered otherwise does not wait long.
    fn patience(&self, target: &Target, key: &Key) -> Duration {
        let config = target.upstream.config();
        match self.kept.stale(key, config.tags.serve_stale_for) {
            Some(_) => config.timeouts.validate,
            None => config.timeouts.fetch,
        }
    }

    /// What was last said, or is known, while upstream can't say.
    async fn stale(
        &self,
        request: &Parts,
        context: &mut Context,
        target: &Target,
        key: &Key,
        word: &str,
    ) -> Option<Answer> {
        let (upstream, repository) = (&target.upstream, target.route.repository()?);
        if !upstream.may_list(&target.caller, repository) {
            return None;
        }
        let most = upstream.config().tags.serve_stale_for;
        let answer = match self.kept.stale(key, most) {
            Some((list, age)) => answer(request, list, &CacheStatus::hit().detail(word))
                .with(header::AGE, HeaderValue::from(age.as_secs())),
            None => self.known_tags(request, target, word).await?,
        };
        metrics::STALE_ANSWERS.with_label_values(&[upstream.name()]).inc();
        context.cache = "stale";
        Some(answer)
    }

    /// The tags that were pulled through us, which need not be all.
    async fn known_tags(&self, request: &Parts, target: &Target, word: &str) -> Option<Answer> {
        let Route::Tags { repository } = &target.route else { return None };
        let wanted = Wanted::of(request.uri.query());
        let (last, count) = (&wanted.last, wanted.count + 1);
        let tags = self.manifests.known_tags(&target.upstream, repository, last, count).await;
        if tags.is_empty() && last.is_empty() {
            return None;
        }
        let page = Page::cut(tags, &wanted);
        let body = serde_json::json!({ "name": repository.as_str(), "tags": page.names });
        let status = CacheStatus::hit().detail(&format!("{word}+known-tags"));
        Some(page.answer(request, &body, &status))
    }

    /// The repositories that are cached, where upstream does not say which it has.
    async fn catalog(
        &self,
        request: &Parts,
        context: &mut Context,
        target: &Target,
    ) -> Result<Option<Answer>, Refusal> {
        let query = query_there(request.uri.query(), target);
        let patience = target.upstream.config().timeouts.validate;
        let said = target.upstream.list(&Route::Catalog, query, &Caller::Shared, patience).await;
        let ours = |list| {
            let list = catalog::for_clients(list, target.upstream.config());
            list.ok_or_else(|| Failure::invalid("a catalog that is none").into())
        };
        // One that is too long to be held would pass with all its names.
        let said = said.and_then(|list| list.ok_or_else(too_long)).and_then(ours);
        match said {
            Ok(list) => {
                context.cache = "miss";
                let status = CacheStatus::fwd(Forward::Miss).fwd_status(StatusCode::OK);
                Ok(Some(answer(request, list, &status)))
            }
            Err(error) => {
                tracing::debug!(upstream = %target.upstream.name(), %error, "no catalog");
                let wanted = Wanted::of(request.uri.query());
                let (last, count) = (&wanted.last, wanted.count + 1);
                let known = self.manifests.known_repositories(&target.upstream, last, count);
                let page = Page::cut(known.await, &wanted);
                let body = serde_json::json!({ "repositories": page.names });
                context.cache = "hit";
                let status = CacheStatus::hit().detail("cached-repositories");
                Ok(Some(page.answer(request, &body, &status)))
            }
        }
    }
}

#[async_trait]
impl RequestFilter for Lists {
    fn name(&self) -> &'static str {
        "lists"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        let target = match context.target.as_ref().filter(|target| is_ours(request, target)) {
            Some(target) => target.clone(),
            None => return Ok(Flow::Continue),
        };
        let answer = match target.route {
            Route::Catalog => self.catalog(request, context, &target).await?,
            _ => self.list(request, context, &target).await?,
        };
        // One that is too long to be held is streamed by Pingora.
        let Some(answer) = answer else { return Ok(Flow::Forward) };
        Ok(Flow::Respond(match &context.namespace {
            Some(namespace) => answer.with_text(NAMESPACE.clone(), namespace),
            None => answer,
        }))
    }

    async fn answered(&self, request: &Parts, context: &Context, answer: &response::Parts) {
        if let Some((target, written)) = Written::of(request, context, answer)
            && let Written::Manifest(repository, ..)
            | Written::ManifestGone(repository, _)
            | Written::Unsure(repository, _) = written
        {
            self.kept.forget(target.upstream.name(), repository);
        }
    }
}

fn is_ours(request: &Parts, target: &Target) -> bool {
    let is_list = match target.route {
        Route::Tags { .. } | Route::Referrers { .. } => true,
        Route::Catalog => target.upstream.config().catalog == Catalog::Cached,
        _ => false,
    };
    is_list && matches!(request.method, Method::GET | Method::HEAD)
}

fn too_long() -> Error {
    Failure::invalid("a catalog that is too long to be held").into()
}

fn answer(request: &Parts, list: List, status: &CacheStatus) -> Answer {
    let mut answer = Answer::new(StatusCode::OK).body(Body::Bytes(list.body));
    let json = HeaderValue::from_static("application/json");
    answer.headers.insert(header::CONTENT_TYPE, list.content_type.unwrap_or(json));
    let link = list.link.as_ref().and_then(|link| link.to_str().ok());
    if let Some(link) = link.and_then(|link| own_link(link, &request.uri)) {
        answer = answer.with_text(header::LINK, &link);
    }
    if let Some(filters) = list.filters {
        answer.headers.insert(FILTERS_APPLIED.clone(), filters);
    }
    answer.with_text(CACHE_STATUS.clone(), &status.to_string())
}
