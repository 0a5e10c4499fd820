//! The token server: what was handed out to whom, for what, and until when.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::digest::hex;
use crate::random::{Random, unpredictable};
use crate::seen::Seen;
use crate::shared::Shared;
use crate::sync::lock;

/// The name the token server and the challenge agree on.
pub(crate) const SERVICE: &str = "registry.docker.io";

/// Tokens handed out and not yet forgotten.
#[derive(Debug)]
pub(crate) struct Tokens {
    random: Random,
    grants: HashMap<String, Grant>,
}

/// What one token allows.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) account: Option<String>,
    /// Repositories it may pull from.
    pub(crate) repositories: Vec<String>,
    /// Repositories it may push to.
    pub(crate) pushes: Vec<String>,
    expires: Instant,
}

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { random: Random::new(unpredictable()), grants: HashMap::new() }
    }

    pub(crate) fn grant(&self, token: &str, now: Instant) -> Option<&Grant> {
        self.grants.get(token).filter(|grant| now < grant.expires)
    }

    pub(crate) fn forget_all(&mut self) {
        self.grants.clear();
    }

    fn issue(&mut self, grant: Grant) -> String {
        let token = format!("hub.{}", hex(&self.random.bytes(24)));
        self.grants.insert(token.clone(), grant);
        token
    }
}

/// Answers `GET /token?service=…&scope=repository:NAME:pull,push`, with Basic for accounts.
pub(crate) fn answer(shared: &Shared, seen: &Seen) -> Answer {
    if seen.path != "/token" {
        return Answer::error(StatusCode::NOT_FOUND, "NOT_FOUND", "no such page");
    }
    if seen.method != http::Method::GET {
        // Clients that try OAuth2's POST first fall back to GET on 405.
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "use GET");
    }
    let Ok(account) = account(shared, &seen.headers) else {
        let details = json!({ "details": "incorrect username or password" });
        return Answer::json(StatusCode::UNAUTHORIZED, &details);
    };
    issue(shared, seen, account)
}

fn issue(shared: &Shared, seen: &Seen, account: Option<String>) -> Answer {
    // Hub answers 200 in any case; a token for what one may not see merely lacks the scope.
    let mut repositories = seen.scopes("pull");
    repositories.retain(|name| shared.may_pull(account.as_deref(), name));
    let pushes = account.as_ref().map(|_| seen.scopes("push")).unwrap_or_default();
    let lifetime = shared.options.token_lifetime;
    let grant = Grant { account, repositories, pushes, expires: Instant::now() + lifetime };
    let token = lock(&shared.tokens).issue(grant);
    Answer::json(
        StatusCode::OK,
        &json!({
            "token": token,
            "access_token": token,
            "expires_in": whole_seconds(lifetime),
            "issued_at": humantime::format_rfc3339_seconds(shared.clock.wall()).to_string(),
        }),
    )
}

/// Sub-second lifetimes are for tests; a client must not read them as zero, i.e. "not stated".
fn whole_seconds(lifetime: Duration) -> u64 {
    lifetime.as_secs().max(1)
}

struct WrongPassword;

fn account(shared: &Shared, headers: &HeaderMap) -> Result<Option<String>, WrongPassword> {
    let Some(credentials) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let credentials = credentials.to_str().ok().and_then(basic).ok_or(WrongPassword)?;
    let mut accounts = shared.options.accounts.iter();
    let known = accounts.find(|account| (&account.user, &account.password) == credentials.pair());
    known.map(|account| Some(account.user.clone())).ok_or(WrongPassword)
}

struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    fn pair(&self) -> (&String, &String) {
        (&self.user, &self.password)
    }
}

fn basic(header: &str) -> Option<Credentials> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}
