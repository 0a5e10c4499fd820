//! The run's own directory: origin, caches, configurations and logs. It goes when the run ends; after a failure the
//! logs stay.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const LOGS: &str = "logs";

pub(crate) struct Workspace {
    root: PathBuf,
}

// === impl Workspace ===

impl Workspace {
    pub(crate) fn create(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(bench_directory, Path::to_path_buf);
        // Absolute: nginx resolves relative paths against its own prefix.
        let root = std::path::absolute(parent)?.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(root.join(LOGS))
            .with_context(|| format!("creating {}", root.display()))?;
        Ok(Self { root })
    }

    /// A folder of the run, created.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.root.join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        Ok(directory)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// The run was right: the logs may go too.
    pub(crate) fn discard(&self) {
        remove(&self.root);
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return;
        };
        for entry in entries.flatten().filter(|entry| entry.file_name() != LOGS) {
            remove(&entry.path());
        }
        // Succeed only where there are no logs to keep.
        let _ = fs::remove_dir(self.logs()).and_then(|()| fs::remove_dir(&self.root));
    }
}

pub(crate) fn default_json() -> PathBuf {
    bench_directory().join("side_by_side.json")
}

fn bench_directory() -> PathBuf {
    let target = profile_directory().and_then(|profile| profile.parent().map(Path::to_path_buf));
    target.unwrap_or_else(|| PathBuf::from("target")).join("bench")
}

/// `TARGET/<profile>`; the program is `TARGET/<profile>/deps/side_by_side-<hash>` or `TARGET/<profile>/side_by_side`.
pub(crate) fn profile_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    if folder.ends_with("deps") { folder.parent() } else { Some(folder) }.map(Path::to_path_buf)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("side_by_side: could not remove {}: {error}", path.display());
    }
}
