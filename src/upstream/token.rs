//! Bearer tokens: asked for once, kept until they expire, refreshed once on 401.
//!
//! The realm is checked before anything is sent to it (P5). Requests for equal
//! tokens collapse into one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use moka::future::Cache;
use serde::Deserialize;
use url::Url;

use super::{
    Error, Failure,
    credential::Login,
    exchange::{Exchange, Kind, Reply, Request},
    reply,
};
use crate::protocol::challenge::{Challenge, parse_challenges};

/// Tokens kept.
const TOKENS: u64 = 10_000;

/// A token without `expires_in` lives this long (distribution's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// No token is trusted for longer, whatever it says.
const MAX_LIFE: Duration = Duration::from_secs(3600);

/// The largest answer of a token service that is read.
const ANSWER_BYTES: u64 = 1 << 20;

/// How a registry wants its requests authorised, as its last challenge said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    Bearer { realm: Url, service: Option<String> },
    Basic,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    realm: Url,
    service: Option<String>,
    scope: Option<String>,
    /// Of the login it was got with; 0 without one.
    version: u64,
}

#[derive(Clone)]
struct Token {
    authorization: HeaderValue,
    expires: Instant,
}

/// The tokens of one account.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Shared by all accounts of a registry: what it told one holds for the others.
    scheme: Arc<Mutex<Option<Scheme>>>,
    cache: Cache<Key, Token>,
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub(super) enum TokenError {
    /// The token service refuses the login, or to give a token without one: 401.
    Refused(String),
    /// It gives none for this scope: 403.
    Denied(String),
    /// Something else went wrong.
    Failed(Error),
}

/// The answer of a token service.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

// === impl Tokens ===

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl From<Failure> for TokenError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.into())
    }
}

impl Tokens {
    pub(super) fn new(scheme: Arc<Mutex<Option<Scheme>>>) -> Self {
        let cache = Cache::builder().max_capacity(TOKENS).time_to_live(MAX_LIFE).build();
        Self { scheme, cache }
    }

    /// What to send along before being asked, if the registry is known to ask for it.
    pub(super) async fn before_asked(
        &self,
        exchange: &Exchange,
        scope: Option<&str>,
        login: Option<&Login>,
    ) -> Result<Option<HeaderValue>, TokenError> {
        let scheme = self.known();
        match scheme {
            None => Ok(None),
            Some(Scheme::Basic) => Ok(login.and_then(basic)),
            Some(Scheme::Bearer { realm, service }) => {
                let (scope, version) = (scope.map(str::to_owned), version(login));
                let key = Key { realm, service, scope, version };
                self.token(exchange, key, login).await.map(Some)
            }
        }
    }

    /// What to send after a 401. `used` is what was refused; a token among it is not used again.
    /// `None` if there is nothing that could help.
    pub(super) async fn after_refusal(
        &self,
        exchange: &Exchange,
        headers: &HeaderMap,
        scope: Option<&str>,
        login: Option<&Login>,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, TokenError> {
        let lines = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenges = parse_challenges(lines.filter_map(|value| value.to_str().ok()));
        let mut is_refused = false;
        for challenge in challenges {
            match challenge {
                Challenge::Bearer { realm, service, scope: asked, .. } => {
                    let realm = Url::parse(&realm)
                        .map_err(|_| Failure::invalid("its challenge names no realm"))?;
                    exchange
                        .trust()
                        .realm(&realm)
                        .map_err(|problem| Failure::Untrusted { problem })?;
                    self.learn(Scheme::Bearer { realm: realm.clone(), service: service.clone() });
                    // Our own scope is the one that later requests look up; upstream's counts where
                    // it asks for another.
                    let scope = scope.map(str::to_owned).or(asked);
                    let key = Key { realm, service, scope, version: version(login) };
                    self.drop_refused(&key, used).await;
                    return self.token(exchange, key, login).await.map(Some);
                }
                Challenge::Basic { .. } => {
                    self.learn(Scheme::Basic);
                    match login {
                        Some(login) if used.is_none() => return Ok(basic(login)),
                        // Another challenge may be met with a token.
                        Some(_) => is_refused = true,
                        None => {}
                    }
                }
                Challenge::Other(_) => {}
            }
        }
        match login {
            Some(login) if is_refused => Err(TokenError::Refused(refused_login(login))),
            _ => Ok(None),
        }
    }

    /// True once the registry has said how it wants to be asked.
    pub(super) fn is_known(&self) -> bool {
        self.known().is_some()
    }

    fn known(&self) -> Option<Scheme> {
        self.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, scheme: Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    async fn drop_refused(&self, key: &Key, used: Option<&HeaderValue>) {
        if let Some(token) = self.cache.get(key).await
            && Some(&token.authorization) == used
        {
            self.cache.invalidate(key).await;
        }
    }

    async fn token(
        &self,
        exchange: &Exchange,
        key: Key,
        login: Option<&Login>,
    ) -> Result<HeaderValue, TokenError> {
        if let Some(token) = self.cache.get(&key).await {
            if Instant::now() < token.expires {
                return Ok(token.authorization);
            }
            self.cache.invalidate(&key).await;
        }
        let fetch = fetch(exchange, &key, login);
        let token = self.cache.try_get_with_by_ref(&key, fetch).await;
        token.map(|token| token.authorization).map_err(|error: Arc<TokenError>| (*error).clone())
    }
}

async fn fetch(exchange: &Exchange, key: &Key, login: Option<&Login>) -> Result<Token, TokenError> {
    let mut url = key.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &key.service {
            query.append_pair("service", service);
        }
        // Several scopes of one challenge are separated by spaces (RFC 6750 §3) and asked for
        // one by one.
        for scope in key.scope.iter().flat_map(|scope| scope.split(' ')) {
            query.append_pair("scope", scope);
        }
        if let Some(login) = login {
            query.append_pair("account", &login.username);
        }
    }
    let authorization = login.and_then(basic).map(|value| (header::AUTHORIZATION, value));
    let headers: Vec<_> = authorization.into_iter().collect();
    let (method, kind) = (Method::GET, Kind::Token);
    let request = Request { method, url: &url, kind, headers: &headers, is_retry: false };
    let reply = exchange.send(&request).await.map_err(in_token)?;
    if reply.status != StatusCode::OK {
        return Err(refused(exchange, reply, login).await);
    }
    let body = reply.body.collect(ANSWER_BYTES).await.map_err(in_token)?.unwrap_or_default();
    parse(&body).map_err(|problem| in_token(Failure::invalid(problem)).into())
}

async fn refused(exchange: &Exchange, reply: Reply, login: Option<&Login>) -> TokenError {
    let host = Arc::clone(&reply.body.host);
    match reply::into_error(reply).await {
        Error::Trouble(failure) => {
            exchange.hold_off(&host, &failure);
            in_token(failure).into()
        }
        Error::Denied { message } => {
            TokenError::Denied(format!("the token service gives none for this: {message}"))
        }
        Error::Unauthorized { .. } => {
            let none = || "the token service gives no anonymous token for this".to_owned();
            TokenError::Refused(login.map_or_else(none, refused_login))
        }
        other => in_token(Failure::invalid(other.to_string())).into(),
    }
}

fn refused_login(login: &Login) -> String {
    format!("the account {} is refused: check its password", login.username)
}

fn version(login: Option<&Login>) -> u64 {
    login.map_or(0, |login| login.version)
}

fn basic(login: &Login) -> Option<HeaderValue> {
    use base64::{Engine, engine::general_purpose::STANDARD};

    let pair = format!("{}:{}", login.username, login.password.expose());
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn in_token(failure: Failure) -> Failure {
    match failure {
        Failure::Token(_) | Failure::Untrusted { .. } => failure,
        other => Failure::Token(Box::new(other)),
    }
}

fn parse(body: &[u8]) -> Result<Token, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "the token service answered no JSON token")?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
    let token = token.ok_or("the token service answered without a token")?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "the token service answered a token that is no header value")?;
    authorization.set_sensitive(true);
    let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE);
    // A tenth of its life early, so that it does not expire on its way.
    Ok(Token { authorization, expires: Instant::now() + life.mul_f64(0.9) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_name_of_the_token_is_read_and_a_missing_life_is_a_minute() {
        let token = parse(br#"{"token":"","access_token":"abc"}"#).unwrap();
        assert_eq!(token.authorization, "Bearer abc");
        assert!(token.authorization.is_sensitive());
        assert!(token.expires <= Instant::now() + DEFAULT_LIFE);
        assert!(parse(br#"{"token":"a\nb"}"#).is_err());
        assert!(parse(b"<html>").is_err());
        assert!(parse(b"{}").is_err());
    }
}
