//! The load generator: HTTP/1.1 on a bare socket or a TLS session, the same for every server.
//!
//! Requests are built once and answers parsed as little as correctness allows, so that the client, which shares the
//! machine with the servers, takes as little of it as it can. Every answer is checked: 200, and the right length.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use crate::content::Object;
use crate::stream::{Endpoint, Stream};

/// A reader's buffer for blobs: large reads, yet small enough to stay in the CPU's cache.
pub(crate) const BLOB_BUFFER_BYTES: usize = 512 << 10;
/// Enough for a head and a small manifest in one read.
pub(crate) const MANIFEST_BUFFER_BYTES: usize = 16 << 10;
/// No measured exchange of a working server comes near this: past it, it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(300);

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";

/// The last number that a request was sent with.
static NUMBER: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

/// A request, ready to be sent many times.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: Method,
    path: String,
    /// Its head.
    bytes: Vec<u8>,
    /// Whether it is sent with a number each time, and so never comes again.
    is_numbered: bool,
    /// The only length accepted; `None` takes any.
    expected_bytes: Option<u64>,
}

/// A right answer's timing, counted from the moment before the request was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Until the first byte of the body.
    pub(crate) first_byte: Duration,
    /// Until the last.
    pub(crate) total: Duration,
}

/// One keep-alive connection; opened again where the server announces that it closes.
pub(crate) struct Connection {
    endpoint: Endpoint,
    stream: Stream,
    buffer: Vec<u8>,
    closing: bool,
}

/// What the client needs to know of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    content_length: Option<u64>,
    closing: bool,
}

// === impl Request ===

impl Request {
    pub(crate) fn get(address: SocketAddr, path: &str, expected_bytes: Option<u64>) -> Self {
        Self::new(Method::Get, address, path, expected_bytes)
    }

    pub(crate) fn head(address: SocketAddr, object: &Object) -> Self {
        Self::new(Method::Head, address, &object.path, Some(object.size_bytes))
    }

    fn new(method: Method, address: SocketAddr, path: &str, expected_bytes: Option<u64>) -> Self {
        let text = format!(
            "{} {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: roadstead-side-by-side\r\nAccept: {ACCEPT}\r\n\r\n",
            method.name()
        );
        let (path, bytes) = (path.to_owned(), text.into_bytes());
        Self { method, path, bytes, is_numbered: false, expected_bytes }
    }

    pub(crate) fn object(address: SocketAddr, object: &Object) -> Self {
        Self::get(address, &object.path, Some(object.size_bytes))
    }

    /// The same, but with a head that no server has seen, whenever it is sent.
    pub(crate) fn numbered(self) -> Self {
        Self { is_numbered: true, ..self }
    }

    fn to_send(&self) -> Cow<'_, [u8]> {
        if !self.is_numbered {
            return Cow::Borrowed(&self.bytes);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.clone();
        // In front of the empty line.
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(format!("X-Request: {number:010}\r\n\r\n").as_bytes());
        Cow::Owned(bytes)
    }
}

// === impl Method ===

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(endpoint: impl Into<Endpoint>, buffer_bytes: usize) -> Result<Self> {
        let endpoint = endpoint.into();
        let stream = endpoint.connect().await?;
        Ok(Self { endpoint, stream, buffer: vec![0; buffer_bytes], closing: false })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Whether the server keeps the connection open, and is silent on it.
    pub(crate) fn is_idle(&self) -> bool {
        !self.closing && self.stream.is_quiet()
    }

    /// Sends the request and answers the head as it came, and the body.
    pub(crate) async fn capture(&mut self, request: &Request) -> Result<(Vec<u8>, Vec<u8>)> {
        self.stream.write_all(&request.to_send()).await.context("sending the request")?;
        let (head, body_start, mut filled) = self.read_head().await?;
        let length = head.checked_body_bytes(request, &[])?;
        let end = body_start + usize::try_from(length)?;
        while filled < end {
            let free = self.buffer.get_mut(filled..end).context("an answer too long")?;
            let count = self.stream.read(free).await.context("reading the body")?;
            ensure!(count > 0, "the body ended early");
            filled += count;
        }
        let part = |range| self.buffer.get(range).map(<[u8]>::to_vec).unwrap_or_default();
        Ok((part(0..body_start), part(body_start..end)))
    }

    /// Sends the request and gives the whole body to `sink`, piece by piece.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        sink: impl FnMut(&[u8]),
    ) -> Result<Timing> {
        self.try_exchange(request, sink).await.with_context(|| {
            format!("{} {} at {}", request.method.name(), request.path, self.endpoint.address)
        })
    }

    async fn try_exchange(
        &mut self,
        request: &Request,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Timing> {
        if self.closing {
            self.stream = self.endpoint.connect().await?;
        }
        // Until the answer is complete: a failed exchange leaves no connection that can be used.
        self.closing = true;
        let started = Instant::now();
        self.stream.write_all(&request.to_send()).await.context("sending the request")?;
        let (head, body_start, filled) = self.read_head().await?;
        let length = head
            .checked_body_bytes(request, self.buffer.get(body_start..filled).unwrap_or_default())?;

        let mut piece = self.buffer.get(body_start..filled).unwrap_or_default();
        let mut received = 0;
        let mut first_byte = None;
        loop {
            received += piece.len() as u64;
            if !piece.is_empty() {
                first_byte.get_or_insert_with(|| started.elapsed());
                sink(piece);
            }
            if received >= length {
                break;
            }
            let count = self.stream.read(&mut self.buffer).await.context("reading the body")?;
            ensure!(count > 0, "the body ended after {received} of {length} bytes");
            piece = self.buffer.get(..count).unwrap_or_default();
        }
        ensure!(received == length, "{received} bytes of body where {length} were due");
        self.closing = head.closing;
        let total = started.elapsed();
        Ok(Timing { first_byte: first_byte.unwrap_or(total), total })
    }

    /// Answers the head, where the body starts in the buffer, and how far the buffer is filled.
    async fn read_head(&mut self) -> Result<(Head, usize, usize)> {
        let mut filled = 0;
        loop {
            let free = self
                .buffer
                .get_mut(filled..)
                .filter(|free| !free.is_empty())
                .context("a head too long")?;
            let count = self.stream.read(free).await.context("reading the head")?;
            ensure!(count > 0, "the connection closed without an answer");
            filled += count;
            let seen = self.buffer.get(..filled).unwrap_or_default();
            if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = Head::parse(seen.get(..end).unwrap_or_default())
                    .context("a head that makes no sense")?;
                return Ok((head, end + 4, filled));
            }
        }
    }
}

// === impl Head ===

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut head = Self { status, content_length: None, closing: false };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                head.content_length = Some(value.trim().parse().ok()?);
            } else if name.eq_ignore_ascii_case("connection") {
                head.closing = value.trim().eq_ignore_ascii_case("close");
            }
        }
        Some(head)
    }

    /// The body's length, if this is the answer that the request deserves.
    fn checked_body_bytes(&self, request: &Request, body_start: &[u8]) -> Result<u64> {
        if self.status != 200 {
            let shown = body_start.get(..body_start.len().min(300)).unwrap_or_default();
            bail!("status {}: {}", self.status, String::from_utf8_lossy(shown));
        }
        let length = self.content_length.context("an answer without Content-Length")?;
        let expected = request.expected_bytes.unwrap_or(length);
        ensure!(length == expected, "Content-Length {length} instead of {expected}");
        Ok(if request.method == Method::Head { 0 } else { length })
    }
}

/// One GET on a connection of its own.
pub(crate) async fn get_once(address: SocketAddr, object: &Object) -> Result<Timing> {
    let mut connection = Connection::open(address, BLOB_BUFFER_BYTES).await?;
    within_reason(connection.exchange(&Request::object(address, object), |_| ())).await
}

/// What the clients answered, as they came to their ends; a failure ends those that still run.
pub(crate) async fn join_all<T: 'static>(mut clients: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut answers = Vec::with_capacity(clients.len());
    while let Some(answer) = clients.join_next().await {
        answers.push(answer.context("a client panicked")??);
    }
    Ok(answers)
}

/// A server that hangs is a failed step, not a bench that never ends.
pub(crate) async fn within_reason<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(HANG, work)
        .await
        .with_context(|| format!("not done within {} s", HANG.as_secs()))?
}
