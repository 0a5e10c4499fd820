//! TLS in front of a plain server, with an authority of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Who signs the certificates of one test, and its files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// What a server makes of its clients' certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Anonymous,
    /// It asks, and takes those without.
    MayShow,
    MustShow,
}

/// A TLS server that hands everything to a plain one.
#[derive(Debug, Clone)]
pub(crate) struct TlsFront {
    pub(crate) at: SocketAddr,
    connections: Arc<AtomicUsize>,
    shown: Arc<AtomicUsize>,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// `ca_file`.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Files with a certificate for `name` and its key.
    pub(crate) fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(name);
        let write = |file: &str, text: String| {
            let path = Path::join(self.folder.path(), file);
            fs::write(&path, text).unwrap();
            path
        };
        (write("client.crt", certificate.pem()), write("client.key", key.serialize_pem()))
    }

    /// What a server named `name` needs.
    pub(crate) fn acceptor(&self, name: &str, clients: Clients) -> TlsAcceptor {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if clients == Clients::Anonymous {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match clients {
                Clients::MustShow => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().unwrap())
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

// === impl TlsFront ===

impl TlsFront {
    /// In front of `plain`, as `name`; it ends with the test's runtime.
    pub(crate) async fn start(
        authority: &Authority,
        name: &str,
        clients: Clients,
        plain: SocketAddr,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self {
            at: listener.local_addr().unwrap(),
            connections: Arc::default(),
            shown: Arc::default(),
        };
        let (acceptor, own) = (authority.acceptor(name, clients), front.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, own) = (acceptor.clone(), own.clone());
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    own.connections.fetch_add(1, Ordering::Relaxed);
                    if tls.get_ref().1.peer_certificates().is_some() {
                        own.shown.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut plain = TcpStream::connect(plain).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        front
    }

    /// Handshakes that succeeded.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Those with a client's certificate.
    pub(crate) fn shown(&self) -> usize {
        self.shown.load(Ordering::Relaxed)
    }
}
