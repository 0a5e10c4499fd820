//! The certificate with which Roadstead shows a registry who it is.
//!
//! Both files are read with the configuration, so that a key that can't be used, or belongs to
//! another certificate, shows at start with its remedy; Pingora would panic at the first connection.

use std::path::{Path, PathBuf};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use tokio_rustls::rustls::{crypto::ring, sign::CertifiedKey};

use super::base_url::{BaseUrl, Scheme};
use super::files::unopenable;
use super::problem::{Refusal, Scope, quoted};
use super::raw::RawTls;

/// Files that hold a certificate and its key, which fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM: the certificate, and the chain up to the authority that the registry knows.
    pub certificate: PathBuf,
    /// PEM: its private key, not encrypted.
    pub key: PathBuf,
}

/// What the files hold, as DER.
pub struct KeyPair {
    /// The certificate first; each can be parsed.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: Vec<u8>,
}

// === impl ClientCertificate ===

impl ClientCertificate {
    pub(super) fn read(scope: &Scope<'_>, raw: RawTls, url: &BaseUrl) -> Option<Self> {
        if url.scheme == Scheme::Http {
            let remedy = format!("use https://{} as url, or remove it", url.host);
            scope.refuse("certificates are shown over TLS alone", remedy);
        }
        let certificate = scope.at("certificate").required_file(raw.certificate);
        let key = scope.at("key").required_file(raw.key);
        let found = Self { certificate: certificate?, key: key? };
        scope.check(found.load())?;
        Some(found)
    }

    pub(super) fn to_raw(&self) -> RawTls {
        RawTls {
            certificate: Some(self.certificate.display().to_string()),
            key: Some(self.key.display().to_string()),
        }
    }

    /// Reads the files again.
    pub fn load(&self) -> Result<KeyPair, Refusal> {
        let chain = chain(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            let remedy = "write a PEM key without a passphrase (openssl pkey -in KEY -out PLAIN)";
            not_pem(&self.key, "private key", error, remedy)
        })?;
        let key = key.secret_der().to_vec();
        // Pingora is given the bare bytes and guesses their kind as is done here.
        let guessed = PrivateKeyDer::try_from(key.as_slice()).map_err(|_| self.bad_key())?;
        let certificates = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        CertifiedKey::from_der(certificates, guessed.clone_key(), &ring::default_provider())
            .map_err(|_| self.bad_key())?;
        Ok(KeyPair { chain, key })
    }

    fn bad_key(&self) -> Refusal {
        let (key, certificate) = (shown(&self.key), shown(&self.certificate));
        Refusal::new(
            format!("{key} can't be used with {certificate}"),
            "name the key that the certificate was made for, RSA, ECDSA or Ed25519",
        )
    }
}

fn chain(path: &Path) -> Result<Vec<Vec<u8>>, Refusal> {
    let remedy = "write the certificate in PEM, and its chain below it";
    let problem = |error| not_pem(path, "certificate", error, remedy);
    let mut chain = Vec::new();
    for der in CertificateDer::pem_file_iter(path).map_err(problem)? {
        let der = der.map_err(problem)?.to_vec();
        x509_parser::parse_x509_certificate(&der).map_err(|_| {
            Refusal::new(format!("{} holds a broken certificate", shown(path)), remedy)
        })?;
        chain.push(der);
    }
    if chain.is_empty() {
        return Err(problem(pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn not_pem(path: &Path, what: &str, error: pem::Error, remedy: &str) -> Refusal {
    match error {
        pem::Error::Io(error) => unopenable(Some(path), &error),
        pem::Error::NoItemsFound => {
            Refusal::new(format!("{} holds no {what}", shown(path)), remedy)
        }
        // Its own words may quote the file.
        _ => Refusal::new(format!("{} is not valid PEM", shown(path)), remedy),
    }
}

fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}

// === impl KeyPair ===

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused, scratch_file};

    fn yaml(certificate: &str, key: &str) -> String {
        format!(
            "upstreams: [{{ name: docker.io, client_certificate: {{ certificate: {certificate}, key: {key} }} }}]"
        )
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["roadstead".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_read_and_printed() {
        let (certificate, key) = pair();
        let ((_one, certificate), (_two, key)) = (scratch_file(&certificate), scratch_file(&key));
        let upstream = only_upstream(&yaml(&certificate, &key));
        let found = upstream.client_certificate.unwrap();
        assert_eq!(found.load().unwrap().chain.len(), 1);
        assert_eq!((found.certificate, found.key), (certificate.into(), key.into()));
    }

    #[test]
    fn what_can_not_be_shown_is_refused_with_file_and_remedy() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let sealed =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (certificate, key, bad, what) in [
            (certificate.as_str(), other.as_str(), "key", "can't be used with"),
            (&certificate, nonsense, "key", "can't be used with"),
            (
                &certificate,
                sealed,
                "key",
                "holds no private key; write a PEM key without a passphrase",
            ),
            (&certificate, &certificate, "key", "holds no private key; write"),
            (&key, &key, "certificate", "holds no certificate; write"),
            (broken, &key, "certificate", "holds a broken certificate; write"),
            ("-----BEGIN CERTIFICATE-----\n", &key, "certificate", "is not valid PEM; write"),
        ] {
            let ((_one, certificate), (_two, key)) = (scratch_file(certificate), scratch_file(key));
            let file = if bad == "key" { &key } else { &certificate };
            let line = refused(&yaml(&certificate, &key));
            let start = format!("test.yaml: upstreams[0].client_certificate: `{file}` {what}");
            assert!(line.starts_with(&start), "{line}\n{start}");
        }
        let line = refused(&yaml("/nowhere/a", "/nowhere/b"));
        assert!(
            line.contains("client_certificate.certificate: `/nowhere/a` can't be opened"),
            "{line}"
        );
        assert!(line.contains("client_certificate.key: `/nowhere/b` can't be opened"), "{line}");
    }

    #[test]
    fn it_is_for_tls_alone() {
        let (certificate, key) = pair();
        let ((_one, certificate), (_two, key)) = (scratch_file(&certificate), scratch_file(&key));
        let plain = "name: a, url: \"http://a.io:5000\"";
        let line = refused(&yaml(&certificate, &key).replace("name: docker.io", plain));
        assert!(line.ends_with("client_certificate: certificates are shown over TLS alone; use https://a.io as url, or remove it"), "{line}");
    }
}
