//! The source of what the admin server serves: the state of the process, and views of the event loops.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keylane_admin::{Answer, Backend, MetricsFormat};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::status::{HandlerState, HandlerStatus, OwnershipState, ProcessState, ProcessStatus};

use super::super::clock::Clock;
use super::super::event_loop::{HandlerView, LoopEnd, LoopEvent, Mailbox};
use super::facts::{HandlerFacts, ProcessFacts};
use super::pulse::{LivenessCheck, Pulse};
use super::{metrics, view};

/// How long an answer waits for views of the event loops.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The state of the process, which the main thread updates.
pub(in crate::app) struct AdminState {
    clock: Clock,
    process: ProcessFacts,
    partition_metrics: bool,
    stage: Mutex<Stage>,
    handlers: Vec<HandlerEntry>,
}

/// The state of the process.
#[derive(Clone, Debug)]
enum Stage {
    Starting { step: String, since: Duration },
    Running,
    Draining,
}

struct HandlerEntry {
    facts: HandlerFacts,
    state: Mutex<EntryState>,
}

#[derive(Default)]
struct EntryState {
    /// The digest of its component, once that is loaded.
    digest: Option<String>,
    /// Its event loop, once that is prepared.
    event_loop: Option<(Arc<Mailbox>, Arc<Pulse>)>,
    liveness: LivenessCheck,
    /// The last request for a view. While it is not answered, there is no other.
    requested: Option<watch::Receiver<Option<HandlerView>>>,
    /// The last view of the loop.
    last: Option<HandlerView>,
    /// The uptime of the first request that the loop has not answered in time.
    not_answering_since: Option<Duration>,
    /// The failures with which the handler ended; `None`: it has not ended.
    end: Option<Vec<String>>,
}

impl AdminState {
    pub(super) fn new(
        clock: Clock,
        process: ProcessFacts,
        handlers: Vec<HandlerFacts>,
        partition_metrics: bool,
    ) -> AdminState {
        let entry = |facts| HandlerEntry { facts, state: Mutex::default() };
        AdminState {
            clock,
            process,
            partition_metrics,
            stage: Mutex::new(Stage::Starting {
                step: "reading the configuration".to_owned(),
                since: Duration::ZERO,
            }),
            handlers: handlers.into_iter().map(entry).collect(),
        }
    }

    /// Notes the current step of the start.
    pub(in crate::app) fn starting(&self, step: String) {
        let mut stage = lock(&self.stage);
        if matches!(&*stage, Stage::Starting { step: before, .. } if *before == step) {
            return;
        }
        *stage = Stage::Starting { step, since: self.clock.now().uptime };
    }

    /// Notes that the component of a handler is loaded.
    pub(in crate::app) fn component_loaded(&self, handler: &str, digest: &str) {
        self.with(handler, |state| state.digest = Some(digest.to_owned()));
    }

    /// Notes the event loop of a handler, which is about to run.
    pub(in crate::app) fn loop_prepared(&self, handler: &str, mailbox: Arc<Mailbox>, pulse: Arc<Pulse>) {
        self.with(handler, |state| state.event_loop = Some((mailbox, pulse)));
    }

    /// Notes that every event loop runs.
    pub(in crate::app) fn running(&self) {
        *lock(&self.stage) = Stage::Running;
    }

    /// Notes that the handlers drain.
    pub(in crate::app) fn draining(&self) {
        *lock(&self.stage) = Stage::Draining;
    }

    /// Notes the end of a handler. Its last view stays.
    pub(in crate::app) fn handler_ended(&self, end: &LoopEnd) {
        self.with(&end.handler, |state| {
            state.end = Some(end.failures.clone());
            state.last = Some(end.view.clone());
            state.event_loop = None;
        });
    }

    fn with(&self, handler: &str, change: impl FnOnce(&mut EntryState)) {
        if let Some(entry) = self.handlers.iter().find(|entry| entry.facts.name == handler) {
            change(&mut lock(&entry.state));
        }
    }

    /// Requests a view of every running handler, waits for a limited time, and returns the status.
    async fn collect(&self) -> ProcessStatus {
        let started = lock(&self.stage).has_started();
        let mut requests: Vec<Option<watch::Receiver<Option<HandlerView>>>> =
            self.handlers.iter().map(|entry| entry.request_view().filter(|_| started)).collect();
        let all = async {
            for request in requests.iter_mut().flatten() {
                // An error means that the loop has ended.
                let _view = request.wait_for(Option::is_some).await;
            }
        };
        let _all_in_time = timeout(ANSWER_MAX, all).await;
        let now = self.clock.now().uptime;
        let requested = self.handlers.iter().zip(&requests);
        let handlers =
            requested.map(|(entry, request)| entry.status(now, started, request.as_ref())).collect();
        let state = match &*lock(&self.stage) {
            Stage::Starting { step, since } => {
                ProcessState::Starting { step: step.clone(), step_ms: millis(now.saturating_sub(*since)) }
            }
            Stage::Running => ProcessState::Running,
            Stage::Draining => ProcessState::Draining,
        };
        self.process.status(millis(now), state, handlers)
    }
}

impl HandlerEntry {
    /// Requests a view, unless a request is not answered yet; `None`: the loop does not run.
    fn request_view(&self) -> Option<watch::Receiver<Option<HandlerView>>> {
        let state = &mut *lock(&self.state);
        let (mailbox, _) = state.event_loop.as_ref()?;
        if let Some(requested) = state.requested.as_ref().filter(|view| view.borrow().is_none()) {
            return Some(requested.clone());
        }
        let (sender, requested) = watch::channel(None);
        mailbox.put(LoopEvent::View(sender));
        Some(state.requested.insert(requested).clone())
    }

    /// Returns the status. `started`: whether the loops run. `requested`: the view, which is `None` if it did not come in
    /// time.
    fn status(
        &self,
        now: Duration,
        started: bool,
        requested: Option<&watch::Receiver<Option<HandlerView>>>,
    ) -> HandlerStatus {
        let mut state = lock(&self.state);
        let view = requested.and_then(|requested| requested.borrow().clone());
        let has_ended = state.end.is_some();
        if requested.is_none() || view.is_some() || has_ended {
            state.not_answering_since = None;
        } else {
            state.not_answering_since.get_or_insert(now.saturating_sub(ANSWER_MAX));
        }
        if !has_ended {
            state.last = view.or(state.last.take());
        }
        let handler = match (&state.end, &state.event_loop) {
            (Some(_), _) => HandlerState::Stopped,
            (None, None) => HandlerState::Starting,
            (None, Some(_)) if !started => HandlerState::Starting,
            (None, Some(_)) if state.last.as_ref().is_some_and(|last| last.core.drain_until.is_some()) => {
                HandlerState::Draining
            }
            (None, Some((_, pulse))) if pulse.was_assigned() => HandlerState::Running,
            (None, Some(_)) => HandlerState::Joining,
        };
        let mut status = self.facts.status(handler, state.digest.clone());
        status.failures = state.end.clone().unwrap_or_default();
        status.not_answering_ms = state.not_answering_since.map(|since| millis(now.saturating_sub(since)));
        if let Some(last) = &state.last {
            view::add(&mut status, last);
        }
        status
    }

    /// Returns why the handler is not ready, if it is not.
    fn not_ready(&self) -> Option<String> {
        let state = lock(&self.state);
        let name = &self.facts.name;
        if state.end.is_some() {
            return Some(format!("handler `{name}` has stopped"));
        }
        let assigned = state.event_loop.as_ref().is_some_and(|(_, pulse)| pulse.was_assigned());
        (!assigned).then(|| format!("handler `{name}` has no assignment yet"))
    }
}

impl Backend for AdminState {
    fn tick(&self) {
        for entry in &self.handlers {
            let state = &mut *lock(&entry.state);
            match &state.event_loop {
                Some((_, pulse)) if lock(&self.stage).has_started() => state.liveness.check(pulse),
                Some(_) | None => state.liveness = LivenessCheck::default(),
            }
        }
    }

    fn not_live(&self) -> Vec<String> {
        let stuck = self.handlers.iter().filter(|entry| lock(&entry.state).liveness.is_stuck());
        stuck.map(|entry| format!("the event loop of handler `{}` does not turn", entry.facts.name)).collect()
    }

    fn not_ready(&self, strict: bool) -> Answer<'_, Vec<String>> {
        Box::pin(async move {
            let starting = match &*lock(&self.stage) {
                Stage::Starting { step, .. } => Some(format!("starting: {step}")),
                Stage::Running | Stage::Draining => None,
            };
            let mut reasons: Vec<String> = starting
                .into_iter()
                .chain(self.handlers.iter().filter_map(HandlerEntry::not_ready))
                .collect();
            if strict && reasons.is_empty() {
                reasons = self.collect().await.handlers.iter().flat_map(conditions).collect();
            }
            reasons
        })
    }

    fn metrics(&self, format: MetricsFormat) -> Answer<'_, String> {
        Box::pin(async move { metrics::encode(self.collect().await, self.partition_metrics, format) })
    }

    fn status(&self) -> Answer<'_, String> {
        Box::pin(async move {
            serde_json::to_string(&self.collect().await).expect("a status has no keys that are not text")
        })
    }
}

impl Stage {
    fn has_started(&self) -> bool {
        !matches!(self, Stage::Starting { .. })
    }
}

/// Returns the conditions that an alert should report, but that must not hold up a rollout.
fn conditions(handler: &HandlerStatus) -> Vec<String> {
    let name = &handler.handler;
    let silent =
        handler.not_answering_ms.map(|_| format!("the event loop of handler `{name}` does not respond"));
    let blocked = handler.blocking_topic.as_ref().map(|topic| {
        format!("handler `{name}`: calls wait: too many records are queued for topic `{topic}`")
    });
    let stopped = handler.partitions.iter().filter(|partition| partition.state == OwnershipState::Stopped);
    let stopped = stopped.map(|partition| {
        format!("handler `{name}`: partition {}/{} has stopped", partition.topic, partition.partition)
    });
    silent.into_iter().chain(blocked).chain(stopped).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;
    use std::path::Path;

    use tokio::runtime::Builder;

    use super::*;
    use crate::config;
    use crate::librdkafka::Wake;

    const CONFIG: &str = "[kafka]\nbootstrap_servers = \"b:1\"\n[handlers.t]\ncomponent = \"t.wasm\"\n\
                          topics = [\"in\"]\ngroup_id = \"g\"\n";

    fn state() -> AdminState {
        let environment = config::Environment {
            file: Path::new("keylane.toml"),
            variable: &|_| None,
            is_file_or_pipe: &|_| true,
            cores: NonZero::<usize>::MIN,
        };
        let config = config::check(CONFIG, &environment).expect("a valid configuration");
        let handlers = config.handlers.iter().map(HandlerFacts::of).collect();
        AdminState::new(Clock::start(), ProcessFacts::of(&config), handlers, true)
    }

    fn answer<T>(answer: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(answer)
    }

    /// Prepares a loop that never turns.
    fn prepare(state: &AdminState) -> Arc<Pulse> {
        let mailbox = Arc::new(Mailbox::new(Wake::new().expect("a file descriptor")));
        let pulse = Arc::new(Pulse::default());
        state.loop_prepared("t", mailbox, Arc::clone(&pulse));
        state.running();
        pulse
    }

    #[test]
    fn a_loop_that_does_not_answer_is_reported_and_does_not_delay_the_answer_for_long() {
        let state = state();
        prepare(&state).assigned();
        let handler = |status: ProcessStatus| status.handlers.into_iter().next().expect("one handler");
        let first = handler(answer(state.collect()));
        assert_eq!(first.state, HandlerState::Running);
        assert!(first.not_answering_ms.is_some_and(|since| since >= 1_000), "{:?}", first.not_answering_ms);
        let second = handler(answer(state.collect()));
        assert!(second.not_answering_ms >= first.not_answering_ms.map(|since| since + 1_000));
        let strict = answer(state.not_ready(true));
        assert_eq!(strict, ["the event loop of handler `t` does not respond"]);
        assert!(state.not_live().is_empty(), "that is decided by the turns");
    }

    #[test]
    fn a_loop_that_does_not_turn_is_not_live() {
        let state = state();
        prepare(&state);
        (0..=11).for_each(|_| state.tick());
        assert_eq!(state.not_live(), ["the event loop of handler `t` does not turn"]);
    }

    #[test]
    fn a_process_is_ready_when_every_handler_was_assigned() {
        let state = state();
        state.starting("connecting to the brokers".to_owned());
        let reasons = answer(state.not_ready(false));
        assert_eq!(reasons, ["starting: connecting to the brokers", "handler `t` has no assignment yet"]);
        let pulse = prepare(&state);
        assert_eq!(answer(state.not_ready(false)), ["handler `t` has no assignment yet"]);
        pulse.assigned();
        assert!(answer(state.not_ready(false)).is_empty());
    }

    #[test]
    fn nothing_is_stuck_while_the_process_starts() {
        let state = state();
        (0..100).for_each(|_| state.tick());
        assert!(state.not_live().is_empty());
    }
}
