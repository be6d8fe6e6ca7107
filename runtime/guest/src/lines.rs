//! What a guest prints becomes log lines: target `keylane::guest`, one per line of text.
//!
//! A line says where the guest was: for a `handler` component the row that it was called with; for a
//! `batch-handler`, which the host can't watch from row to row, the first row of the call.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::clock::Clock;
use keylane_telemetry::Throttle;

/// A longer line is cut: a guest must not be able to fill the log with one write.
const LINE_MAX: usize = 1024;

/// What one write may carry: as much as other hosts take, so that guests find what they are used to.
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

/// Lines a second that all instances of a handler may write.
const LINES_MAX: u32 = 200;

/// Counts the lines of all instances of a handler.
#[derive(Debug)]
pub(super) struct LineBudget {
    clock: Arc<Clock>,
    throttle: Mutex<Throttle>,
}

impl LineBudget {
    pub(super) fn new(clock: Arc<Clock>) -> LineBudget {
        LineBudget { clock, throttle: Mutex::new(Throttle::new(LINES_MAX)) }
    }

    /// Whether a line may be written.
    fn allow(&self) -> bool {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).allows(self.clock.now())
    }

    /// How many were not written since somebody was told last.
    fn take_dropped(&self) -> u64 {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).take_dropped()
    }
}

/// Both streams of one instance.
#[derive(Debug)]
pub(super) struct GuestLog {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    budget: Arc<LineBudget>,
    handler: String,
    topic: String,
    partition: u32,
    offset: u64,
    stdout: OpenLine,
    stderr: OpenLine,
    /// Lines of this call were dropped.
    dropped: bool,
}

/// A line that is not complete yet.
#[derive(Debug, Default)]
struct OpenLine {
    bytes: Vec<u8>,
    cut: bool,
}

impl GuestLog {
    pub(super) fn new(handler: &str, budget: Arc<LineBudget>) -> GuestLog {
        GuestLog {
            inner: Mutex::new(Inner {
                budget,
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
        LineStream { lines: self.clone(), stream }
    }

    /// A call of this topic begins.
    pub(super) fn begin(&self, topic: &str) {
        self.with(|inner| {
            inner.topic.clear();
            inner.topic.push_str(topic);
        });
    }

    /// What follows is about this row.
    pub(super) fn at(&self, partition: u32, offset: u64) {
        self.with(|inner| {
            inner.emit_open();
            inner.partition = partition;
            inner.offset = offset;
        });
    }

    /// The call is over.
    pub(super) fn end(&self) {
        self.with(|inner| {
            inner.emit_open();
            inner.log_dropped();
        });
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.with(|inner| {
            let mut pieces = bytes.split(|byte| *byte == b'\n');
            // What stands before the first line feed belongs to the line that is open.
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
        // Text is never half updated in a way that matters.
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

    /// At the end of a row or a call, a line without its end is a line too.
    fn emit_open(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.line(stream).bytes.is_empty() {
                self.emit(stream);
            }
        }
    }

    fn log_dropped(&mut self) {
        if std::mem::take(&mut self.dropped) {
            let (handler, dropped) = (&self.handler, self.budget.take_dropped());
            tracing::warn!(
                handler,
                dropped,
                most = LINES_MAX,
                "guest output dropped: too many lines a second"
            );
        }
    }

    fn emit(&mut self, stream: Stream) {
        let line = self.line(stream).take();
        if !self.budget.allow() {
            self.dropped = true;
            return;
        }
        tracing::info!(
            target: "keylane::guest",
            handler = self.handler,
            stream = stream.name(),
            topic = self.topic,
            partition = self.partition,
            offset = self.offset,
            line,
            "guest output"
        );
    }
}

impl OpenLine {
    fn push(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.bytes.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(taken);
        self.cut |= taken.len() < bytes.len();
    }

    /// As text that is safe in a log: repaired, control characters escaped.
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
        if self.cut {
            text.push('…');
        }
        self.bytes.clear();
        self.cut = false;
        text
    }
}

/// The guest's end of a stream. It takes everything at once and never waits.
#[derive(Clone, Debug)]
pub(super) struct LineStream {
    lines: Arc<GuestLog>,
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
        self.lines.write(self.stream, &bytes);
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
        self.lines.write(self.stream, bytes);
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
