//! The options of the engine and of the Kafka clients, from a checked configuration.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Checked, Cluster, FetchLimits, OrderBy, OrderConfig};
use crate::guest::EngineOptions;
use crate::librdkafka::{Credentials, CredentialsError, Properties, SecretKind};
use crate::sink::{SinkSpec, TransactionSpec};
use crate::source::{Ends, SourceSpec, TopicNeeds};

use super::super::admin::delivery;

/// Maximum bytes of outputs in flight per topic: enough to keep brokers busy, and small compared with other memory.
const OUTPUT_BYTES_PER_TOPIC: usize = 8 << 20;
/// The client's default for `session.timeout.ms`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);

/// Returns the options of the engine: one instance for each concurrent call.
pub(in crate::app) fn engine_options(config: &Checked) -> EngineOptions {
    let each = config.handlers.iter().map(|handler| handler.lanes.max_concurrency);
    EngineOptions { max_instances: each.fold(0, u32::saturating_add) }
}

/// The access of clients to the brokers.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct Access {
    /// The bootstrap servers; `None`: the client must not connect.
    pub(in crate::app) servers: Option<String>,
    /// The secret from a file, if one is configured.
    pub(in crate::app) credentials: Option<Arc<Credentials>>,
    /// The default of `client.id`.
    pub(in crate::app) client_id: Option<Arc<str>>,
}

/// Reads the secret from the configured file, if there is one.
pub(in crate::app) fn credentials(config: &Checked) -> Result<Option<Arc<Credentials>>, CredentialsError> {
    let (password, token) = (&config.kafka.password_file, &config.kafka.token_file);
    let password = password.iter().map(|file| (SecretKind::Password, file.clone()));
    let mut secret = password.chain(token.iter().map(|file| (SecretKind::Token, file.clone())));
    secret.next().map(|(kind, file)| Credentials::from_file(kind, file)).transpose()
}

/// Returns the spec of the producer that all handlers share.
pub(in crate::app) fn sink_spec(config: &Checked, access: Access) -> SinkSpec {
    SinkSpec {
        client_properties: with_access(&config.kafka.producer, &access),
        credentials: access.credentials,
        topics: published_topics(config),
        create_topics: config.kafka.create_topics,
        partitions_like: dead_letter_topics(config),
        max_bytes_per_topic: OUTPUT_BYTES_PER_TOPIC,
        statistics: None,
    }
}

/// Returns the spec of the consumer of one handler, with the fetch limits for a single partition.
pub(in crate::app) fn source_spec(
    config: &Checked,
    handler: &config::HandlerConfig,
    access: Access,
    until_end: bool,
) -> SourceSpec {
    SourceSpec {
        handler: handler.name.clone(),
        client_properties: with_access(&config.kafka.consumer, &access),
        credentials: access.credentials,
        topics: handler.topics.clone(),
        group_id: handler.group_id.clone(),
        group_instance_id: handler.group_instance_id.clone(),
        delivery: delivery(handler),
        assignor: config.kafka.assignor,
        start: handler.start,
        ends: match (until_end, &config.kafka.cluster) {
            (false, _) => Ends::Never,
            (true, Cluster::Embedded(_)) => Ends::Feed,
            (true, Cluster::Brokers(_)) => Ends::LogEnd,
        },
        create_topics: config.kafka.create_topics,
        fetch: fetch_limits(config, 1),
        commit_timeout: handler.commit.timeout,
        needs: match &config.kafka.cluster {
            Cluster::Embedded(_) => TopicNeeds::default(), // its topics have no settings
            Cluster::Brokers(_) => topic_needs(&handler.order),
        },
        feed: None,
        statistics: None,
    }
}

fn topic_needs(order: &OrderConfig) -> TopicNeeds {
    let Some(gate) = &order.gate else { return TopicNeeds::default() };
    TopicNeeds { create_time: gate.by == OrderBy::Timestamp, all_records: gate.first().is_some() }
}

/// Returns the spec of the transactional producer of a handler; `None`: at-least-once delivery.
pub(in crate::app) fn transaction_spec(
    config: &Checked,
    handler: &config::HandlerConfig,
    access: Access,
) -> Option<TransactionSpec> {
    let transactions = handler.transactions.as_ref()?;
    let (group, name) = (&handler.group_id, &handler.name);
    let instance = handler.group_instance_id.as_ref().or(config.runtime.instance.as_ref());
    let is_named = instance.is_some();
    // Without a name that a restart keeps, every start has its own.
    let instance = instance
        .map_or_else(|| format!("{:016x}", RandomState::new().hash_one(std::process::id())), Clone::clone);
    let source = source_spec(config, handler, access, false);
    Some(TransactionSpec {
        handler: name.clone(),
        id: format!("{group}/{name}/{instance}/0"),
        is_named,
        group: CString::new(group.as_str()).ok()?,
        fencing_topic: CString::new(handler.topics.first()?.as_str()).ok()?,
        timeout: transactions.timeout,
        consumer: source.reader_properties(),
        is_embedded: matches!(config.kafka.cluster, Cluster::Embedded(_)),
    })
}

/// Returns the fetch limits of a consumer that may own this many partitions. Every handler has one consumer.
pub(in crate::app) fn fetch_limits(config: &Checked, partitions: u64) -> FetchLimits {
    config.runtime.fetch_limits(u64::try_from(config.handlers.len()).unwrap_or(1), partitions)
}

/// Returns the properties of a client with these settings, the bootstrap servers and the credentials.
pub(in crate::app) fn client_properties(properties: &config::ClientProperties, access: Access) -> Properties {
    Properties::new(with_access(properties, &access)).with_credentials(access.credentials)
}

/// Returns the properties of a client that only requests metadata of the input topics: those of the consumers that are
/// connection settings or also set under `[kafka.client]`.
pub(in crate::app) fn metadata_client_properties(kafka: &config::KafkaConfig, access: Access) -> Properties {
    const CONNECTION: [&str; 4] = ["sasl.", "ssl.", "security.", "enable.ssl"];
    let connects = |name: &str| CONNECTION.iter().any(|prefix| name.starts_with(prefix));
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let consumer_properties = kafka.consumer.iter();
    let consumer_properties =
        consumer_properties.filter(|(name, _)| connects(name) || kafka.client.get(name).is_some());
    let servers = access.servers.map(|servers| ("bootstrap.servers".to_owned(), servers));
    Properties::new(consumer_properties.map(owned).chain(servers).collect())
        .with_credentials(access.credentials)
}

/// Returns these properties, the bootstrap servers, and the default of `client.id`.
fn with_access(properties: &config::ClientProperties, access: &Access) -> Vec<(String, String)> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let servers = access.servers.iter().map(|servers| ("bootstrap.servers", servers.as_str()));
    let client_id = access.client_id.iter().map(|client_id| ("client.id", &**client_id));
    let client_id = client_id.filter(|_| properties.get("client.id").is_none());
    properties.iter().chain(servers).chain(client_id).map(owned).collect()
}

/// Returns every topic to which a handler publishes, including dead-letter topics and changelogs, without duplicates. The
/// embedded broker has no changelogs.
pub(in crate::app) fn published_topics(config: &Checked) -> Vec<String> {
    let outputs = config.handlers.iter().flat_map(|handler| &handler.outputs).map(|output| &output.topic);
    let dead_letters = config.handlers.iter().filter_map(|handler| handler.dead_letters.as_ref());
    let dead_letters = dead_letters.flat_map(|dead_letters| &dead_letters.topics);
    let has_changelogs = matches!(config.kafka.cluster, Cluster::Brokers(_));
    let keys = config.handlers.iter().filter_map(|handler| handler.keys.as_ref());
    let changelogs = keys.filter(|_| has_changelogs).flat_map(|keys| &keys.changelogs);
    let mut topics: Vec<String> = outputs.chain(dead_letters).chain(changelogs).cloned().collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Returns each dead-letter topic with its input topic: both have the same number of partitions if Keylane creates the
/// dead-letter topic.
fn dead_letter_topics(config: &Checked) -> BTreeMap<String, String> {
    let of_handler = |handler: &config::HandlerConfig| {
        let dead_letters =
            handler.dead_letters.as_ref().map_or(Vec::new(), |dead_letters| dead_letters.topics.clone());
        dead_letters.into_iter().zip(handler.topics.clone()).collect::<Vec<_>>()
    };
    config.handlers.iter().flat_map(of_handler).collect()
}

/// Returns the session timeout of the consumers, after which the group removes a silent member.
pub(in crate::app) fn session_timeout(config: &Checked) -> Duration {
    let millis = config.kafka.consumer.get("session.timeout.ms").and_then(|value| value.trim().parse().ok());
    millis.map_or(SESSION_TIMEOUT, Duration::from_millis)
}
