//! Builds the app from a checked configuration, and runs the app until it has drained.
//!
//! [`run`] builds the parts that all handlers share (`start`), runs each handler on a thread with its consumer and its
//! core (`event_loop`), and waits for signals and for the ends of the loops.

mod admin;
mod authentication;
mod clock;
mod event_loop;
mod group_status;
mod keyed_tools;
mod limit_causes;
mod progress;
mod signals;
mod stall_reasons;
mod start;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Checked, Cluster};
use crate::guest::Compiler;
use crate::librdkafka::Record;
use admin::{AdminServer, AdminState};
use authentication::CredentialsWatch;
use clock::Clock;
use event_loop::{EventLoop, LoopEnd};
pub use group_status::group_statuses;
pub use keyed_tools::{
    Accepted, Adopted, KeyedTools, KnownMark, NewMarks, ResetPartition, Selection, StateOfKey, ToolPartition,
    WrittenMarks,
};
use progress::ProgressThread;
use signals::{Request, Signals};
use start::{BrokerWait, Parts, is_stopped};
pub use start::{is_permanent, preflight_problems};

/// A receiver of published records: the name of the topic, the partition, and the record.
pub type ReadBack = Arc<dyn Fn(&str, i32, &Record<'_>) + Send + Sync>;

/// The options of a run.
#[derive(Clone)]
pub struct RunOptions {
    /// Whether the run ends when every event up to the end of each partition is committed. The end of a partition is
    /// determined at its first assignment.
    pub until_end: bool,
    /// A receiver of every record that handlers publish to the embedded broker, in order within each partition.
    pub read_back: Option<ReadBack>,
    /// The compiler of the components.
    pub compiler: Compiler,
    /// The address of the admin server, or `off`; `None`: that of the configuration.
    pub admin_listen: Option<String>,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct RunEnd {
    /// The failures that prevent exit code 0; empty: none.
    pub failures: Vec<String>,
    /// The totals over all handlers.
    pub totals: Totals,
    /// Whether a guest call can't be stopped, so that the process must end now.
    pub stuck: bool,
}

/// The totals of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that guest calls processed successfully.
    pub done: u64,
    /// Outputs that the brokers acknowledged.
    pub outputs_acknowledged: u64,
    /// Guest calls.
    pub calls: u64,
    /// The time from the first read to the end of the drain; the longest of several handlers.
    pub active: Duration,
}

/// An event for the main thread.
enum AppEvent {
    /// A signal that requests a drain.
    Signal(&'static str),
    /// A signal that requests a report.
    Report,
    Ended(Box<LoopEnd>),
    /// The brokers have rejected the credentials for too long.
    CredentialsRejected(String),
}

/// Runs until every handler has drained, or until a guest call can't be stopped. Handlers drain after a signal, at the
/// end of their input, or because they can't continue.
///
/// # Errors
/// The reason why the run can't start, with the remedy.
pub fn run(config: &Checked, options: &RunOptions) -> anyhow::Result<RunEnd> {
    let clock = Clock::start();
    let (events, received) = mpsc::sync_channel(16);
    let stop = Arc::new(AtomicBool::new(false));
    let signals = Signals::listen({
        let (events, stop) = (events.clone(), Arc::clone(&stop));
        move |request| match request {
            Request::Drain(name) => {
                stop.store(true, Ordering::Release);
                events.send(AppEvent::Signal(name)).is_ok()
            }
            // A report must not delay a drain: `send` could block while the app starts and receives nothing.
            Request::Report => {
                !matches!(events.try_send(AppEvent::Report), Err(TrySendError::Disconnected(_)))
            }
        }
    })
    .context("can't install the signal handlers")?;
    let admin = AdminServer::start(config, options, clock)?;
    let progress = ProgressThread::show(&admin.state, options);
    let mut broker_wait = BrokerWait::new(&config.kafka, Arc::clone(&stop));
    let mut keep_waiting = |reason: Option<&str>| broker_wait.keep_waiting(reason);
    let compiler = options.compiler.clone().stopped_by(Arc::clone(&stop));
    let (rejection_sender, rejection_receiver) = authentication::channel();
    let built = Parts::build(config, options, &compiler, &admin, &rejection_sender, &mut keep_waiting)
        .and_then(|mut parts| {
            let loops =
                parts.prepare_loops(config, options, clock, &admin, &rejection_sender, &mut keep_waiting)?;
            Ok((parts, loops))
        });
    let (parts, loops) = match built {
        Ok(built) => built,
        // An interrupted start is not an error: no handler was started, and no group was joined.
        Err(reason) if is_stopped(&reason) => return Ok(RunEnd::not_begun(options, &reason)),
        Err(error) => return Err(error),
    };
    let watch = match &config.kafka.cluster {
        Cluster::Brokers(_) => {
            let access = parts.access(config);
            let rejections = (rejection_sender, rejection_receiver);
            let watch = CredentialsWatch::start(config, &access, clock, rejections, events.clone());
            Some(watch.context("can't start the thread that watches the credentials")?)
        }
        Cluster::Embedded(_) => None,
    };
    let (running, failure) = spawn_loops(loops, &events, &admin.state);
    admin.state.running();
    if failure.is_some() {
        admin.state.draining();
        parts.drain("a thread start failure"); // handlers that have joined their groups leave them
    }
    let mut run_end = wait(&parts, &admin.state, &received, running);
    drop(progress);
    run_end.failures.extend(failure);
    if let Some(watch) = watch {
        watch.stop();
    }
    signals.stop();
    Ok(parts.finish(run_end))
}

/// Runs the event loops. Returns the number of those that run, and the last error of the others.
fn spawn_loops(
    loops: Vec<EventLoop>,
    events: &mpsc::SyncSender<AppEvent>,
    admin: &AdminState,
) -> (usize, Option<String>) {
    let (mut running, mut failure) = (0, None);
    for event_loop in loops {
        let name = event_loop.name().to_owned();
        match spawn_loop(event_loop, events) {
            Ok(()) => running += 1,
            Err(error) => {
                let error = format!("can't start the thread of handler `{name}`: {error}");
                admin.handler_not_started(&name, &error);
                failure = Some(error);
            }
        }
    }
    (running, failure)
}

/// Runs an event loop on its own thread. The loop joins the group and leaves it.
fn spawn_loop(event_loop: EventLoop, events: &mpsc::SyncSender<AppEvent>) -> std::io::Result<()> {
    let (events, name) = (events.clone(), format!("keylane-{}", event_loop.name()));
    let run = move || {
        let end = event_loop.run();
        // The receiver is gone only if the process is ending anyway.
        let _ended = events.send(AppEvent::Ended(Box::new(end)));
    };
    thread::Builder::new().name(name).spawn(run).map(drop)
}

/// Waits for the end of every handler. The first signal makes all of them drain.
fn wait(
    parts: &Parts,
    admin: &AdminState,
    received: &mpsc::Receiver<AppEvent>,
    mut running: usize,
) -> RunEnd {
    let mut run_end = RunEnd::default();
    while running > 0 {
        match received.recv() {
            Ok(AppEvent::Signal(name)) => {
                tracing::info!(signal = name, "draining; a second signal ends the process at once");
                admin.draining();
                parts.drain("a signal");
            }
            Ok(AppEvent::Report) => parts.report(),
            Ok(AppEvent::CredentialsRejected(failure)) => {
                tracing::error!(failure, "credentials rejected");
                run_end.failures.push(failure);
                admin.draining();
                parts.drain("rejected credentials");
            }
            Ok(AppEvent::Ended(end)) => {
                running -= 1;
                admin.handler_ended(&end);
                let must_end = end.stuck;
                run_end.add(*end);
                if must_end {
                    break;
                }
            }
            Err(mpsc::RecvError) => unreachable!("this function's caller holds a sender"),
        }
    }
    run_end
}

impl RunEnd {
    /// Logs and returns the end of a run that a signal stopped before any handler was started.
    fn not_begun(options: &RunOptions, reason: &anyhow::Error) -> RunEnd {
        tracing::info!(reason = format!("{reason:#}"), "stopped by a signal during the start");
        let failure = options.until_end.then(|| "stopped by a signal before the end".to_owned());
        RunEnd { failures: failure.into_iter().collect(), ..RunEnd::default() }
    }

    fn add(&mut self, end: LoopEnd) {
        self.failures.extend(end.failures.into_iter().map(|failure| format!("{}: {failure}", end.handler)));
        self.totals.done += end.totals.done;
        self.totals.outputs_acknowledged += end.totals.outputs_acknowledged;
        self.totals.calls += end.totals.calls;
        self.totals.active = self.totals.active.max(end.totals.active);
        self.stuck |= end.stuck || end.has_unterminated_calls;
    }
}
