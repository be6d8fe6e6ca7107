//! Logs what a guest writes to standard output and standard error: target `keylane::guest`, one log line per line of
//! text.
//!
//! A log line names the row that the guest was processing: for a `handler` component the row of its current invocation;
//! for a `batch-handler`, which the host can't follow from row to row, the first row of the call.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::clock::TickClock;
use keylane_log::LineThrottle;

/// The maximum number of bytes of a line. A longer line is truncated: a guest must not be able to fill the log with one
/// write.
const LINE_MAX: usize = 1024;

/// The maximum number of bytes of one write: as many as in other hosts, so that guests have the usual limit.
const WRITE_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The maximum number of lines per second that all instances of a handler may write.
const LINES_MAX: u32 = 200;

/// The limit on lines that all instances of a handler share.
#[derive(Debug)]
pub(super) struct SharedLineThrottle {
    clock: Arc<TickClock>,
    throttle: Mutex<LineThrottle>,
}

impl SharedLineThrottle {
    pub(super) fn new(clock: Arc<TickClock>) -> SharedLineThrottle {
        SharedLineThrottle { clock, throttle: Mutex::new(LineThrottle::new(LINES_MAX)) }
    }

    /// Returns whether a line may be written now, and counts it.
    fn try_count(&self) -> bool {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).try_count(self.clock.now())
    }

    /// Returns the number of lines dropped since the last call of this function.
    fn take_dropped(&self) -> u64 {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).take_dropped()
    }
}

/// The log of one instance: both of its streams.
#[derive(Debug)]
pub(super) struct GuestLog {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    line_throttle: Arc<SharedLineThrottle>,
    handler: String,
    topic: String,
    partition: u32,
    offset: u64,
    stdout: OpenLine,
    stderr: OpenLine,
    /// Whether lines of this call were dropped.
    dropped: bool,
}

/// A line whose end was not written yet.
#[derive(Debug, Default)]
struct OpenLine {
    bytes: Vec<u8>,
    truncated: bool,
}

impl GuestLog {
    pub(super) fn new(handler: &str, line_throttle: Arc<SharedLineThrottle>) -> GuestLog {
        GuestLog {
            inner: Mutex::new(Inner {
                line_throttle,
                handler: handler.to_owned(),
                topic: String::new(),
                partition: 0,
                offset: 0,
                stdout: OpenLine::default(),
                stderr: OpenLine::default(),
                dropped: false,
            }),
        }
    }

    pub(super) fn stream(self: &Arc<Self>, stream: Stream) -> LineStream {
        LineStream { guest_log: self.clone(), stream }
    }

    /// Begins a call with events of this topic.
    pub(super) fn begin(&self, topic: &str) {
        self.with(|inner| {
            inner.topic.clear();
            inner.topic.push_str(topic);
        });
    }

    /// Makes the following lines refer to this row.
    pub(super) fn at(&self, partition: u32, offset: u64) {
        self.with(|inner| {
            inner.emit_open();
            inner.partition = partition;
            inner.offset = offset;
        });
    }

    /// Ends the call.
    pub(super) fn end(&self) {
        self.with(|inner| {
            inner.emit_open();
            inner.log_dropped();
        });
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.with(|inner| {
            let mut pieces = bytes.split(|byte| *byte == b'\n');
            // The bytes before the first line feed belong to the open line.
            if let Some(first) = pieces.next() {
                inner.line(stream).push(first);
            }
            for piece in pieces {
                inner.emit(stream);
                inner.line(stream).push(piece);
            }
        });
    }

    fn with(&self, work: impl FnOnce(&mut Inner)) {
        // After a panic the text may be half updated, which does no harm.
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Inner {
    fn line(&mut self, stream: Stream) -> &mut OpenLine {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Logs lines without a line feed, at the end of a row or a call.
    fn emit_open(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.line(stream).bytes.is_empty() {
                self.emit(stream);
            }
        }
    }

    fn log_dropped(&mut self) {
        if std::mem::take(&mut self.dropped) {
            let (handler, dropped) = (&self.handler, self.line_throttle.take_dropped());
            tracing::warn!(handler, dropped, limit_per_second = LINES_MAX, "guest log lines dropped");
        }
    }

    fn emit(&mut self, stream: Stream) {
        let line = self.line(stream).take();
        if !self.line_throttle.try_count() {
            self.dropped = true;
            return;
        }
        tracing::info!(
            target: keylane_log::GUEST_TARGET,
            handler = self.handler,
            stream = stream.name(),
            topic = self.topic,
            partition = self.partition,
            offset = self.offset,
            line,
            "guest log line"
        );
    }
}

impl OpenLine {
    fn push(&mut self, bytes: &[u8]) {
        let capacity = LINE_MAX.saturating_sub(self.bytes.len());
        let taken = bytes.get(..capacity).unwrap_or(bytes);
        self.bytes.extend_from_slice(taken);
        self.truncated |= taken.len() < bytes.len();
    }

    /// Takes the text, safe to log: invalid UTF-8 is replaced, and control characters are escaped.
    fn take(&mut self) -> String {
        if self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
        }
        let mut text = String::with_capacity(self.bytes.len());
        for character in String::from_utf8_lossy(&self.bytes).chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        if self.truncated {
            text.push('…');
        }
        self.bytes.clear();
        self.truncated = false;
        text
    }
}

/// The guest's end of a stream. It accepts everything at once and never blocks.
#[derive(Clone, Debug)]
pub(super) struct LineStream {
    guest_log: Arc<GuestLog>,
    stream: Stream,
}

impl IsTerminal for LineStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.guest_log.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}

impl tokio::io::AsyncWrite for LineStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.guest_log.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
