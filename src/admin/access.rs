//! Who may use the second listener.
//!
//! On loopback everybody who can reach it, unless users or certificates are configured: then each
//! request must carry a password, each connection a certificate. Probes are answered to all. What
//! `guard` asks comes on top of it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::{StatusCode, header, request::Parts};
use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::{guard, reply::Refused};
use crate::{config, filter::Htpasswd};

/// Passwords that are compared at a time; each costs tens of milliseconds of a processor.
const MOST_COMPARED: usize = 2;

/// How often the log tells of a client's wrong passwords.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Clients that are remembered for that.
const MOST_TOLD_OF: u64 = 10_000;

/// For load balancers and kubelets, which have no password.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Prometheus knows it by any name, and asks it for nothing that a page could change.
const METRICS: &str = "/metrics";

/// The users of `admin.htpasswd`, if there are any; a reload reads them anew.
#[derive(Debug)]
pub struct Operators(ArcSwapOption<Htpasswd>);

/// What is asked of a request before it is answered.
#[derive(Debug)]
pub(super) struct Access {
    operators: Arc<Operators>,
    wants_certificates: bool,
    hosts: Vec<String>,
    comparing: Semaphore,
    /// Of whose wrong passwords the log has told lately.
    told_of: Cache<Option<IpAddr>, ()>,
}

/// From where a request comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: Option<IpAddr>,
    /// It has shown a certificate that is signed by `admin.tls.client_ca`.
    pub(super) has_certificate: bool,
}

// === impl Operators ===

impl Operators {
    /// As the file is now; the error names it.
    pub fn load(config: &config::Admin) -> Result<Self, String> {
        let users = config.htpasswd.as_deref();
        let users = users.map(|path| Htpasswd::load(path, "admin.htpasswd")).transpose()?;
        Ok(Self(ArcSwapOption::from_pointee(users)))
    }

    /// From now on it is these. What is remembered of passwords is forgotten.
    pub fn replace(&self, others: Self) {
        self.0.store(others.0.into_inner());
    }
}

// === impl Access ===

impl Access {
    /// What `config` asks, with its users.
    pub(super) fn new(config: &config::Admin, operators: Arc<Operators>) -> Self {
        Self {
            operators,
            wants_certificates: config.wants_certificates(),
            hosts: config.hosts.clone(),
            comparing: Semaphore::new(MOST_COMPARED),
            told_of: Cache::builder().max_capacity(MOST_TOLD_OF).time_to_live(TOLD_EVERY).build(),
        }
    }

    /// Refuses what may not be answered.
    pub(super) async fn check(&self, head: &Parts, client: Client) -> Result<(), Refused> {
        let path = head.uri.path();
        if PROBES.contains(&path) && guard::is_read(&head.method) {
            return Ok(());
        }
        if self.wants_certificates && !client.has_certificate {
            return Err(Refused::forbidden(
                "a certificate is wanted that is signed by admin.tls.client_ca; show one",
            ));
        }
        let user = self.user(head, client).await?;
        // Who must say who he is does not do so by accident, on another site's behalf.
        let is_asked = user.is_some() || self.wants_certificates;
        if !is_asked && path != METRICS {
            guard::check_host(head, &self.hosts)?;
        }
        if guard::is_change(&head.method) {
            guard::check(head, &self.hosts)?;
            let client = client.address.map(|address| address.to_string());
            tracing::info!(method = %head.method, ?path, client, user, "the operator asks for a change");
        }
        Ok(())
    }

    /// The user, where there are any.
    async fn user(&self, head: &Parts, client: Client) -> Result<Option<String>, Refused> {
        let Some(users) = self.operators.0.load_full() else { return Ok(None) };
        let authorization = head.headers.get(header::AUTHORIZATION);
        let checked = match (authorization, users.remembered(authorization).await) {
            (_, Some(user)) => user,
            (None, None) => None,
            (Some(_), None) => {
                // It is never closed.
                let _comparing = self.comparing.acquire().await;
                users.check(authorization).await
            }
        };
        if checked.is_none() && authorization.is_some() && self.is_to_tell(client) {
            let client = client.address.map(|address| address.to_string());
            tracing::warn!(client, "a wrong password for the admin listener");
        }
        checked.map(Some).ok_or_else(|| {
            let message = "a user of admin.htpasswd and the password are wanted; give them";
            Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        })
    }

    /// Whether the log has not told of this client for a while; from now on it has.
    fn is_to_tell(&self, client: Client) -> bool {
        self.told_of.entry(client.address).or_insert(()).is_fresh()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::{Engine, engine::general_purpose::STANDARD};
    use http::Request;

    use super::*;

    const NOBODY: Client = Client { address: None, has_certificate: false };

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn access(config: &config::Admin) -> Access {
        Access::new(config, Arc::new(Operators::load(config).unwrap()))
    }

    async fn status(access: &Access, head: &Parts, client: Client) -> u16 {
        access.check(head, client).await.map_or_else(|refused| refused.status.as_u16(), |()| 200)
    }

    #[tokio::test]
    async fn on_loopback_names_that_lead_here_are_refused_and_nobody_is_asked() {
        let config =
            config::Admin { hosts: vec!["cache.corp".to_owned()], ..config::Admin::default() };
        let access = access(&config);
        for (path, host, expected) in [
            ("/api/v1/usage", "127.0.0.1:5001", 200),
            ("/api/v1/usage", "Cache.corp:5001", 200),
            ("/", "localhost", 200),
            ("/", "evil.example", 403),
            ("/api/v1/usage", "evil.example", 403),
            ("/metrics", "roadstead.monitoring", 200),
            ("/readyz", "anything", 200),
        ] {
            let head = head("GET", path, &[("host", host)]);
            assert_eq!(status(&access, &head, NOBODY).await, expected, "{path} at {host}");
        }
    }

    #[tokio::test]
    async fn where_there_are_users_all_but_probes_want_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators");
        fs::write(&path, format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
        let config = config::Admin { htpasswd: Some(path), ..config::Admin::default() };
        let access = access(&config);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let (right, wrong) = (basic("ann:secret"), basic("ann:guess"));
        for (path, authorization, expected) in [
            ("/healthz", None, 200),
            ("/readyz", None, 200),
            ("/metrics", None, 401),
            ("/", None, 401),
            ("/api/v1/usage", Some(&wrong), 401),
            ("/api/v1/usage", Some(&right), 200),
            ("/metrics", Some(&right), 200),
        ] {
            let mut headers = vec![("host", "cache.corp")];
            headers.extend(authorization.map(|value| ("authorization", value.as_str())));
            let head = head("GET", path, &headers);
            assert_eq!(status(&access, &head, NOBODY).await, expected, "{path} {authorization:?}");
        }
        let change = head("POST", "/api/v1/purge", &[("host", "::1"), ("authorization", &right)]);
        assert_eq!(status(&access, &change, NOBODY).await, 403, "the guard stays");
    }

    #[test]
    fn a_client_that_guesses_passwords_does_not_fill_the_log() {
        let access = access(&config::Admin::default());
        let from = |last: u8| Client { address: Some([10, 0, 0, last].into()), ..NOBODY };
        let told = [1, 1, 2, 1, 2].map(|last| access.is_to_tell(from(last)));
        assert_eq!(told, [true, false, true, false, false]);
    }

    #[tokio::test]
    async fn a_certificate_is_wanted_where_authorities_are_named() {
        let config = config::Admin {
            tls: Some(config::Tls {
                certificate: "a".into(),
                key: "a".into(),
                client_ca: Some("a".into()),
            }),
            ..config::Admin::default()
        };
        let access = access(&config);
        let shown = Client { has_certificate: true, ..NOBODY };
        let usage = head("GET", "/api/v1/usage", &[("host", "cache.corp")]);
        assert_eq!(status(&access, &usage, NOBODY).await, 403);
        assert_eq!(status(&access, &usage, shown).await, 200);
        assert_eq!(status(&access, &head("GET", "/readyz", &[]), NOBODY).await, 200);
    }
}
