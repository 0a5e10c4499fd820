//! TLS 1.3 with one certificate for all servers and one cipher: what differs is the servers alone.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{
    CipherSuite, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore,
};

/// All that the client offers.
const CIPHER: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

/// The run's certificate (ECDSA P-256, for 127.0.0.1), and what trusts it.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    roots: Arc<RootCertStore>,
}

/// Opens connections that speak `protocol` over the one version and cipher, or fails.
#[derive(Clone)]
pub(crate) struct TlsClient {
    connector: TlsConnector,
    /// Its name in ALPN.
    protocol: &'static [u8],
}

// === impl Identity ===

impl Identity {
    /// Makes a key and its certificate, and leaves both in `folder` for the servers.
    pub(crate) fn generate(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])
            .context("making a certificate")?;
        let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
        fs::write(&certificate, made.cert.pem()).context("writing the certificate")?;
        fs::write(&key, made.signing_key.serialize_pem()).context("writing its key")?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).context("trusting the certificate")?;
        Ok(Self { certificate, key, roots: roots.into() })
    }

    pub(crate) fn client(&self, protocol: &'static [u8]) -> Result<TlsClient> {
        let mut provider: CryptoProvider = ring::default_provider();
        provider.cipher_suites.retain(|suite| suite.suite() == CIPHER);
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsClient { connector: Arc::new(config).into(), protocol })
    }
}

// === impl TlsClient ===

impl TlsClient {
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::from(address.ip());
        let stream = self.connector.connect(name, stream).await.context("TLS handshake")?;
        self.check(stream.get_ref().1)?;
        Ok(stream)
    }

    fn check(&self, session: &ClientConnection) -> Result<()> {
        let version = session.protocol_version();
        ensure!(version == Some(ProtocolVersion::TLSv1_3), "TLS version {version:?}");
        let cipher = session.negotiated_cipher_suite().map(|suite| suite.suite());
        ensure!(cipher == Some(CIPHER), "cipher {cipher:?}");
        let protocol = session.alpn_protocol().map(String::from_utf8_lossy);
        ensure!(session.alpn_protocol() == Some(self.protocol), "protocol {protocol:?}");
        Ok(())
    }
}
