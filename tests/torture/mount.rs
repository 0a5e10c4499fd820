//! File systems of a test's own, unmounted whatever becomes of it.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

/// A mounted file system. Declare it before the server that uses it, so that it goes after.
#[derive(Debug)]
pub(crate) struct Mount {
    folder: TempDir,
    source: Source,
    mounted: AtomicBool,
}

#[derive(Debug)]
enum Source {
    Tmpfs {
        size: String,
    },
    /// `image` in the folder.
    Ext4,
    /// The same folder, seen once more and read-only, over what it shows.
    ReadOnly {
        point: PathBuf,
    },
}

/// Why a test is skipped, if it is.
pub(crate) fn missing() -> Option<&'static str> {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    if uid.trim_ascii() != b"0" {
        return Some("mounting a file system needs root");
    }
    match Mount::tmpfs("1m") {
        Ok(_) => None,
        Err(_) => Some("root may not mount here; a container needs --privileged"),
    }
}

/// Fails where everything is required and this program is missing: it can be installed, while
/// root's rights can't.
pub(crate) fn require(program: &str, is_there: bool) {
    let is_required = env::var_os("ROADSTEAD_REQUIRE").is_some();
    assert!(is_there || !is_required, "{program} is not installed");
}

/// Says on one line that a test was skipped.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("{test}: SKIPPED, for {why}; run `make torture` as root on a machine of your own");
}

// === impl Mount ===

impl Mount {
    pub(crate) fn tmpfs(size: &str) -> Result<Self, String> {
        Self::new(Source::Tmpfs { size: size.to_owned() })
    }

    pub(crate) fn ext4(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        // Without lazy parts, which the kernel would write while the test looks on.
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-E", lazy, path(&image)])?;
        Self::in_folder(folder, Source::Ext4)
    }

    /// Makes `point` read-only for all who come by its name; dropped, it is as before.
    pub(crate) fn read_only(point: &Path) -> Result<Self, String> {
        Self::new(Source::ReadOnly { point: point.to_owned() })
    }

    fn new(source: Source) -> Result<Self, String> {
        Self::in_folder(tempfile::tempdir().unwrap(), source)
    }

    fn in_folder(folder: TempDir, source: Source) -> Result<Self, String> {
        fs::create_dir(folder.path().join("mnt")).unwrap();
        let mount = Self { folder, source, mounted: AtomicBool::new(false) };
        mount.mount()?;
        Ok(mount)
    }

    /// Where it is.
    pub(crate) fn point(&self) -> PathBuf {
        match &self.source {
            Source::ReadOnly { point } => point.clone(),
            Source::Tmpfs { .. } | Source::Ext4 => self.folder.path().join("mnt"),
        }
    }

    /// Mounts it (again).
    pub(crate) fn mount(&self) -> Result<(), String> {
        let inside = self.folder.path().join("mnt");
        match &self.source {
            Source::Tmpfs { size } => {
                let size = format!("size={size}");
                run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path(&inside)])?;
            }
            Source::Ext4 => {
                let image = self.folder.path().join("image");
                run("mount", &["-o", "loop,errors=remount-ro", path(&image), path(&inside)])?;
            }
            Source::ReadOnly { point } => {
                // Made read-only where nobody writes yet: a mount with writers refuses.
                run("mount", &["--bind", path(point), path(&inside)])?;
                let done = run("mount", &["-o", "remount,bind,ro", path(&inside)])
                    .and_then(|()| run("mount", &["--bind", path(&inside), path(point)]));
                // The one over the point lives on by itself.
                run("umount", &[path(&inside)])?;
                done?;
            }
        }
        self.mounted.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes it off; all files in it must be closed.
    pub(crate) fn unmount(&self) -> Result<(), String> {
        run("umount", &[path(&self.point())])?;
        self.mounted.store(false, Ordering::Release);
        Ok(())
    }

    /// A power cut: nothing that is not on the disk by now will ever be there, not even what the
    /// journal holds in memory.
    pub(crate) fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
        const CUT: &str = "import fcntl, os, struct, sys\n\
            fd = os.open(sys.argv[1], os.O_RDONLY)\n\
            fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";
        run("python3", &["-c", CUT, path(&self.point())]).unwrap();
    }

    /// An error that the kernel finds in an ext4: it is read-only until it is mounted anew.
    pub(crate) fn turn_read_only(&self) -> Result<(), String> {
        let found = Command::new("findmnt")
            .args(["-n", "-o", "SOURCE", path(&self.point())])
            .output()
            .map_err(|error| format!("findmnt: {error}"))?;
        let device = String::from_utf8_lossy(&found.stdout).trim().replace("/dev/", "");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(&trigger, "1").map_err(|error| format!("{trigger}: {error}"))
    }

    /// Fills it but for `left` bytes with a file, which is answered.
    pub(crate) fn fill(&self, left: u64) -> PathBuf {
        let filler = self.point().join("filler");
        let mut file = File::create(&filler).unwrap();
        let piece = vec![1; 64 << 10];
        let mut length = 0;
        loop {
            match file.write(&piece) {
                Ok(written) => length += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        file.set_len(length.saturating_sub(left)).unwrap();
        filler
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Still in use where the test failed: then it goes with its last file.
        if self.mounted.load(Ordering::Acquire) && self.unmount().is_err() {
            let _ = run("umount", &["-l", path(&self.point())]);
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).output();
    require(program, done.is_ok());
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
    }
}
