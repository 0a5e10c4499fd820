//! Programs of others: found, run for as long as they may, and their last words kept.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

/// As much of each of its outputs is kept.
const MOST_BYTES: u64 = 64 << 10;

/// What became of a program.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    pub(super) is_success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) pid: u32,
    /// The file that it was told to read.
    pub(super) config: Option<PathBuf>,
    pub(super) started: Option<SystemTime>,
}

/// Whether a program is in `PATH`.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| {
        fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    })
}

/// Runs it; the error says why it did not come to an end.
pub(super) async fn run(words: &[&str], patience: Duration) -> Result<Ran, String> {
    let (name, arguments) = words.split_first().ok_or("there is no program to run")?;
    let spawned = Command::new(name)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| format!("{name} can't be run: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        let (stdout, stderr, status) = tokio::join!(kept(stdout), kept(stderr), child.wait());
        let is_success = status.is_ok_and(|status| status.success());
        Ran { is_success, stdout, stderr }
    };
    let late = |_| format!("{name} did not come to an end within {} s", patience.as_secs());
    timeout(patience, whole).await.map_err(late)
}

/// The beginning of an output; the rest is read and dropped, so that its writer can go on.
async fn kept(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(output) = output else { return String::new() };
    let mut bytes = Vec::new();
    let mut beginning = output.take(MOST_BYTES);
    let _ = beginning.read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut beginning.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

// === impl Ran ===

impl Ran {
    /// The end of what it said is where it says what is wrong.
    pub(super) fn last_words(&self) -> String {
        let said = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(2)..).unwrap_or_default().join(" ")
    }
}

/// The daemons called `name` that run, with the file that `flag` (`--config`) names to them.
pub(super) fn daemons(name: &str, flags: &[&str]) -> Vec<Daemon> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let daemon = |pid: u32| {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let is_it = fs::read_to_string(folder.join("comm")).is_ok_and(|it| it.trim() == name);
        if !is_it {
            return None;
        }
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into());
        let config = value_of(&words.collect::<Vec<String>>(), flags);
        Some(Daemon { pid, config, started: started(&folder) })
    };
    pids.filter_map(daemon).collect()
}

fn value_of(words: &[String], flags: &[&str]) -> Option<PathBuf> {
    words.iter().enumerate().find_map(|(index, word)| {
        let (name, value) = word.split_once('=').map_or((&**word, None), |(a, b)| (a, Some(b)));
        let next = || words.get(index + 1).map(String::as_str);
        flags.contains(&name).then(|| value.or_else(next).map(PathBuf::from))?
    })
}

/// When a process began, as proc(5) tells: in ticks since the boot, which has its own second.
fn started(folder: &Path) -> Option<SystemTime> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The second field, the name, may hold anything, spaces and brackets too.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let seconds = ticks / rustix::param::clock_ticks_per_second().max(1);
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(boot.trim().parse::<u64>().ok()? + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_has_its_time_and_its_last_words() {
        let ran =
            run(&["sh", "-c", "echo out; echo a >&2; echo b >&2; exit 3"], Duration::from_secs(20));
        let ran = ran.await.unwrap();
        assert_eq!((ran.is_success, &*ran.stdout, &*ran.last_words()), (false, "out", "a b"));
        let late = run(&["sleep", "60"], Duration::from_millis(50)).await.unwrap_err();
        assert!(late.contains("did not come to an end"), "{late}");
        let none = run(&["no-such-program-here"], Duration::from_secs(1)).await.unwrap_err();
        assert!(none.contains("can't be run"), "{none}");
        let much =
            run(&["head", "-c", "1000000", "/dev/zero"], Duration::from_secs(20)).await.unwrap();
        assert!(much.is_success && much.stdout.len() <= MOST_BYTES as usize);
    }

    #[test]
    fn a_flag_s_value_stands_beside_it_or_behind_it() {
        let value = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            value_of(&words, &["--config", "-c"]).map(|path| path.display().to_string())
        };
        assert_eq!(value(&["x", "--config", "/a"]).as_deref(), Some("/a"));
        assert_eq!(value(&["x", "--config=/b", "-c"]).as_deref(), Some("/b"));
        assert_eq!(value(&["x", "-c", "/c"]).as_deref(), Some("/c"));
        assert_eq!(value(&["x", "--configure", "/d"]), None);
    }

    #[test]
    fn this_process_began_a_while_ago() {
        let began = started(Path::new("/proc/self")).unwrap();
        let age = SystemTime::now().duration_since(began).unwrap();
        assert!(age < Duration::from_secs(7 * 86_400), "{age:?}");
    }
}
