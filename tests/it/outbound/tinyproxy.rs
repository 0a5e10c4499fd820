//! Debian's tinyproxy, a proxy that others wrote.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::roadstead::{eventually, free_address};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running tinyproxy; ended when dropped.
#[derive(Debug)]
pub(super) struct Tinyproxy {
    folder: TempDir,
    child: Child,
    at: SocketAddr,
}

// === impl Tinyproxy ===

impl Tinyproxy {
    /// Starts it, with a login that it wants; `None` where it is not installed.
    pub(super) async fn start(login: Option<(&str, &str)>) -> Option<Self> {
        if Command::new("tinyproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: tinyproxy is not installed (apt-get install tinyproxy-bin)");
            return None;
        }
        let (folder, at) = (tempfile::tempdir().unwrap(), free_address());
        let (log, file) = (folder.path().join("log"), folder.path().join("conf"));
        let login = login.map(|(user, password)| format!("BasicAuth {user} {password}\n"));
        let conf = format!(
            "Port {}\nListen {}\nTimeout 60\nAllow 127.0.0.1\nLogFile \"{}\"\nLogLevel Connect\n{}",
            at.port(),
            at.ip(),
            log.display(),
            login.unwrap_or_default(),
        );
        fs::write(&file, conf).unwrap();
        let child = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self { folder, child, at };
        let listens = || std::net::TcpStream::connect(at).is_ok();
        eventually("tinyproxy listens", PATIENCE, listens).await;
        Some(proxy)
    }

    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Requests that it has logged with this in their first line.
    pub(super) fn seen(&self, part: &str) -> usize {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("Request (") && line.contains(part)).count()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
