//! TLS as clients and strangers speak it: authorities, certificates in files, connections.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::ring, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who signs certificates.
pub(crate) struct Signer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A client's way to speak TLS.
#[derive(Clone)]
pub(crate) struct Speaker {
    roots: RootCertStore,
    shown: Option<Pair>,
    protocols: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    says_name: bool,
}

// === impl Signer ===

impl Signer {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self(issuer.unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server or a client of this name.
    pub(crate) fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

// === impl Pair ===

impl Pair {
    /// Puts both into `folder`, the certificate first.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = paths(folder, name);
        replace(&certificate, &self.certificate);
        replace(&key, &self.key);
        (certificate, key)
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }

    /// The certificate as the other end sees it.
    pub(crate) fn leaf(&self) -> Vec<u8> {
        self.der().0[0].to_vec()
    }

    /// A server that shows it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let (chain, key) = self.der();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Where `write` puts them.
pub(crate) fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")))
}

/// Replaces a file as careful programs do: at once.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

// === impl Speaker ===

impl Speaker {
    /// A client that trusts these authorities, in PEM.
    pub(crate) fn trusting(authorities: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        for pem in authorities {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.unwrap()).unwrap();
            }
        }
        let versions = vec![&version::TLS13, &version::TLS12];
        let protocols = vec![b"http/1.1".to_vec()];
        Self { roots, shown: None, protocols, versions, says_name: true }
    }

    /// It shows this certificate.
    pub(crate) fn showing(mut self, pair: &Pair) -> Self {
        self.shown = Some(pair.clone());
        self
    }

    pub(crate) fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub(crate) fn protocol(mut self, protocol: &[u8]) -> Self {
        self.protocols = vec![protocol.to_vec()];
        self
    }

    /// It does not say whom it wants.
    pub(crate) fn nameless(mut self) -> Self {
        self.says_name = false;
        self
    }

    /// A handshake on a connection that is there.
    pub(crate) async fn over<S>(&self, stream: S, name: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let (chain, key) = pair.der();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.protocols.clone();
        config.enable_sni = self.says_name;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(PATIENCE, shaken).await.expect("a handshake ends")
    }

    /// A connection and a handshake on it.
    pub(crate) async fn dial(
        &self,
        at: SocketAddr,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(at).await?, name).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn get(&self, at: SocketAddr, name: &str, path: &str) -> io::Result<Said> {
        let mut stream = self.dial(at, name).await?;
        get(&mut stream, name, path).await
    }
}

/// An answer that ended with its connection.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// One request, which is the last on this connection.
pub(crate) async fn get<S>(stream: &mut S, host: &str, path: &str) -> io::Result<Said>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/vnd.oci.image.index.v1+json, \
         application/vnd.oci.image.manifest.v1+json, */*\r\nConnection: close\r\n\r\n"
    );
    say(stream, request.as_bytes()).await
}

/// Sends this and reads until the other end closes.
pub(crate) async fn say<S>(stream: &mut S, bytes: &[u8]) -> io::Result<Said>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        read?;
        return Err(io::Error::other(format!("no answer: {:?}", String::from_utf8_lossy(&answer))));
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Said { status, head, body: answer.split_off(end + 4) })
}

/// The certificate that the other end has shown.
pub(crate) fn shown<S>(stream: &TlsStream<S>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
