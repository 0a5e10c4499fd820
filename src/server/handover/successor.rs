//! The process that takes over: started from the same path, with the same arguments.

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

use super::{VARIABLE, folder::Folder};

/// How this process was started.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A process that was started to take over; ended when dropped before it has.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    has_taken_over: bool,
}

// === impl Program ===

impl Program {
    /// To be asked at the start: after an upgrade the system names the file that was replaced, and
    /// through a symbolic link it names the old target. The path as it was given leads to the new
    /// program in both cases.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let given = arguments.next().unwrap_or_default();
        let path = match given.as_bytes() {
            [] => env::current_exe()?,
            bytes if bytes.contains(&b'/') => std::path::absolute(&given)?,
            _ => in_search_path(&given).map_or_else(env::current_exe, Ok)?,
        };
        Ok(Self { path, arguments: arguments.collect() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn start(&self, folder: &Folder) -> io::Result<Successor> {
        let mut command = Command::new(&self.path);
        let child = command.args(&self.arguments).env(VARIABLE, folder.path()).spawn()?;
        Ok(Successor { child, has_taken_over: false })
    }
}

fn in_search_path(name: &OsString) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let mut files = env::split_paths(&folders).map(|folder| folder.join(name));
    files.find(|file| file.is_file()).and_then(|file| std::path::absolute(file).ok())
}

// === impl Successor ===

impl Successor {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// It lives on by itself.
    pub(super) fn take_over(&mut self) {
        self.has_taken_over = true;
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.has_taken_over {
            // It fails for a process that has ended already, which is what is wanted. Waiting for
            // its end frees the store that it may have opened.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
