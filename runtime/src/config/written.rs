//! The file as written: the names and types of its fields. Doc comments here are the reference: they become the JSON
//! Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client_properties::WrittenProperties;
use super::duration::HumanDuration;
use super::rules::ranges;
use super::scalar::{optional_scalar, scalar};
use super::size::HumanSize;
use super::written_handler::Handler;

/// A Keylane configuration.
///
/// `${NAME}` and `${NAME:-default}` in a string are replaced from the environment; `$${` is a literal `${`.
/// Numbers and booleans may be such strings, too. Relative paths are resolved from the directory of this file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Keylane configuration")]
pub(super) struct Written {
    /// The connection to Kafka.
    pub(super) kafka: Kafka,
    /// The broker inside this process, for demonstrations and tests; only with
    /// `kafka.bootstrap_servers = "embedded"`.
    pub(super) embedded: Option<Embedded>,
    /// Settings shared by all handlers of this process.
    #[serde(default)]
    pub(super) runtime: Runtime,
    /// The admin server: health, metrics and status over HTTP.
    #[serde(default)]
    pub(super) admin: Admin,
    /// The log of `run`.
    #[serde(default)]
    pub(super) log: Log,
    /// The handlers, by name. Each has one component and one consumer group.
    #[serde(default)]
    pub(super) handlers: BTreeMap<String, Handler>,
}

/// Only the table that commands need to reach a running process.
#[derive(Debug, Deserialize)]
pub(super) struct OnlyAdmin {
    #[serde(default)]
    pub(super) admin: Admin,
}

/// The connection to Kafka.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Kafka {
    /// `host:port` of one or more brokers, separated by commas; or `embedded` for a broker inside this process.
    pub(super) bootstrap_servers: String,
    /// Partition assignment strategy of the group. All members must use the same one: a process with a different one
    /// waits until they have left.
    #[serde(default)]
    pub(super) assignor: Assignor,
    /// Create missing topics at startup, with the broker's default partition count and replication factor.
    #[serde(default, deserialize_with = "scalar")]
    pub(super) create_topics: bool,
    /// How long the brokers may reject the credentials of a running process before it drains and exits with code 1. At
    /// startup, rejected credentials end the process at once.
    #[serde(default = "default_auth_timeout")]
    pub(super) auth_timeout: HumanDuration,
    /// A file with the password of `sasl.username`, instead of `sasl.password`. A trailing newline is ignored. The file is
    /// read again every 2 s; new connections use its current content.
    pub(super) password_file: Option<PathBuf>,
    /// A file with a token for `sasl.mechanism = "OAUTHBEARER"`: a JWT, which expires at its `exp`, or any other token. The
    /// file is read again every 2 s; replace it before the token expires.
    pub(super) token_file: Option<PathBuf>,
    /// librdkafka properties of every client.
    #[serde(default)]
    pub(super) client: WrittenProperties,
    /// librdkafka properties of the consumers; they override `client`.
    #[serde(default)]
    pub(super) consumer: WrittenProperties,
    /// librdkafka properties of the producer; they override `client`.
    #[serde(default)]
    pub(super) producer: WrittenProperties,
}

fn default_auth_timeout() -> HumanDuration {
    HumanDuration::from_secs(60)
}

/// Partition assignment strategy of the group.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// A rebalance moves only the partitions that must move.
    #[default]
    CooperativeSticky,
    /// For groups with members that do not support cooperative rebalancing.
    Range,
}

/// The broker inside this process.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Embedded {
    /// Partitions of each topic.
    #[schemars(range(min = *ranges::EMBEDDED_PARTITIONS.start(), max = *ranges::EMBEDDED_PARTITIONS.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) partitions: i64,
    /// Events for topics of the embedded broker, one section per topic. They are fed at the rate at which they are
    /// read.
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
    /// The topic that receives the events.
    pub(super) topic: String,
    /// A file with one event per line (JSON), optionally compressed (`.zst`); or `-` for standard input.
    pub(super) file: PathBuf,
}

/// The admin server: health, metrics and status over HTTP.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    /// The address to listen on, `host:port`, or `off`. By default the first free port from 9277 to 9286 of 127.0.0.1,
    /// and `off` with `--until-end`. If the address can't be used, the start fails.
    pub(super) listen: Option<String>,
    /// The token that requests must send as `Authorization: Bearer TOKEN`: at least 16 characters. Health needs none,
    /// metrics only with `protect_metrics`. Without a token, only health, metrics and the page are served on addresses
    /// other than loopback.
    pub(super) token: Option<String>,
    /// A file with the token, instead of `token`. A trailing newline is ignored.
    pub(super) token_file: Option<PathBuf>,
    /// Host names that requests may use, besides `localhost` and addresses. Requests with any other `Host` are refused,
    /// so that pages of other sites can't read the status (DNS rebinding).
    pub(super) hosts: Vec<String>,
    /// Whether metrics need the token, too.
    #[serde(deserialize_with = "scalar")]
    pub(super) protect_metrics: bool,
    /// Whether there are metrics of each partition.
    #[serde(deserialize_with = "scalar")]
    pub(super) partition_metrics: bool,
    /// Whether lanes are shown with their keys, not only with their names. A name is the start of a SHA-256 digest of
    /// the group id and the key.
    #[serde(deserialize_with = "scalar")]
    pub(super) show_keys: bool,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            listen: None,
            token: None,
            token_file: None,
            hosts: Vec::new(),
            protect_metrics: false,
            partition_metrics: true,
            show_keys: false,
        }
    }
}

/// The log of `run`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// The lines that are written: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module, such as
    /// `warn,keylane=debug`. By default `info`. The option `--log` and the variable `KEYLANE_LOG` override it.
    pub(super) filter: Option<String>,
}

/// Settings shared by all handlers of this process.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Runtime {
    /// Memory for events: one half for prefetched events, the other for queued and running ones. Queued outputs may use
    /// additional memory up to the size of the second half. At that limit no new calls start. With `delivery =
    /// "transactional"`, they are kept in half of the second half instead, until their transaction is committed. Guest
    /// memory is also additional: see `memory` of a handler.
    pub(super) memory_budget: HumanSize,
    /// Threads that run guests. By default one per core.
    #[schemars(range(min = *ranges::WORKERS.start(), max = *ranges::WORKERS.end()))]
    #[serde(deserialize_with = "optional_scalar")]
    pub(super) workers: Option<i64>,
    /// Directory of compiled components, kept between starts. Its content is run as native code: no other user may have
    /// write access. By default `keylane/compiled` in the user's cache
    /// directory.
    pub(super) cache_dir: Option<PathBuf>,
    /// The name of this process among those of its groups, if a restart keeps it: of a machine, or of a pod of a stateful
    /// set. Used by handlers with `delivery = "transactional"` without `group_instance_id`: a restart then takes over at
    /// once what a crash left. Two processes with the same name stop each other.
    pub(super) instance: Option<String>,
    /// How long a drain waits for running calls and the acknowledgements of their outputs.
    pub(super) drain_timeout: HumanDuration,
}

impl Default for Runtime {
    fn default() -> Runtime {
        Runtime {
            memory_budget: HumanSize::from_mib(128),
            workers: None,
            cache_dir: None,
            instance: None,
            drain_timeout: HumanDuration::from_secs(10),
        }
    }
}
