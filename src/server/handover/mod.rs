//! The hand-over: a new process takes the listeners and the store from this one.
//!
//! The old process serves until the new one says that it does. Whatever goes wrong before is
//! logged with its remedy, the new process is ended, the store is taken back, and the old one goes
//! on as if nothing had been.
//!
//! ```text
//! old: SIGQUIT ─► start new ────────► let fills and index go ─────► send sockets ──────► drain ─► end
//! new:              config, addresses ─► "waiting" ─► open store ─► receive ─► "serving" ─► serve
//! ```

mod folder;
mod heir;
mod successor;

use std::{
    io,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use self::{
    folder::{Folder, Word},
    successor::{Program, Successor},
};
use super::listening::Listeners;
use crate::{blob::Blobs, store::Store};

pub(super) use heir::Heir;

/// Names the folder of a hand-over to the new process.
const VARIABLE: &str = "ROADSTEAD_HANDOVER";

/// How long the new process may take for each of its steps.
const PATIENCE: Duration = Duration::from_secs(40);

/// How often it is looked whether it has made the next.
const STEP: Duration = Duration::from_millis(10);

/// Why this process goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It was started before it could be known how.
    #[error("it is not known which program to start ({0}); restart instead")]
    Program(#[source] Arc<io::Error>),
    /// The first process of a container can't be replaced.
    #[error("a container ends with its first process; start another container instead")]
    FirstProcess,
    /// There are limits to what can be sent.
    #[error("{0}; restart instead, or change that")]
    Listeners(String),
    /// Nowhere to meet.
    #[error(
        "no folder for it can be made in {folder} ({error}); set TMPDIR to a writable one with a short path, or restart instead"
    )]
    Folder { folder: String, error: io::Error },
    /// The program can't be run.
    #[error(
        "{program} could not be started ({error}); put a program there that runs, and send SIGQUIT again"
    )]
    Start { program: String, error: io::Error },
    /// The successor ended by itself.
    #[error(
        "the new process ended ({0}) before it served; mend what it says above, and send SIGQUIT again"
    )]
    Ended(ExitStatus),
    /// The successor hangs.
    #[error(
        "the new process did not {0} within {PATIENCE:?} and was ended; see what it says above, and send SIGQUIT again"
    )]
    Hangs(&'static str),
    /// The sockets did not reach it.
    #[error("the listeners could not be sent ({0}); send SIGQUIT again, or restart instead")]
    Send(String),
    /// A signal to stop came meanwhile.
    #[error("a signal to stop came before the new process served; it was ended")]
    GivenUp,
    /// The system failed us.
    #[error("{0}; send SIGQUIT again, or restart instead")]
    Io(#[from] io::Error),
}

/// What there is to hand over, and to whom.
pub(super) struct Handover {
    program: Result<Program, Arc<io::Error>>,
    listeners: Arc<Listeners>,
    store: Arc<Store>,
    blobs: Arc<Blobs>,
}

/// A successor on its way.
struct Attempt<'a> {
    folder: Folder,
    successor: Successor,
    given_up: &'a AtomicBool,
}

// === impl Handover ===

impl Handover {
    /// To be called at the start, while the program's path still says what runs.
    pub(super) fn prepare(listeners: Arc<Listeners>, store: Arc<Store>, blobs: Arc<Blobs>) -> Self {
        let program = Program::of_this_process().map_err(Arc::new);
        Self { program, listeners, store, blobs }
    }

    /// Starts a successor and hands over to it; answers its pid once it serves. After a failure
    /// this process has everything that it had. Ends soon once `given_up` is set.
    pub(super) async fn run(&self, given_up: &AtomicBool) -> Result<u32, Failed> {
        let mut attempt = self.start(given_up)?;
        tracing::info!(pid = attempt.successor.pid(), "handing over to a new process");
        attempt.until("accept its configuration", |folder| folder.said(Word::Waiting)).await?;
        // First the fills: the new process takes stock of the staged files as soon as it has the
        // index.
        self.blobs.let_go().await;
        let store = Arc::clone(&self.store);
        blocking(move || store.release()).await?;
        let passed_on = self.pass_on(&mut attempt).await;
        if let Err(failed) = passed_on {
            // It is ended first, for it may have the store.
            blocking(move || drop(attempt.successor)).await?;
            self.take_back().await;
            return Err(failed);
        }
        attempt.successor.take_over();
        Ok(attempt.successor.pid())
    }

    fn start<'a>(&self, given_up: &'a AtomicBool) -> Result<Attempt<'a>, Failed> {
        let program = self.program.as_ref().map_err(|error| Failed::Program(Arc::clone(error)))?;
        if std::process::id() == 1 {
            return Err(Failed::FirstProcess);
        }
        let names = self.listeners.names().map_err(Failed::Listeners)?;
        let folder = Folder::make(&names).map_err(|error| {
            let folder = std::env::temp_dir().display().to_string();
            Failed::Folder { folder, error }
        })?;
        let successor = program.start(&folder).map_err(|error| {
            let program = program.path().display().to_string();
            Failed::Start { program, error }
        })?;
        Ok(Attempt { folder, successor, given_up })
    }

    /// The store is free: the rest of the way.
    async fn pass_on(&self, attempt: &mut Attempt<'_>) -> Result<(), Failed> {
        attempt.until("open the store", |folder| folder.socket().exists()).await?;
        let (listeners, socket) = (Arc::clone(&self.listeners), attempt.folder.socket());
        blocking(move || listeners.send(&socket)).await?.map_err(Failed::Send)?;
        attempt.until("serve", |folder| folder.said(Word::Serving)).await
    }

    async fn take_back(&self) {
        self.blobs.take_back();
        let store = Arc::clone(&self.store);
        match blocking(move || store.reopen()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the index can't be opened again: what is stored is served, and nothing new is kept; restart");
            }
            Err(error) => tracing::error!(%error, "the index was not opened again; restart"),
        }
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Waits for the next step of the successor.
    async fn until(
        &mut self,
        what: &'static str,
        mut condition: impl FnMut(&Folder) -> bool,
    ) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.given_up.load(Ordering::Acquire) {
                return Err(Failed::GivenUp);
            }
            if let Some(status) = self.successor.ended()? {
                return Err(Failed::Ended(status));
            }
            if condition(&self.folder) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failed::Hangs(what));
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
