//! The origin where nginx is missing: the content's files over plain HTTP/1.1, GET and HEAD, whole files only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::content::{Content, Object};

const HEAD_LIMIT_BYTES: u64 = 64 << 10;
const PIECE_BYTES: usize = 1 << 20;

/// Aborts its listener, and with it every connection, when dropped.
pub(crate) struct BuiltinOrigin {
    address: SocketAddr,
    shared: Arc<Shared>,
    _listener: JoinSet<()>,
}

struct Shared {
    objects: HashMap<String, Object>,
    /// One line per request, `METHOD PATH STATUS`, as nginx writes it.
    log: Mutex<String>,
}

// === impl BuiltinOrigin ===

impl BuiltinOrigin {
    pub(crate) async fn start(content: &Content) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the origin")?;
        let address = listener.local_addr()?;
        let objects =
            content.objects.iter().map(|object| (object.path.clone(), object.clone())).collect();
        let shared = Arc::new(Shared { objects, log: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, _listener: tasks })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn log(&self) -> String {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        // A client that leaves ends its connection with an error, which is nobody's concern.
        connections.spawn(async move { drop(serve(stream, &shared).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some((method, path)) = read_head(&mut stream).await? {
        shared.answer(stream.get_mut(), &method, &path).await?;
    }
    Ok(())
}

/// The request's method and path; `None` at the end of the connection.
async fn read_head(stream: &mut BufReader<TcpStream>) -> Result<Option<(String, String)>> {
    let mut lines = stream.take(HEAD_LIMIT_BYTES);
    let mut first = String::new();
    if lines.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        ensure!(lines.read_line(&mut line).await? > 0, "a head without an end");
    }
    let mut words = first.split_ascii_whitespace();
    let (method, target) =
        words.next().zip(words.next()).context("a request line without a target")?;
    // containerd's way of naming the registry, `?ns=`, is no part of the path.
    let path = target.split('?').next().unwrap_or(target);
    Ok(Some((method.to_owned(), path.to_owned())))
}

// === impl Shared ===

impl Shared {
    async fn answer(&self, stream: &mut TcpStream, method: &str, path: &str) -> Result<()> {
        let object = self.objects.get(path);
        let status = if object.is_some() || path == "/v2/" { 200 } else { 404 };
        // Before the answer, so that whoever has the answer finds the line.
        self.record(&format!("{method} {path} {status}\n"));
        match object {
            Some(object) => send_object(stream, method, object).await,
            None => send_small(stream, method, status).await,
        }
    }

    fn record(&self, line: &str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push_str(line);
    }
}

async fn send_object(stream: &mut TcpStream, method: &str, object: &Object) -> Result<()> {
    let Object { media_type, digest, size_bytes, file, .. } = object;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {size_bytes}\r\nETag: \"{digest}\"\r\n\
         Docker-Content-Digest: {digest}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    if method == "HEAD" {
        return Ok(());
    }
    let mut file = File::open(file).await?;
    file.set_max_buf_size(PIECE_BYTES);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(piece.get(..count).unwrap_or_default()).await?;
    }
}

async fn send_small(stream: &mut TcpStream, method: &str, status: u16) -> Result<()> {
    let body = if status == 200 {
        "{}"
    } else {
        r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not in this bench"}]}"#
    };
    let reason = if status == 200 { "OK" } else { "Not Found" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes()).await?;
    }
    Ok(())
}
