//! SIGINT and SIGTERM: the counted process is killed, so that whoever waits for it fails, and cleans up as it leaves.

use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// What a signal ends.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The signal that came.
    signal: Option<&'static str>,
    child: Option<Child>,
}

// === impl Interrupt ===

impl Interrupt {
    /// Listens on `runtime` for as long as that lives.
    pub(crate) fn listen(runtime: &Handle) -> Result<Self> {
        let interrupt = Self::default();
        let _context = runtime.enter();
        let kinds = [("SIGINT", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate())];
        for (name, kind) in kinds {
            let mut signal = signal(kind).with_context(|| format!("listening for {name}"))?;
            let interrupt = interrupt.clone();
            runtime.spawn(async move {
                signal.recv().await;
                interrupt.raise(name);
            });
        }
        Ok(interrupt)
    }

    /// Fails once a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        self.state().check()
    }

    /// Starts what a signal is to end; nothing, if one came already.
    pub(crate) fn start(&self, spawn: impl FnOnce() -> Result<Child>) -> Result<u32> {
        let mut state = self.state();
        state.check()?;
        Ok(state.child.insert(spawn()?).id())
    }

    pub(crate) fn has_ended(&self) -> Result<bool> {
        let ended = self.state().child.as_mut().map(Child::try_wait).transpose()?;
        Ok(!matches!(ended, Some(None)))
    }

    /// Ends what was started, and waits for that.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.kill();
        if let Some(mut child) = state.child.take() {
            let _ = child.wait();
        }
    }

    fn raise(&self, name: &'static str) {
        let mut state = self.state();
        state.signal = Some(name);
        state.kill();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn check(&self) -> Result<()> {
        match self.signal {
            Some(name) => bail!("interrupted by {name}"),
            None => Ok(()),
        }
    }

    fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
        }
    }
}
