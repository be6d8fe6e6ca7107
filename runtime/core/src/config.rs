//! The configuration of a core.

use std::time::Duration;

use crate::{Duplicates, GateConfig};

/// Limits and intervals of one handler. Every limit of calls, queue, window and memory is at least 1.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of topics that the handler reads: [`Partition::topic`](crate::Partition) is below this number.
    pub topics: u16,
    /// Maximum number of events per call.
    pub max_batch: u32,
    /// Whether the operator configured `max_batch`. If so, it also applies to a handler whose calls suspend.
    pub max_batch_is_fixed: bool,
    /// Maximum number of concurrent guest calls.
    pub max_concurrency: u32,
    /// Maximum number of events admitted and not settled, per partition.
    pub max_queued: u32,
    /// Maximum distance in offsets between the committable offset and the highest admitted event, per partition.
    pub max_window: u64,
    /// Maximum bytes of events admitted and not settled, over all partitions; active ownerships share it equally.
    pub arena_bytes: u64,
    /// How long settled events may stay uncommitted.
    pub commit_interval: Duration,
    /// Number of settled events after which a commit is due at once.
    pub commit_every: u64,
    /// How long a commit may take before it counts as timed out.
    pub commit_timeout: Duration,
    /// How often a partition without changes is committed again.
    pub recommit_interval: Duration,
    /// Characters of commit metadata that the broker accepts (`offset.metadata.max.bytes`).
    pub metadata_limit: usize,
    /// How long a revoke waits for running calls and their acks.
    pub revoke_timeout: Duration,
    /// How long an assign waits for the starts of its partitions. It is then answered without the missing ones.
    pub lookup_timeout: Duration,
    /// What to do when a committed offset, or the position while reading, is outside the log.
    pub out_of_range: OutOfRange,
    /// How long a partition may make no progress before the stall is reported.
    pub stall_after: Duration,
    /// Whether a revoke of some of a call's events cancels the whole call: for guests whose calls have external
    /// effects.
    pub cancels_partly_revoked_calls: bool,
    /// What to do with events that fail.
    pub retry: RetryPolicy,
    /// The limits of transactional delivery; `None`: at-least-once delivery.
    pub transactions: Option<TransactionLimits>,
    /// The gate; `None`: events run in the order of their offsets.
    pub gate: Option<GateConfig>,
    /// The detection of duplicates; `None`: they are not detected.
    pub duplicates: Option<Duplicates>,
    /// How far a partition may be ahead of the slowest one, by record time; `None`: as far as it is read.
    pub read_in_step: Option<Duration>,
}

/// Limits of transactional delivery: the effects of events are kept until a transaction publishes them together with the
/// offsets of the events.
#[derive(Clone, Copy, Debug)]
pub struct TransactionLimits {
    /// How long settled events may wait for the next transaction.
    pub interval: Duration,
    /// How long a transaction may take before the brokers abort it.
    pub timeout: Duration,
    /// Maximum bytes of effects in one transaction, unless those of a single event are larger.
    pub transaction_bytes: u64,
    /// Bytes of kept effects at which no call begins.
    pub kept_bytes: u64,
    /// Number of settled events that no committed transaction claims at which no call begins. Excluded partitions do not
    /// count, neither here nor for the age: what they keep is limited by its bytes.
    pub max_uncommitted: Option<u64>,
    /// How long settled events may stay unclaimed until no call begins.
    pub max_uncommitted_age: Option<Duration>,
    /// Maximum characters of commit metadata in one transaction.
    pub metadata_total: usize,
    /// Whether events have a keyed state. The events of one lane that one call has done share the state after the last of
    /// them, so they get the same settle number: no transaction claims only some of them.
    pub keyed_state: bool,
    /// Whether what is remembered of keys is committed with the transactions of their partition: keyed state, or a gate. It is
    /// that of one topic, so the start of a partition whose topic was recreated is looked up.
    pub key_records: bool,
    /// Memory that each settled event takes until a committed transaction claims it, beside its effects.
    pub event_bytes: u64,
}

/// The value of `max_attempts` for no limit: an event is retried as often as it fails.
pub const UNLIMITED_ATTEMPTS: u32 = u32::MAX;

/// The number of attempts, the delays between them, and what to do after the last one.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts including the first, at least 1; or [`UNLIMITED_ATTEMPTS`].
    pub max_attempts: u32,
    /// The delay between the first attempt and the second.
    pub initial_interval: Duration,
    /// The longest delay, before jitter.
    pub max_interval: Duration,
    /// The factor between one delay and the next.
    pub multiplier: f64,
    /// The share by which a delay may be longer or shorter, 0 to 1.
    pub jitter: f64,
    /// The seed of the jitter: the core has no randomness.
    pub seed: u64,
    /// Records older than this are not retried.
    pub max_record_age: Option<Duration>,
    /// What to do with an event that is not retried.
    pub on_exhausted: OnExhausted,
    /// What is held back while an event is between attempts.
    pub scope: RetryScope,
}

/// What to do with an event that can't be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// Publish the event to the dead-letter topic. It is settled when the dead letter is acknowledged.
    DeadLetter,
    /// Settle the event without any effect.
    Skip,
    /// Stop the handler. The event stays unsettled.
    Stop,
}

/// What is held back while an event is between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryScope {
    /// Its lane.
    Key,
    /// Its partition: the strict batch retry.
    Partition,
}

impl RetryPolicy {
    /// Returns whether no attempt follows this one.
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
            cancels_partly_revoked_calls: false,
            retry: RetryPolicy::default(),
            transactions: None,
            gate: None,
            duplicates: None,
            read_in_step: None,
        }
    }
}

impl Default for TransactionLimits {
    fn default() -> Self {
        TransactionLimits {
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(10),
            transaction_bytes: 8 << 20,
            kept_bytes: 32 << 20,
            max_uncommitted: None,
            max_uncommitted_age: None,
            metadata_total: 512 << 10,
            keyed_state: false,
            key_records: false,
            event_bytes: 0,
        }
    }
}

/// What to do when an offset is outside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// Stop the partition and report it. The other partitions continue.
    Fail,
    /// Continue at the log start; the skipped offsets are counted.
    Earliest,
    /// Continue at the log end; the skipped offsets are counted.
    Latest,
}
