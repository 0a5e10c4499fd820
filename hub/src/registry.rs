//! The registry: who may read, what it costs, and the answer.

use http::header::{ETAG, IF_NONE_MATCH, LINK, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderName, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::answer::{Answer, DOCKER_CONTENT_DIGEST};
use crate::budget::{Charge, Payer};
use crate::cdn;
use crate::content::Manifest;
use crate::range;
use crate::seen::{Place, Route, Seen};
use crate::shared::Shared;
use crate::sync::lock;
use crate::token::SERVICE;

/// Tags per page where the client names no `n`.
const PAGE_TAGS: usize = 100;

/// What the token sent along, or the lack of one, allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    Granted { account: Option<String> },
    Challenged { error: Option<&'static str> },
}

/// Decides whether a registry request may be answered at all.
pub(crate) fn access(shared: &Shared, seen: &Seen) -> Access {
    if seen.place != Place::Registry || seen.route == Route::Other {
        return Access::Granted { account: None };
    }
    let token = seen.bearer();
    let grant = token.and_then(|token| lock(&shared.tokens).grant(token, Instant::now()).cloned());
    let private = seen.repository().is_some_and(|name| shared.is_private(name));
    match (grant, seen.repository()) {
        (Some(grant), Some(name)) if seen.writes() && shared.options.require_token => {
            match grant.pushes.iter().any(|one| one == name) {
                true => Access::Granted { account: grant.account },
                false => Access::Challenged { error: Some("insufficient_scope") },
            }
        }
        (Some(grant), Some(name)) if grant.repositories.iter().any(|one| one == name) => {
            Access::Granted { account: grant.account }
        }
        (Some(grant), None) => Access::Granted { account: grant.account },
        _ if !shared.options.require_token && !private => Access::Granted { account: None },
        (Some(_), Some(_)) => Access::Challenged { error: Some("insufficient_scope") },
        (None, _) => Access::Challenged { error: token.map(|_| "invalid_token") },
    }
}

/// Answers what `access` let through, and challenges the rest.
pub(crate) fn answer(shared: &Shared, seen: &Seen, access: &Access) -> Answer {
    let account = match access {
        Access::Granted { account } => account,
        Access::Challenged { error } => return challenge(shared, seen, *error),
    };
    if seen.writes() {
        let message = "the simulator only serves pulls";
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
    }
    if let Some(name) = seen.repository()
        && !lock(&shared.content).has_repository(name)
    {
        return Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known");
    }
    match &seen.route {
        Route::Ping => Answer::json(StatusCode::OK, &json!({})).with(API_VERSION, "registry/2.0"),
        Route::Catalog => challenge(shared, seen, Some("insufficient_scope")),
        Route::Manifest { repository, reference } => {
            let Some(manifest) = lock(&shared.content).manifest(repository, reference) else {
                return not_found("MANIFEST_UNKNOWN", "manifest unknown");
            };
            let payer = account.clone().map(Payer::Account);
            let payer = payer.unwrap_or_else(|| Payer::Source(seen.source.clone()));
            paid_manifest(shared, seen, &payer, &manifest)
        }
        Route::Blob { repository, digest } => blob(shared, seen, repository, digest),
        Route::Tags { repository } => tags(shared, seen, repository),
        Route::Referrers { repository, digest } => referrers(shared, seen, repository, digest),
        // What writes was refused above.
        Route::Uploads { .. } | Route::Upload { .. } => not_found("NOT_FOUND", "no such page"),
        Route::Token | Route::Cdn { .. } | Route::Other => not_found("NOT_FOUND", "no such page"),
    }
}

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// 401 naming the token server and, where a repository is asked for, the scope.
pub(crate) fn challenge(shared: &Shared, seen: &Seen, error: Option<&str>) -> Answer {
    unauthorized().with(WWW_AUTHENTICATE, &challenge_to(&shared.token_realm(), seen, error))
}

/// 401 without a challenge, as no registry should answer and some do.
pub(crate) fn unauthorized() -> Answer {
    Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
        .with(API_VERSION, "registry/2.0")
}

/// The value of `Www-Authenticate` for this realm.
pub(crate) fn challenge_to(realm: &str, seen: &Seen, error: Option<&str>) -> String {
    let mut value = format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"");
    match (&seen.route, seen.repository()) {
        (_, Some(name)) => {
            let actions = if seen.writes() { "pull,push" } else { "pull" };
            value.push_str(&format!(",scope=\"repository:{name}:{actions}\""));
        }
        (Route::Catalog, _) => value.push_str(",scope=\"registry:catalog:*\""),
        _ => {}
    }
    if let Some(error) = error {
        value.push_str(&format!(",error=\"{error}\""));
    }
    value
}

fn not_found(code: &str, message: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, code, message)
}

/// HEAD is free even at zero; a GET is charged before anything else, its 304 included.
fn paid_manifest(shared: &Shared, seen: &Seen, payer: &Payer, manifest: &Manifest) -> Answer {
    let now = Instant::now();
    let mut budgets = lock(&shared.budgets);
    let charge = match seen.method {
        Method::HEAD => Charge::Included,
        _ => budgets.charge(payer, manifest, now),
    };
    let standing = budgets.standing(payer, now);
    drop(budgets);
    let answer = match charge {
        Charge::Refused => Answer::rate_limited(),
        Charge::Included => manifest_answer(seen, manifest),
        Charge::Counted => {
            lock(&shared.log).counted();
            manifest_answer(seen, manifest)
        }
    };
    answer.with_standing(standing)
}

fn manifest_answer(seen: &Seen, manifest: &Manifest) -> Answer {
    let answer = if unchanged(seen, &manifest.digest) {
        Answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        Answer::new(StatusCode::OK, &manifest.media_type, manifest.body.clone())
    };
    answer
        .with(DOCKER_CONTENT_DIGEST, &manifest.digest)
        .with(ETAG, &format!("\"{}\"", manifest.digest))
        .with(API_VERSION, "registry/2.0")
}

/// RFC 9110 §13.1.2: weak comparison with each tag listed.
fn unchanged(seen: &Seen, digest: &str) -> bool {
    let Some(listed) = seen.header(IF_NONE_MATCH) else {
        return false;
    };
    listed
        .split(',')
        .map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
        .any(|tag| tag == digest || tag == "*")
}

fn blob(shared: &Shared, seen: &Seen, repository: &str, digest: &str) -> Answer {
    let Some(blob) = lock(&shared.content).blob_in(repository, digest) else {
        return not_found("BLOB_UNKNOWN", "blob unknown to registry");
    };
    if shared.redirects(seen) {
        let expires = shared.clock.now_ms() + shared.options.url_lifetime.as_millis();
        let target = cdn::signed(digest, expires, *lock(&shared.url_key));
        let location = format!("http://{}{target}", shared.addresses.cdn);
        return Answer::empty(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, &location);
    }
    range::answer(&blob, digest, &seen.headers).with(DOCKER_CONTENT_DIGEST, digest)
}

fn tags(shared: &Shared, seen: &Seen, repository: &str) -> Answer {
    let n = seen.parameter("n").and_then(|n| n.parse().ok()).unwrap_or(PAGE_TAGS);
    let last = seen.parameter("last");
    let (page, more) = lock(&shared.content).tags(repository, last.as_deref(), n);
    let answer = Answer::json(StatusCode::OK, &json!({ "name": repository, "tags": page }));
    match page.last() {
        Some(last) if more => {
            let next = format!("</v2/{repository}/tags/list?last={last}&n={n}>; rel=\"next\"");
            answer.with(LINK, &next)
        }
        _ => answer,
    }
}

fn referrers(shared: &Shared, seen: &Seen, repository: &str, digest: &str) -> Answer {
    let wanted = seen.parameter("artifactType");
    let manifests: Vec<Value> = lock(&shared.content)
        .referrers(repository, digest)
        .iter()
        .map(referrer)
        .filter(|one| wanted.is_none() || artifact_type(one) == wanted.as_deref())
        .collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    let answer = Answer::new(StatusCode::OK, media_type, index.to_string());
    match wanted {
        Some(_) => answer.with(HeaderName::from_static("oci-filters-applied"), "artifactType"),
        None => answer,
    }
}

fn referrer(manifest: &Manifest) -> Value {
    let body: Value = serde_json::from_slice(&manifest.body).unwrap_or_default();
    let config_type = body.pointer("/config/mediaType");
    let mut entry = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.body.len(),
        "artifactType": body.get("artifactType").or(config_type),
    });
    if let (Some(entry), Some(notes)) = (entry.as_object_mut(), body.get("annotations")) {
        entry.insert("annotations".to_owned(), notes.clone());
    }
    entry
}

fn artifact_type(entry: &Value) -> Option<&str> {
    entry.get("artifactType")?.as_str()
}
