//! The status of a process: the JSON of `/v1/status`, which `keylane status` shows.
//!
//! Times are in milliseconds, sizes in bytes. Fields are added over time; none changes its meaning.

pub mod stall_reason;

use serde::{Deserialize, Serialize};

pub use stall_reason::{STALL_REASONS, StallReason};

/// The status of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The version of Keylane.
    pub version: String,
    /// The process id.
    pub pid: u32,
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
    /// The handlers, in the order of the configuration.
    pub handlers: Vec<HandlerStatus>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerStatus {
    /// Its name.
    pub handler: String,
    /// Its consumer group.
    pub group: String,
    /// Its input topics.
    pub topics: Vec<String>,
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
    /// Calls that have not terminated.
    pub calls: u32,
    /// `lanes.max_concurrency`.
    pub calls_limit: u32,
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
    /// Its partitions, by topic and number.
    pub partitions: Vec<PartitionStatus>,
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
    pub claimed: u64,
    /// Ownerships that began.
    pub ownerships: u64,
    /// Ownerships that were lost: another member may already own the partition.
    pub partitions_lost: u64,
    /// Partitions whose topic was recreated while it was read.
    pub partitions_replaced: u64,
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
    /// Lanes with a running call.
    pub running_lanes: u32,
    /// Lanes that wait for acknowledgements.
    pub unacked_lanes: u32,
    /// The setting because of which reading is paused: `max_queued`, `memory_budget` or `max_window`.
    pub read_limit: Option<String>,
    /// Whether it was reported as stalled: after 15 s without progress, or at once for a read error.
    pub stalled: bool,
    /// What blocks it now; `None`: nothing is known to be left to read, settle or commit, or it is not active.
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
    /// It can't be read until it is assigned again.
    Stopped,
}

/// The event or offset that blocks a partition, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedStatus {
    /// The reason: the code of one of [`STALL_REASONS`].
    pub reason: String,
    /// The offset that blocks the partition.
    pub offset: i64,
    /// The attempt of that event; 0: none.
    pub attempt: u32,
    /// What to do.
    pub remedy: String,
}
