//! A server process that ends with its guard: on success, on error, on panic and on a signal alike.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::{Connection, Request};
use crate::proc;

const READY_WITHIN: Duration = Duration::from_secs(20);
const ENDED_WITHIN: Duration = Duration::from_secs(2);
const LOG_LINES_SHOWN: usize = 10;

pub(crate) struct Process {
    name: &'static str,
    /// Leads a process group of its own. Reaped in `drop` only, so that its id can't pass to a stranger before that.
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `command` with its output going to `log`.
    pub(crate) fn spawn(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self> {
        let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let errors = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: {}", command.get_program().display()))?;
        Ok(Self { name, child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `GET /v2/` is answered 200; fails when the process ends or time runs out first.
    pub(crate) async fn ready(&self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let refusal = match answers(address).await {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            if proc::has_ended(self.pid()) {
                bail!("{} ended at its start; {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} gave no good answer at {address}: {refusal:#}; {}",
                    self.name,
                    self.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if the process is gone: what was measured after that would be someone else.
    pub(crate) fn still_runs(&self) -> Result<()> {
        if proc::has_ended(self.pid()) {
            bail!("{} has ended; {}", self.name, self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        format!("the end of {}:\n{}", self.log.display(), tail(&self.log))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // First politely, to the leader alone: nginx's master then reaps its workers.
        signal("TERM", &self.pid().to_string());
        let deadline = Instant::now() + ENDED_WITHIN;
        while Instant::now() < deadline && !proc::has_ended(self.pid()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Then the whole group: workers outlive a master that was killed.
        signal("KILL", &format!("-{}", self.pid()));
        let _ = self.child.wait();
    }
}

/// Through the shell's own `kill`, which is always there; libc's would need unsafe code.
fn signal(name: &str, target: &str) {
    let script = format!("kill -s {name} -- {target}");
    let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
}

async fn answers(address: SocketAddr) -> Result<()> {
    let request = Request::get(address, "/v2/", None);
    let exchange =
        async { Connection::open(address, 64 << 10).await?.exchange(&request, |_| ()).await };
    tokio::time::timeout(Duration::from_secs(2), exchange)
        .await
        .context("no answer within 2 s")??;
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}
