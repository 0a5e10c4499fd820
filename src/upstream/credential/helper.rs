//! A docker credential helper: a program that is asked for one login.
//!
//! <https://github.com/docker/docker-credential-helpers>: `get`, the server's
//! name on standard input, JSON on standard output. It runs in a process group
//! of its own, which ends with the time that it has.

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::config::Secret;

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// The longest message of a helper that is told on.
const MESSAGE_CHARS: usize = 200;

/// What is still in the pipe when the program has ended is there at once.
const REST: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Ends the process group of a helper when dropped.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Asks `program` for the login at `server`. The error never quotes a secret.
pub(super) async fn ask(
    program: &str,
    server: &str,
    patience: Duration,
) -> Result<(String, Secret), String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("can't be started: {error}"))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let _group = Group(id.and_then(rustix::process::Pid::from_raw));
    let (is_success, output) = timeout(patience, converse(&mut child, server))
        .await
        .map_err(|_| format!("did not answer within {patience:?}"))?
        .map_err(|error| format!("broke off: {error}"))?;
    if output.len() as u64 > ANSWER_BYTES {
        return Err("answers more than a login".to_owned());
    }
    if !is_success {
        return Err(format!("says: {}", message(&output)));
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| "answers something else than a login in JSON".to_owned())?;
    if answer.username == "<token>" {
        return Err(
            "has an identity token, which is not supported; log in with an access token".to_owned()
        );
    }
    if answer.username.is_empty() || answer.secret.is_empty() {
        return Err("answers an empty name or secret".to_owned());
    }
    Ok((answer.username, Secret::new(answer.secret)))
}

/// Whether it ended well, and what it printed.
async fn converse(child: &mut Child, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input may know the answer all the same.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    let mut output = Vec::new();
    let Some(stdout) = child.stdout.take() else { return Ok((false, output)) };
    let mut stdout = stdout.take(ANSWER_BYTES + 1);
    let ended = {
        let read = stdout.read_to_end(&mut output);
        tokio::pin!(read);
        tokio::select! {
            status = child.wait() => {
                // A grandchild may keep the pipe open for as long as it likes.
                let _ = timeout(REST, &mut read).await;
                Some(status?)
            }
            _ = &mut read => None,
        }
    };
    let status = match ended {
        Some(status) => status,
        // It would go on for ever, with nobody to read it.
        None if output.len() as u64 > ANSWER_BYTES => return Ok((true, output)),
        None => child.wait().await?,
    };
    Ok((status.success(), output))
}

fn message(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().next().unwrap_or_default().trim();
    let shown: String = line.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect();
    if shown.is_empty() { "nothing, and failed".to_owned() } else { shown }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A helper that runs this script.
    pub(crate) fn script(folder: &Path, text: &str) -> String {
        let path = folder.join("docker-credential-test");
        let new = path.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &path).unwrap();
        path.display().to_string()
    }

    async fn answer(text: &str, patience: Duration) -> Result<(String, Secret), String> {
        let folder = tempfile::tempdir().unwrap();
        ask(&script(folder.path(), text), "ghcr.io", patience).await
    }

    #[tokio::test]
    async fn a_helper_is_told_the_server_and_tells_the_login() {
        let text = r#"read server; printf '{"ServerURL":"%s","Username":"%s","Secret":"s3cret"}' "$server" "$1-$server""#;
        let (username, secret) = answer(text, PATIENCE).await.unwrap();
        assert_eq!((username.as_str(), secret.expose()), ("get-ghcr.io", "s3cret"));
    }

    #[tokio::test]
    async fn what_a_helper_does_wrong_is_told() {
        for (text, line) in [
            ("echo credentials not found; exit 1", "says: credentials not found"),
            ("exit 3", "says: nothing, and failed"),
            ("echo '<html>s3cret'", "something else than a login"),
            (r#"echo '{"Username":"a","Secret":""}'"#, "an empty name or secret"),
            (r#"echo '{"Username":"<token>","Secret":"s3cret"}'"#, "identity token"),
            ("yes s3cret", "more than a login"),
        ] {
            let problem = answer(text, PATIENCE).await.unwrap_err();
            assert!(problem.contains(line) && !problem.contains("s3cret"), "{text}: {problem}");
        }
        let problem = ask("/nowhere/helper", "x", PATIENCE).await.unwrap_err();
        assert!(problem.contains("can't be started"), "{problem}");
    }

    #[tokio::test]
    async fn a_helper_that_hangs_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let text = format!("sleep 600 & echo $! > {}; wait", mark.display());
        let program = script(folder.path(), &text);
        let problem = ask(&program, "x", Duration::from_secs(2)).await.unwrap_err();
        assert!(problem.contains("did not answer within"), "{problem}");
        let pid = fs::read_to_string(mark).unwrap();
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        let deadline = std::time::Instant::now() + PATIENCE;
        let ended = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
        while !ended() {
            assert!(std::time::Instant::now() < deadline, "its child goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_pipe_open_holds_up_nothing() {
        let text = r#"sleep 600 & echo '{"Username":"a","Secret":"b"}'"#;
        let begun = std::time::Instant::now();
        assert_eq!(answer(text, PATIENCE).await.unwrap().0, "a");
        assert!(begun.elapsed() < PATIENCE / 2);
    }
}
