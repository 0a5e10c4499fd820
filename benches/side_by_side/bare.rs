//! The peer "bare": a Pingora service with one prepared answer for everything, a plain `request_filter` without a log.
//!
//! It is this program in another mode, so that its CPU time and memory are those of a process of its own. What it
//! answers is what Roadstead answers for the cached tag: the same head but for the hop-by-hop fields, which Pingora
//! writes itself, and the same body.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::{Server, configuration::ServerConf};
use pingora::upstreams::peer::HttpPeer;

use crate::load::{Connection, MANIFEST_BUFFER_BYTES, Request, within_reason};

const MODE: &str = "--serve-bare";
const HEAD: &str = "head";
const BODY: &str = "body";
/// Not the answer's, but the connection's.
const HOP_BY_HOP: [&str; 3] = ["connection", "keep-alive", "transfer-encoding"];

/// What the hidden arguments ask for.
pub(crate) struct Mode {
    address: SocketAddr,
    /// Holds the answer, as `prepare` wrote it.
    folder: PathBuf,
}

struct Bare {
    head: ResponseHeader,
    body: Bytes,
}

/// Asks `roadstead` once, and keeps the answer in `folder` for every bare server of the run.
pub(crate) async fn prepare(roadstead: SocketAddr, request: &Request, folder: &Path) -> Result<()> {
    let answer = async {
        let mut connection = Connection::open(roadstead, MANIFEST_BUFFER_BYTES).await?;
        connection.capture(request).await
    };
    let (head, body) = within_reason(answer).await?;
    fs::write(folder.join(HEAD), head).context("keeping the head")?;
    fs::write(folder.join(BODY), body).context("keeping the body")
}

/// Starts `program`, which is this one, as the bare server.
pub(crate) fn command(program: &Path, address: SocketAddr, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(MODE).arg(address.to_string()).arg(folder);
    command
}

// === impl Mode ===

impl Mode {
    /// `None` in a program that was started as the bench.
    pub(crate) fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args_os().skip(1);
        if arguments.next()? != MODE {
            return None;
        }
        let address = arguments.next()?.to_str()?.parse().ok()?;
        Some(Self { address, folder: arguments.next()?.into() })
    }

    pub(crate) fn serve(&self) -> ExitCode {
        match self.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bare: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn run(&self) -> Result<()> {
        let bare = Bare::read(&self.folder)?;
        // As many threads as Roadstead takes.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let conf = ServerConf {
            threads,
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(0),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        let mut service = http_proxy_service(&server.configuration, bare);
        service.add_tcp(&self.address.to_string());
        server.bootstrap();
        server.add_service(service);
        server.run_forever()
    }
}

// === impl Bare ===

impl Bare {
    fn read(folder: &Path) -> Result<Self> {
        let head = fs::read_to_string(folder.join(HEAD)).context("reading the head")?;
        let body = fs::read(folder.join(BODY)).context("reading the body")?.into();
        let mut prepared = ResponseHeader::build(200, None)?;
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
            if !HOP_BY_HOP.contains(&name.to_ascii_lowercase().as_str()) {
                prepared.append_header(name.to_owned(), value.trim())?;
            }
        }
        Ok(Self { head: prepared, body })
    }
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> pingora::Result<bool> {
        session.write_response_header(Box::new(self.head.clone()), false).await?;
        session.write_response_body(Some(self.body.clone()), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Err(pingora::Error::explain(pingora::ErrorType::InternalError, "everything is answered"))
    }
}
