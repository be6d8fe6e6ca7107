//! What the core must be told once, before the first input.

use std::time::Duration;

/// Limits and intervals of one handler. Every field has a limit's meaning: there is no "unlimited".
#[derive(Clone, Debug)]
pub struct Config {
    /// How many topics the handler reads: [`Partition::topic`](crate::Partition) is below it.
    pub topics: u16,
    /// Most events that one call carries.
    pub max_batch: u32,
    /// Whether `max_batch` was written by the operator: then a handler that was seen to wait keeps it.
    pub max_batch_is_fixed: bool,
    /// Most guest calls out at once.
    pub max_concurrency: u32,
    /// Most events admitted and not settled, per partition.
    pub max_queued: u32,
    /// Most offsets between the prefix and the highest admitted event, per partition.
    pub max_window: u64,
    /// Bytes of events admitted and not settled, over all partitions; active ownerships share it equally.
    pub arena_bytes: u64,
    /// How long settled work may stay uncommitted.
    pub commit_interval: Duration,
    /// Settled events after which a commit is due at once.
    pub commit_every: u64,
    /// How long a commit may take before it counts as unanswered.
    pub commit_timeout: Duration,
    /// How often a clean partition is committed again (SEMANTICS: an older owner's late commit).
    pub recommit_interval: Duration,
    /// Characters of commit metadata that the broker takes (`offset.metadata.max.bytes`).
    pub metadata_limit: usize,
    /// How long a revoke waits for running calls and their acks.
    pub revoke_timeout: Duration,
    /// How long an assign waits for the starts of its partitions before it is answered without the missing ones.
    pub lookup_timeout: Duration,
    /// What happens when a committed offset, or the position while reading, is outside the log.
    pub out_of_range: OutOfRange,
    /// How long a partition may stand still before it is reported.
    pub stall_after: Duration,
    /// Whether a call that loses some of its events to a revoke is cancelled for all of them: for guests whose calls
    /// reach outside (SEMANTICS: revoke).
    pub cancels_mixed: bool,
    /// What happens to events that fail.
    pub retry: RetryPolicy,
}

/// An event is tried until it is done.
pub const UNLIMITED_ATTEMPTS: u32 = u32::MAX;

/// Attempts, the time between them, and what comes after the last one.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1; or [`UNLIMITED_ATTEMPTS`].
    pub max_attempts: u32,
    /// Between the first attempt and the second.
    pub initial_interval: Duration,
    /// Never more than this, before jitter.
    pub max_interval: Duration,
    /// Each interval is so many times the one before.
    pub multiplier: f64,
    /// Share by which an interval is longer or shorter, 0 to 1.
    pub jitter: f64,
    /// What the jitter is drawn from: the core has no randomness.
    pub seed: u64,
    /// Records older than this are not tried again.
    pub max_record_age: Option<Duration>,
    /// What becomes of an event that is not tried again.
    pub on_exhausted: OnExhausted,
    /// What waits while an event is between attempts.
    pub scope: RetryScope,
}

/// What becomes of an event that can't be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// It goes to the dead-letter topic, and is settled when the brokers have it.
    DeadLetter,
    /// It is settled at once.
    Skip,
    /// The handler stops before it.
    Stop,
}

/// What waits while an event is between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryScope {
    /// Its lane.
    Key,
    /// Its partition: the strict batch retry.
    Partition,
}

impl RetryPolicy {
    /// Whether no attempt follows this one.
    pub(crate) fn is_last(&self, attempt: u32) -> bool {
        self.max_attempts != UNLIMITED_ATTEMPTS && attempt >= self.max_attempts
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 10,
            initial_interval: Duration::from_millis(500),
            max_interval: Duration::from_secs(30),
            multiplier: 2.0,
            jitter: 0.2,
            seed: 0,
            max_record_age: None,
            on_exhausted: OnExhausted::DeadLetter,
            scope: RetryScope::Key,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            topics: 1,
            max_batch: 64,
            max_batch_is_fixed: false,
            max_concurrency: 256,
            max_queued: 100_000,
            max_window: 64_000_000,
            arena_bytes: 64 << 20,
            commit_interval: Duration::from_secs(1),
            commit_every: 10_000,
            commit_timeout: Duration::from_secs(2),
            recommit_interval: Duration::from_secs(60),
            metadata_limit: 4096,
            revoke_timeout: Duration::from_secs(1),
            lookup_timeout: Duration::from_secs(5),
            out_of_range: OutOfRange::Fail,
            stall_after: Duration::from_secs(15),
            cancels_mixed: false,
            retry: RetryPolicy::default(),
        }
    }
}

/// The operator's answer to an offset outside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// The partition stops, named; the others go on.
    Fail,
    /// Go on at the log start; the offsets passed over are counted.
    Earliest,
    /// Go on at the log end; the offsets passed over are counted.
    Latest,
}
