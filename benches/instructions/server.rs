//! The server: the program as it is shipped, in a directory of its own, under callgrind.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hub::Hub;
use tempfile::TempDir;

use crate::callgrind::Callgrind;
use crate::interrupt::Interrupt;

/// How long a start and a first pull may take under valgrind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const LOG_LINES_SHOWN: usize = 10;

pub(crate) struct Server {
    callgrind: Callgrind,
    address: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    // Last, so that it goes when the process has ended.
    _folder: TempDir,
}

// === impl Server ===

impl Server {
    /// Starts it with an empty store before `hub`, and waits until it says that it is ready.
    pub(crate) fn start(binary: &Path, hub: &Hub, interrupt: Interrupt) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a temporary directory")?;
        let (address, admin) = (free_address()?, free_address()?);
        let file = folder.path().join("roadstead.yaml");
        fs::write(&file, configuration(address, admin, &folder.path().join("data"), hub))?;
        let log = folder.path().join("log");
        let mut program = Command::new(binary);
        program.arg("serve").arg("--config").arg(file);
        let log_file = File::create(&log)?;
        let callgrind = Callgrind::start(&program, folder.path(), log_file, interrupt)?;
        let server = Self { callgrind, address, admin, log, _folder: folder };
        server.wait()?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn callgrind(&self) -> &Callgrind {
        &self.callgrind
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready().unwrap_or(false) {
            let has_ended = self.callgrind.has_ended()?;
            ensure!(!has_ended, "the server ended at its start:\n{}", self.last_words());
            ensure!(Instant::now() < deadline, "the server is not ready");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_ready(&self) -> io::Result<bool> {
        let mut socket = TcpStream::connect(self.admin)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    }
}

/// As by default, but nothing happens by the clock that has to do with what is cached: no check of the tag, no probe of
/// the budget, no reading of stored blobs for their digests, which would hash.
fn configuration(address: SocketAddr, admin: SocketAddr, data: &Path, hub: &Hub) -> String {
    format!(
        "listen: [{{ address: '{address}' }}]\nadmin: {{ address: '{admin}' }}\n\
         store: {{ directory: '{}', scrub_rate: 0 }}\n\
         upstreams:\n  - name: docker.io\n    url: {}\n    token_realms: ['{}']\n    \
         tags: {{ fresh_for: 1h }}\n    budget: {{ probe: none }}\n",
        data.display(),
        hub.registry_url(),
        hub.token_realm(),
    )
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("finding a free port")?;
    Ok(listener.local_addr()?)
}
