//! The queue of log lines to standard error. No thread waits for the reader of standard error: lines that exceed the
//! queue are dropped and counted, and the next line that is written contains their number.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder};
use tracing_subscriber::fmt::MakeWriter;

use super::Format;
use super::progress::above_line;

/// Capacity of the queue, in lines.
const LINES_MAX: usize = 4_096;
/// How long the end of the process, or a report, waits for the reader of standard error.
pub(super) const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// Interval at which the end of the process checks whether all lines are written.
const FLUSH_POLL: Duration = Duration::from_millis(2);

/// Progress of this process's log.
static LOG: OnceLock<QueueProgress> = OnceLock::new();

/// The sending end of the queue, which creates the writer of each log line.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    queue: NonBlocking,
    progress: QueueProgress,
}

/// The number of lines that entered the queue, and that left it.
#[derive(Clone, Debug, Default)]
struct QueueProgress {
    submitted: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    dropped: Arc<OnceLock<ErrorCounter>>,
}

/// Writes the queued lines, on its own thread.
struct QueueWriter<W> {
    output: W,
    format: Format,
    progress: QueueProgress,
    /// The number of dropped and lost lines that was already logged.
    logged: u64,
    /// The number of lines that could not be written.
    lost: u64,
    /// Whether the last line may have been written partially.
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
        let writer =
            QueueWriter { output, format, progress: progress.clone(), logged: 0, lost: 0, broken: false };
        let (queue, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_MAX)
            .thread_name("keylane-log")
            .finish(writer);
        // If the guard were dropped while the log is not read, it would print to standard output. `flush` replaces it.
        std::mem::forget(guard);
        let _first = progress.dropped.set(queue.error_counter());
        LogQueue { queue, progress }
    }
}

impl<'w> MakeWriter<'w> for LogQueue {
    type Writer = NonBlocking;

    /// Creates the writer of one line and counts the line.
    fn make_writer(&'w self) -> NonBlocking {
        self.progress.submitted.fetch_add(1, Ordering::Relaxed);
        self.queue.clone()
    }
}

impl QueueProgress {
    fn dropped(&self) -> u64 {
        self.dropped.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
    }

    fn is_done(&self) -> bool {
        self.written.load(Ordering::Acquire) + self.dropped() >= self.submitted.load(Ordering::Acquire)
    }
}

impl<W: Write> Write for QueueWriter<W> {
    /// Writes one whole line. Never fails: a line that can't be written is counted as lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let gone = self.progress.dropped() + self.lost;
        let written = above_line(|| {
            let begun = if self.broken { self.output.write_all(b"\n") } else { Ok(()) };
            begun.and_then(|()| match gone - self.logged {
                0 => self.output.write_all(line),
                lines => self.output.write_all(&with_dropped(line, self.format, lines)),
            })
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

/// Adds the number of dropped lines to a line, as a field.
fn with_dropped(line: &[u8], format: Format, lines: u64) -> Vec<u8> {
    let (end, field) = match format {
        Format::Human => ("\n", format!(" log_lines_dropped={lines}\n")),
        Format::Json => ("}\n", format!(",\"log_lines_dropped\":{lines}}}\n")),
    };
    let mut line = line.strip_suffix(end.as_bytes()).unwrap_or(line).to_vec();
    line.extend_from_slice(field.as_bytes());
    line
}

/// Returns the number of log lines that were dropped because standard error was not read.
pub fn lines_dropped() -> u64 {
    LOG.get().map_or(0, QueueProgress::dropped)
}

/// Waits until all lines are written. The wait is limited, because standard error may not be read.
#[expect(
    clippy::disallowed_methods,
    reason = "bounds the wait at the end of the process; nothing else depends on it"
)]
pub fn flush() {
    let Some(progress) = LOG.get() else { return };
    let started = std::time::Instant::now();
    while !progress.is_done() && started.elapsed() < FLUSH_LIMIT {
        std::thread::sleep(FLUSH_POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex, PoisonError};

    use super::*;

    /// A writer that blocks until it is opened.
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
    fn a_log_that_is_not_read_blocks_no_thread_and_reports_dropped_lines() {
        let pipe = Pipe::default();
        let lines = LogQueue::to(pipe.clone(), Format::Json);
        let write = |number: u64| {
            lines
                .make_writer()
                .write_all(format!("{{\"n\":{number}}}\n").as_bytes())
                .expect("the writer never fails");
        };
        (0..10_000).for_each(write);
        assert!(lines.progress.dropped() > 5_000, "{}", lines.progress.dropped());
        pipe.0.0.lock().expect("no thread panics").open = true;
        pipe.0.1.notify_all();
        while !lines.progress.is_done() {
            std::thread::yield_now();
        }
        write(10_000);
        while !lines.progress.is_done() {
            std::thread::yield_now();
        }
        let text = String::from_utf8(pipe.0.0.lock().expect("no thread panics").bytes.clone()).expect("text");
        let written: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect();
        let logged: u64 = written.iter().filter_map(|line| line["log_lines_dropped"].as_u64()).sum();
        assert_eq!(logged, lines.progress.dropped());
        assert_eq!(logged + written.len() as u64, 10_001);
    }

    /// A writer that takes half of a line, then fails, then takes everything.
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
    fn lines_lost_on_a_full_disk_are_reported_and_separated() {
        let disk = Disk::default();
        let lines = LogQueue::to(disk.clone(), Format::Json);
        for number in 0..4 {
            lines
                .make_writer()
                .write_all(format!("{{\"n\":{number}}}\n").as_bytes())
                .expect("the writer never fails");
        }
        while !lines.progress.is_done() {
            std::thread::yield_now();
        }
        let text = String::from_utf8(disk.0.lock().expect("no thread panics").1.clone()).expect("text");
        assert_eq!(text, "{\"n\"\n{\"n\":2,\"log_lines_dropped\":2}\n{\"n\":3}\n");
    }

    #[test]
    fn lines_keep_their_format() {
        let with =
            |line: &str, format| String::from_utf8(with_dropped(line.as_bytes(), format, 7)).expect("text");
        assert_eq!(with("INFO it began\n", Format::Human), "INFO it began log_lines_dropped=7\n");
        assert_eq!(
            with("{\"level\":\"INFO\"}\n", Format::Json),
            "{\"level\":\"INFO\",\"log_lines_dropped\":7}\n"
        );
    }
}
