//! The configuration as meant: types that the rest of Keylane can rely on.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use keylane_core::OutOfRange;

use super::client_properties::Properties;
pub use super::http_host::HttpHost;
pub use super::lane_key::LaneKey;
use super::start::Start;
pub use super::written::Assignor;
pub use super::written_handler::{NoKey, Ordering, OutputTime};

/// A configuration in which everything was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// What all handlers share.
    pub runtime: RuntimeConfig,
    /// At least one, by ascending name; no two have the same group.
    pub handlers: Vec<HandlerConfig>,
    /// What is allowed and seldom meant, for people; each names its line.
    pub warnings: Vec<String>,
    /// Only the rules make this value.
    #[expect(dead_code, reason = "it is there so that no other module can make a `Checked`")]
    pub(super) seal: Seal,
}

/// What keeps [`Checked`] from being made elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal;

/// How to reach Kafka.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Which brokers.
    pub cluster: Cluster,
    /// How the members of a group share partitions.
    pub assignor: Assignor,
    /// Whether missing topics are created at start.
    pub create_topics: bool,
    /// How long the brokers may refuse the credentials while running.
    pub auth_timeout: Duration,
    /// A file with the password of every client; it was there when the configuration was checked.
    pub password_file: Option<PathBuf>,
    /// A file with the token of every client, never beside one with a password.
    pub token_file: Option<PathBuf>,
    /// Properties for every consumer: `[kafka.client]`, and `[kafka.consumer]` over it.
    pub consumer: Properties,
    /// Properties for the producer: `[kafka.client]`, and `[kafka.producer]` over it.
    pub producer: Properties,
    /// Properties for clients that neither read nor write: `[kafka.client]`.
    pub client: Properties,
}

/// Which brokers.
#[derive(Clone, Debug)]
pub enum Cluster {
    /// Elsewhere: `host:port`, separated by commas.
    Brokers(String),
    /// In this process.
    Embedded(EmbeddedConfig),
}

/// The broker in this process.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Partitions of each topic.
    pub partitions: u16,
    /// At least one; no two for the same topic.
    pub feeds: Vec<FeedConfig>,
}

/// Events for one topic of the embedded broker.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// A valid name.
    pub topic: String,
    /// Where the events come from.
    pub source: FeedSource,
}

/// Where the events of a feed come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedSource {
    /// Standard input: at most one feed has it.
    StandardInput,
    /// A file that was there when the configuration was checked.
    File(PathBuf),
}

/// What all handlers share.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Bytes for events, fetched ahead and queued.
    pub memory_budget: u64,
    /// Threads that run guests.
    pub workers: NonZero<usize>,
    /// Where compiled components are kept; `None`: nowhere, because no folder is known.
    pub cache_dir: Option<PathBuf>,
    /// How long a stop waits for running calls and acks.
    pub drain_timeout: Duration,
}

impl RuntimeConfig {
    /// Bytes of the other half: events queued and running, over all handlers.
    #[must_use]
    pub fn arena_bytes(&self) -> u64 {
        self.memory_budget / 2
    }
}

/// One handler.
#[derive(Clone, Debug)]
pub struct HandlerConfig {
    /// Its name in the file: letters, digits, `_` and `-`.
    pub name: String,
    /// A file that was there when the configuration was checked.
    pub component: PathBuf,
    /// At least one; valid names, no duplicates.
    pub topics: Vec<String>,
    /// Not empty.
    pub group_id: String,
    /// Set: a static member.
    pub group_instance_id: Option<String>,
    /// The deadline of one guest call.
    pub timeout: Duration,
    /// Processor time of one guest call.
    pub cpu_budget: Duration,
    /// Bytes of one instance's linear memories.
    pub memory: u64,
    /// An instance with more bytes than this after a call is replaced.
    pub keep_memory: u64,
    /// An instance that served so many calls is replaced.
    pub max_calls: Option<u32>,
    /// Every call has an instance of its own.
    pub fresh_instances: bool,
    /// Set: the operator's choice of how many events a call carries at most.
    pub max_batch: Option<u32>,
    /// Bytes of one output; `None`: as many as the topics of the outputs take.
    pub max_output_bytes: Option<usize>,
    /// Where to start without a commit. Never a time with the embedded broker.
    pub start: Start,
    /// What to do with an offset outside the log.
    pub out_of_range: OutOfRange,
    /// Order and concurrency.
    pub lanes: LanesConfig,
    /// Which events it gets; empty: all.
    pub filter: Vec<FilterRule>,
    /// What happens to events that fail.
    pub retry: keylane_core::RetryPolicy,
    /// Where events go that can't be handled; `None`: nowhere.
    pub dead_letters: Option<DeadLettersConfig>,
    /// When progress is stored.
    pub commit: CommitConfig,
    /// How long a revoke waits for running calls and acks.
    pub revoke_timeout: Duration,
    /// What it may reach besides its events and outputs.
    pub grants: GrantsConfig,
    /// By ascending name.
    pub outputs: Vec<OutputConfig>,
}

/// What a handler may reach besides its events and outputs.
#[derive(Clone, Debug, Default)]
pub struct GrantsConfig {
    /// Variables of its environment; no two of one name.
    pub env: Vec<Variable>,
    /// Where it may send HTTP requests; empty: it may use no HTTP at all.
    pub http: Vec<HttpHost>,
}

/// An environment variable.
#[derive(Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it holds: often a secret.
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
    /// What keeps its order.
    pub ordering: Ordering,
    /// What the lane of an event is found by.
    pub lane_key: LaneKey,
    /// What happens to events without a lane key.
    pub no_key: NoKey,
    /// Most guest calls out.
    pub max_concurrency: u32,
    /// Most events of one partition admitted and not settled.
    pub max_queued: u32,
    /// Most offsets of one partition between its prefix and the highest admitted.
    pub max_window: u64,
}

/// When progress is stored.
#[derive(Clone, Debug)]
pub struct CommitConfig {
    /// How long settled work may stay uncommitted.
    pub interval: Duration,
    /// Settled events after which a commit is due at once.
    pub every: u64,
    /// How long a commit may take.
    pub timeout: Duration,
    /// Characters of metadata.
    pub metadata_limit: usize,
}

/// Where events go that can't be handled.
#[derive(Clone, Debug)]
pub struct DeadLettersConfig {
    /// By the index of the event's own topic; none is an input of the handler.
    pub topics: Vec<String>,
    /// Whether they have the headers of Spring for Apache Kafka, too.
    pub spring: bool,
    /// An event that was set aside more often raises an alarm.
    pub max_redrives: u32,
}

/// One rule of a filter: everything in it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRule {
    /// For counters.
    pub name: String,
    /// Keeps or drops what matches.
    pub keep: bool,
    /// The last header with this name, and what must hold of it.
    pub header: Option<(String, Vec<HeaderTest>)>,
    /// How the key begins.
    pub key_prefix: Option<Vec<u8>>,
    /// Whether there is no value.
    pub tombstone: Option<bool>,
}

/// What a [`FilterRule`] tests: its header, the beginning of its key, whether it has a value.
type Tests<'r> = (&'r Option<(String, Vec<HeaderTest>)>, &'r Option<Vec<u8>>, Option<bool>);

impl FilterRule {
    /// Rules with the same tests match the same events.
    pub(super) fn tests(&self) -> Tests<'_> {
        (&self.header, &self.key_prefix, self.tombstone)
    }
}

/// What must hold of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// It is there, or is not.
    Present(bool),
    /// Its value is one of these.
    AnyOf(Vec<Vec<u8>>),
    /// Its value begins so.
    Prefix(Vec<u8>),
}

/// A topic that a handler may publish to.
#[derive(Clone, Debug)]
pub struct OutputConfig {
    /// What the handler calls it.
    pub target: String,
    /// A valid name.
    pub topic: String,
    /// Whether outputs say which event they come from.
    pub provenance: bool,
    /// The time that outputs carry.
    pub timestamp: OutputTime,
}

impl Checked {
    /// The topics that some handler reads, each once, by ascending name.
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
    /// Whether it may have effects outside Kafka.
    #[must_use]
    pub fn uses_http(&self) -> bool {
        !self.grants.http.is_empty()
    }

    /// What the core is told. `arena_bytes` is this handler's share of [`Runtime::arena_bytes`].
    #[must_use]
    pub fn core_config(&self, arena_bytes: u64) -> keylane_core::Config {
        let defaults = keylane_core::Config::default();
        keylane_core::Config {
            topics: u16::try_from(self.topics.len()).expect("the rules allow fewer topics"),
            // A failed batch is run again, and would repeat its requests.
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
            arena_bytes,
            commit_interval: self.commit.interval,
            commit_every: self.commit.every,
            commit_timeout: self.commit.timeout,
            metadata_limit: self.commit.metadata_limit,
            revoke_timeout: self.revoke_timeout,
            out_of_range: self.out_of_range,
            retry: self.retry.clone(),
            cancels_mixed: self.uses_http(),
            ..defaults
        }
    }
}
