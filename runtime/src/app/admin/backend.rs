//! The source of what the admin server serves: the state of the process, and views of the event loops.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use keylane_admin::{Backend, LanesError, MetricsFormat, Notice, ResponseFuture};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::guest::Handler;
use crate::logging::{self, RecentLine};
use crate::status::{
    HandlerStatus, LanesStatus, MemoryStatus, NoticeStatus, OwnershipState, ProcessState, ProcessStatus,
};

use super::super::clock::Clock;
use super::super::event_loop::{HandlerView, LoopEnd, Mailbox};
use super::client_statistics::ClientStatistics;
use super::facts::{HandlerFacts, ProcessFacts};
use super::handler_entry::{EntryState, HandlerEntry, VIEW_WAIT_MAX, lock, millis};
use super::lanes;
use super::metrics::{self, Metrics};
use super::process::ProcessUsage;
use super::pulse::{LivenessCheck, Pulse};

/// The state of the process, which the main thread updates.
pub(in crate::app) struct AdminState {
    clock: Clock,
    process: ProcessFacts,
    partition_metrics: bool,
    stage: Mutex<Stage>,
    handlers: Vec<HandlerEntry>,
    /// The statistics of the producer, unless they are off.
    producer: Mutex<Option<ClientStatistics>>,
}

/// The stage of the run.
#[derive(Clone, Debug)]
enum Stage {
    Starting { step: String, since: Duration },
    Running,
    Draining,
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
                step: "creating the engine".to_owned(),
                since: Duration::ZERO,
            }),
            handlers: handlers.into_iter().map(entry).collect(),
            producer: Mutex::default(),
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
    pub(in crate::app) fn component_loaded(&self, handler: &Handler) {
        self.with(handler.name(), |state| {
            state.digest = Some(handler.digest().to_string());
            state.guests = Some(handler.counters().clone());
        });
    }

    /// Notes the event loop of a handler, which is about to run.
    pub(in crate::app) fn loop_prepared(&self, handler: &str, mailbox: Arc<Mailbox>, pulse: Arc<Pulse>) {
        self.with(handler, |state| state.event_loop = Some((mailbox, pulse)));
    }

    /// Notes the statistics of the consumer of a handler.
    pub(super) fn set_consumer_statistics(&self, handler: &str, statistics: ClientStatistics) {
        self.with(handler, |state| state.statistics = Some(statistics));
    }

    /// Notes the statistics of the producer.
    pub(super) fn set_producer_statistics(&self, statistics: ClientStatistics) {
        *lock(&self.producer) = Some(statistics);
    }

    /// Notes that every event loop runs.
    pub(in crate::app) fn running(&self) {
        *lock(&self.stage) = Stage::Running;
    }

    /// Notes that the handlers drain.
    pub(in crate::app) fn draining(&self) {
        *lock(&self.stage) = Stage::Draining;
    }

    /// Notes that a handler could not be started.
    pub(in crate::app) fn handler_not_started(&self, handler: &str, error: &str) {
        self.with(handler, |state| {
            state.end = Some(vec![error.to_owned()]);
            state.event_loop = None;
        });
    }

    /// Notes the end of a handler. Its last view stays.
    pub(in crate::app) fn handler_ended(&self, end: &LoopEnd) {
        self.with(&end.handler, |state| {
            state.end = Some(end.failures.clone());
            state.last_view = Some(end.view.clone());
            state.event_loop = None;
            state.statistics = None;
        });
    }

    fn with(&self, handler: &str, change: impl FnOnce(&mut EntryState)) {
        if let Some(entry) = self.handlers.iter().find(|entry| entry.facts.name == handler) {
            change(&mut lock(&entry.state));
        }
    }

    /// Requests a view of every running handler, waits for a limited time, and returns the status.
    pub(in crate::app) async fn collect(&self) -> ProcessStatus {
        let started = lock(&self.stage).has_started();
        let mut requests: Vec<Option<watch::Receiver<Option<HandlerView>>>> =
            self.handlers.iter().map(|entry| if started { entry.request_view() } else { None }).collect();
        let all = async {
            for request in requests.iter_mut().flatten() {
                // An error means that the loop was dropped with its mailbox.
                let _view = request.wait_for(Option::is_some).await;
            }
        };
        let _all_in_time = timeout(VIEW_WAIT_MAX, all).await;
        let now = self.clock.now();
        let requested = self.handlers.iter().zip(&requests);
        let handlers: Vec<HandlerStatus> =
            requested.map(|(entry, request)| entry.status(now, started, request.as_ref())).collect();
        let mut memory = self.memory();
        let fetched = handlers.iter().filter_map(|handler| handler.fetch_queue_bytes);
        memory.fetch_queue_bytes = fetched.reduce(u64::saturating_add);
        let state = match &*lock(&self.stage) {
            Stage::Starting { step, since } => ProcessState::Starting {
                step: step.clone(),
                step_ms: millis(now.uptime.saturating_sub(*since)),
            },
            Stage::Running => ProcessState::Running,
            Stage::Draining => ProcessState::Draining,
        };
        let mut status = self.process.status(now, state, memory, handlers);
        let producer = lock(&self.producer).as_mut().and_then(|statistics| statistics.read(now));
        status.producer_brokers = producer.unwrap_or_default().brokers;
        status
    }

    /// Returns the memory that is in use, as of the last views.
    fn memory(&self) -> MemoryStatus {
        let mut memory = MemoryStatus::default();
        for entry in &self.handlers {
            let state = lock(&entry.state);
            memory.guest_bytes += state.guest_usage().map_or(0, |guests| guests.memory_bytes);
            if let Some(last) = state.last_view.as_ref().filter(|_| state.end.is_none()) {
                memory.arena_bytes += last.arena_bytes as u64;
                memory.output_backlog_bytes += last.publishing.backlog_bytes as u64;
            }
        }
        memory.resident_bytes = ProcessUsage::read().map(|own| own.resident_bytes);
        memory
    }

    /// Returns the worst lanes of a handler.
    async fn worst_lanes(&self, request: keylane_admin::LanesRequest) -> Result<LanesStatus, LanesError> {
        let keylane_admin::LanesRequest { handler, by, limit } = request;
        let named = |entry: &&HandlerEntry| handler.as_ref().is_none_or(|name| *name == entry.facts.name);
        let mut entries = self.handlers.iter().filter(named);
        let (Some(entry), None) = (entries.next(), entries.next()) else {
            let names = self.handlers.iter().map(|entry| entry.facts.name.clone());
            return Err(LanesError::UnknownHandler(names.collect()));
        };
        let mut lanes = entry.request_lanes(lanes::order_of(by), limit)?;
        let response = timeout(VIEW_WAIT_MAX, lanes.wait_for(Option::is_some)).await;
        let Ok(Ok(ranked)) = response.map(|response| response.map(|lanes| lanes.clone().unwrap_or_default()))
        else {
            return Err(LanesError::Unresponsive);
        };
        Ok(lanes::status(&entry.facts.name, by, &ranked, self.clock.now().uptime))
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
        stuck
            .map(|entry| {
                format!("the event loop of handler `{}` is stuck: no iteration for 10 s", entry.facts.name)
            })
            .collect()
    }

    fn not_ready(&self, strict: bool) -> ResponseFuture<'_, Vec<String>> {
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

    fn metrics(&self, format: MetricsFormat) -> ResponseFuture<'_, String> {
        Box::pin(async move {
            let status = self.collect().await;
            let states = || self.handlers.iter().map(|entry| lock(&entry.state));
            let metrics = Metrics {
                status,
                views: states().map(|state| state.last_view.clone()).collect(),
                guests: states().map(|state| state.guest_usage()).collect(),
                include_partitions: self.partition_metrics,
            };
            metrics::encode(metrics, format)
        })
    }

    fn status(&self) -> ResponseFuture<'_, String> {
        Box::pin(async move {
            serde_json::to_string(&self.collect().await).expect("a status has no keys that are not text")
        })
    }

    fn notices(&self, after: u64) -> Vec<Notice> {
        logging::recent_lines(after).iter().map(notice).collect()
    }

    fn lanes(&self, request: keylane_admin::LanesRequest) -> ResponseFuture<'_, Result<String, LanesError>> {
        Box::pin(async move {
            let lanes = self.worst_lanes(request).await?;
            Ok(serde_json::to_string(&lanes).expect("lanes have no keys that are not text"))
        })
    }
}

/// Converts a log line to a notice.
fn notice(line: &RecentLine) -> Notice {
    let since_1970 = line.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let notice = NoticeStatus {
        id: line.id,
        time_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
        level: line.level.to_string(),
        times: line.times,
        message: line.message.clone(),
        fields: line.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    };
    let json = serde_json::to_string(&notice).expect("a notice has no keys that are not text");
    Notice { id: line.id, json }
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
        handler.unresponsive_ms.map(|_| format!("the event loop of handler `{name}` does not respond"));
    let blocked = handler.blocking_topic.as_ref().map(|topic| {
        format!("handler `{name}`: calls wait: too many records are queued for topic `{topic}`")
    });
    let stopped = handler.partitions.iter().filter(|partition| partition.state == OwnershipState::Stopped);
    let stopped = stopped.map(|partition| {
        format!("handler `{name}`: partition {}/{} has stopped", partition.topic, partition.partition)
    });
    silent.into_iter().chain(blocked).chain(stopped).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;
    use std::path::Path;

    use tokio::runtime::Builder;

    use super::*;
    use crate::config;
    use crate::librdkafka::Wake;
    use crate::status::HandlerState;

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

    fn block_on<T>(response: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(response)
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
    fn a_loop_that_does_not_respond_is_reported_and_does_not_delay_the_response_for_long() {
        let state = state();
        prepare(&state).assigned();
        let handler = |status: ProcessStatus| status.handlers.into_iter().next().expect("one handler");
        let first = handler(block_on(state.collect()));
        assert_eq!(first.state, HandlerState::Running);
        assert!(first.unresponsive_ms.is_some_and(|since| since >= 1_000), "{:?}", first.unresponsive_ms);
        let second = handler(block_on(state.collect()));
        assert!(second.unresponsive_ms >= first.unresponsive_ms.map(|since| since + 1_000));
        let strict = block_on(state.not_ready(true));
        assert_eq!(strict, ["the event loop of handler `t` does not respond"]);
        assert!(state.not_live().is_empty(), "that is decided by the turns");
    }

    #[test]
    fn a_loop_that_does_not_turn_is_not_live() {
        let state = state();
        prepare(&state);
        (0..=11).for_each(|_| state.tick());
        assert_eq!(state.not_live(), ["the event loop of handler `t` is stuck: no iteration for 10 s"]);
    }

    #[test]
    fn a_process_is_ready_when_every_handler_was_assigned() {
        let state = state();
        state.starting("connecting to the brokers".to_owned());
        let reasons = block_on(state.not_ready(false));
        assert_eq!(reasons, ["starting: connecting to the brokers", "handler `t` has no assignment yet"]);
        let pulse = prepare(&state);
        assert_eq!(block_on(state.not_ready(false)), ["handler `t` has no assignment yet"]);
        pulse.assigned();
        assert!(block_on(state.not_ready(false)).is_empty());
    }

    #[test]
    fn nothing_is_stuck_while_the_process_starts() {
        let state = state();
        (0..100).for_each(|_| state.tick());
        assert!(state.not_live().is_empty());
    }
}
