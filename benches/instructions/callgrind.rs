//! A process under callgrind: started, told to count, and its counter read.
//!
//! Orders go through `vgdb`. valgrind looks out for them while the process runs, and the server's timers see to that, so
//! that it works where ptrace, by which `vgdb` wakes a sleeping process, is forbidden. Counting begins with
//! [`Callgrind::begin`], so that the start and the first requests are quick.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};

use crate::interrupt::Interrupt;

/// What stands before the counted command and controls it: a command, and the Debian package that has it.
const TOOLS: [(&str, &str); 3] =
    [("valgrind", "valgrind"), ("vgdb", "valgrind"), ("taskset", "util-linux")];

/// Of the environment: what finds the tools and their parts.
const KEPT: [&str; 2] = ["PATH", "VALGRIND_LIB"];

/// glibc's string functions as a plain x86-64 has them, whatever the CPU. `…_Usable` is how glibc before 2.33 spells it;
/// names that it does not know are passed over.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX_Usable,-AVX2_Usable,-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,\
                              -FSRM,-SSSE3,-SSE4_1,-SSE4_2,-BMI1,-BMI2,-LZCNT,-MOVBE";

/// How long valgrind may take to look out for an order and to carry it out.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);

/// Ends the process when dropped.
pub(crate) struct Callgrind {
    /// Holds the process.
    interrupt: Interrupt,
    pid: u32,
    /// Holds the profiles and vgdb's pipes; the caller's.
    folder: PathBuf,
    /// Profiles written so far; callgrind counts them in their names.
    profiles: Cell<u32>,
}

/// What is missing on this machine, as a sentence that names the remedy.
pub(crate) fn missing() -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let (tool, package) = TOOLS.into_iter().find(|(tool, _)| !is_there(tool))?;
    Some(format!("{tool} is missing (Debian: apt-get install {package})"))
}

// === impl Callgrind ===

impl Callgrind {
    /// Starts `program` on one CPU, its output going to `log`; `folder` is for its own files. `interrupt` ends it too.
    pub(crate) fn start(
        program: &Command,
        folder: &Path,
        log: fs::File,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &last_cpu()?])
            .args(["valgrind", "--tool=callgrind", "--instr-atstart=no"])
            .arg(format!("--callgrind-out-file={}", folder.join("profile").display()))
            .arg(vgdb_prefix(folder))
            // Orders are looked for this often, in blocks of code. By default an idle server would take long.
            .arg("--vgdb-poll=500")
            .arg(program.get_program())
            .args(program.get_args())
            // RUST_LOG, proxies and valgrind's own settings would count.
            .env_clear()
            .envs(KEPT.into_iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .env("GLIBC_TUNABLES", GLIBC_TUNABLES)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let pid = interrupt.start(|| command.spawn().context("starting valgrind"))?;
        Ok(Self { interrupt, pid, folder: folder.to_owned(), profiles: Cell::new(0) })
    }

    pub(crate) fn has_ended(&self) -> Result<bool> {
        self.interrupt.has_ended()
    }

    /// From here on, instructions are counted.
    pub(crate) fn begin(&self) -> Result<()> {
        self.order(&["instrumentation", "on"])
    }

    pub(crate) fn zero(&self) -> Result<()> {
        self.order(&["zero"])
    }

    /// Instructions since [`Self::zero`], by all threads.
    pub(crate) fn count(&self) -> Result<u64> {
        if self.profiles.get() > 0 {
            fs::remove_file(self.profile()).context("removing a profile")?;
        }
        self.order(&["dump"])?;
        self.profiles.set(self.profiles.get() + 1);
        let file = self.profile();
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()));
        let text = text?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        total.and_then(|total| total.trim().parse().ok()).context("a profile without totals")
    }

    /// Copies what was last counted to `folder`, as `NAME.callgrind`.
    pub(crate) fn keep(&self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        let kept = folder.join(name).with_extension("callgrind");
        fs::copy(self.profile(), &kept).with_context(|| format!("writing {}", kept.display()))?;
        Ok(())
    }

    fn profile(&self) -> PathBuf {
        self.folder.join(format!("profile.{}", self.profiles.get()))
    }

    fn order(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("vgdb");
        command.arg(format!("--pid={}", self.pid)).arg(vgdb_prefix(&self.folder)).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let vgdb = command.spawn().context("running vgdb")?;
        let Output { status, stderr, .. } =
            self.outcome(vgdb).with_context(|| format!("vgdb {words:?}"))?;
        ensure!(status.success(), "vgdb {words:?}: {}", String::from_utf8_lossy(&stderr).trim());
        Ok(())
    }

    /// Of `vgdb`, which waits for an answer for ever; what it says fits into a pipe.
    fn outcome(&self, mut vgdb: Child) -> Result<Output> {
        let deadline = Instant::now() + PATIENCE;
        while vgdb.try_wait()?.is_none() {
            let is_late = Instant::now() > deadline;
            if is_late || self.has_ended()? {
                // It may have ended just now.
                let _ = vgdb.kill();
                vgdb.wait()?;
                self.interrupt.check()?;
                ensure!(is_late, "the server has ended");
                bail!("no answer within {} s", PATIENCE.as_secs());
            }
            thread::sleep(POLL);
        }
        Ok(vgdb.wait_with_output()?)
    }
}

impl Drop for Callgrind {
    fn drop(&mut self) {
        self.interrupt.end();
    }
}

fn vgdb_prefix(folder: &Path) -> String {
    format!("--vgdb-prefix={}", folder.join("vgdb").display())
}

/// The last CPU that this process may use.
fn last_cpu() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let Some(last) = list.and_then(|list| list.trim().rsplit([',', '-']).next()) else {
        bail!("/proc/self/status names no CPU");
    };
    Ok(last.to_owned())
}
