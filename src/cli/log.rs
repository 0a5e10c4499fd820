//! Where log lines go: access lines in batches, all others at once.
//!
//! A write to standard error for each request would cost more than a cached answer. Access lines
//! wait for up to [`DELAY`], or until there are [`FULL_BYTES`] of one thread's; any other line takes
//! them along, so that what ends the process is also the last that it says.

use std::{
    cell::Cell,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::proxy::AccessLines;

/// How long an access line may wait.
const DELAY: Duration = Duration::from_millis(100);

/// A batch of this size goes out at once.
const FULL_BYTES: usize = 64 << 10;

/// A line's beginning up to its microseconds, as text or as JSON.
const TIME_BYTES: usize = r#"{"timestamp":"1994-11-06T08:49:37.000000"#.len();

/// Batches; threads share them.
const BATCHES: usize = 16;

/// The log of the process.
pub(super) struct Log<W>(Arc<Shared<W>>);

struct Shared<W> {
    batches: [Mutex<Vec<u8>>; BATCHES],
    out: Mutex<W>,
    /// Lines begin with their times, by which those of several threads are put in order.
    begins_with_time: bool,
    /// Whether a line waits.
    waits: Mutex<bool>,
    came: Condvar,
}

/// The way out of lines that do not wait.
pub(super) struct Urgent<'a, W>(&'a Shared<W>);

// === impl Log ===

impl<W: Write + Send + 'static> Log<W> {
    /// Lines go to `out`.
    pub(super) fn new(out: W) -> Self {
        Self::with(out, true)
    }

    /// The same for lines that don't begin with their time.
    pub(super) fn of_other_lines(out: W) -> Self {
        Self::with(out, false)
    }

    fn with(out: W, begins_with_time: bool) -> Self {
        Self(Arc::new(Shared {
            batches: std::array::from_fn(|_| Mutex::default()),
            out: Mutex::new(out),
            begins_with_time,
            waits: Mutex::default(),
            came: Condvar::new(),
        }))
    }

    /// Starts the thread that writes what waits.
    pub(super) fn keep_up(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.keep_up())?;
        Ok(())
    }
}

impl<W: Write + Send> AccessLines for Log<W> {
    fn take(&self, line: &[u8]) {
        self.0.enter(line);
    }

    fn flush(&self) {
        self.0.write(b"");
    }
}

impl<W> Clone for Log<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<'a, W: Write + Send + 'static> MakeWriter<'a> for Log<W> {
    type Writer = Urgent<'a, W>;

    fn make_writer(&'a self) -> Urgent<'a, W> {
        Urgent(&self.0)
    }
}

// === impl Urgent ===

impl<W: Write> Write for Urgent<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Shared ===

impl<W: Write> Shared<W> {
    fn enter(&self, line: &[u8]) {
        let mut batch = lock(self.batch());
        let was_empty = batch.is_empty();
        batch.extend_from_slice(line);
        if batch.len() >= FULL_BYTES {
            drop(batch);
            self.write(b"");
        } else if was_empty {
            drop(batch);
            *lock(&self.waits) = true;
            self.came.notify_one();
        }
    }

    /// Writes what waits, and then `line`.
    fn write(&self, line: &[u8]) {
        // First: what another thread has taken out of the batches is written by then.
        let mut out = lock(&self.out);
        let mut waiting = Vec::new();
        for batch in &self.batches {
            waiting.append(&mut lock(batch));
        }
        let mut all = if self.begins_with_time { in_order(waiting) } else { waiting };
        all.extend_from_slice(line);
        // A log that can't be written must not keep anybody from being served.
        let _ = out.write_all(&all);
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than what it was divided by")]
    fn batch(&self) -> &Mutex<Vec<u8>> {
        &self.batches[place() % BATCHES]
    }

    fn keep_up(&self) {
        loop {
            let mut waits = lock(&self.waits);
            while !*waits {
                waits = self.came.wait(waits).unwrap_or_else(PoisonError::into_inner);
            }
            *waits = false;
            drop(waits);
            std::thread::sleep(DELAY);
            self.write(b"");
        }
    }
}

/// Lines of several threads by their times, with which they begin.
fn in_order(lines: Vec<u8>) -> Vec<u8> {
    // A line of another's making may be no text; then they stay as they are.
    let Ok(text) = std::str::from_utf8(&lines) else { return lines };
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    lines.sort_by_key(|line| line.get(..TIME_BYTES).unwrap_or(line));
    lines.concat().into_bytes()
}

/// The same number for every line of a thread.
fn place() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    PLACE.with(|place| match place.get() {
        Some(number) => number,
        None => {
            let number = THREADS.fetch_add(1, Ordering::Relaxed);
            place.set(Some(number));
            number
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells each write.
    struct Out(mpsc::Sender<String>);

    impl Write for Out {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(lines).into_owned());
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (Log<Out>, mpsc::Receiver<String>) {
        let (sender, written) = mpsc::channel();
        (Log::new(Out(sender)), written)
    }

    #[test]
    fn access_lines_go_out_together_a_moment_later() {
        let (log, written) = log();
        log.keep_up().unwrap();
        for line in ["a\n", "b\n"] {
            log.take(line.as_bytes());
        }
        let mut all = String::new();
        while all.len() < 4 {
            all.push_str(&written.recv_timeout(Duration::from_secs(10)).unwrap());
        }
        assert_eq!(all, "a\nb\n");
    }

    #[test]
    fn another_line_takes_along_those_that_wait() {
        let (log, written) = log();
        for (thread, line) in ["3 access\n", "1 of another\n", "2 of a third\n"].iter().enumerate()
        {
            let log = log.clone();
            let enter = move || log.take(line.as_bytes());
            std::thread::Builder::new()
                .name(thread.to_string())
                .spawn(enter)
                .unwrap()
                .join()
                .unwrap();
        }
        assert!(written.try_recv().is_err(), "they wait");
        log.make_writer().write_all(b"0 stopped\n").unwrap();
        let all = written.try_recv().unwrap();
        assert_eq!(all, "1 of another\n2 of a third\n3 access\n0 stopped\n");
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let (log, written) = log();
        log.take(&[b'x'; FULL_BYTES]);
        assert_eq!(written.try_recv().unwrap().len(), FULL_BYTES);
    }
}
