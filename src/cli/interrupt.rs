//! Ctrl-C, for commands that have to take leave of a server.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// What a process ends with that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;

/// True from the first Ctrl-C, or SIGTERM, on; the second ends the process.
pub(super) fn watch() -> io::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let (mut interrupts, mut terminations) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    // Ends with the process: there is nothing to wait for but the operator.
    thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terminations.recv() => {}
                }
                if flag.swap(true, Ordering::AcqRel) {
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        });
    })?;
    Ok(interrupted)
}
