//! The signals: SIGTERM and SIGINT end the server, SIGQUIT hands over to a new process, SIGHUP has
//! the configuration read again.
//!
//! A server that ends does so as soon as no request is under way. Pingora itself would wait the
//! whole of its grace period, even when there is nothing to wait for, and then cut what is left.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use rustix::process::{self, Pid, kill_process};
use tokio::{
    runtime,
    signal::unix::{self, SignalKind},
};

use super::{
    handover::{Failed, Handover},
    reload::Reloader,
    telemetry::Spans,
};
use crate::{
    proxy::{Drain, flush_access_lines},
    store::Store,
};

/// How often a drain looks whether requests are still under way.
const STEP: Duration = Duration::from_millis(50);

/// What ends the server.
pub(super) struct Stop {
    /// What [`hangups`] had, until the signals are listened to.
    pub(super) hangups: Mutex<Option<unix::Signal>>,
    /// What `/readyz` says.
    pub(super) ready: Arc<AtomicBool>,
    pub(super) drain: Arc<Drain>,
    pub(super) ending: Ending,
    pub(super) handover: Handover,
    pub(super) reloader: Arc<Reloader>,
}

/// What is written before the process ends.
#[derive(Clone)]
pub(super) struct Ending {
    pub(super) store: Arc<Store>,
    pub(super) spans: Spans,
}

/// What came while it was handed over, to be done after it.
#[derive(Debug, Default)]
struct Meanwhile {
    stop: Option<Signal>,
    /// The new process may have read the configuration before.
    is_to_reload: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// SIGINT
    Interrupt,
    /// SIGTERM
    Terminate,
    /// SIGQUIT
    Quit,
    /// SIGHUP
    Hangup,
}

/// From here on the system's own reaction to these signals is off.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    quit: unix::Signal,
    hangup: unix::Signal,
}

// === impl Stop ===

impl Stop {
    /// Hands over; answers what came of it, and what came meanwhile.
    async fn hand_over(&self, signals: &mut Signals) -> (Result<u32, Failed>, Meanwhile) {
        let given_up = AtomicBool::new(false);
        let mut meanwhile = Meanwhile::default();
        let mut handover = pin!(self.handover.run(&given_up));
        loop {
            tokio::select! {
                biased;
                outcome = &mut handover => return (outcome, meanwhile),
                signal = signals.next() => match signal {
                    Signal::Quit => tracing::info!("a hand-over is under way already"),
                    Signal::Hangup => {
                        tracing::info!("a hand-over is under way; the configuration is read again after it");
                        meanwhile.is_to_reload = true;
                    }
                    Signal::Terminate | Signal::Interrupt => {
                        given_up.store(true, Ordering::Release);
                        meanwhile.stop = Some(signal);
                    }
                },
            }
        }
    }

    /// Reads the configuration again, beside what else goes on; the log says what came of it.
    fn reload(&self) {
        let reloader = Arc::clone(&self.reloader);
        tokio::task::spawn_blocking(move || drop(reloader.reload()));
    }

    /// Clients are told to go; the process ends with the last request.
    fn drain(&self, signals: Signals) -> ShutdownSignal {
        self.end_when_idle();
        tokio::spawn(end_at_once_on_interrupt(signals, self.ending.clone()));
        ShutdownSignal::GracefulTerminate
    }

    fn end_when_idle(&self) {
        let (drain, ending) = (Arc::clone(&self.drain), self.ending.clone());
        let watch = move || {
            while !drain.is_over() {
                std::thread::sleep(STEP);
            }
            ending.exit();
        };
        if let Err(error) = std::thread::Builder::new().name("drain".to_owned()).spawn(watch) {
            tracing::warn!(%error, "stopping takes the whole of shutdown.drain");
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let hangups = self.hangups.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Ok(mut signals) = Signals::take(hangups) else {
            // Without handlers the system's own reaction to signals remains.
            return std::future::pending().await;
        };
        let mut pending = None;
        loop {
            let signal = match pending.take() {
                Some(signal) => signal,
                None => signals.next().await,
            };
            match signal {
                Signal::Interrupt => return ShutdownSignal::FastShutdown,
                Signal::Terminate => {
                    self.ready.store(false, Ordering::Release);
                    let requests = self.drain.requests();
                    tracing::info!(requests, "stopping; requests may end");
                    return self.drain(signals);
                }
                Signal::Hangup => self.reload(),
                Signal::Quit => {
                    let (outcome, meanwhile) = self.hand_over(&mut signals).await;
                    pending = meanwhile.stop;
                    match outcome {
                        // `/readyz` stays as it is: its address accepts clients.
                        Ok(pid) => {
                            self.drain.hand_over();
                            if meanwhile.is_to_reload {
                                pass_on_hangup(pid);
                            }
                            let requests = self.drain.requests();
                            tracing::info!(pid, requests, "handed over; requests may end");
                            return self.drain(signals);
                        }
                        Err(error) => {
                            tracing::error!(%error, "not handed over; this process goes on");
                            if meanwhile.is_to_reload {
                                self.reload();
                            }
                        }
                    }
                }
            }
        }
    }
}

/// From here on SIGHUP does not end the process. One that comes before the server listens to
/// signals is remembered for it.
pub(super) fn hangups() -> io::Result<unix::Signal> {
    // The handler is the process's, and stays; tokio only wants to see a runtime.
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let _within = runtime.enter();
    unix::signal(SignalKind::hangup())
}

/// The new process is to read its configuration again.
fn pass_on_hangup(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let sent = pid.map(|pid| kill_process(pid, process::Signal::HUP));
    if let Some(Err(error)) = sent {
        tracing::error!(%error, remedy = "send it SIGHUP", "the new process can't be told to reload");
    }
}

/// While requests end.
async fn end_at_once_on_interrupt(mut signals: Signals, ending: Ending) {
    loop {
        match signals.next().await {
            Signal::Interrupt => break,
            Signal::Terminate | Signal::Quit | Signal::Hangup => {
                tracing::info!("this process is ending already; SIGINT ends it at once");
            }
        }
    }
    let ended = tokio::task::spawn_blocking(move || ending.exit()).await;
    tracing::error!(?ended, "the process could not be ended");
}

// === impl Ending ===

impl Ending {
    /// Writes what is pending. Blocks.
    pub(super) fn run(&self) {
        self.store.close();
        self.spans.stop();
        tracing::info!("stopped");
        flush_access_lines();
    }

    /// Ends the process so. Blocks.
    fn exit(&self) -> ! {
        self.run();
        std::process::exit(0)
    }
}

// === impl Signals ===

impl Signals {
    /// `hangups` are those since the start, where they could be had.
    fn take(hangups: Option<unix::Signal>) -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            quit: unix::signal(SignalKind::quit())?,
            hangup: hangups.map_or_else(|| unix::signal(SignalKind::hangup()), Ok)?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.quit.recv() => Signal::Quit,
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}
