//! A TLS client's first words, read without answering: which host it wants.
//!
//! The bytes are kept, so that the handshake can be made here or by whoever the host really is.

use pingora::protocols::l4::stream::Stream as Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::server::Acceptor;

use super::Away;

/// The most that a client may say first; with keys of today it says two kilobytes.
const LONGEST: usize = 64 << 10;

/// TLS alert 112, fatal: nobody of that name is here (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// TLS records of handshakes, and what stands before their bytes.
const HANDSHAKE: u8 = 22;
const RECORD_HEADER: usize = 5;

/// In a ClientHello, after its type, length and version (RFC 8446 §4.1.2).
const RANDOM_AT: usize = 6;

/// What tells one ClientHello from all others.
pub(super) type Random = [u8; 32];

/// What a client said first.
#[derive(Debug)]
pub(super) struct Hello {
    /// All that has come.
    pub(super) bytes: Vec<u8>,
    /// The server's name, in lower case, if it said one.
    pub(super) host: Option<String>,
}

// === impl Hello ===

impl Hello {
    /// Its random; `None` if it is cut short.
    pub(super) fn random(&self) -> Option<Random> {
        let mut records = self.bytes.as_slice();
        let mut said = Vec::new();
        // It may be spread over records.
        while said.len() < RANDOM_AT + size_of::<Random>() {
            let (&[kind, _, _, high, low], rest) = records.split_first_chunk::<RECORD_HEADER>()?;
            let (record, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            if kind == HANDSHAKE {
                said.extend_from_slice(record);
            }
            records = rest;
        }
        said.get(RANDOM_AT..)?.first_chunk().copied()
    }
}

/// Reads a whole ClientHello.
pub(super) async fn read(socket: &mut Socket) -> Result<Hello, Away> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            return Err(match bytes.is_empty() {
                true => Away::Silent,
                false => Away::Tls("the ClientHello is cut short".to_owned()),
            });
        }
        let mut rest = piece.get(..read).unwrap_or_default();
        bytes.extend_from_slice(rest);
        if bytes.len() > LONGEST {
            return Err(Away::Tls("the ClientHello is too long".to_owned()));
        }
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let host = hello.server_name().map(|name| name.to_ascii_lowercase());
                    return Ok(Hello { bytes, host });
                }
                Err((error, mut alert)) => {
                    let mut answer = Vec::new();
                    let _ = alert.write_all(&mut answer);
                    // The client has made its mistake; whether it hears of it is its own affair.
                    let _ = say(socket, &answer).await;
                    return Err(Away::Tls(error.to_string()));
                }
            }
        }
    }
}

/// Ends the handshake: nobody of that name is here.
pub(super) async fn refuse(socket: &mut Socket) {
    // The client may be gone, which is what is wanted.
    let _ = say(socket, &UNRECOGNIZED_NAME).await;
}

async fn say(socket: &mut Socket, bytes: &[u8]) -> std::io::Result<()> {
    socket.write_all(bytes).await?;
    socket.flush().await?;
    AsyncWriteExt::shutdown(socket).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(bytes: Vec<u8>) -> Option<Random> {
        Hello { bytes, host: None }.random()
    }

    /// Spread over records of so many bytes.
    fn in_records(said: &[u8], bytes: usize) -> Vec<u8> {
        let record = |piece: &[u8]| {
            [&[HANDSHAKE, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat()
        };
        said.chunks(bytes).flat_map(record).collect()
    }

    #[test]
    fn the_random_is_found_however_the_hello_is_cut_in_records() {
        let own: Random = std::array::from_fn(|at| at as u8);
        let said = [&[1, 0, 0, 200, 3, 3][..], &own, &[0; 80]].concat();
        for bytes in [1, 5, 6, 7, 37, 38, 39, 200] {
            assert_eq!(random(in_records(&said, bytes)), Some(own), "{bytes}");
        }
        assert_eq!(random(in_records(&said[..37], 200)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            let _ = random(bytes);
        }
    }
}
