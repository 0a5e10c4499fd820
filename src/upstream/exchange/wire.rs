//! Requests and failures as Pingora spells them.

use std::{path::Path, sync::Arc};

use http::{HeaderMap, header};
use pingora::{
    http::RequestHeader,
    protocols::tls::CaType,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use url::Url;

use super::{Request, connect::dial_failure, tunnel::proxy_authorization};
use crate::{
    config::{self, ProxyServer},
    upstream::Failure,
};

/// Who we say that we are.
pub(super) const USER_AGENT: &str = concat!("roadstead/", env!("CARGO_PKG_VERSION"));

/// The head of a request, as its host takes it, or as the proxy that relays it does.
pub(super) fn request_header(
    request: &Request<'_>,
    relay: Option<&ProxyServer>,
) -> pingora::Result<RequestHeader> {
    let from = match relay {
        // RFC 9112 §3.2.2: absolute-form.
        Some(_) => url::Position::BeforeScheme,
        None => url::Position::BeforePath,
    };
    let path = &request.url[from..url::Position::AfterQuery];
    let mut head = RequestHeader::build(request.method.clone(), path.as_bytes(), None)?;
    head.insert_header(header::HOST, authority_header(request.url))?;
    head.insert_header(header::USER_AGENT, USER_AGENT)?;
    // Bodies pass as stored: a compressed one would not have its digest.
    head.insert_header(header::ACCEPT_ENCODING, "identity")?;
    if let Some(authorization) = relay.and_then(proxy_authorization) {
        head.insert_header(header::PROXY_AUTHORIZATION, authorization)?;
    }
    for (name, value) in request.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

/// The certificates of a PEM file, and the system's.
pub(super) fn certificates(path: &Path) -> Result<Arc<CaType>, String> {
    let problem = |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", path.display());
    let mut ders = certificates_of(path)?;
    // The file adds to the system's certificates; it does not replace them.
    ders.extend(rustls_native_certs::load_native_certs().map_err(|error| problem(&error))?);
    let mut parsed = Vec::with_capacity(ders.len());
    for der in &ders {
        // Pingora panics on what it can't parse.
        x509_parser::parse_x509_certificate(der).map_err(|error| problem(&error))?;
        parsed.push(WrappedX509::new(der.to_vec(), parse_x509));
    }
    Ok(parsed.into())
}

/// The certificates of a PEM file.
pub(super) fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", path.display());
    let mut ders = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))? {
        ders.push(certificate.map_err(|error| problem(&error))?);
    }
    if ders.is_empty() {
        return Err(problem(&"it holds no PEM certificate"));
    }
    Ok(ders)
}

/// The certificate to show to the registry.
pub(super) fn client_certificate(
    files: &config::ClientCertificate,
) -> Result<Arc<CertKey>, String> {
    let pair = files.load().map_err(|refusal| format!("client_certificate: {refusal}"))?;
    Ok(Arc::new(CertKey::new(pair.chain, pair.key)))
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `host:port`, the name of a breaker.
pub(super) fn authority(url: &Url) -> Arc<str> {
    format!("{}:{}", url.host_str().unwrap_or_default(), port(url)).into()
}

/// What `Host` says: the port only where it isn't the scheme's own.
pub(super) fn authority_header(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(super) fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

pub(super) fn unreachable(host: &Arc<str>, problem: &str) -> Failure {
    Failure::Unreachable { host: Arc::clone(host), problem: problem.to_owned() }
}

pub(super) fn timeout(host: &Arc<str>, waiting_for: &'static str) -> Failure {
    Failure::Timeout { host: Arc::clone(host), waiting_for }
}

/// What went wrong, without what was on the wire: Pingora's own words may quote whole heads.
pub(super) fn broken(
    host: &Arc<str>,
    error: &pingora::Error,
    waiting_for: &'static str,
) -> Failure {
    use pingora::ErrorType::{ConnectTimedout, ReadTimedout, TLSHandshakeTimedout, WriteTimedout};
    if let Some(failure) = dial_failure(error) {
        return failure.clone();
    }
    match error.etype() {
        ConnectTimedout | ReadTimedout | TLSHandshakeTimedout | WriteTimedout => {
            timeout(host, waiting_for)
        }
        kind => {
            tracing::debug!(%host, %error, "the connection failed");
            unreachable(host, kind.as_str())
        }
    }
}
