//! The way of log lines to standard error. Nobody waits for whoever reads it: lines that find no room are dropped and
//! counted, and the next line that is written says how many.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder};
use tracing_subscriber::fmt::MakeWriter;

use super::Format;

/// Lines that may wait.
const LINES_MAX: usize = 4_096;
/// How long the end of the process waits for them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether all are written.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// What was handed over in this process.
static LOG: OnceLock<QueueProgress> = OnceLock::new();

/// Makes the writer of a log line.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    queue: NonBlocking,
    progress: QueueProgress,
}

/// Lines on both ends of the queue.
#[derive(Clone, Debug, Default)]
struct QueueProgress {
    handed_over: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    dropped: Arc<OnceLock<ErrorCounter>>,
}

/// The end of the queue, on a thread of its own.
struct End<W> {
    output: W,
    format: Format,
    progress: QueueProgress,
    /// So many that were dropped have been told.
    logged: u64,
    /// Lines that could not be written.
    lost: u64,
    /// A part of the last line may stand there.
    broken: bool,
}

impl LogQueue {
    pub(super) fn to_standard_error(format: Format) -> LogQueue {
        let lines = LogQueue::to(io::stderr(), format);
        let _first = LOG.set(lines.progress.clone());
        lines
    }

    fn to(output: impl Write + Send + 'static, format: Format) -> LogQueue {
        let progress = QueueProgress::default();
        let end = End { output, format, progress: progress.clone(), logged: 0, lost: 0, broken: false };
        let (queue, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_MAX)
            .thread_name("keylane-log")
            .finish(end);
        // Dropped, it would print to standard output when nobody reads the log; `flush` does what it is for.
        std::mem::forget(guard);
        let _first = progress.dropped.set(queue.error_counter());
        LogQueue { queue, progress }
    }
}

impl<'w> MakeWriter<'w> for LogQueue {
    type Writer = NonBlocking;

    /// Called once for each line.
    fn make_writer(&'w self) -> NonBlocking {
        self.progress.handed_over.fetch_add(1, Ordering::Relaxed);
        self.queue.clone()
    }
}

impl QueueProgress {
    fn dropped(&self) -> u64 {
        self.dropped.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
    }

    fn is_done(&self) -> bool {
        self.written.load(Ordering::Acquire) + self.dropped() >= self.handed_over.load(Ordering::Acquire)
    }
}

impl<W: Write> Write for End<W> {
    /// One whole line. It never fails: what can't be written is lost, as what nobody reads.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let gone = self.progress.dropped() + self.lost;
        let begun = if self.broken { self.output.write_all(b"\n") } else { Ok(()) };
        let written = begun.and_then(|()| match gone - self.logged {
            0 => self.output.write_all(line),
            lines => self.output.write_all(&with_dropped(line, self.format, lines)),
        });
        self.broken = written.is_err();
        match written {
            Ok(()) => self.logged = gone,
            Err(_) => self.lost += 1,
        }
        self.progress.written.fetch_add(1, Ordering::Release);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _unread = self.output.flush();
        Ok(())
    }
}

/// The line with one more field.
fn with_dropped(line: &[u8], format: Format, lines: u64) -> Vec<u8> {
    let (end, field) = match format {
        Format::Human => ("\n", format!(" log_lines_dropped={lines}\n")),
        Format::Json => ("}\n", format!(",\"log_lines_dropped\":{lines}}}\n")),
    };
    let mut line = line.strip_suffix(end.as_bytes()).unwrap_or(line).to_vec();
    line.extend_from_slice(field.as_bytes());
    line
}

/// Waits until all lines are written, but not for long: nobody may read them.
#[expect(
    clippy::disallowed_methods,
    reason = "how long the end of the process waits; nothing else depends on it"
)]
pub fn flush() {
    let Some(progress) = LOG.get() else { return };
    let started = std::time::Instant::now();
    while !progress.is_done() && started.elapsed() < PATIENCE {
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Writes to standard error what logging may filter out, and does not wait long for whoever reads it.
pub fn report(text: &str) {
    let (done, ended) = mpsc::sync_channel(1);
    let words = text.to_owned();
    let thread = std::thread::Builder::new().spawn(move || {
        report_and_wait(&words);
        let _gone = done.send(());
    });
    match thread {
        Ok(_) => drop(ended.recv_timeout(PATIENCE)),
        Err(_) => report_and_wait(text),
    }
}

/// The same where nobody can keep it waiting, and there may be no memory for a thread.
pub fn report_and_wait(text: &str) {
    let _unread = io::stderr().lock().write_all(text.as_bytes());
}

/// A panic is a broken invariant of ours: the process ends at once, whatever thread it was. A thread that dies alone would
/// leave its partitions standing without a word, and Kafka has the committed offset. Nobody waits long for whoever reads
/// the report.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Without memory for one more thread the report is what matters.
        let _watchdog = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(PATIENCE);
            std::process::abort();
        });
        report(panic); // before the flush: it says why, and the time is short
        flush();
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex, PoisonError};

    use super::*;

    /// Takes nothing before it is opened.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<Written>, Condvar)>);

    #[derive(Default)]
    struct Written {
        open: bool,
        bytes: Vec<u8>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (state, opened) = &*self.0;
            let closed = |written: &mut Written| !written.open;
            let guard = state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut guard = opened.wait_while(guard, closed).unwrap_or_else(PoisonError::into_inner);
            guard.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_was_dropped() {
        let pipe = Pipe::default();
        let lines = LogQueue::to(pipe.clone(), Format::Json);
        let write = |number: u64| {
            lines
                .make_writer()
                .write_all(format!("{{\"n\":{number}}}\n").as_bytes())
                .expect("it never fails");
        };
        (0..10_000).for_each(write);
        assert!(lines.progress.dropped() > 5_000, "{}", lines.progress.dropped());
        pipe.0.0.lock().expect("nobody panics").open = true;
        pipe.0.1.notify_all();
        while !lines.progress.is_done() {
            std::thread::yield_now();
        }
        write(10_000);
        while !lines.progress.is_done() {
            std::thread::yield_now();
        }
        let text = String::from_utf8(pipe.0.0.lock().expect("nobody panics").bytes.clone()).expect("text");
        let written: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        let logged: u64 = written.iter().filter_map(|line| line["log_lines_dropped"].as_u64()).sum();
        assert_eq!(logged, lines.progress.dropped());
        assert_eq!(logged + written.len() as u64, 10_001);
    }

    /// Takes half of a line, then nothing, then everything.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(u32, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            disk.0 += 1;
            let taken = match disk.0 {
                1 => bytes.len() / 2,
                2 | 3 => return Err(io::ErrorKind::StorageFull.into()),
                _ => bytes.len(),
            };
            disk.1.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_lost_are_told_and_stand_apart() {
        let disk = Disk::default();
        let lines = LogQueue::to(disk.clone(), Format::Json);
        for number in 0..4 {
            lines
                .make_writer()
                .write_all(format!("{{\"n\":{number}}}\n").as_bytes())
                .expect("it never fails");
        }
        while !lines.progress.is_done() {
            std::thread::yield_now();
        }
        let text = String::from_utf8(disk.0.lock().expect("nobody panics").1.clone()).expect("text");
        assert_eq!(text, "{\"n\"\n{\"n\":2,\"log_lines_dropped\":2}\n{\"n\":3}\n");
    }

    #[test]
    fn lines_keep_their_form() {
        let with =
            |line: &str, format| String::from_utf8(with_dropped(line.as_bytes(), format, 7)).expect("text");
        assert_eq!(with("INFO it began\n", Format::Human), "INFO it began log_lines_dropped=7\n");
        assert_eq!(
            with("{\"level\":\"INFO\"}\n", Format::Json),
            "{\"level\":\"INFO\",\"log_lines_dropped\":7}\n"
        );
    }
}
