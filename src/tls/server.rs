//! The server side of TLS with a certificate from files, and with the clients' authorities if they
//! must show one too.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{files, kept::Kept, protocols};
use crate::config::Tls;

/// TLS 1.2 and 1.3, HTTP/2 and 1.1.
pub type Server = Kept<ServerConfig>;

/// Whether a client shows its certificate, where authorities are named.
#[derive(Debug, Clone, Copy)]
enum Certificates {
    Must,
    May,
}

impl Server {
    /// Reads the files that `tls` names, which is said again by the error.
    pub fn of(tls: &Tls) -> Result<Self, String> {
        Self::with(tls, Certificates::Must)
    }

    /// The same for HTTP/1.1 alone; a client may come without a certificate, and whoever serves it
    /// looks whether it has shown one.
    pub fn asking(tls: &Tls) -> Result<Self, String> {
        Self::with(tls, Certificates::May)
    }

    fn with(tls: &Tls, certificates: Certificates) -> Result<Self, String> {
        let files = [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        let tls = tls.clone();
        Self::open("certificate", files, move || read(&tls, certificates))
    }
}

fn read(tls: &Tls, certificates: Certificates) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let certified =
        CertifiedKey::from_der(files::chain(&tls.certificate)?, files::key(&tls.key)?, &provider)
            .map_err(|error| {
            let (key, certificate) = (tls.key.display(), tls.certificate.display());
            format!("{key} can't be used with {certificate} ({error}); name the key that the certificate was made for")
        })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(files::roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match certificates {
                Certificates::Must => verifier,
                Certificates::May => verifier.allow_unauthenticated(),
            };
            let verifier =
                verifier.build().map_err(|error| files::told(path, &error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = match certificates {
        Certificates::Must => protocols(),
        Certificates::May => vec![b"http/1.1".to_vec()],
    };
    if tls.client_ca.is_some() {
        // A resumed session would not show its certificate again.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_that_do_not_fit_are_refused_with_name_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(["roadstead".to_owned()]).unwrap();
            fs::write(path(&format!("{name}.crt")), made.cert.pem()).unwrap();
            fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        fs::write(path("half"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
        let open = |certificate: &str, key: &str, client_ca: Option<&str>| {
            let (certificate, key) = (path(certificate), path(key));
            let tls = Tls { certificate, key, client_ca: client_ca.map(path) };
            Server::of(&tls).map(|_| ()).unwrap_err()
        };
        assert!(open("a.crt", "b.key", None).contains("b.key can't be used with "));
        assert!(
            open("half", "a.key", None)
                .ends_with("half is not valid PEM; write the whole certificate")
        );
        assert!(open("a.key", "a.key", None).contains("holds no certificate"));
        assert!(open("a.crt", "a.crt", None).contains("holds no private key"));
        assert!(open("a.crt", "a.key", Some("a.key")).contains("a.key holds no certificate"));
        let tls =
            Tls { certificate: path("a.crt"), key: path("a.key"), client_ca: Some(path("b.crt")) };
        assert_eq!(Server::of(&tls).unwrap().get().alpn_protocols.len(), 2);
    }

    #[test]
    fn a_client_shows_its_certificate_on_each_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(["roadstead".to_owned()]).unwrap();
        fs::write(path("crt"), made.cert.pem()).unwrap();
        fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        for (client_ca, resumes) in [(None, true), (Some(path("crt")), false)] {
            let tls = Tls { certificate: path("crt"), key: path("key"), client_ca };
            let config = Server::of(&tls).unwrap().get();
            assert_eq!(config.send_tls13_tickets > 0, resumes);
            assert_eq!(config.session_storage.can_cache(), resumes);
        }
    }
}
