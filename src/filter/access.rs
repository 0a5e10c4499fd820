//! Who may pull: by address, and by password where a file names users.

use std::net::IpAddr;

use async_trait::async_trait;
use http::{header, request::Parts};
use ipnet::IpNet;

use super::{Context, Flow, Refusal, RequestFilter, htpasswd::Htpasswd};
use crate::config;

/// The filter.
#[derive(Debug)]
pub struct Access {
    allow: Vec<IpNet>,
    users: Option<Htpasswd>,
}

// === impl Access ===

impl Access {
    /// Reads the htpasswd file, if one is configured; the error names it.
    pub fn new(config: &config::Access) -> Result<Self, String> {
        let users = config
            .htpasswd
            .as_deref()
            .map(|path| Htpasswd::load(path, "access.htpasswd"))
            .transpose()?;
        Ok(Self { allow: config.allow.clone(), users })
    }

    /// Whether a client at this address may pull, its password aside. A Unix socket has none, and
    /// is guarded by its file's permissions.
    pub(super) fn allows(&self, client: Option<IpAddr>) -> bool {
        client.is_none_or(|client| self.allow.iter().any(|net| net.contains(&client)))
    }

    /// Whether each request must say who sends it.
    pub(super) fn wants_passwords(&self) -> bool {
        self.users.is_some()
    }
}

#[async_trait]
impl RequestFilter for Access {
    fn name(&self) -> &'static str {
        "access"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        if let Some(client) = context.client.address
            && !self.allows(Some(client))
        {
            return Err(Refusal::AddressNotAllowed { client });
        }
        if let Some(users) = &self.users {
            let authorization = request.headers.get(header::AUTHORIZATION);
            let user = users.check(authorization).await.ok_or(Refusal::PasswordWanted)?;
            context.user = Some(user);
        }
        Ok(Flow::Continue)
    }
}
