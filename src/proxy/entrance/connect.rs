//! `CONNECT`, as a client sends it to its proxy (RFC 9110 §9.3.6).
//!
//! Anything else is told in a sentence what this port is for.

use std::time::Duration;

use http::{StatusCode, uri::Authority};
use pingora::protocols::l4::stream::Stream as Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Away;

/// The longest head that is read.
const LONGEST_HEAD: usize = 8 << 10;

/// Headers in it.
const MOST_HEADERS: usize = 64;

/// What a client that is refused may still send, and how long it may take to close.
const MOST_UNREAD: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);

/// Where a client wants to go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Lower-case, without a dot at its end; an IPv6 address without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// What a client gets instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct No {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

/// Reads the head of the request. Bytes that come after it are left on the socket.
pub(super) async fn read(socket: &mut Socket) -> Result<Result<Wanted, No>, Away> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let read = socket.read(&mut piece).await?;
        if read == 0 {
            return Err(match bytes.is_empty() {
                true => Away::Silent,
                false => Away::Refused("its head is cut short".to_owned()),
            });
        }
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        match parse(&bytes) {
            Ok(Some((wanted, length))) => {
                socket.rewind(bytes.get(length..).unwrap_or_default());
                return Ok(Ok(wanted));
            }
            Ok(None) => {}
            Err(no) => return Ok(Err(no)),
        }
    }
}

/// Tells the client that its tunnel is there.
pub(super) async fn accept(socket: &mut Socket) -> std::io::Result<()> {
    socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    socket.flush().await
}

/// Tells the client why there is none, and closes.
pub(super) async fn refuse(socket: &mut Socket, no: &No) -> std::io::Result<()> {
    let No { status, why } = no;
    let allow = match *status {
        StatusCode::METHOD_NOT_ALLOWED => "Allow: CONNECT\r\n",
        _ => "",
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\n{allow}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{why}\n",
        why.len() + 1
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.flush().await?;
    AsyncWriteExt::shutdown(socket).await?;
    // Closing while more comes would take the answer back.
    let mut piece = [0; 4096];
    for _ in 0..MOST_UNREAD / piece.len() {
        match tokio::time::timeout(LINGER, socket.read(&mut piece)).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
    Ok(())
}

/// What the head at the start of `bytes` asks for, and its length; `None` if it goes on.
fn parse(bytes: &[u8]) -> Result<Option<(Wanted, usize)>, No> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let too_long = || No::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too long");
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(too_long()),
        Err(_) => return Err(No::new(StatusCode::BAD_REQUEST, "this is no HTTP request")),
    };
    if request.method != Some("CONNECT") {
        let why = "this port is a proxy for HTTPS and takes CONNECT alone; pull through a mirror's port, or set HTTPS_PROXY to this one";
        return Err(No::new(StatusCode::METHOD_NOT_ALLOWED, why));
    }
    match wanted(request.path.unwrap_or_default()) {
        Some(wanted) => Ok(Some((wanted, length))),
        None => Err(No::new(StatusCode::BAD_REQUEST, "CONNECT wants a host and a port")),
    }
}

fn wanted(target: &str) -> Option<Wanted> {
    let authority: Authority = target.parse().ok().filter(|_| !target.contains('@'))?;
    let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.');
    let port = authority.port_u16().filter(|port| *port > 0)?;
    let host = Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty())?;
    Some(Wanted { host, port })
}

// === impl No ===

impl No {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asks(target: &str) -> Result<Option<(Wanted, usize)>, No> {
        parse(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
    }

    #[test]
    fn a_host_and_a_port_are_read() {
        for (target, host, port) in [
            ("registry-1.docker.io:443", "registry-1.docker.io", 443),
            ("GHCR.io.:443", "ghcr.io", 443),
            ("[2001:db8::1]:8443", "2001:db8::1", 8443),
            ("10.0.0.1:80", "10.0.0.1", 80),
        ] {
            let (wanted, _) = asks(target).unwrap().unwrap();
            assert_eq!(wanted, Wanted { host: host.to_owned(), port });
        }
        let head = b"CONNECT a.io:443 HTTP/1.0\r\n\r\n\x16\x03";
        assert_eq!(parse(head).unwrap().unwrap().1, head.len() - 2);
        assert_eq!(parse(&head[..20]), Ok(None));
    }

    #[test]
    fn absurd_targets_and_other_methods_are_refused() {
        for target in [
            "a.io",
            "a.io:",
            ":443",
            "a.io:0",
            "a.io:65536",
            "me:pw@a.io:443",
            "/",
            "*",
            "http://a.io/",
            "a b:443",
            "a.io:443/x",
        ] {
            let status = asks(target).unwrap_err().status;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{target}");
        }
        let get = parse(b"GET http://a.io/ HTTP/1.1\r\nHost: a.io\r\n\r\n").unwrap_err();
        assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(parse(b"\x16\x03\x01\x02\x00").unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_head_has_an_end() {
        let long = format!("CONNECT a.io:443 HTTP/1.1\r\nX: {}", "x".repeat(LONGEST_HEAD));
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        assert_eq!(parse(long.as_bytes()).unwrap_err().status, status);
        let whole = format!("{long}\r\n\r\n");
        assert_eq!(parse(whole.as_bytes()).unwrap_err().status, status);
        let many = format!("CONNECT a.io:443 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
        assert_eq!(parse(many.as_bytes()).unwrap_err().status, status);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>, target: String) {
            let _ = parse(&bytes);
            let _ = wanted(&target);
        }
    }
}
