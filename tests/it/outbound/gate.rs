//! A proxy that does as it is told: tunnels to where the test says, refuses, or says nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What it does with each request.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// Connects to this address, whatever the name.
    Tunnel(SocketAddr),
    /// Answers with this head, which ends in an empty line.
    Say(&'static str),
    Hang,
}

/// The proxy; it ends with the test's runtime.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) at: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

// === impl Gate ===

impl Gate {
    pub(super) async fn start(then: Then, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Self { at: listener.local_addr().unwrap(), heads: Arc::default() };
        let own = gate.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (own, then, tls) = (own.clone(), then.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => own.serve(tcp, then).await,
                        Some(tls) => own.serve(tls.accept(tcp).await.unwrap(), then).await,
                    }
                });
            }
        });
        gate
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut client: S, then: Then) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = client.read_u8().await else { return };
            head.push(byte);
        }
        self.heads.lock().unwrap().push(String::from_utf8(head).unwrap());
        match then {
            Then::Hang => std::future::pending().await,
            Then::Say(answer) => {
                let _ = client.write_all(answer.as_bytes()).await;
                let _ = client.shutdown().await;
            }
            Then::Tunnel(to) => {
                let mut target = TcpStream::connect(to).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut target).await;
            }
        }
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}
