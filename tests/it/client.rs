//! A raw HTTP/1.1 client: it hides nothing that a server may get wrong.
//!
//! A body is complete or cut, and says which; a client can read at its own pace, hang up midway,
//! and send bytes that are no request at all.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// No test waits longer than this for the next byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that one read returns.
const PIECE_BYTES: usize = 256 << 10;

/// A request to be sent, on a connection of its own.
#[derive(Debug, Clone)]
#[must_use = "it is sent by `send` or `open`"]
pub(crate) struct Request {
    at: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer, all of it or as far as it came.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// False if the connection ended before the body did.
    pub(crate) complete: bool,
    /// From the request to the end.
    pub(crate) took: Duration,
}

/// A connection on which requests are sent one after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: BufReader<TcpStream>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    connection: Connection,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    framing: Framing,
    started: Instant,
    /// Bytes of the body read so far.
    pub(crate) got: u64,
}

/// How much of the body is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Left(u64),
    /// Bytes left in this chunk.
    Chunk(u64),
    NextChunk,
    UntilClose,
    Done,
}

/// The connection ended, or broke, before the answer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut;

/// A GET of `path`.
pub(crate) fn get(at: SocketAddr, path: impl Into<String>) -> Request {
    request(at, "GET", path)
}

/// A HEAD of `path`.
pub(crate) fn head(at: SocketAddr, path: impl Into<String>) -> Request {
    request(at, "HEAD", path)
}

/// Any request.
pub(crate) fn request(at: SocketAddr, method: &str, path: impl Into<String>) -> Request {
    let (method, path, headers) = (method.to_owned(), path.into(), Vec::new());
    Request { at, method, path, headers, body: Vec::new() }
}

/// Sends these bytes, and answers all that comes back until the connection ends, which it must
/// within `patience`.
pub(crate) async fn raw(at: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut socket = TcpStream::connect(at).await.unwrap();
    // A server may answer and close before it has read everything.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let ended = timeout(patience, socket.read_to_end(&mut answer)).await;
    assert!(
        ended.is_ok(),
        "open after {patience:?}, having answered {:?}",
        String::from_utf8_lossy(&answer)
    );
    answer
}

// === impl Request ===

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body, and its length.
    #[allow(dead_code, reason = "the torture tests push nothing")]
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", length)
    }

    /// The whole answer.
    pub(crate) async fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.path);
        match self.try_send().await {
            Ok(reply) => reply,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// The whole answer, or why there is none.
    pub(crate) async fn try_send(self) -> io::Result<Reply> {
        Ok(self.try_open().await?.finish().await)
    }

    /// The answer's head.
    pub(crate) async fn open(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        match self.try_open().await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// The same, with room for few bytes between the server and this client.
    pub(crate) async fn open_narrow(self) -> Answer {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let socket = socket.connect(self.at).await.unwrap();
        let connection = Connection { socket: BufReader::new(socket) };
        connection.exchange(&self).await.unwrap()
    }

    async fn try_open(self) -> io::Result<Answer> {
        let connection = Connection::open(self.at).await?;
        connection.exchange(&self).await
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("Host: {}\r\n", self.at));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.into_bytes(), self.body.clone()].concat()
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(at: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(at).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket: BufReader::with_capacity(PIECE_BYTES, socket) })
    }

    /// Sends a request on this connection and reads the answer's head.
    pub(crate) async fn exchange(mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.to_bytes()).await?;
        self.answer(request.method == "HEAD").await
    }

    /// Whether the server has closed it, or does so within `patience`.
    pub(crate) async fn is_closed(&mut self, patience: Duration) -> bool {
        match timeout(patience, self.socket.read(&mut [0; 1024])).await {
            Ok(read) => !matches!(read, Ok(1..)),
            Err(_) => false,
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.get_mut().write_all(bytes).await
    }

    /// The head of the next answer on this connection.
    pub(crate) async fn answer(mut self, to_head: bool) -> io::Result<Answer> {
        let started = Instant::now();
        let head = timeout(PATIENCE, self.head())
            .await
            .map_err(|_| io::Error::other("no answer in a minute"))??;
        let mut lines = head.split("\r\n");
        let status: u16 = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {head}")))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let framing = framing(to_head, status, &headers);
        Ok(Answer { connection: self, status, headers, framing, started, got: 0 })
    }

    async fn head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.socket.read_u8().await?);
        }
        head.truncate(head.len() - 4);
        String::from_utf8(head).map_err(io::Error::other)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.socket.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

fn framing(to_head: bool, status: u16, headers: &[(String, String)]) -> Framing {
    let header = |name: &str| headers.iter().find(|(key, _)| key == name);
    if to_head || status == 304 || status == 204 {
        return Framing::Done;
    }
    if header("transfer-encoding").is_some_and(|(_, value)| value == "chunked") {
        return Framing::NextChunk;
    }
    match header("content-length") {
        Some((_, length)) => Framing::Left(length.parse().unwrap()),
        None => Framing::UntilClose,
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Cut> {
        loop {
            let left = match self.framing {
                Framing::Done | Framing::Left(0) => return Ok(None),
                Framing::Left(left) | Framing::Chunk(left) => left,
                Framing::UntilClose => u64::MAX,
                Framing::NextChunk => {
                    self.framing = self.next_chunk().await?;
                    continue;
                }
            };
            let limit = limit.min(PIECE_BYTES) as u64;
            let mut piece = vec![0; left.min(limit) as usize];
            let read = timeout(PATIENCE, self.connection.socket.read(&mut piece)).await;
            let read = read.expect("a minute without a byte of the body");
            return match read {
                Ok(0) if self.framing == Framing::UntilClose => {
                    self.framing = Framing::Done;
                    Ok(None)
                }
                Ok(0) | Err(_) => Err(Cut),
                Ok(read) => {
                    piece.truncate(read);
                    self.advance(read as u64).await?;
                    Ok(Some(piece))
                }
            };
        }
    }

    async fn advance(&mut self, read: u64) -> Result<(), Cut> {
        self.got += read;
        self.framing = match self.framing {
            Framing::Left(left) => Framing::Left(left - read),
            Framing::Chunk(left) if left == read => {
                self.line().await?;
                Framing::NextChunk
            }
            Framing::Chunk(left) => Framing::Chunk(left - read),
            other => other,
        };
        Ok(())
    }

    async fn next_chunk(&mut self) -> Result<Framing, Cut> {
        let line = self.line().await?;
        match u64::from_str_radix(line.split(';').next().unwrap(), 16) {
            Ok(0) => {
                self.line().await?;
                Ok(Framing::Done)
            }
            Ok(size) => Ok(Framing::Chunk(size)),
            Err(_) => Err(Cut),
        }
    }

    async fn line(&mut self) -> Result<String, Cut> {
        let line = timeout(PATIENCE, self.connection.line()).await;
        line.expect("a minute without a byte of the body").map_err(|_| Cut)
    }

    /// Reads until `count` bytes of the body have come, or it ends.
    pub(crate) async fn read(&mut self, count: u64) -> Result<Vec<u8>, Cut> {
        let mut body = Vec::new();
        let until = self.got + count;
        while self.got < until {
            let Some(piece) = self.next((until - self.got) as usize).await? else {
                break;
            };
            body.extend(piece);
        }
        Ok(body)
    }

    /// Reads the rest at about `rate` bytes a second.
    pub(crate) async fn read_slowly(&mut self, rate: u64) -> Result<Vec<u8>, Cut> {
        const TICKS: u64 = 10;
        let mut body = Vec::new();
        loop {
            let piece = self.read(rate / TICKS).await?;
            if piece.is_empty() {
                return Ok(body);
            }
            body.extend(piece);
            sleep(Duration::from_secs(1) / TICKS as u32).await;
        }
    }

    /// The rest of the body.
    pub(crate) async fn finish(self) -> Reply {
        self.finish_and_keep().await.0
    }

    /// The rest of the body, and the connection for the next request.
    pub(crate) async fn finish_and_keep(mut self) -> (Reply, Connection) {
        let mut body = Vec::new();
        let complete = loop {
            match self.next(PIECE_BYTES).await {
                Ok(Some(piece)) => body.extend(piece),
                Ok(None) => break true,
                Err(Cut) => break false,
            }
        };
        let reply = Reply {
            status: self.status,
            headers: self.headers,
            body,
            complete,
            took: self.started.elapsed(),
        };
        (reply, self.connection)
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// `Content-Length`.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// `Cache-Status`, empty if there is none.
    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(json) => json,
            Err(error) => panic!("{error}: {} {:?} {}", self.status, self.headers, self.text()),
        }
    }

    /// The code of the first error; panics if the body is not the spec's error document.
    pub(crate) fn error_code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let json = self.json();
        let error = &json["errors"][0];
        assert!(!error["message"].as_str().unwrap().is_empty(), "{json}");
        error["code"].as_str().unwrap().to_owned()
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut headers = headers.iter();
    headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
