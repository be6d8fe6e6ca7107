//! The file as written: what a field is called and what type it has. Doc comments here are the reference:
//! they become the JSON Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_properties::WrittenProperties;
use super::duration::HumanDuration;
use super::scalar::{maybe, scalar};
use super::size::HumanSize;
use super::written_handler::Handler;

/// A Keylane configuration.
///
/// `${NAME}` and `${NAME:-default}` in a string are replaced from the environment; `$${` stands for `${`.
/// Numbers and switches may be such strings, too. Relative paths start from the folder of this file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Keylane configuration")]
pub(super) struct Written {
    /// How to reach Kafka.
    pub(super) kafka: Kafka,
    /// The broker inside this process, for demonstrations and tests; only with
    /// `kafka.bootstrap_servers = "embedded"`.
    pub(super) embedded: Option<Embedded>,
    /// What all handlers of this process share.
    #[serde(default)]
    pub(super) runtime: Runtime,
    /// The handlers, by name. Each is one component and one consumer group.
    #[serde(default)]
    pub(super) handlers: BTreeMap<String, Handler>,
}

/// How to reach Kafka.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Kafka {
    /// `host:port` of one or more brokers, separated by commas; or `embedded`: a broker inside this process.
    pub(super) bootstrap_servers: String,
    /// How the members of a group share partitions. All members must use the same: a process with another one waits until
    /// they have left.
    #[serde(default)]
    pub(super) assignor: Assignor,
    /// Create missing topics at start: with the broker's default partitions and replication.
    #[serde(default, deserialize_with = "scalar")]
    pub(super) create_topics: bool,
    /// How long the brokers may refuse the credentials of a running process. Then it drains and ends with exit code 1. At
    /// the start a refusal ends it at once.
    #[serde(default = "default_auth_timeout")]
    pub(super) auth_timeout: HumanDuration,
    /// A file with the password of `sasl.username`, in place of `sasl.password`; the end of its line is not part of it. It is
    /// read again every 2 s: new connections are made with what is in it then.
    pub(super) password_file: Option<PathBuf>,
    /// A file with a token for `sasl.mechanism = "OAUTHBEARER"`: a JWT, whose `exp` says when it ends, or any other. It is
    /// read again every 2 s, so whoever renews the token replaces the file before it ends.
    pub(super) token_file: Option<PathBuf>,
    /// librdkafka properties of every client.
    #[serde(default)]
    pub(super) client: WrittenProperties,
    /// librdkafka properties of the consumers; they win over `client`.
    #[serde(default)]
    pub(super) consumer: WrittenProperties,
    /// librdkafka properties of the producer; they win over `client`.
    #[serde(default)]
    pub(super) producer: WrittenProperties,
}

fn default_auth_timeout() -> HumanDuration {
    HumanDuration::from_secs(60)
}

/// How the members of a group share partitions.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// A rebalance moves only the partitions that must move.
    #[default]
    CooperativeSticky,
    /// For groups with members that know no other.
    Range,
}

/// The broker inside this process.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Embedded {
    /// Partitions of each topic.
    #[schemars(range(min = 1, max = 64))]
    #[serde(deserialize_with = "scalar")]
    pub(super) partitions: i64,
    /// What is put into it, at the pace of reading.
    pub(super) feed: Vec<Feed>,
}

impl Default for Embedded {
    fn default() -> Embedded {
        Embedded { partitions: 8, feed: Vec::new() }
    }
}

/// Events for one topic of the embedded broker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Feed {
    /// Where the events go.
    pub(super) topic: String,
    /// A file with one event per line (JSON), may be compressed (`.zst`); or `-` for standard input.
    pub(super) file: PathBuf,
}

/// What all handlers of this process share.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Runtime {
    /// Memory for events: one half for what is fetched ahead, the other for what is queued and running.
    /// Outputs that wait for brokers may take as much as the second half on top, and then no more calls begin; guests'
    /// own memory comes on top, too: see `memory` of a handler.
    pub(super) memory_budget: HumanSize,
    /// Threads that run guests. By default one per core.
    #[schemars(range(min = 1, max = 1024))]
    #[serde(deserialize_with = "maybe")]
    pub(super) workers: Option<i64>,
    /// Where compiled components are kept from one start to the next. What lies there is run as native code:
    /// nobody else may write to it. By default `keylane` in the user's cache folder.
    pub(super) cache_dir: Option<PathBuf>,
    /// How long a stop waits for running calls and the acknowledgements of their outputs.
    pub(super) drain_timeout: HumanDuration,
}

impl Default for Runtime {
    fn default() -> Runtime {
        Runtime {
            memory_budget: HumanSize::from_mib(128),
            workers: None,
            cache_dir: None,
            drain_timeout: HumanDuration::from_secs(10),
        }
    }
}
