//! Repositories, their tags and how fresh these are; and tags asked for anew.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        Admin, Server,
        extract::{Query, Sent},
        reply::{Answer, BodyFailures, Failures, Json, Refused},
    },
    References, blocking, given, limit,
};
use crate::{
    config::Mode,
    inventory::{Freshness, FreshnessState, ImageName, Problem, RepositoryPage, TagPage},
    manifest::{Ask, Health, Plan, Want, plan},
    protocol::Digest,
    store::{TagKey, TagRecord},
    upstream::Caller,
};

const TAG: &str = "repositories";

/// Tags that are asked for at a time.
const AT_ONCE: usize = 8;

/// Tags of one request.
const MOST_REFRESHED: usize = 500;

/// How long one request goes on; what has not been asked for by then is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which repositories.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Matching {
    /// A part of a name, such as `alp`, or a pattern, such as `ghcr.io/**`.
    r#match: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Which tags.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Of {
    /// The repository, such as `alpine` or `ghcr.io/org/app`.
    repository: String,
    /// The `next` of the page before.
    after: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// What upstream says of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Found {
    /// It names what it named.
    Unchanged,
    /// It names something else; the next pull fetches it.
    Moved,
}

/// A tag that was asked for.
#[derive(Debug, Serialize, ToSchema)]
struct RefreshedTag {
    /// Its full name.
    reference: String,
    /// What upstream says of it.
    found: Found,
    /// What it names now.
    #[schema(value_type = String)]
    digest: Digest,
}

/// What was asked for.
#[derive(Debug, Default, Serialize, ToSchema)]
struct RefreshReport {
    /// By name.
    tags: Vec<RefreshedTag>,
    /// What could not be asked for, and what upstream has no more.
    problems: Vec<Problem>,
}

pub(super) fn router() -> OpenApiRouter<Server> {
    OpenApiRouter::new()
        .routes(routes!(repositories))
        .routes(routes!(tags))
        .routes(routes!(refresh))
}

#[utoipa::path(get, path = "/api/v1/repositories", tag = TAG, params(Matching),
    responses((status = OK, description = "A page of them", body = RepositoryPage), Failures))]
/// The repositories of which something is cached.
async fn repositories(
    State(server): State<Server>,
    Query(asked): Query<Matching>,
) -> Answer<RepositoryPage> {
    let limit = limit(asked.limit)?;
    let (matching, after) = (given(asked.r#match), given(asked.after));
    let page = move || server.inventory.repositories(matching.as_deref(), after.as_deref(), limit);
    blocking(page).await.map(Json)
}

#[utoipa::path(get, path = "/api/v1/tags", tag = TAG, params(Of),
    responses((status = OK, description = "A page of them", body = TagPage), Failures))]
/// The cached tags of a repository: what they name, how much of it is here, and how fresh they are.
async fn tags(State(server): State<Server>, Query(asked): Query<Of>) -> Answer<TagPage> {
    let (after, limit) = (given(asked.after), limit(asked.limit)?);
    let page = move || {
        let now = SystemTime::now();
        let judge = |key: &TagKey, record: &TagRecord| freshness(&server, key, record, now);
        server.inventory.tags(&asked.repository, after.as_deref(), limit, judge)
    };
    blocking(page).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/refresh", tag = TAG, request_body = References,
    responses((status = OK, description = "What upstream said", body = RefreshReport), Failures, BodyFailures))]
/// Asks upstream what cached tags name now, fresh or not. A registry that can do HEAD does not count it as a pull.
async fn refresh(
    State(server): State<Server>,
    Sent(sent): Sent<References>,
) -> Answer<RefreshReport> {
    let admin = Arc::clone(&server);
    let (keys, problems) = blocking(move || admin.inventory.tags_meant(&sent.references)).await?;
    if keys.len() > MOST_REFRESHED {
        return Err(Refused::bad_request(format!(
            "these are {} tags, and at most {MOST_REFRESHED} are asked for at once; name fewer",
            keys.len()
        )));
    }
    let mut report = RefreshReport { tags: Vec::new(), problems };
    let deadline = Instant::now() + PATIENCE;
    let free = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for key in keys {
        let (server, free) = (Arc::clone(&server), Arc::clone(&free));
        asked.spawn(async move {
            let reference = ImageName::of_tag(&key).to_string();
            let asking = async {
                let _place = free.acquire().await;
                refresh_one(&server, &key).await
            };
            let found = tokio::time::timeout_at(deadline, asking).await;
            let problem = || "there was no time to ask for it; ask for fewer, or again".to_owned();
            (reference, found.unwrap_or_else(|_| Err(problem())))
        });
    }
    while let Some(done) = asked.join_next().await {
        match done {
            Ok((reference, Ok((found, digest)))) => {
                report.tags.push(RefreshedTag { reference, found, digest });
            }
            Ok((reference, Err(problem))) => report.problems.push(Problem { reference, problem }),
            Err(error) => tracing::error!(%error, "a tag check ended halfway"),
        }
    }
    report.tags.sort_by(|a, b| a.reference.cmp(&b.reference));
    report.problems.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(Json(report))
}

async fn refresh_one(server: &Admin, key: &TagKey) -> Result<(Found, Digest), String> {
    let Some(upstream) = server.upstream(&key.upstream) else {
        return Err("its upstream is not configured any more; purge it, or configure that".into());
    };
    let caller = match upstream.config().credentials.mode {
        Mode::Shared => Caller::Shared,
        Mode::Client => Caller::client(None),
    };
    let ask = Ask {
        upstream,
        repository: key.repository.clone(),
        want: Want::Head,
        caller,
        client: None,
    };
    match server.manifests.refresh(&ask, &key.tag).await {
        Ok(refreshed) if refreshed.before == Some(refreshed.now) => {
            Ok((Found::Unchanged, refreshed.now))
        }
        Ok(refreshed) => Ok((Found::Moved, refreshed.now)),
        Err(error) => Err(error.to_string()),
    }
}

/// What the next pull of a tag leads to.
pub(in crate::admin) fn freshness(
    server: &Admin,
    key: &TagKey,
    record: &TagRecord,
    now: SystemTime,
) -> Freshness {
    let is_dated = !record.is_gone() && !record.is_doubted();
    let age = now.duration_since(record.validated).ok().filter(|_| is_dated);
    let upstream = server.upstream(&key.upstream);
    let tag = key.tag.as_str();
    let (state, left) = match &upstream {
        _ if record.is_gone() => (FreshnessState::Gone, None),
        None => (FreshnessState::Unknown, None),
        Some(upstream) => {
            let health = if upstream.held_back().is_some() { Health::Down } else { Health::Up };
            let policy = &upstream.config().tags;
            match plan(tag, Some(record), policy, upstream.stretch(), now, health) {
                Plan::ServeFresh { left } => (FreshnessState::Fresh, left),
                Plan::ServeStale => (FreshnessState::Stale, None),
                Plan::Revalidate { .. } | Plan::Fetch => (FreshnessState::Due, None),
            }
        }
    };
    Freshness {
        state,
        age: age.map(|age| age.as_secs()),
        fresh_for: left.map(|left| left.as_secs()),
        immutable: upstream.is_some_and(|upstream| upstream.config().tags.immutable.matches(tag)),
    }
}
