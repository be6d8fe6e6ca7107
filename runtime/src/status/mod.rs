//! The status of a process: the JSON of `/v1/status`, which `keylane status` shows.
//!
//! Times are in milliseconds, sizes in bytes. Fields are added over time; none changes its meaning.

pub mod broker;
pub mod gate;
pub mod group;
pub mod keyed_state;
pub mod limit_cause;
pub mod stall_reason;
pub mod transactions;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use broker::{BrokerState, BrokerStatus};
pub use gate::GateStatus;
pub use group::{GroupMemberStatus, GroupOwner, GroupPartitionStatus, GroupStatus, TopicPartition};
pub use keyed_state::KeyedStateStatus;
pub use limit_cause::{LIMIT_CAUSES, LimitCause};
pub use stall_reason::{STALL_REASONS, StallReason};
pub use transactions::{AbortStatus, DeliveryMode, LeftOutStatus, TransactionsStatus};

/// The status of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The version of Keylane.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// The name of the machine.
    pub host: String,
    /// When this status was made, in milliseconds since 1970.
    pub time_ms: i64,
    /// The time since the process began to start.
    pub uptime_ms: u64,
    /// The SHA-256 of the configuration file, in hex.
    pub configuration_sha256: String,
    /// The state of the process.
    pub state: ProcessState,
    /// Threads that run guests.
    pub workers: usize,
    /// `runtime.memory_budget`.
    pub memory_budget_bytes: u64,
    /// The memory that is in use.
    pub memory: MemoryStatus,
    /// Log lines that were dropped because standard error was not read.
    pub log_lines_dropped: u64,
    /// The handlers, in the order of the configuration.
    pub handlers: Vec<HandlerStatus>,
    /// The brokers, as the producer knows them; empty without statistics.
    pub producer_brokers: Vec<BrokerStatus>,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Memory allocated for records that are not settled, in use or not.
    pub arena_bytes: u64,
    /// Queued outputs and dead letters.
    pub output_backlog_bytes: u64,
    /// Linear memory of the live instances of all handlers.
    pub guest_bytes: u64,
    /// Records that the consumers have fetched ahead; `None`: no statistics.
    pub fetch_queue_bytes: Option<u64>,
    /// The resident set of the process; `None`: not available.
    pub resident_bytes: Option<u64>,
}

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum ProcessState {
    /// It is starting, and has joined no group.
    Starting {
        /// The current step.
        step: String,
        /// The time since the step began.
        step_ms: u64,
    },
    /// Its handlers run.
    Running,
    /// Its handlers drain, or have ended.
    Draining,
}

/// The status of one handler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandlerStatus {
    /// Its name.
    pub handler: String,
    /// Its consumer group.
    pub group: String,
    /// Its input topics.
    pub topics: Vec<String>,
    /// The topics of its dead letters; empty: it publishes none.
    pub dead_letter_topics: Vec<String>,
    /// How its outputs, dead letters and offsets become visible.
    pub delivery: DeliveryMode,
    /// Its transactions; `None`: it has at-least-once delivery, or does not run yet.
    pub transactions: Option<TransactionsStatus>,
    /// Its keyed state; `None`: it has none, or does not run yet.
    pub keyed_state: Option<KeyedStateStatus>,
    /// Its gate, and its detection of duplicates; `None`: it has neither, or does not run yet.
    pub gate: Option<GateStatus>,
    /// The file of its component.
    pub component: String,
    /// The SHA-256 of the component, in hex; `None`: it is not loaded yet.
    pub component_sha256: Option<String>,
    /// The state of the handler.
    pub state: HandlerState,
    /// Why it has stopped; empty while it runs, and after an orderly end.
    pub failures: Vec<String>,
    /// How long its event loop has not responded; `None`: it responds. Counters and partitions are then those of its last response.
    pub unresponsive_ms: Option<u64>,
    /// What limits the handler, over the last ten seconds; `None`: it does not run, or has just started.
    pub limited_by: Option<LimitStatus>,
    /// Rates over the last ten seconds; `None`: it does not run, or has just started.
    pub rates: Option<RateStatus>,
    /// Durations of the calls of the last ten seconds; `None`: there were none.
    pub call_times: Option<CallTimeStatus>,
    /// The time to the end of the logs at the rate of the last ten seconds; `None`: the lag does not decrease, or there
    /// is none.
    pub catch_up_ms: Option<u64>,
    /// Calls that have not terminated.
    pub calls: u32,
    /// Those of them that wait, for I/O or a timer.
    pub waiting_calls: u32,
    /// `lanes.max_concurrency`.
    pub calls_limit: u32,
    /// Live instances of its component. They may outlive the handler, until another handler needs their place.
    pub instances: InstanceStatus,
    /// Linear memory of these instances. The pages that were never written are not resident.
    pub guest_memory_bytes: u64,
    /// Lanes with events or a call.
    pub lanes: u64,
    /// Lanes that a call could take now.
    pub ready_lanes: u64,
    /// Lanes in a retry state: after a failure, their events are dispatched one by one for a while.
    pub retrying_lanes: u64,
    /// The topic whose queued outputs block new calls, if there is one.
    pub blocking_topic: Option<String>,
    /// Totals since the handler started.
    pub totals: HandlerTotals,
    /// The number of events by the filter rule that matched them; empty without a filter.
    pub filter: Vec<FilterRuleStatus>,
    /// The brokers, as its consumer knows them; empty without statistics: the handler does not run, or
    /// `statistics.interval.ms` is 0.
    pub brokers: Vec<BrokerStatus>,
    /// Whether every connection of its consumer is down, or has not responded for ten seconds.
    pub no_broker_reachable: bool,
    /// Records that its consumer has fetched ahead; `None`: no statistics.
    pub fetch_queue_bytes: Option<u64>,
    /// Its input topics that have more partitions than at the start: their keys have moved to other partitions.
    #[serde(default)]
    pub grown_topics: Vec<GrownTopicStatus>,
    /// Its partitions, by topic and number.
    pub partitions: Vec<PartitionStatus>,
}

/// A topic with more partitions than at the start of the handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrownTopicStatus {
    /// The topic.
    pub topic: String,
    /// Its number of partitions.
    pub partitions: i32,
    /// Its number of partitions when the handler started, or when the topic was created again.
    pub at_start: i32,
}

/// The live instances of a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Instances that are kept for later calls.
    pub idle: u32,
    /// Instances that run a call, start, or are being dropped.
    pub busy: u32,
}

/// What limits a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// The cause: the code of one of [`LIMIT_CAUSES`].
    pub cause: String,
    /// What the cause means.
    pub meaning: String,
    /// The numbers that show it, in words.
    pub detail: String,
    /// What to do if the lag grows.
    pub remedy: String,
}

/// Rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateStatus {
    /// Events that settled.
    pub settled: f64,
    /// Retries that were scheduled.
    pub retries: f64,
    /// Events that were dead-lettered.
    pub dead_letters: f64,
}

/// Durations of calls, from dispatch to result. Each is the upper bound of its bucket; `None`: it has no upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTimeStatus {
    /// The median, in microseconds.
    pub p50_us: Option<u64>,
    /// The 99th percentile, in microseconds.
    pub p99_us: Option<u64>,
}

/// The state of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerState {
    /// It is being prepared, and has not joined its group.
    Starting,
    /// It is joining its group: no assignment has been answered yet.
    Joining,
    /// It handles events.
    Running,
    /// It finishes running calls, commits, and leaves its group.
    Draining,
    /// It has ended.
    Stopped,
}

/// Totals of one handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerTotals {
    /// Events that settled, with any outcome.
    pub settled: u64,
    /// Events that the filter dropped.
    pub filtered: u64,
    /// Events that were dead-lettered.
    pub dead_letters: u64,
    /// Events skipped because they could not be handled.
    pub skipped: u64,
    /// Attempts after the first one of an event.
    pub retries: u64,
    /// Events that ran again without a charge: after a fault of a call that they shared, or after an output that could
    /// not be published.
    pub reruns: u64,
    /// Outputs that the brokers acknowledged.
    pub outputs: u64,
    /// Outputs that were stored after a later one of their lane.
    pub order_breaks: u64,
    /// Outputs with the time of sending, because their topic does not accept the time of their event.
    pub restamped: u64,
    /// Output headers that were dropped because their names are reserved.
    pub removed_headers: u64,
    /// Partitions whose commit was rejected, and commits without a response.
    pub commits_failed: u64,
    /// Offsets skipped as configured by `out_of_range`.
    pub offsets_skipped: u64,
    /// Offsets that earlier owners had claimed as settled or missing.
    pub inherited_claims: u64,
    /// Ownerships that began.
    pub ownerships: u64,
    /// Ownerships that were lost: another member may already own the partition.
    pub partitions_lost: u64,
    /// Partitions whose topic was recreated while it was read.
    pub partitions_recreated: u64,
    /// `read_in_step`: partitions that others no longer waited for, because nothing of them could be handled.
    #[serde(default)]
    pub partitions_passed_over: u64,
    /// Commits whose metadata was ignored.
    pub metadata_ignored: u64,
    /// How often a reader was repositioned.
    pub repositioned: u64,
    /// How often the producer, which all handlers share, was replaced.
    pub producers_replaced: u64,
}

/// A rule of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRuleStatus {
    /// Its name; `None`: no rule matched.
    pub rule: Option<String>,
    /// Whether its events are kept.
    pub keep: bool,
    /// The number of events that it matched.
    pub events: u64,
}

/// The status of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The state of its ownership.
    pub state: OwnershipState,
    /// The offset that the coordinator has stored; `None`: none in this ownership.
    pub committed: Option<i64>,
    /// The first offset that is not settled; `None`: the start is not known yet.
    pub committable: Option<i64>,
    /// Offsets beyond `committable` that need no processing: settled, claimed or missing.
    pub completed_beyond: u64,
    /// Offsets beyond `committed` that need no processing, but that the last commit could not claim.
    pub unclaimed: u64,
    /// Transactional delivery: settled events that no transaction can commit now, because the completed set with them would
    /// be too long, or because the partition is left out.
    pub withheld: u64,
    /// Transactional delivery: why transactions leave the partition out; `None`: they do not.
    pub left_out: Option<LeftOutStatus>,
    /// The next offset to read; `None`: the start is not known yet.
    pub next_offset: Option<i64>,
    /// One past the last offset of the log, as of the last fetch; `None`: not known yet.
    pub log_end: Option<i64>,
    /// Offsets from the committed one to the end of the log.
    pub lag_committed: Option<u64>,
    /// Offsets up to the end of the log that are not settled.
    pub lag_unsettled: Option<u64>,
    /// Events that were read and are not settled.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Those of them that a gate holds back: they wait for lower order values, or for their window.
    pub parked: u64,
    /// Lanes with a running call.
    pub running_lanes: u32,
    /// Lanes that wait for acknowledgements.
    pub unacked_lanes: u32,
    /// The age, by the time of its record, of the first unsettled event, or of one read shortly before it; `None`: no
    /// event is queued, or its record has no time.
    pub oldest_record_age_ms: Option<u64>,
    /// How long ago that event was read; `None`: no event is queued.
    pub oldest_queued_ms: Option<u64>,
    /// The setting because of which reading is paused: `max_queued`, `memory_budget`, `max_window`, `gate.max_waiting` or
    /// `read_in_step`.
    pub read_limit: Option<String>,
    /// Whether it was reported as stalled: after 15 s without progress, or at once for a read error.
    pub stalled: bool,
    /// How long it has made no progress, while `stalled`.
    pub stalled_ms: Option<u64>,
    /// Why it has stopped, if it has.
    pub stop_reason: Option<String>,
    /// What blocks it now; `None`: nothing is known to be left to read, settle or commit.
    pub blocked: Option<BlockedStatus>,
}

/// The state of an ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnershipState {
    /// Its start is being looked up or committed.
    Starting,
    /// Its events are processed.
    Active,
    /// Running calls finish.
    Closing,
    /// Its results no longer count. Its final commit, or the end of its cancelled calls, is awaited.
    Committing,
    /// It can't be read until it is assigned again, or its topic is recreated.
    Stopped,
}

/// The event or offset that blocks a partition, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedStatus {
    /// The reason: the code of one of [`STALL_REASONS`].
    pub reason: String,
    /// What the reason means.
    pub meaning: String,
    /// The offset that blocks the partition; `None`: the start of the partition is not known, or it has stopped.
    pub offset: Option<i64>,
    /// The attempt of that event; 0: none.
    pub attempt: u32,
    /// The name of its lane; `None`: it is not known, or not that of a key.
    pub lane: Option<String>,
    /// The last error of that event.
    pub error: Option<String>,
    /// The topics to which that event's unacknowledged outputs, or its dead letter, were sent. If there are several,
    /// the records of some may be acknowledged already.
    pub awaited_topics: Vec<String>,
    /// What to do.
    pub remedy: String,
    /// The section of the manual about the reason.
    pub see: String,
}

/// The worst lanes of a handler: the JSON of `/v1/lanes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanesStatus {
    /// The handler.
    pub handler: String,
    /// What makes a lane worse than another: `depth`, `age` or `attempts`.
    pub by: String,
    /// The lanes, worst first.
    pub lanes: Vec<LaneStatus>,
}

/// The status of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its name; `None`: it is not that of a key.
    pub lane: Option<String>,
    /// Its key, with `admin.show_keys`.
    pub key: Option<String>,
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The offset of its first unsettled event.
    pub offset: i64,
    /// The number of its unsettled events.
    pub events: u32,
    /// What its first event waits for.
    pub state: LaneState,
    /// The current or next attempt of its first event.
    pub attempt: u32,
    /// How long ago its first event was read.
    pub age_ms: u64,
    /// The time until its next attempt.
    pub retry_in_ms: Option<u64>,
    /// The last error of its first event.
    pub error: Option<String>,
}

/// What the first event of a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// A call.
    Ready,
    /// The end of its call.
    Running,
    /// Acknowledgements of its outputs, or of its dead letter.
    Unacked,
    /// Its next attempt.
    Delayed,
    /// The failed event of another lane: `retry.scope = "partition"`.
    Barred,
}

/// Something that happened: an element of the JSON of `/v1/notices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeStatus {
    /// Its number. Later notices have higher ones.
    pub id: u64,
    /// When it happened, in milliseconds since 1970.
    pub time_ms: i64,
    /// The level of its log line: `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// How often its line was logged for the same handler, topic and partition. Only the last notice is kept, with its
    /// own number.
    pub times: u64,
    /// The message of its log line.
    pub message: String,
    /// The other fields of its log line.
    pub fields: BTreeMap<String, String>,
}
