//! Users and bcrypt hashes from a file as `htpasswd -B` writes it.
//!
//! A check costs tens of milliseconds by design: it runs off the runtime, and
//! a pair that was right is remembered, hashed, for a minute.

use std::{collections::HashMap, fs, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use moka::future::Cache;

use crate::protocol::{Algorithm, Digest};

/// How long a right password is remembered.
const KEEP: Duration = Duration::from_secs(60);

/// Pairs remembered.
const PAIRS: u64 = 10_000;

/// The users.
#[derive(Debug)]
pub struct Htpasswd {
    hashes: Arc<HashMap<String, String>>,
    /// With this a user is compared who is not there, so that nobody learns by the time it takes
    /// who is: the costliest hash of the file, since others' costs are unlike.
    stand_in: Arc<str>,
    checked: Cache<Digest, Option<String>>,
}

// === impl Htpasswd ===

impl Htpasswd {
    /// Reads the file that the configuration names under `key`, which the error says.
    pub fn load(path: &Path, key: &str) -> Result<Self, String> {
        let problem = |what: &str| format!("{key}: {}: {what}", path.display());
        let text = fs::read_to_string(path).map_err(|error| problem(&error.to_string()))?;
        let mut hashes = HashMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let (user, hash) =
                line.split_once(':').ok_or_else(|| problem("a line without a colon"))?;
            if !["$2y$", "$2b$", "$2a$"].iter().any(|kind| hash.starts_with(kind)) {
                let what = format!("the user {user} has no bcrypt hash; make one with htpasswd -B");
                return Err(problem(&what));
            }
            hashes.insert(user.to_owned(), hash.to_owned());
        }
        if hashes.is_empty() {
            return Err(problem("it names no user, so that nobody would be let in"));
        }
        // `$2y$05$…`: the cost is two digits.
        let stand_in = hashes.values().max_by_key(|hash| hash.get(4..6)).map(String::as_str);
        let stand_in = stand_in.unwrap_or_default().into();
        let checked = Cache::builder().max_capacity(PAIRS).time_to_live(KEEP).build();
        Ok(Self { hashes: Arc::new(hashes), stand_in, checked })
    }

    /// What the last check of this header came to, if it was a moment ago: a user, or none.
    pub async fn remembered(&self, authorization: Option<&HeaderValue>) -> Option<Option<String>> {
        let key = Digest::of(Algorithm::Sha256, authorization?.as_bytes());
        self.checked.get(&key).await
    }

    /// The user whose name and password the header carries, if they are right.
    pub async fn check(&self, authorization: Option<&HeaderValue>) -> Option<String> {
        let value = authorization?;
        let key = Digest::of(Algorithm::Sha256, value.as_bytes());
        let (user, password) = parse(value)?;
        let (hashes, stand_in) = (Arc::clone(&self.hashes), Arc::clone(&self.stand_in));
        let verify = async move {
            tokio::task::spawn_blocking(move || {
                let hash = hashes.get(&user);
                let is_it = bcrypt::verify(password, hash.map_or(&*stand_in, String::as_str));
                (is_it.unwrap_or(false) && hash.is_some()).then_some(user)
            })
            .await
            .ok()
            .flatten()
        };
        self.checked.get_with(key, verify).await
    }
}

/// `Basic` credentials (RFC 7617).
fn parse(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, pair) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn header(user: &str, password: &str) -> HeaderValue {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).parse().unwrap()
    }

    #[tokio::test]
    async fn a_right_password_names_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        let hash = bcrypt::hash("secret", 4).unwrap();
        fs::write(&path, format!("# users\nann:{hash}\n")).unwrap();
        let users = Htpasswd::load(&path, "access.htpasswd").unwrap();
        assert_eq!(users.check(Some(&header("ann", "secret"))).await.as_deref(), Some("ann"));
        assert_eq!(users.check(Some(&header("ann", "wrong"))).await, None);
        assert_eq!(users.check(Some(&header("bob", "secret"))).await, None);
        assert_eq!(users.check(Some(&HeaderValue::from_static("Bearer x"))).await, None);
        assert_eq!(users.check(None).await, None);
    }

    #[tokio::test]
    async fn who_is_not_there_waits_as_long_and_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        let (cheap, dear) = (bcrypt::hash("a", 4).unwrap(), bcrypt::hash("secret", 8).unwrap());
        fs::write(&path, format!("ann:{dear}\nben:{cheap}\n")).unwrap();
        let users = Htpasswd::load(&path, "access.htpasswd").unwrap();
        // Ann's password, which the hash that stands in is of.
        assert_eq!(users.check(Some(&header("eve", "secret"))).await, None);
        let quickest = async |user: &str| {
            let mut quickest = Duration::MAX;
            for guess in ["1", "2", "3"] {
                let began = Instant::now();
                assert_eq!(users.check(Some(&header(user, guess))).await, None);
                quickest = quickest.min(began.elapsed());
            }
            quickest
        };
        let (known, unknown) = (quickest("ann").await, quickest("bob").await);
        assert!(unknown > known / 3, "{unknown:?} for {known:?}");
    }

    #[test]
    fn a_file_that_lets_nobody_in_or_is_no_bcrypt_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        for text in ["", "ann:{SHA}xyz", "ann"] {
            fs::write(&path, text).unwrap();
            assert!(
                Htpasswd::load(&path, "access.htpasswd").unwrap_err().contains("access.htpasswd"),
                "{text}"
            );
        }
    }
}
