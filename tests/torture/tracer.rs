//! Failing and slow system calls, by strace.
//!
//! It attaches to a server that is ready. A fault at the N-th call means the N-th of each thread,
//! for strace counts them apart; with paths given, the N-th on these. What goes through a memory
//! map is no system call: reads of stored bytes don't fail here.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::mount::require;
use crate::roadstead::{Roadstead, eventually};

/// For strace to attach or to let go, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A tracer at work; lets go when dropped.
#[derive(Debug)]
pub(crate) struct Tracer {
    strace: Child,
    folder: TempDir,
}

/// Why a test is skipped, if it is.
pub(crate) fn missing() -> Option<&'static str> {
    let is_there = Command::new("strace").arg("-V").output().is_ok();
    require("strace", is_there);
    (!is_there).then_some("strace is not installed")
}

/// All names that the store may give to these digests' files, and its folders and index.
pub(crate) fn names<'a>(
    data: &Path,
    digests: impl IntoIterator<Item = &'a String>,
) -> Vec<PathBuf> {
    let mut names: Vec<_> = [
        "",
        "FORMAT",
        "FORMAT.new",
        "index.redb",
        "partial",
        "quarantine",
        "blobs",
        "blobs/sha256",
    ]
    .map(|name| data.join(name))
    .into();
    for digest in digests {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        let shard = data.join("blobs").join(algorithm).join(&hex[..2]);
        names.push(shard.join(hex));
        names.push(shard);
        for end in ["", ".map"] {
            names.push(data.join("partial").join(format!("{algorithm}-{hex}{end}")));
        }
    }
    names
}

/// strace's arguments: `what` happens to these calls, on these paths if any are given.
pub(crate) fn arguments(paths: &[PathBuf], calls: &str, what: &str) -> Vec<String> {
    // A call that this machine does not have is passed over.
    let calls: Vec<_> = calls.split(',').map(|call| format!("?{call}")).collect();
    let calls = calls.join(",");
    let mut arguments =
        vec!["-f".to_owned(), "-qq".to_owned(), "-e".to_owned(), format!("trace={calls}")];
    arguments.extend(["-e".to_owned(), format!("inject={calls}:{what}")]);
    for path in paths {
        arguments.extend(["-P".to_owned(), path.display().to_string()]);
    }
    arguments
}

/// A program that starts the server under strace, its process the server's own.
pub(crate) fn launcher(folder: &Path, arguments: &[String], program: &str) -> PathBuf {
    let mut script = String::from("#!/bin/sh\nexec strace -D -o /dev/null");
    for argument in arguments {
        write!(script, " '{argument}'").unwrap();
    }
    writeln!(script, " '{program}' serve \"$@\"").unwrap();
    let file = folder.join("launcher");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    file
}

// === impl Tracer ===

impl Tracer {
    /// Attaches to each thread of the server and to those to come.
    pub(crate) async fn attach(roadstead: &Roadstead, arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let strace = Command::new("strace")
            .args(arguments)
            .args(["-p", &roadstead.pid().to_string(), "-o"])
            .arg(folder.path().join("trace"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut tracer = Self { strace, folder };
        let pid = roadstead.pid();
        eventually("strace has all threads", PATIENCE, || {
            let ended = tracer.strace.try_wait().unwrap();
            assert!(ended.is_none(), "strace ended: {ended:?}; may this user trace?");
            threads(pid).iter().all(|status| !status.contains("TracerPid:\t0"))
        })
        .await;
        tracer
    }

    /// Calls that were made to fail or to wait.
    pub(crate) fn hits(&self) -> usize {
        let trace = fs::read_to_string(self.folder.path().join("trace")).unwrap_or_default();
        trace.lines().filter(|line| line.contains("INJECTED") || line.contains("DELAYED")).count()
    }

    /// Lets go of the server, which lives on; answers how many calls were hit.
    pub(crate) async fn detach(mut self) -> usize {
        let pid = self.strace.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        // One that has ended by itself needs no asking.
        let _ = asked.success();
        eventually("strace lets go", PATIENCE, || self.strace.try_wait().unwrap().is_some()).await;
        self.hits()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn threads(pid: u32) -> Vec<String> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let files = threads.filter_map(|thread| Some(thread.ok()?.path().join("status")));
    files.filter_map(|file| fs::read_to_string(file).ok()).collect()
}
