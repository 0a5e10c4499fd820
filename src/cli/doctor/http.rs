//! Short questions over HTTP: to the admin API, to listeners, and as a container client would ask.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio_rustls::rustls::crypto::ring;
use ureq::{
    Agent,
    config::ConfigBuilder,
    tls::{Certificate, RootCerts, TlsConfig},
    typestate::AgentScope,
};

/// The largest answer that is read.
const MOST_BYTES: u64 = 8 << 20;

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trust<'a> {
    /// Everybody's: what is looked for is who answers, and nothing is told to it.
    Anybody,
    /// This system's authorities, and these besides (PEM).
    System(Option<&'a str>),
}

/// A client for a few questions.
#[derive(Debug, Clone)]
pub(super) struct Http {
    agent: Agent,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) took: Duration,
}

// === impl Http ===

impl Http {
    /// Each question ends within `patience`. Nothing goes through a proxy, and nowhere else than it
    /// was sent.
    pub(super) fn new(patience: Duration, trust: Trust<'_>) -> Self {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        let tls = match trust {
            Trust::Anybody => tls.disable_verification(true).root_certs(no_roots()),
            Trust::System(more) => tls.root_certs(roots(more)),
        };
        Self { agent: settings(patience).tls_config(tls.build()).build().new_agent() }
    }

    /// One whose connections are made otherwise.
    pub(super) fn over(agent: Agent) -> Self {
        Self { agent }
    }

    pub(super) fn get(&self, url: &str, headers: &[(HeaderName, &str)]) -> Result<Reply, String> {
        self.ask(self.agent.get(url), headers)
    }

    pub(super) fn head(&self, url: &str, headers: &[(HeaderName, &str)]) -> Result<Reply, String> {
        self.ask(self.agent.head(url), headers)
    }

    fn ask(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        headers: &[(HeaderName, &str)],
    ) -> Result<Reply, String> {
        let began = Instant::now();
        let request = headers.iter().fold(request, |it, (name, value)| it.header(name, *value));
        let mut answer = request.call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        let body = body.map_err(|error| format!("its answer broke off: {error}"))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Reply { status, headers, body, took: began.elapsed() })
    }
}

/// What holds for every client here.
pub(super) fn settings(patience: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(patience))
}

fn no_roots() -> RootCerts {
    RootCerts::new_with_certs(&[])
}

fn roots(more: Option<&str>) -> RootCerts {
    let mut roots = rustls_native_certs::load_native_certs().unwrap_or_default();
    let more = more.unwrap_or_default();
    roots.extend(CertificateDer::pem_slice_iter(more.as_bytes()).filter_map(Result::ok));
    let roots = roots.iter().map(|der| Certificate::from_der(der).to_owned());
    RootCerts::new_with_certs(&roots.collect::<Vec<_>>())
}

// === impl Reply ===

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// Whether an answer to [`WHO`] is Roadstead's.
pub(super) fn is_roadstead(reply: &Reply) -> bool {
    let text = reply.text();
    ["there is no upstream", "(access.htpasswd)", "(access.allow)"]
        .iter()
        .any(|words| text.contains(words))
}

/// What is asked to learn who answers: about a registry that nobody has, so that nobody upstream is
/// asked, and Roadstead's own sentence comes back.
pub(super) const WHO: &str = "/v2/?ns=roadstead-doctor.invalid";
