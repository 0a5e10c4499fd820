//! The new process's side of a hand-over.
//!
//! It validates everything first, then waits for the store, and only then takes the listening
//! sockets: what goes wrong before harms nobody, for the old process still serves.

use std::{
    collections::HashSet,
    env, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use pingora::server::configuration::{Opt, ServerConf};

use super::{
    VARIABLE,
    folder::{Folder, Word},
};
use crate::{
    config,
    server::StartError,
    store::{self, Store},
};

/// How long the old process may take to let go of the store.
const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const STEP: Duration = Duration::from_millis(10);

/// What a process takes over from the one before.
#[derive(Debug)]
pub(in crate::server) struct Heir {
    folder: Folder,
    /// The names of the listening sockets that will come.
    names: HashSet<String>,
}

// === impl Heir ===

impl Heir {
    /// Present if another process has started this one to be its successor.
    pub(in crate::server) fn from_environment() -> Result<Option<Self>, StartError> {
        let Some(path) = env::var_os(VARIABLE) else { return Ok(None) };
        let path = PathBuf::from(path);
        let (folder, names) = Folder::open(path.clone()).map_err(|error| {
            StartError::Config(format!(
                "{VARIABLE}: {}: {error}; it is set by a server for its successor, unset it",
                path.display()
            ))
        })?;
        Ok(Some(Self { folder, names: names.into_iter().collect() }))
    }

    /// The names of the sockets that come from the old process.
    pub(in crate::server) fn names(&self) -> &HashSet<String> {
        &self.names
    }

    /// Opens the store as soon as the old process has let it go. Blocks.
    pub(in crate::server) fn open_store(
        &self,
        config: &config::Store,
    ) -> Result<Store, store::Error> {
        self.folder.say(Word::Waiting)?;
        let deadline = Instant::now() + STORE_PATIENCE;
        loop {
            match Store::open(config) {
                Err(store::Error::InUse { .. }) if Instant::now() < deadline => thread::sleep(STEP),
                opened => return opened,
            }
        }
    }

    /// Has Pingora receive the sockets when it bootstraps.
    pub(in crate::server) fn receive(&self, conf: &mut ServerConf) -> Opt {
        conf.upgrade_sock = self.folder.socket().display().to_string();
        Opt { upgrade: true, ..Opt::default() }
    }

    /// Tells the old process that it is not needed any more.
    pub(in crate::server) fn serves(&self) -> io::Result<()> {
        self.folder.say(Word::Serving)
    }
}
