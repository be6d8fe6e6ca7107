//! The validated configuration.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use keylane_core::{OutOfRange, TransactionLimits};

use super::admin_token::AdminToken;
pub use super::checked_gate::{DuplicatesConfig, GateConfig, OrderBy, OrderConfig};
use super::client_properties::ClientProperties;
pub use super::event_field::EventField;
pub use super::granted_host::GrantedHost;
pub use super::lane_key::LaneKey;
use super::start_policy::StartPolicy;
pub use super::written::Assignor;
pub use super::written_gate::OrderFormat;
pub use super::written_handler::{NoKey, Ordering, OutputTime};
pub use super::written_transactions::OnRefusedOutput;

/// Memory of a mark record that no committed transaction contains.
const MARK_BYTES: u64 = 256;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The SHA-256 of the file's text, in hex.
    pub sha256: String,
    /// The connection to Kafka.
    pub kafka: KafkaConfig,
    /// Settings shared by all handlers.
    pub runtime: RuntimeConfig,
    /// The admin server.
    pub admin: AdminConfig,
    /// The log filter; `None`: not configured.
    pub log_filter: Option<String>,
    /// The handlers: at least one, in ascending order of names, no two with the same group.
    pub handlers: Vec<HandlerConfig>,
    /// Warnings about valid settings that are seldom intended, with file and line.
    pub warnings: Vec<String>,
    /// Only the rules can construct this value.
    #[expect(dead_code, reason = "keeps other modules from constructing a `Checked`")]
    pub(super) seal: Seal,
}

/// Keeps [`Checked`] from being constructed elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal;

/// The connection to Kafka.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// The brokers.
    pub cluster: Cluster,
    /// Partition assignment strategy.
    pub assignor: Assignor,
    /// Whether missing topics are created at startup.
    pub create_topics: bool,
    /// How long the brokers may reject the credentials of a running process.
    pub auth_timeout: Duration,
    /// A file with the password of every client.
    pub password_file: Option<PathBuf>,
    /// A file with the token of every client; never set together with `password_file`.
    pub token_file: Option<PathBuf>,
    /// Properties of every consumer: `[kafka.client]`, overridden by `[kafka.consumer]`.
    pub consumer: ClientProperties,
    /// Properties of the producer: `[kafka.client]`, overridden by `[kafka.producer]`.
    pub producer: ClientProperties,
    /// Properties of clients that neither read nor write: `[kafka.client]`.
    pub client: ClientProperties,
}

/// The brokers.
#[derive(Clone, Debug)]
pub enum Cluster {
    /// Kafka brokers: `host:port`, separated by commas.
    Brokers(String),
    /// The embedded broker.
    Embedded(EmbeddedConfig),
}

/// The broker in this process.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Partitions of each topic.
    pub partitions: u16,
    /// The feeds: at least one, no two for the same topic.
    pub feeds: Vec<FeedConfig>,
}

/// Events for one topic of the embedded broker.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// The topic; a valid name.
    pub topic: String,
    /// The source of the events.
    pub source: FeedSource,
}

/// The source of a feed's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedSource {
    /// Standard input; at most one feed uses it.
    StandardInput,
    /// A file that existed when the configuration was checked.
    File(PathBuf),
}

/// Settings shared by all handlers.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Bytes for prefetched, queued and running events.
    pub memory_budget: u64,
    /// Threads that run guests.
    pub workers: NonZero<usize>,
    /// Directory of compiled components; `None`: they are not kept, because no directory is known.
    pub cache_dir: Option<PathBuf>,
    /// The name of this process, which a restart keeps.
    pub instance: Option<String>,
    /// How long a drain waits for running calls and acks.
    pub drain_timeout: Duration,
}

impl RuntimeConfig {
    /// Returns the second half of the budget, in bytes: for queued and running events of all handlers.
    #[must_use]
    pub fn arena_bytes(&self) -> u64 {
        self.memory_budget / 2
    }
}

/// The admin server.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens; `None`: not configured.
    pub listen: Option<AdminListen>,
    /// The token that requests must send.
    pub token: Option<AdminToken>,
    /// Host names in requests that are answered.
    pub hosts: Vec<String>,
    /// Whether metrics need the token, too.
    pub protect_metrics: bool,
    /// Whether there are metrics of each partition.
    pub partition_metrics: bool,
    /// Whether lanes are shown with their keys.
    pub show_keys: bool,
}

/// Where the admin server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// Nowhere.
    Off,
    /// On this address: `host:port`.
    At(String),
}

/// One handler.
#[derive(Clone, Debug)]
pub struct HandlerConfig {
    /// The name in the file: letters, digits, `_` and `-`.
    pub name: String,
    /// The component: a file that existed when the configuration was checked.
    pub component: PathBuf,
    /// The input topics: at least one, with valid names, no duplicates.
    pub topics: Vec<String>,
    /// The consumer group; not empty.
    pub group_id: String,
    /// The id of a static member of the group, if this process is one.
    pub group_instance_id: Option<String>,
    /// Timeout of one guest call.
    pub timeout: Duration,
    /// Maximum CPU time of one guest call.
    pub cpu_budget: Duration,
    /// Maximum bytes of one instance's linear memories.
    pub memory: u64,
    /// Bytes of memory above which an instance is replaced after a call.
    pub reuse_max_memory: u64,
    /// Number of calls after which an instance is replaced; `None`: unlimited.
    pub reuse_max_calls: Option<u32>,
    /// Whether every call has its own instance.
    pub fresh_instances: bool,
    /// Maximum number of events per call, if configured.
    pub max_batch: Option<u32>,
    /// Maximum bytes of one output; `None`: the limit of the output topics.
    pub max_output_bytes: Option<usize>,
    /// Start position of a new group. Never a time with the embedded broker.
    pub start: StartPolicy,
    /// What happens if an offset is outside the log.
    pub out_of_range: OutOfRange,
    /// Order and concurrency.
    pub lanes: LanesConfig,
    /// The gate, and the detection of duplicates.
    pub order: OrderConfig,
    /// How far a partition may be ahead of the slowest one, by record time; `None`: as far as it is read.
    pub read_in_step: Option<Duration>,
    /// Rules for the events that the handler receives; empty: all events.
    pub filter: Vec<FilterRule>,
    /// Retries of failed events.
    pub retry: keylane_core::RetryPolicy,
    /// Dead-letter settings; `None`: no dead letters are published. Never `None` if the retry policy or the gate publishes some.
    pub dead_letters: Option<DeadLettersConfig>,
    /// When offsets are committed.
    pub commit: CommitConfig,
    /// How long a revoke waits for running calls and acks.
    pub revoke_timeout: Duration,
    /// The transactions of the handler; `None`: at-least-once delivery.
    pub transactions: Option<TransactionsConfig>,
    /// The keyed state of the handler, if it has one.
    pub state: Option<StateConfig>,
    /// Where the records of its keys are stored; `None`: it has neither keyed state nor a gate with durable memory.
    pub keys: Option<KeysConfig>,
    /// What the handler may access besides its events and outputs.
    pub grants: GrantsConfig,
    /// The output targets, in ascending order of their names.
    pub outputs: Vec<OutputConfig>,
}

/// The keyed state of a handler.
#[derive(Clone, Debug)]
pub struct StateConfig {
    /// Maximum bytes of the state of one key.
    pub max_value: usize,
    /// The version of the state's format.
    pub version: u32,
}

/// The records of the keys of a handler: its keyed state, and what its gate remembers.
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// The changelog of each input topic; no two are the same.
    pub changelogs: Vec<String>,
    /// Directory of the files; `None`: in memory, with the embedded broker.
    pub dir: Option<PathBuf>,
    /// Bytes of memory for records that were used recently.
    pub cache: u64,
    /// How long a file is used that is not kept up to date.
    pub keep_for: Duration,
    /// How long a state is kept that does not change; `None`: for ever.
    pub forget_after: Option<Duration>,
}

/// What a handler may access besides its events and outputs.
#[derive(Clone, Debug, Default)]
pub struct GrantsConfig {
    /// Environment variables; no two have the same name.
    pub env: Vec<Variable>,
    /// Hosts to which the handler may send HTTP requests; empty: HTTP is not available.
    pub http: Vec<GrantedHost>,
}

/// An environment variable.
#[derive(Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, often a secret.
    pub value: String,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Order and concurrency.
#[derive(Clone, Debug)]
pub struct LanesConfig {
    /// Which events are processed in order.
    pub ordering: Ordering,
    /// What decides the lane of an event.
    pub lane_key: LaneKey,
    /// What happens to events without a lane key.
    pub no_key: NoKey,
    /// Maximum number of concurrent guest calls.
    pub max_concurrency: u32,
    /// Maximum number of events of one partition that are admitted and not settled.
    pub max_queued: u32,
    /// Maximum number of offsets of one partition between its committable offset and the highest admitted one.
    pub max_window: u64,
}

/// When offsets are committed.
#[derive(Clone, Debug)]
pub struct CommitConfig {
    /// Longest time that settled events stay uncommitted.
    pub interval: Duration,
    /// Number of settled events after which a commit is due at once.
    pub every: u64,
    /// Timeout of a commit.
    pub timeout: Duration,
    /// Maximum characters of commit metadata.
    pub metadata_limit: usize,
}

/// Transactional delivery.
#[derive(Clone, Debug)]
pub struct TransactionsConfig {
    /// Longest time that settled events wait for the next transaction.
    pub interval: Duration,
    /// After this time, the brokers abort a transaction.
    pub timeout: Duration,
    /// Maximum bytes of the records of one transaction.
    pub max_bytes: u64,
    /// Number of settled events that no transaction has committed at which no call begins; `None`: unlimited.
    pub max_uncommitted: Option<u64>,
    /// How long they may wait until no call begins; `None`: for ever.
    pub max_uncommitted_age: Option<Duration>,
    /// What happens if a topic refuses an output. Dead letters are published if it is to be dead-lettered.
    pub on_refused_output: OnRefusedOutput,
}

/// Dead-letter settings.
#[derive(Clone, Debug)]
pub struct DeadLettersConfig {
    /// Dead-letter topics, by the index of the event's own topic; none is an input of the handler.
    pub topics: Vec<String>,
    /// Whether dead letters also have the headers of Spring for Apache Kafka.
    pub spring: bool,
    /// If an event that was redriven this many times is dead-lettered again, an error is logged.
    pub alert_after_redrives: u32,
}

/// One rule of a filter. An event matches it if all its tests hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRule {
    /// The name in counters.
    pub name: String,
    /// Whether matching events are kept or dropped.
    pub keep: bool,
    /// The name of the header, and the tests of the last header with that name.
    pub header: Option<(String, Vec<HeaderTest>)>,
    /// Prefix of the key.
    pub key_prefix: Option<Vec<u8>>,
    /// Whether the value is absent.
    pub tombstone: Option<bool>,
}

/// The tests of a [`FilterRule`]: header, key prefix, tombstone.
type Tests<'r> = (&'r Option<(String, Vec<HeaderTest>)>, &'r Option<Vec<u8>>, Option<bool>);

impl FilterRule {
    /// Returns the tests, for comparison: rules with the same tests match the same events.
    pub(super) fn tests(&self) -> Tests<'_> {
        (&self.header, &self.key_prefix, self.tombstone)
    }
}

/// A test of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// Whether the header is present.
    Present(bool),
    /// The allowed values of the header.
    AnyOf(Vec<Vec<u8>>),
    /// The prefix of the header's value.
    Prefix(Vec<u8>),
}

/// A topic to which a handler may publish.
#[derive(Clone, Debug)]
pub struct OutputConfig {
    /// The name that the handler uses.
    pub target: String,
    /// The topic; a valid name.
    pub topic: String,
    /// Whether outputs have headers that identify their event.
    pub provenance: bool,
    /// The timestamp of outputs.
    pub timestamp: OutputTime,
    /// The name of the header with the order value of the event; `None`: outputs have no such header.
    pub order_value: Option<String>,
}

impl Checked {
    /// Returns the topics that handlers read, without duplicates, in ascending order.
    #[must_use]
    pub fn input_topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> =
            self.handlers.iter().flat_map(|handler| &handler.topics).map(String::as_str).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

impl HandlerConfig {
    /// Returns whether the handler may send HTTP requests, which are side effects outside Kafka.
    #[must_use]
    pub fn uses_http(&self) -> bool {
        !self.grants.http.is_empty()
    }

    /// Returns the core's configuration. `arena_bytes` is this handler's share of [`RuntimeConfig::arena_bytes`].
    #[must_use]
    pub fn core_config(&self, arena_bytes: u64) -> keylane_core::Config {
        let defaults = keylane_core::Config::default();
        let transactions = self.transactions.as_ref().map(|transactions| TransactionLimits {
            interval: transactions.interval,
            timeout: transactions.timeout,
            transaction_bytes: transactions.max_bytes,
            kept_bytes: arena_bytes / 2,
            max_uncommitted: transactions.max_uncommitted,
            max_uncommitted_age: transactions.max_uncommitted_age,
            keyed_state: self.state.is_some(),
            key_records: self.keys.is_some(),
            event_bytes: if self.order.is_durable() { MARK_BYTES } else { 0 },
            ..TransactionLimits::default()
        });
        keylane_core::Config {
            topics: u16::try_from(self.topics.len()).expect("the rules limit the number of topics"),
            // By default a call with `grants.http` has one event: a failed batch runs again, which would repeat its
            // HTTP requests.
            max_batch: match self.max_batch {
                _ if self.fresh_instances => 1,
                Some(max_batch) => max_batch,
                None if self.uses_http() => 1,
                None => defaults.max_batch,
            },
            max_batch_is_fixed: self.max_batch.is_some(),
            max_concurrency: self.lanes.max_concurrency,
            max_queued: self.lanes.max_queued,
            max_window: self.lanes.max_window,
            // Kept effects take the other half.
            arena_bytes: if transactions.is_some() { arena_bytes / 2 } else { arena_bytes },
            transactions,
            commit_interval: self.commit.interval,
            commit_every: self.commit.every,
            commit_timeout: self.commit.timeout,
            metadata_limit: self.commit.metadata_limit,
            revoke_timeout: self.revoke_timeout,
            out_of_range: self.out_of_range,
            retry: self.retry.clone(),
            gate: self.order.gate.as_ref().map(|gate| gate.rule),
            duplicates: self.order.duplicates.as_ref().map(|duplicates| duplicates.limits),
            read_in_step: self.read_in_step,
            cancels_partly_revoked_calls: self.uses_http(),
            ..defaults
        }
    }
}
