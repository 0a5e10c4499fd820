//! The admin API of a running server, as a client.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use http::StatusCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use ureq::{
    Agent, RequestBuilder, typestate::WithoutBody, unversioned::transport::DefaultConnector,
};

use super::{
    access::Trouble,
    login::{self, There},
};
use crate::{config::Admin, inventory::Server};

/// How long a connection may take: the server is on this machine.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take. Usage reads the whole index, a purge follows every tag.
const ANSWER: Duration = Duration::from_secs(600);

/// The largest answer that is read.
const MOST_BYTES: u64 = 256 << 20;

/// A server's API.
pub(in crate::cli) struct Remote {
    agent: Agent,
    address: SocketAddr,
    /// Scheme, name and port.
    base: String,
    authorization: Option<String>,
}

/// `{"error": {"code", "message"}}`
#[derive(Deserialize)]
struct Refusal {
    error: Refused,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
    message: String,
}

// === impl Remote ===

impl Remote {
    /// The server that is configured as `admin`.
    pub(in crate::cli) fn new(admin: &Admin) -> Result<Self, Trouble> {
        let address = login::address(admin);
        let config = Agent::config_builder()
            // The environment's proxy has no business on the loopback interface.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(ANSWER));
        let (config, base) = match &admin.tls {
            None => (config.build(), format!("http://{address}")),
            Some(tls) => {
                let name = login::name(tls, address)?;
                (config.tls_config(login::tls(tls)?).build(), format!("https://{name}"))
            }
        };
        let agent = Agent::with_parts(config, DefaultConnector::default(), There(address));
        Ok(Self { agent, address, base, authorization: login::authorization()? })
    }

    /// Which server this is, asked on behalf of the store in `directory`.
    pub(in crate::cli) fn server(&self, directory: &Path) -> Result<Server, Trouble> {
        match self.getting("", &[]).call() {
            // Whoever does answer says himself what is wrong.
            Err(error) if is_refused(&error) => Err(Trouble::Failed(format!(
                "{}: another process uses this store, but no roadstead answers at {} ({error}); \
                 name its admin address with --admin, or its configuration with --config",
                directory.display(),
                self.address
            ))),
            answer => self.read(answer),
        }
    }

    pub(in crate::cli) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T, Trouble> {
        self.read(self.getting(path, query).call())
    }

    pub(in crate::cli) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Trouble> {
        let body = serde_json::to_vec(body).map_err(|error| Trouble::Failed(error.to_string()))?;
        let request = self.addressed(self.agent.post(self.url(path))).header("X-Roadstead", "1");
        self.read(request.content_type("application/json").send(&body))
    }

    pub(in crate::cli) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let request = self.addressed(self.agent.delete(self.url(path))).header("X-Roadstead", "1");
        self.read(request.call())
    }

    fn getting(&self, path: &str, query: &[(&str, Option<&str>)]) -> RequestBuilder<WithoutBody> {
        let mut request = self.addressed(self.agent.get(self.url(path)));
        for (name, value) in query {
            if let Some(value) = value {
                request = request.query(*name, *value);
            }
        }
        request
    }

    /// Says to whom it goes, and from whom it comes.
    fn addressed<Body>(&self, request: RequestBuilder<Body>) -> RequestBuilder<Body> {
        // The certificate's name is for TLS: the server need not know itself by it (admin.hosts).
        let request = request.header("Host", self.address.to_string());
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base)
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Trouble> {
        let mut answer = answer.map_err(|error| self.failed(&error))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        let body = body.map_err(|error| self.failed(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                self.failed(&format!("not an answer of this version's API: {error}"))
            });
        }
        Err(match serde_json::from_slice::<Refusal>(&body) {
            Ok(Refusal { error }) if error.code == "bad_reference" => Trouble::Usage(error.message),
            Ok(Refusal { error }) if status == StatusCode::UNAUTHORIZED => {
                Trouble::Failed(format!(
                    "{}: {}, in ROADSTEAD_ADMIN_USER and ROADSTEAD_ADMIN_PASSWORD_FILE",
                    self.address, error.message
                ))
            }
            Ok(Refusal { error }) => Trouble::Failed(error.message),
            Err(_) => self.failed(&format!("it answers {status}")),
        })
    }

    fn failed(&self, problem: &dyn std::fmt::Display) -> Trouble {
        Trouble::Failed(format!("{}: {problem}", self.address))
    }
}

/// Whether nobody listens there.
fn is_refused(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
