//! Everything is built here, from a checked configuration, and run until it has drained.
//!
//! [`run`] builds what all handlers share (`parts`), gives each handler a thread with its consumer and its core
//! (`handler_loop`), and waits for signals or for the handlers' ends. A loop does three things in turn, each
//! within limits: it hears what happened (`source` events, [`inbox`]), feeds it to the core, and carries out the
//! core's actions (`shell`).

mod clock;
mod guest_calls;
mod handler_loop;
mod inbox;
mod notices;
mod outputs;
mod parts;
mod preflight;
mod shell;
mod signals;
mod specs;

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Checked;
use crate::guest::Compiler;
use crate::source::Record;
use clock::Clock;
use handler_loop::{HandlerLoop, LoopEnd};
use inbox::News;
use parts::Parts;
pub use preflight::refusals;
use signals::Signals;

/// Gets the name of a topic, a partition, and a record that a handler published there.
pub type ReadBack = Arc<dyn Fn(&str, i32, &Record<'_>) + Send + Sync>;

/// How the app is run.
#[derive(Clone)]
pub struct RunOptions {
    /// End when everything that is in the topics at the start is committed.
    pub until_end: bool,
    /// With the embedded broker: is shown everything that handlers publish, partition by partition in order.
    pub read_back: Option<ReadBack>,
    /// What turns components into code.
    pub compiler: Compiler,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What stands in the way of saying that all went well; empty: it did.
    pub failures: Vec<String>,
    /// What was done, over all handlers.
    pub totals: Totals,
    /// Something is still running that can't be stopped: the process must end now.
    pub stuck: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that were called for and done.
    pub done: u64,
    /// Outputs that the brokers acknowledged.
    pub emitted: u64,
    /// Guest calls.
    pub calls: u64,
    /// From the first read to the end of the drain; over several handlers the longest.
    pub active: Duration,
}

/// What the main thread waits for.
enum AppEvent {
    Signal(&'static str),
    Ended(Box<LoopEnd>),
}

/// Runs until every handler has drained: after a signal, at the end, or because it could not go on.
///
/// # Errors
/// What keeps it from starting, with the remedy.
pub fn run(config: &Checked, options: &RunOptions) -> anyhow::Result<Outcome> {
    let clock = Clock::start();
    let (events, heard) = mpsc::sync_channel(16);
    let signals = Signals::listen({
        let events = events.clone();
        move |name| events.send(AppEvent::Signal(name)).is_ok()
    })
    .context("signals can't be handled")?;
    // Brokers that are away are waited for, until a signal says otherwise.
    let mut patience = |reason: &str| match heard.try_recv() {
        Ok(AppEvent::Signal(_)) => ControlFlow::Break(()),
        Ok(AppEvent::Ended(_)) | Err(_) => {
            tracing::warn!(reason, "waiting for the brokers");
            ControlFlow::Continue(())
        }
    };
    let mut parts = Parts::build(config, options, &mut patience)?;
    let handlers = parts.handlers.len();
    for prepared in parts.take_loops(config, options, clock, &mut patience)? {
        let events = events.clone();
        let name = format!("keylane-{}", prepared.name());
        thread::Builder::new()
            .name(name)
            .spawn(move || {
                let end = HandlerLoop::run(prepared);
                // Nobody listens any more only if the process is ending anyway.
                let _ended = events.send(AppEvent::Ended(Box::new(end)));
            })
            .context("no thread for a handler")?;
    }
    let outcome = wait(&mut parts, &heard, handlers);
    signals.stop();
    Ok(parts.finish(outcome))
}

/// Waits for the end of every handler; the first signal asks all of them to drain.
fn wait(parts: &mut Parts, heard: &mpsc::Receiver<AppEvent>, mut running: usize) -> Outcome {
    let mut outcome = Outcome::default();
    while running > 0 {
        match heard.recv() {
            Ok(AppEvent::Signal(name)) => {
                tracing::info!(signal = name, "draining; a second signal ends at once");
                parts.handlers.iter().for_each(|handler| handler.inbox.put(News::Drain));
            }
            Ok(AppEvent::Ended(end)) => {
                running -= 1;
                let must_end = end.stuck;
                outcome.take(*end);
                if must_end {
                    break;
                }
            }
            Err(mpsc::RecvError) => unreachable!("this function's caller holds a sender"),
        }
    }
    outcome
}

impl Outcome {
    fn take(&mut self, end: LoopEnd) {
        self.failures.extend(end.failures.into_iter().map(|failure| format!("{}: {failure}", end.handler)));
        self.totals.done += end.totals.done;
        self.totals.emitted += end.totals.emitted;
        self.totals.calls += end.totals.calls;
        self.totals.active = self.totals.active.max(end.totals.active);
        self.stuck |= end.stuck || end.calls_left;
    }
}
