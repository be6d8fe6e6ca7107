//! What the engine and the clients of Kafka are made from, out of a checked configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Checked, Cluster, FetchLimits};
use crate::guest::EngineOptions;
use crate::librdkafka::{Credentials, CredentialsError, Properties, Secret};
use crate::sink::SinkSpec;
use crate::source::{Assignor, Ends, SourceSpec, StartPolicy};

/// Outputs on their way per topic: enough to keep brokers busy, little beside the rest.
const OUTPUT_BYTES_PER_TOPIC: usize = 8 << 20;
/// The client's default for `session.timeout.ms`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);

/// An instance for each call that may be out at once.
pub(in crate::app) fn engine(config: &Checked) -> EngineOptions {
    let each = config.handlers.iter().map(|handler| handler.lanes.max_concurrency);
    EngineOptions { max_instances: each.fold(0, u32::saturating_add) }
}

/// How clients reach the brokers.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct Access {
    /// The brokers to ask; `None`: the client is not to connect.
    pub(in crate::app) servers: Option<String>,
    /// The secret of a file, if there is one.
    pub(in crate::app) credentials: Option<Arc<Credentials>>,
}

/// The secret that the configuration has in a file.
pub(in crate::app) fn credentials(config: &Checked) -> Result<Option<Arc<Credentials>>, CredentialsError> {
    let (password, token) = (&config.kafka.password_file, &config.kafka.token_file);
    let password = password.iter().map(|file| (Secret::Password, file.clone()));
    let mut secret = password.chain(token.iter().map(|file| (Secret::Token, file.clone())));
    secret.next().map(|(kind, file)| Credentials::from_file(kind, file)).transpose()
}

/// The producer of all handlers.
pub(in crate::app) fn sink(config: &Checked, access: Access) -> SinkSpec {
    SinkSpec {
        client_properties: with_servers(&config.kafka.producer, access.servers),
        credentials: access.credentials,
        topics: output_topics(config),
        create_topics: config.kafka.create_topics,
        as_many_as: dead_letter_topics(config),
        max_bytes_per_topic: OUTPUT_BYTES_PER_TOPIC,
    }
}

/// The consumer of one handler, as for a single partition.
pub(in crate::app) fn source(
    config: &Checked,
    handler: &config::HandlerConfig,
    access: Access,
    until_end: bool,
) -> SourceSpec {
    SourceSpec {
        handler: handler.name.clone(),
        client_properties: with_servers(&config.kafka.consumer, access.servers),
        credentials: access.credentials,
        topics: handler.topics.clone(),
        group_id: handler.group_id.clone(),
        group_instance_id: handler.group_instance_id.clone(),
        assignor: match config.kafka.assignor {
            config::Assignor::CooperativeSticky => Assignor::CooperativeSticky,
            config::Assignor::Range => Assignor::Range,
        },
        start: match handler.start {
            config::Start::Earliest => StartPolicy::Earliest,
            config::Start::Latest => StartPolicy::Latest,
            config::Start::Time(millis) => StartPolicy::Timestamp(millis),
        },
        ends: match (until_end, &config.kafka.cluster) {
            (false, _) => Ends::Never,
            (true, Cluster::Embedded(_)) => Ends::Feed,
            (true, Cluster::Brokers(_)) => Ends::LogEnd,
        },
        create_topics: config.kafka.create_topics,
        fetch: fetch_limits(config, 1),
        commit_timeout: handler.commit.timeout,
        feed: None,
    }
}

/// How far a consumer that may own so many partitions may fetch ahead: every handler has one.
pub(in crate::app) fn fetch_limits(config: &Checked, partitions: u64) -> FetchLimits {
    config.runtime.fetch_limits(u64::try_from(config.handlers.len()).unwrap_or(1), partitions)
}

/// A client with these properties.
pub(in crate::app) fn client(properties: &config::Properties, access: Access) -> Properties {
    Properties::new(with_servers(properties, access.servers)).with_credentials(access.credentials)
}

/// A client that only asks about the topics that are read: connected as the consumers are, without what only they have.
pub(in crate::app) fn asker(kafka: &config::KafkaConfig, access: Access) -> Properties {
    const CONNECTION: [&str; 4] = ["sasl.", "ssl.", "security.", "enable.ssl"];
    let connects = |name: &str| CONNECTION.iter().any(|prefix| name.starts_with(prefix));
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let of_consumers = kafka.consumer.iter();
    let of_consumers = of_consumers.filter(|(name, _)| connects(name) || kafka.client.get(name).is_some());
    let servers = access.servers.map(|servers| ("bootstrap.servers".to_owned(), servers));
    Properties::new(of_consumers.map(own).chain(servers).collect()).with_credentials(access.credentials)
}

/// The properties of a client, with the brokers to ask.
fn with_servers(properties: &config::Properties, servers: Option<String>) -> Vec<(String, String)> {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let servers = servers.map(|servers| ("bootstrap.servers".to_owned(), servers));
    properties.iter().map(own).chain(servers).collect()
}

/// Every topic that some handler publishes to, its dead letters included, once.
pub(in crate::app) fn output_topics(config: &Checked) -> Vec<String> {
    let outputs = config.handlers.iter().flat_map(|handler| &handler.outputs).map(|output| &output.topic);
    let letters = config.handlers.iter().filter_map(|handler| handler.dead_letters.as_ref());
    let letters = letters.flat_map(|letters| &letters.topics);
    let mut topics: Vec<String> = outputs.chain(letters).cloned().collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Dead-letter topics, each with its input: they are created with as many partitions.
fn dead_letter_topics(config: &Checked) -> BTreeMap<String, String> {
    let of_handler = |handler: &config::HandlerConfig| {
        let letters = handler.dead_letters.as_ref().map_or(Vec::new(), |letters| letters.topics.clone());
        letters.into_iter().zip(handler.topics.clone()).collect::<Vec<_>>()
    };
    config.handlers.iter().flat_map(of_handler).collect()
}

/// After how long without a word the group goes on without this member.
pub(in crate::app) fn session_timeout(config: &Checked) -> Duration {
    let millis = config.kafka.consumer.get("session.timeout.ms").and_then(|value| value.trim().parse().ok());
    millis.map_or(SESSION_TIMEOUT, Duration::from_millis)
}
